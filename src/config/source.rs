//! Where transactions come from: what `--source` and the flags beside it say.

use std::path::PathBuf;

use super::ConfigError;
use super::yahoo::{YahooSettings, yahoo};
use crate::cli::PipelineArgs;
use crate::transaction::Currency;

/// Where transactions come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceSettings {
    /// Card transactions that never happened.
    Synthetic(SyntheticSettings),
    /// yfinance CSV files.
    Yfinance(YfinanceSettings),
    /// CSV files of card transactions.
    Cards(CardsSettings),
    /// Live market data of Yahoo Finance.
    Yahoo(YahooSettings),
}

impl SourceSettings {
    /// Of everything random: what is not said otherwise follows from it.
    pub fn seed(&self) -> u64 {
        match self {
            SourceSettings::Synthetic(settings) => settings.seed,
            SourceSettings::Yfinance(settings) => settings.seed,
            SourceSettings::Cards(settings) => settings.seed,
            SourceSettings::Yahoo(settings) => settings.seed,
        }
    }
}

/// Card transactions that never happened.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticSettings {
    /// At least 1.
    pub users: u64,
    /// Of the users' activity, 0 to 10; 0 is uniform.
    pub zipf_exponent: f64,
    pub seed: u64,
    pub shares: Shares,
    pub event_times: EventTimes,
}

/// How many of the messages are what, each 0 to 1 of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Money back for an earlier purchase.
    pub refunds: f64,
    /// Attempts that the issuer declined, those of fraud not counted.
    pub declines: f64,
    /// Part of a fraud episode, and labelled so.
    pub fraud: f64,
    /// Their event time lies behind the time at which they are due.
    pub late: f64,
    /// The transaction before, sent again.
    pub duplicates: f64,
}

impl Default for Shares {
    fn default() -> Shares {
        Shares { refunds: 0.03, declines: 0.02, fraud: 0.001, late: 0.001, duplicates: 0.0 }
    }
}

/// What the event time of a synthetic transaction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventTimes {
    /// When it is due: it happens now.
    #[default]
    Live,
    /// By the source's own calendar, which its users' habits follow.
    Calendar,
}

/// yfinance CSV files.
#[derive(Clone, Debug, PartialEq)]
pub struct YfinanceSettings {
    /// At least one.
    pub files: Vec<PathBuf>,
    /// Of files that name none; selects one of those that a file names.
    pub symbol: Option<String>,
    pub currency: Currency,
    /// Trades fall to so many users.
    pub users: u64,
    pub seed: u64,
    /// From the beginning again at the end.
    pub repeat: bool,
}

/// CSV files of card transactions.
#[derive(Clone, Debug, PartialEq)]
pub struct CardsSettings {
    /// At least one.
    pub files: Vec<PathBuf>,
    /// Our field, the file's column; empty: a layout that is known.
    pub map: Vec<(String, String)>,
    pub currency: Currency,
    /// Of the arrivals.
    pub seed: u64,
    /// From the beginning again at the end.
    pub repeat: bool,
}

