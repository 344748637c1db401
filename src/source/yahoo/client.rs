//! Asks Yahoo through the crate `yfinance-rs`, and says in our own words what came back. Nothing else here knows the crate.
//!
//! The crate fetches the cookie and the crumb that Yahoo wants for quotes, and turns hundredths (GBp, ZAc, ILA) into the main
//! unit. Its own retries are off: whoever asks decides when to ask again.

use std::collections::HashMap;
use std::time::Duration;

use tokio::net::TcpStream;
use yfinance_rs::{
    AssetKind, Candle, Decimal, HistoryBuilder, Interval, MarketState, ProjectionIssue, QuotesBuilder, Range, YfClient,
    YfDiagnostics, YfError, YfWarning,
};

use super::super::yfinance::{Bar, PRICE_SCALE, parse_scaled, parse_whole};
use super::super::{SourceError, files};
use super::MINUTE_US;
use crate::clock::Micros;
use crate::config::{YAHOO_URL, YahooSettings};
use crate::transaction::{Currency, QUANTITY_MAX};

/// Answers take a fraction of a second; what takes longer will not come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Whom the crate asks for quotes and bars.
const HOST: &str = "query1.finance.yahoo.com";
/// Characters of an answer that a message repeats.
const SHOWN_CHARS_MAX: usize = 120;

/// Why something was left out: its kind, and this one in words.
pub(super) type Skip = (&'static str, String);

/// One symbol as Yahoo sees it now.
#[derive(Clone, Debug)]
pub(super) struct Quote {
    /// Which of the symbols that were asked for.
    pub(super) symbol: usize,
    /// At [`PRICE_SCALE`].
    pub(super) price: Result<i64, Skip>,
    /// None if its code is not one of three letters.
    pub(super) currency: Option<Currency>,
    /// Of the day so far.
    pub(super) volume: Result<i64, Skip>,
    /// An index, a currency or a coin: what Yahoo calls its volume is none of a day.
    pub(super) is_without_volume: bool,
    /// When the price was made.
    pub(super) time: Option<Micros>,
    pub(super) is_market_open: bool,
}

/// What Yahoo said about all symbols.
#[derive(Clone, Debug, Default)]
pub(super) struct Quotes {
    pub(super) quotes: Vec<Quote>,
    /// Yahoo said nothing about these.
    pub(super) unknown: Vec<usize>,
    /// Quotes that could not be read as such.
    pub(super) skipped: Vec<Skip>,
}

/// One minute of a symbol's day.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) start: Micros,
    /// Its volume is None where Yahoo names none.
    pub(super) bar: Result<(Bar, Option<i64>), Skip>,
    pub(super) currency: Option<Currency>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Later, it says: too many requests, or a failure of its own.
    Busy(String),
    /// Nobody answers.
    Away(String),
    /// It answers with something else: not to us, or not in the form that is known.
    Refused(String),
    /// It knows nothing of the kind.
    NotFound,
}

pub(super) struct Client {
    yahoo: YfClient,
    symbols: Vec<String>,
    /// Host and port.
    address: (String, u16),
}

impl Client {
    pub(super) fn new(settings: &YahooSettings) -> Result<Client, SourceError> {
        let mut builder =
            YfClient::builder().retry_enabled(false).timeout(REQUEST_TIMEOUT).connect_timeout(CONNECT_TIMEOUT);
        let mut address = (HOST.to_owned(), 443);
        if let Some(root) = &settings.url {
            let root = root.trim_end_matches('/');
            address = address_of(root).ok_or_else(|| refuse_url(root, "it is not http://HOST[:PORT] or https://…"))?;
            let refuse = |error: &dyn std::fmt::Display| refuse_url(root, &error.to_string());
            // The type of an address is the builder's own affair.
            macro_rules! at {
                ($path:literal) => {
                    format!("{root}{}", $path).parse().map_err(|error| refuse(&error))?
                };
            }
            builder = builder
                .base_chart(at!("/v8/finance/chart/"))
                .base_quote_v7(at!("/v7/finance/quote"))
                .base_quote_api(at!("/v10/finance/quoteSummary/"))
                .base_news(at!("/"))
                .cookie_url(at!("/consent"))
                .crumb_url(at!("/v1/test/getcrumb"));
        }
        let yahoo = builder
            .build()
            .map_err(|error| SourceError::Setting(format!("--source yahoo: no HTTPS client can be made: {error}")))?;
        Ok(Client { yahoo, symbols: settings.symbols.clone(), address })
    }

    pub(super) fn host(&self) -> String {
        match self.address.1 {
            443 => self.address.0.clone(),
            port => format!("{}:{port}", self.address.0),
        }
    }

