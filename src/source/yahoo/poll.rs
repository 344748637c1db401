//! When Yahoo is asked, and for what: quotes while it gives them, else bars of a minute; less often while markets are closed, and
//! less and less while it is busy or away.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::client::{Client, Quote, Quotes, Row, Skip, Trouble};
use super::tape::{Counted, Tape};
use super::{News, SHOWN_CHARS_MAX};
use crate::clock::{Clock, Micros, SystemClock};
use crate::config::{Polling, YahooSettings};
use crate::source::draw::mix;
use crate::source::yfinance::PRICE_SCALE;
use crate::source::{Draft, SourceError, files};
use crate::transaction::Currency;

/// Requests are this part of their distance later than they might be, at most, so that many who ask do not ask together.
const JITTER: u32 = 10;
/// Yahoo says "too many requests" for quotes also to those whom it gives bars: so often in a row it is believed.
const BUSY_MAX: u32 = 4;

pub(super) struct Poller {
    client: Client,
    polling: Polling,
    clock: SystemClock,
    symbols: Vec<String>,
    currency: Currency,
    users: u64,
    seed: u64,
    tapes: Vec<Tape>,
    way: Way,
    news: mpsc::Sender<News>,
    /// None once the first answer is known.
    ready: Option<oneshot::Sender<Result<(), SourceError>>>,
    /// Requests in a row that brought nothing.
    failures: u32,
    requests: u64,
    /// Kinds of skips that have been explained.
    explained: HashSet<&'static str>,
    closed_was_said: bool,
    /// Yahoo knows nothing of them.
    unknown: HashSet<usize>,
}

/// What is asked for.
#[derive(Clone, Debug)]
enum Way {
    Quotes,
    Bars {
        next: usize,
        /// Quotes may be given again from then on.
        quotes_from: Instant,
        why: String,
        /// Requests in a row that told nothing new.
        quiet: usize,
    },
}

/// The receiver is gone: nobody wants to know any more.
struct Gone;

impl Poller {
    pub(super) fn new(
        settings: &YahooSettings,
        client: Client,
        news: mpsc::Sender<News>,
        ready: oneshot::Sender<Result<(), SourceError>>,
    ) -> Poller {
        let YahooSettings { symbols, currency, users, seed, polling, .. } = settings;
        Poller {
            client,
            polling: *polling,
            clock: SystemClock::new(),
            symbols: symbols.clone(),
            currency: *currency,
            users: *users,
            seed: *seed,
            tapes: symbols.iter().map(|symbol| Tape::new(symbol)).collect(),
            way: Way::Quotes,
            news,
            ready: Some(ready),
            failures: 0,
            requests: 0,
            explained: HashSet::new(),
            closed_was_said: false,
            unknown: HashSet::new(),
        }
    }

    /// Until nobody listens any more, or nothing can come.
    pub(super) async fn run(mut self) {
        while let Ok(Some(pause)) = self.ask().await {
            self.requests += 1;
            let share = (mix(self.seed ^ self.requests) % 1_000) as u32;
            tokio::time::sleep(pause + pause / JITTER * share / 1_000).await;
        }
    }

    /// One request; how long to wait before the next one. None: there is no next one.
    async fn ask(&mut self) -> Result<Option<Duration>, Gone> {
        let now = self.clock.now();
        match self.way.clone() {
            Way::Bars { next, quotes_from, .. } if Instant::now() < quotes_from => {
                let answer = self.client.bars(next).await;
                self.take_bars(next, answer, now).await
            }
            _ => {
                let answer = self.client.quotes(now).await;
                self.take_quotes(answer, now).await
            }
        }
    }