/// What `--source` names.
///
/// # Errors
/// An unknown kind, no files, a bad currency, a share that is none.
pub fn source(pipeline: &PipelineArgs) -> Result<SourceSettings, ConfigError> {
    if !(pipeline.zipf.is_finite() && (0.0..=10.0).contains(&pipeline.zipf)) {
        return Err(ConfigError::new(format!("--zipf {} is outside of 0..10", pipeline.zipf)));
    }
    let currency = pipeline.currency.parse().map_err(|error| ConfigError::new(format!("--currency: {error}")))?;
    let (users, seed, repeat) = (pipeline.users, pipeline.seed, pipeline.repeat);
    let (kind, rest) = pipeline.source.split_once(':').unwrap_or((pipeline.source.as_str(), ""));
    let named = |what: &str, example: &str| {
        let names: Vec<String> = rest.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.is_empty() {
            return Err(ConfigError::new(format!("--source {kind} needs {what}: write --source {kind}:{example}")));
        }
        Ok(names)
    };
    let is_file = matches!(kind, "yfinance" | "cards");
    if repeat && !is_file {
        return Err(ConfigError::new(format!("--loop begins a file again, and --source {kind} has no end")));
    }
    if !pipeline.map.is_empty() && kind != "cards" {
        return Err(ConfigError::new("--map names the columns of a card file: write --source cards:FILE"));
    }
    match kind {
        "synthetic" if rest.is_empty() => {
            let shares = shares(pipeline)?;
            let event_times = if pipeline.event_times_by_calendar { EventTimes::Calendar } else { EventTimes::Live };
            let zipf_exponent = pipeline.zipf;
            Ok(SourceSettings::Synthetic(SyntheticSettings { users, zipf_exponent, seed, shares, event_times }))
        }
        "yfinance" => {
            let files = named("files", "prices.csv")?.into_iter().map(PathBuf::from).collect();
            let symbol = pipeline.symbol.clone();
            Ok(SourceSettings::Yfinance(YfinanceSettings { files, symbol, currency, users, seed, repeat }))
        }
        "cards" => {
            let files = named("files", "fraudTrain.csv")?.into_iter().map(PathBuf::from).collect();
            let map = pipeline.map.iter().map(|pair| column(pair)).collect::<Result<_, _>>()?;
            Ok(SourceSettings::Cards(CardsSettings { files, map, currency, seed, repeat }))
        }
        "yahoo" => Ok(SourceSettings::Yahoo(yahoo(pipeline, named("symbols", "AAPL,MSFT")?, currency)?)),
        _ => Err(ConfigError::new(format!(
            "--source {:?} is not known: write synthetic, yfinance:FILE,… with CSV files of yfinance, cards:FILE,… with CSV files \
             of card transactions, or yahoo:SYMBOL,… for live data of Yahoo Finance",
            pipeline.source
        ))),
    }
}

/// `FIELD=COLUMN`.
fn column(pair: &str) -> Result<(String, String), ConfigError> {
    match pair.split_once('=') {
        Some((field, column)) if !field.is_empty() && !column.is_empty() => {
            Ok((field.trim().to_owned(), column.trim().to_owned()))
        }
        _ => Err(ConfigError::new(format!("--map {pair:?} is not FIELD=COLUMN, such as user=cc_num"))),
    }
}

fn shares(pipeline: &PipelineArgs) -> Result<Shares, ConfigError> {
    let shares = Shares {
        refunds: pipeline.refunds,
        declines: pipeline.declines,
        fraud: pipeline.fraud,
        late: pipeline.late,
        duplicates: pipeline.duplicates,
    };
    let others = shares.declines + shares.fraud + shares.duplicates;
    let kinds = shares.refunds + others;
    if kinds > 1.0 + SHARES_ROUNDING {
        return Err(ConfigError::new(format!(
            "--refunds, --declines, --fraud and --duplicates are {:.4}% of the messages together; at most 100% are possible",
            kinds * 100.0
        )));
    }
    let refunds_max = (1.0 - others) / 2.0;
    if shares.refunds > refunds_max + SHARES_ROUNDING {
        return Err(ConfigError::new(format!(
            "--refunds {:.4}%: each gives back a purchase of its own, so beside {:.4}% of other messages at most {:.4}% can be \
             refunds",
            shares.refunds * 100.0,
            others * 100.0,
            refunds_max * 100.0
        )));
    }
    Ok(shares)
}

/// Shares that add up to 100% may miss it by this much, as sums of floats do.
const SHARES_ROUNDING: f64 = 1e-9;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn shares_of(flags: &str) -> Result<Shares, ConfigError> {
        let cli = Cli::try_parse_from(["finstream"].into_iter().chain(flags.split(' '))).unwrap();
        match source(&cli.pipeline)? {
            SourceSettings::Synthetic(settings) => Ok(settings.shares),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn shares_that_cannot_be_kept_are_refused() {
        // Sums of floats miss what they mean by a little.
        assert_eq!(shares_of("--refunds 35% --declines 10% --fraud 10% --duplicates 10%").unwrap().refunds, 0.35);
        assert_eq!(shares_of("--refunds 0% --declines 70% --fraud 10% --duplicates 20%").unwrap().declines, 0.7);
        let refused = shares_of("--refunds 60% --declines 20% --fraud 0% --duplicates 30%").unwrap_err().to_string();
        assert!(refused.contains("are 110.0000% of the messages together"), "{refused}");
        let refused = shares_of("--refunds 60% --declines 0% --fraud 0%").unwrap_err().to_string();
        assert!(refused.contains("at most 50.0000% can be refunds"), "{refused}");
    }
}
