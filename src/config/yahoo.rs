//! What `--source yahoo:AAPL,MSFT` and the flags beside it say.

use std::time::Duration;

use super::ConfigError;
use crate::cli::{NumberOrMax, PipelineArgs};
use crate::transaction::Currency;

/// Names a mirror of Yahoo's hosts, or a server that stands in for them in tests: `http://127.0.0.1:8099`.
pub const YAHOO_URL: &str = "FINSTREAM_YAHOO_URL";

/// Live market data of Yahoo Finance.
#[derive(Clone, Debug, PartialEq)]
pub struct YahooSettings {
    /// As Yahoo writes them; at least one.
    pub symbols: Vec<String>,
    /// Of prices whose currency has no code of three letters.
    pub currency: Currency,
    /// Trades fall to so many users.
    pub users: u64,
    pub seed: u64,
    /// In place of Yahoo's hosts.
    pub url: Option<String>,
    pub polling: Polling,
}

/// How often Yahoo is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// From one request to the next, at least.
    pub interval: Duration,
    /// The same while no market is open.
    pub closed: Duration,
    /// From one request for the bars of a symbol to the next for the same, at least.
    pub bars: Duration,
    /// The pause after an error doubles up to this.
    pub backoff_max: Duration,
    /// After quotes were refused, until they are asked for again.
    pub refused: Duration,
}

impl Default for Polling {
    fn default() -> Polling {
        Polling {
            interval: Duration::from_secs(5),
            closed: Duration::from_secs(60),
            bars: Duration::from_secs(60),
            backoff_max: Duration::from_secs(300),
            refused: Duration::from_secs(600),
        }
    }
}

/// Live data has a pace of its own, no end, and symbols and times that Yahoo names.
pub(super) fn yahoo(
    pipeline: &PipelineArgs,
    symbols: Vec<String>,
    currency: Currency,
) -> Result<YahooSettings, ConfigError> {
    for (is_given, flag, cure) in [
        (
            matches!(pipeline.rate, Some(NumberOrMax::Number(_))),
            "--rate",
            "leave it out: trades are sent when they are known",
        ),
        (pipeline.speed.is_some(), "--speed", "it replays files: write --source yfinance:FILE"),
        (pipeline.arrival != "constant", "--arrival", "leave it out: trades are sent when they are known"),
        (pipeline.symbol.is_some(), "--symbol", "name the symbols behind yahoo: itself, such as yahoo:AAPL,MSFT"),
        (pipeline.event_times_by_calendar, "--calendar", "leave it out: event times are Yahoo's"),
    ] {
        if is_given {
            return Err(ConfigError::new(format!("{flag} does not go with --source yahoo, which is live; {cure}")));
        }
    }
    let url = std::env::var(YAHOO_URL).ok().filter(|url| !url.is_empty());
    let (users, seed, polling) = (pipeline.users, pipeline.seed, Polling::default());
    Ok(YahooSettings { symbols, currency, users, seed, url, polling })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::super::{SourceSettings, source};
    use super::*;
    use crate::cli::Cli;

    fn settings(flags: &str) -> Result<YahooSettings, ConfigError> {
        let cli = Cli::try_parse_from(["finstream"].into_iter().chain(flags.split(' '))).unwrap();
        match source(&cli.pipeline)? {
            SourceSettings::Yahoo(settings) => Ok(settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn symbols_users_and_currency_are_taken_from_the_flags() {
        let found = settings("--source yahoo:AAPL,BRK-B --users 7 --seed 9 --currency EUR --rate max").unwrap();
        assert_eq!(found.symbols, ["AAPL", "BRK-B"]);
        assert_eq!((found.users, found.seed, found.currency), (7, 9, Currency::EUR));
        assert_eq!(found.polling.interval, Duration::from_secs(5));
    }

    #[test]
    fn flags_that_make_no_sense_for_live_data_are_refused_with_the_cure() {
        for (flags, expected) in [
            ("--rate 100", "--rate does not go with --source yahoo, which is live; leave it out"),
            ("--speed 60", "--speed does not go with --source yahoo, which is live; it replays files"),
            ("--speed max", "--speed does not go with --source yahoo"),
            ("--arrival poisson", "--arrival does not go with --source yahoo"),
            ("--loop", "--loop begins a file again, and --source yahoo has no end"),
            ("--map user=u", "--map names the columns of a card file"),
            ("--symbol AAPL", "such as yahoo:AAPL,MSFT"),
            ("--calendar", "event times are Yahoo's"),
        ] {
            let refused = settings(&format!("--source yahoo:AAPL {flags}")).unwrap_err().to_string();
            assert!(refused.contains(expected), "{flags}: {refused}");
        }
        let refused = settings("--source yahoo:").unwrap_err().to_string();
        assert!(refused.contains("write --source yahoo:AAPL,MSFT"), "{refused}");
    }
}