    async fn take_quotes(&mut self, answer: Result<Quotes, Trouble>, now: Micros) -> Result<Option<Duration>, Gone> {
        let quotes = match answer {
            Ok(quotes) => quotes,
            Err(Trouble::Busy(why)) => {
                if self.failures >= BUSY_MAX {
                    self.use_bars(&why);
                }
                return Ok(Some(self.back_off(&why)));
            }
            Err(Trouble::Away(why)) => return Ok(self.away(why).await),
            Err(Trouble::Refused(why)) => return Ok(Some(self.use_bars(&why))),
            Err(Trouble::NotFound) => return Ok(Some(self.use_bars("HTTP 404"))),
        };
        if self.ready.is_some() && quotes.unknown.len() == self.symbols.len() {
            return self.know_none().await;
        }
        let is_usable = |quote: &Quote| quote.price.is_ok() && (quote.is_without_volume || quote.volume.is_ok());
        if !quotes.quotes.iter().any(is_usable) {
            let first =
                quotes.quotes.iter().find_map(|quote| quote.price.as_ref().err().or(quote.volume.as_ref().err()));
            let why = first.or(quotes.skipped.first()).map_or("they hold nothing", |(_, why)| why).to_owned();
            return Ok(Some(self.use_bars(&why)));
        }
        if matches!(self.way, Way::Bars { .. }) {
            tracing::info!("{} gives quotes again: they are used from here on", self.client.host());
            self.way = Way::Quotes;
        }
        self.answered();
        self.note_unknown(&quotes.unknown);
        for skip in quotes.skipped {
            self.skip(skip).await?;
        }
        let is_any_open = quotes.quotes.iter().any(|quote| quote.is_market_open);
        self.say_closed(is_any_open, &quotes.quotes, now);
        for quote in quotes.quotes {
            self.unknown.remove(&quote.symbol);
            match self.tapes[quote.symbol].quote(&quote, now) {
                Ok(None) => {}
                Ok(Some(counted)) => self.send(quote.symbol, &counted, quote.currency).await?,
                Err(skip) => self.skip(skip).await?,
            }
        }
        Ok(Some(if is_any_open { self.polling.interval } else { self.polling.closed }))
    }

    async fn take_bars(
        &mut self,
        symbol: usize,
        answer: Result<Vec<Row>, Trouble>,
        now: Micros,
    ) -> Result<Option<Duration>, Gone> {
        let mut is_new = false;
        match answer {
            Ok(rows) => {
                self.answered();
                let mut skips = Vec::new();
                let trades = self.tapes[symbol].bars(&rows, now, |skip| skips.push(skip));
                for skip in skips {
                    self.skip(skip).await?;
                }
                for (counted, currency) in &trades {
                    self.send(symbol, counted, *currency).await?;
                }
                is_new = !trades.is_empty();
            }
            Err(Trouble::NotFound) => {
                self.failures = 0;
                self.note_unknown(&[symbol]);
                if self.unknown.len() == self.symbols.len() {
                    return self.know_none().await;
                }
            }
            Err(Trouble::Busy(why)) => return Ok(Some(self.back_off(&why))),
            Err(Trouble::Away(why)) => return Ok(self.away(why).await),
            Err(Trouble::Refused(why)) => {
                let refused = match &self.way {
                    Way::Bars { why: quotes, .. } => {
                        format!("quotes: {quotes}; bars of {}: {why}", self.symbols[symbol])
                    }
                    Way::Quotes => why,
                };
                return match self.ready.take() {
                    Some(ready) => {
                        let _ = ready.send(Err(
                            self.unreachable(&format!("it answers with nothing that can be used ({refused})"))
                        ));
                        Ok(None)
                    }
                    None => {
                        self.skip(("refused request", refused.clone())).await?;
                        self.go_on(symbol, false);
                        Ok(Some(self.back_off(&refused)))
                    }
                };
            }
        }
        let is_quiet = self.go_on(symbol, is_new);
        let known = (self.symbols.len() - self.unknown.len()).max(1) as u32;
        let pause = self.polling.interval.max(self.polling.bars / known);
        Ok(Some(if is_quiet { pause.max(self.polling.closed) } else { pause }))
    }

    /// To the next symbol that there is; whether a round and more told nothing new.
    fn go_on(&mut self, symbol: usize, is_new: bool) -> bool {
        let count = self.symbols.len();
        let following = (1..=count).map(|step| (symbol + step) % count).find(|next| !self.unknown.contains(next));
        let Way::Bars { next, quiet, .. } = &mut self.way else { return false };
        *next = following.unwrap_or(symbol);
        *quiet = if is_new { 0 } else { *quiet + 1 };
        *quiet > 2 * count
    }

    fn use_bars(&mut self, why: &str) -> Duration {
        let quotes_from = Instant::now() + self.polling.refused;
        match &mut self.way {
            Way::Bars { quotes_from: from, .. } => *from = quotes_from,
            Way::Quotes => {
                let (host, why) = (self.client.host(), files::shorten(why, SHOWN_CHARS_MAX * 2));
                tracing::warn!("{host} gives no quotes ({why}): bars of a minute are used until it does");
                let next = (0..self.symbols.len()).find(|place| !self.unknown.contains(place)).unwrap_or(0);
                self.way = Way::Bars { next, quotes_from, why, quiet: 0 };
            }
        }
        self.polling.interval
    }