    /// What the system says about connecting, which the crate keeps to itself; None if it works.
    pub(super) async fn why_away(&self) -> Option<String> {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())),
        }
    }

    /// All symbols in one request; the first one, and each after a refusal, takes three more for cookie and crumb.
    pub(super) async fn quotes(&self, now: Micros) -> Result<Quotes, Trouble> {
        let asked = QuotesBuilder::new(&self.yahoo).symbols(self.symbols.iter().cloned());
        let answer = asked.fetch_with_diagnostics().await.map_err(trouble)?;
        let mut quotes = Quotes::default();
        let omitted = self.look_through(&answer.diagnostics, &mut quotes);
        for quote in answer.data {
            let Some(symbol) = self.place(quote.instrument.symbol.as_str()) else {
                quotes.skipped.push((
                    "quote of a symbol that was not asked for",
                    files::shorten(quote.instrument.symbol.as_str(), SHOWN_CHARS_MAX),
                ));
                continue;
            };
            let name = &self.symbols[symbol];
            let unreadable = |field: &'static str| omitted.get(&(symbol, field)).cloned();
            let price = match (quote.price, unreadable("regularMarketPrice")) {
                (Some(price), _) => {
                    price_of(price.as_decimal()).map_err(|(kind, why)| (kind, format!("{name}: {why}")))
                }
                (None, Some(why)) => Err(("unreadable number", format!("{name}: regularMarketPrice: {why}"))),
                (None, None) => Err(("missing price", format!("{name}: its quote has no regularMarketPrice"))),
            };
            let volume = match (&quote.day_volume, unreadable("regularMarketVolume")) {
                (Some(volume), _) => {
                    volume_of(volume.as_decimal()).map_err(|(kind, why)| (kind, format!("{name}: {why}")))
                }
                (None, Some(why)) => Err(("unreadable number", format!("{name}: regularMarketVolume: {why}"))),
                (None, None) => Err(("quote without volume", format!("{name}: its quote has no regularMarketVolume"))),
            };
            let time = quote.as_of.and_then(|time| files::within(time.timestamp_micros()));
            let is_without_volume =
                matches!(quote.instrument.kind, AssetKind::Index | AssetKind::Forex | AssetKind::Crypto);
            let is_market_open = matches!(quote.market_state, None | Some(MarketState::Regular | MarketState::Auction));
            let time = time.filter(|time| time.since(now) <= AHEAD_US_MAX);
            let currency = quote.currency.code().parse().ok();
            quotes.quotes.push(Quote { symbol, price, currency, volume, is_without_volume, time, is_market_open });
        }
        Ok(quotes)
    }

    /// Sorts the crate's warnings; what it left out of quotes, by symbol and field.
    fn look_through(&self, diagnostics: &YfDiagnostics, quotes: &mut Quotes) -> HashMap<(usize, &'static str), String> {
        let mut omitted = HashMap::new();
        for warning in &diagnostics.warnings {
            match warning {
                YfWarning::DroppedItem { key, reason, .. } => {
                    let symbol = key.as_deref().and_then(|key| self.place(key));
                    match (symbol, reason) {
                        (Some(symbol), ProjectionIssue::ProviderUnavailable { .. }) => quotes.unknown.push(symbol),
                        _ => quotes.skipped.push(("unreadable quote", shown(warning))),
                    }
                }
                YfWarning::OmittedPresentField { path, key, reason, .. } => {
                    if let Some(symbol) = key.as_deref().and_then(|key| self.place(key)) {
                        omitted.insert((symbol, *path), files::shorten(&reason.to_string(), SHOWN_CHARS_MAX));
                    }
                }
                _ => {}
            }
        }
        omitted
    }

    /// The minutes of a symbol's present or last day, in the order of time.
    pub(super) async fn bars(&self, symbol: usize) -> Result<Vec<Row>, Trouble> {
        let name = &self.symbols[symbol];
        let asked = HistoryBuilder::new(&self.yahoo, name.as_str()).range(Range::D1).interval(Interval::I1m);
        let asked = asked.auto_adjust(false).actions(false);
        let answer = asked.fetch_with_diagnostics().await.map_err(trouble)?;
        let mut rows: Vec<Row> = answer.data.iter().filter_map(|candle| row(symbol, name, candle)).collect();
        for warning in &answer.diagnostics.warnings {
            let YfWarning::DroppedItem { key: Some(key), reason, .. } = warning else { continue };
            let Some(start) = key.parse::<i64>().ok().and_then(|s| files::within(s.checked_mul(1_000_000)?)) else {
                continue;
            };
            // Nothing at all is a minute without trades.
            if !matches!(reason, ProjectionIssue::MissingRequiredFields { fields } if fields.len() == PRICES) {
                let bar = Err(("unreadable bar", format!("{name}: {}", shown(warning))));
                rows.push(Row { start, bar, currency: None });
            }
        }
        rows.sort_by_key(|row| row.start);
        Ok(rows)
    }

    fn place(&self, symbol: &str) -> Option<usize> {
        self.symbols.iter().position(|known| known == symbol)
    }
}