    /// A usable answer came.
    fn answered(&mut self) {
        if self.failures > 0 {
            tracing::info!("{} answers again", self.client.host());
        }
        self.failures = 0;
        self.tell_ready();
    }

    fn tell_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            // Whoever is gone hears nothing else either.
            let _ = ready.send(Ok(()));
        }
    }

    /// It is there and does not answer now, which is waited for also at the start.
    fn back_off(&mut self, why: &str) -> Duration {
        let first = self.failures == 0;
        self.failures = self.failures.saturating_add(1);
        let pause = 1u32.checked_shl(self.failures).and_then(|factor| self.polling.interval.checked_mul(factor));
        let pause = pause.map_or(self.polling.backoff_max, |pause| pause.min(self.polling.backoff_max));
        if first {
            tracing::warn!(
                "{} does not answer ({why}): asking again in {pause:?}, and less and less often up to each {:?}",
                self.client.host(),
                self.polling.backoff_max
            );
        }
        self.tell_ready();
        pause
    }

    /// Nobody answers: an error at the start, waited for later.
    async fn away(&mut self, why: String) -> Option<Duration> {
        let why = self.client.why_away().await.unwrap_or(why);
        match self.ready.take() {
            None => Some(self.back_off(&why)),
            Some(ready) => {
                let _ = ready.send(Err(self.unreachable(&why)));
                None
            }
        }
    }

    fn unreachable(&self, why: &str) -> SourceError {
        let symbols = self.symbols.join(", ");
        SourceError::Unreachable { host: self.client.host(), symbols, why: why.to_owned() }
    }

    async fn know_none(&mut self) -> Result<Option<Duration>, Gone> {
        let symbols = self.symbols.join(", ");
        let error = SourceError::Setting(format!(
            "--source yahoo: {} knows none of {symbols}; look the symbols up at https://finance.yahoo.com/lookup",
            self.client.host()
        ));
        match self.ready.take() {
            Some(ready) => drop(ready.send(Err(error))),
            None => self.tell(News::Failed(error)).await?,
        }
        Ok(None)
    }

    fn note_unknown(&mut self, unknown: &[usize]) {
        let new: Vec<&str> = unknown
            .iter()
            .filter(|place| self.unknown.insert(**place))
            .map(|place| self.symbols[*place].as_str())
            .collect();
        // Where none is known the run ends with an error of its own.
        if !new.is_empty() && self.unknown.len() < self.symbols.len() {
            tracing::warn!("{} knows nothing of {}; the other symbols are used", self.client.host(), new.join(", "));
        }
    }

    fn say_closed(&mut self, is_any_open: bool, quotes: &[Quote], now: Micros) {
        if is_any_open || self.closed_was_said {
            self.closed_was_said = !is_any_open;
            return;
        }
        self.closed_was_said = true;
        for quote in quotes {
            let Ok(price) = quote.price else { continue };
            let price = rust_decimal::Decimal::new(price, PRICE_SCALE);
            let (symbol, time) = (&self.symbols[quote.symbol], quote.time.unwrap_or(now));
            tracing::info!("{symbol}: market closed, last price {price} at {time}; waiting");
        }
    }

    async fn send(&mut self, symbol: usize, counted: &Counted, currency: Option<Currency>) -> Result<(), Gone> {
        let name = &self.symbols[symbol];
        let mut draft = Box::new(Draft::default());
        counted.trade(name, currency.unwrap_or(self.currency)).write(self.seed, self.users, &mut draft);
        if currency.is_none() {
            let why = format!("{name}: its prices are taken for {}", self.currency);
            self.explain("kept", "currency that is no code of three letters", &why);
            self.tell(News::Kept("currency that is no code of three letters", why)).await?;
        }
        self.tell(News::Trade(draft)).await
    }

    async fn skip(&mut self, (kind, why): Skip) -> Result<(), Gone> {
        self.explain("skipped", kind, &why);
        self.tell(News::Skipped(kind, why)).await
    }

    /// The first of a kind is said at once: the end of a live run may be far away.
    fn explain(&mut self, what: &str, kind: &'static str, why: &str) {
        if self.explained.insert(kind) {
            tracing::warn!("{what}: {kind}; the first: {why}");
        }
    }

    async fn tell(&self, news: News) -> Result<(), Gone> {
        self.news.send(news).await.map_err(|_| Gone)
    }
}