/// Open, high, low and close.
const PRICES: usize = 4;
/// A time that is further ahead than clocks differ is a mistake of somebody's.
const AHEAD_US_MAX: i64 = 3_600_000_000;

fn row(symbol: usize, name: &str, candle: &Candle) -> Option<Row> {
    let start = files::within(candle.ts.timestamp_micros())?;
    let bar = || -> Result<(Bar, Option<i64>), Skip> {
        let prices = &candle.ohlc;
        let [open, high, low, close] =
            [&prices.open, &prices.high, &prices.low, &prices.close].map(|price| price_of(price.as_decimal()));
        let volume = candle.volume.as_ref().map(|volume| volume_of(volume.as_decimal())).transpose()?;
        let symbol = symbol as u32;
        let (open, high, low, close) = (open?, high?, low?, close?);
        let bar = Bar { start, length_us: MINUTE_US, symbol, open, high, low, close, volume: 0, is_close_only: false };
        Ok((bar, volume))
    };
    let bar = bar().map_err(|(kind, why)| (kind, format!("{name} at {start}: {why}")));
    Some(Row { start, bar, currency: candle.currency.code().parse().ok() })
}

/// Rounded once, half to even, as prices of files are.
fn price_of(price: &Decimal) -> Result<i64, Skip> {
    let scaled = parse_scaled(&price.to_string(), PRICE_SCALE as i32);
    match scaled {
        None => Err(("unreadable number", format!("price {price} is not within range"))),
        Some(scaled) if scaled < 0 => Err(("number out of range", format!("price {price} is negative"))),
        Some(0) => Err(("price of 0, or so small that four decimals show nothing of it", format!("price {price}"))),
        Some(scaled) => Ok(scaled),
    }
}

fn volume_of(volume: &Decimal) -> Result<i64, Skip> {
    let whole = parse_whole(&volume.to_string()).filter(|volume| (0..=QUANTITY_MAX).contains(volume));
    whole.ok_or_else(|| ("number out of range", format!("volume {volume} is not a whole number within 0 to 10^15")))
}

fn trouble(error: YfError) -> Trouble {
    match error {
        YfError::RateLimited { .. } => Trouble::Busy("too many requests (HTTP 429)".to_owned()),
        YfError::ServerError { status, .. } | YfError::Status { status: status @ (408 | 425), .. } => {
            Trouble::Busy(format!("HTTP {status}"))
        }
        YfError::Http(error) => Trouble::Away(error.to_string()),
        YfError::NotFound { .. } => Trouble::NotFound,
        YfError::Status { status, .. } => Trouble::Refused(format!("HTTP {status}")),
        error => Trouble::Refused(files::shorten(&error.to_string(), SHOWN_CHARS_MAX)),
    }
}

fn shown(warning: &YfWarning) -> String {
    files::shorten(&warning.to_string(), SHOWN_CHARS_MAX)
}

fn refuse_url(url: &str, why: &str) -> SourceError {
    SourceError::Setting(format!("{YAHOO_URL}={url:?} cannot be used: {why}"))
}

/// Host and port of `http://HOST:PORT/…`.
fn address_of(url: &str) -> Option<(String, u16)> {
    let (port, rest) = match url.split_once("://")? {
        ("http", rest) => (80, rest),
        ("https", rest) => (443, rest),
        _ => return None,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_mirror_is_found() {
        for (url, address) in [
            ("http://127.0.0.1:8099", Some(("127.0.0.1", 8099))),
            ("https://mirror.example/yahoo", Some(("mirror.example", 443))),
            ("http://[::1]:80/", Some(("::1", 80))),
            ("http://[::1]", Some(("::1", 80))),
            ("ftp://host", None),
            ("http://", None),
            ("http://host:port", None),
            ("host", None),
        ] {
            let found = address_of(url);
            assert_eq!(found.as_ref().map(|(host, port)| (host.as_str(), *port)), address, "{url}");
        }
    }

    #[test]
    fn prices_are_rounded_once_half_to_even_and_what_is_none_is_left_out() {
        let price = |text: &str| price_of(&text.parse().unwrap());
        assert_eq!(price("189.95"), Ok(1_899_500));
        assert_eq!(price("1.23445"), Ok(12_344));
        assert_eq!(price("1.23455"), Ok(12_346));
        assert_eq!(price("-1").unwrap_err().0, "number out of range");
        assert!(price("0.00001").unwrap_err().0.starts_with("price of 0"));
        assert_eq!(price("7922816251426433759354395033").unwrap_err().0, "unreadable number");
        assert_eq!(volume_of(&"1000000000000001".parse().unwrap()).unwrap_err().0, "number out of range");
    }
}
