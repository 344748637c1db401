//! Where transactions come from, and when each is due.
//!
//! A source fills a [`Draft`], whose strings are used again and again; the producer adds identity and times. Nothing
//! here knows Kafka or PostgreSQL.

use std::path::PathBuf;

use serde::Serialize;

use self::draft::write_user_id;
use self::repeated::Repeated;
use crate::config::SourceSettings;

pub mod arrival;
mod cards;
mod draft;
mod draw;
mod files;
mod repeated;
mod synthetic;
mod yahoo;
mod yfinance;

pub use draft::{DerivedIds, Draft, Kind};

/// Yields transactions one after the other.
pub trait Source: Send {
    /// Fills `out` with the next one, if there is one.
    ///
    /// # Errors
    /// If the source cannot go on.
    fn next_into(&mut self, out: &mut Draft) -> Result<Next, SourceError>;

    /// Such as `synthetic` or `yfinance:prices.csv`.
    fn describe(&self) -> String;

    /// How many it yields in total, where that is known.
    fn total(&self) -> Option<u64>;

    /// What was left out, and why.
    fn skipped(&self) -> SkipReport;

    /// Identifies the content of a finite source that yields the same again when it is opened again; None for a source
    /// without an end.
    fn fingerprint(&self) -> Option<String>;

    /// Whether its transactions carry event times of their own, by which they can be paced.
    fn has_event_times(&self) -> bool;
}

/// What came of asking for the next transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Here it is.
    Draft,
    /// None yet: whoever asks later may get one.
    NotYet,
    /// There are no more.
    End,
}

/// What a source left out, and what it only wondered at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SkipReport {
    /// One entry a kind, in the order of first appearance.
    pub kinds: Vec<SkippedKind>,
    /// The same of what was sent as it stands, though it looks wrong.
    pub kept: Vec<SkippedKind>,
}

/// One reason for leaving rows out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedKind {
    /// Such as `bar without volume`.
    pub kind: &'static str,
    /// How often.
    pub count: u64,
    /// The first one in words: file, line, what was found.
    pub first: String,
}

impl SkipReport {
    /// Counts one; `explain` runs for the first of its kind only.
    pub(crate) fn note(&mut self, kind: &'static str, explain: impl FnOnce() -> String) {
        count(&mut self.kinds, kind, explain);
    }

    /// All of it, each with what became of it: `skipped` or `kept`.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &SkippedKind)> {
        let skipped = self.kinds.iter().map(|found| ("skipped", found));
        skipped.chain(self.kept.iter().map(|found| ("kept", found)))
    }

    /// The same of what is sent all the same.
    pub(crate) fn note_kept(&mut self, kind: &'static str, explain: impl FnOnce() -> String) {
        count(&mut self.kept, kind, explain);
    }

    /// Everything that was left out.
    pub fn total(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.count).sum()
    }
}

fn count(kinds: &mut Vec<SkippedKind>, kind: &'static str, explain: impl FnOnce() -> String) {
    match kinds.iter_mut().find(|known| known.kind == kind) {
        Some(known) => known.count += 1,
        None => kinds.push(SkippedKind { kind, count: 1, first: explain() }),
    }
}

/// Why a source does not open or go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The file does not open or read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is none that we know.
    #[error("{path} is not a yfinance file: {found}; accepted are download(...).to_csv() with its three header rows \
             Price/Ticker/Date, and Ticker.history(...).to_csv() with a header of Date or Datetime, Open, High, Low, \
             Close, Volume, or of Date and closing prices by symbol", path = .path.display())]
    UnknownLayout {
        /// The file.
        path: PathBuf,
        /// What stands where a header was expected.
        found: String,
    },
    /// A card file whose columns are not known.
    #[error("{path} is no card file that is known: {found}; known are those of Kaggle and Sparkov, for any other write \
             --map user=COLUMN,amount=COLUMN,time=COLUMN, and merchant, category, id, currency, fraud where there are such",
            path = .path.display())]
    UnknownColumns {
        /// The file.
        path: PathBuf,
        /// What stands in its header.
        found: String,
    },
    /// It is another file than the one that was looked through.
    #[error("{path} was changed while it was read: what was sent of it is neither the old file nor the new one; run the \
             same command again to send the new one", path = .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A host of live data gives no answer that can be used.
    #[error(
        "{host} gives nothing for {symbols}: {why}. Offline? Where there is a connection, python3 -c \"import yfinance; \
             yfinance.download('AAPL', period='5d', interval='1m').to_csv('prices.csv')\" writes a file, which finstream \
             --source yfinance:prices.csv replays"
    )]
    Unreachable {
        /// Who was asked.
        host: String,
        /// What for.
        symbols: String,
        /// What came.
        why: String,
    },
    /// The file's symbol is not known or not usable.
    #[error("{path}: {why}", path = .path.display())]
    Symbol {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// More than is held in memory.
    #[error("more than {limit} bars in the files given, the last being {path}; replay them in several runs",
            path = .path.display())]
    TooManyBars {
        /// Bars, at most.
        limit: usize,
        /// The file that went beyond.
        path: PathBuf,
    },
}

/// Opens a source; files are read and checked here, so that what is wrong with them is said before anything is sent.
///
/// # Errors
/// If a setting or a file cannot be used.
pub fn open(settings: &SourceSettings) -> Result<Box<dyn Source>, SourceError> {
    Ok(match settings {
        SourceSettings::Synthetic(settings) => Box::new(synthetic::Synthetic::new(settings)?),
        SourceSettings::Yfinance(settings) => {
            let source = yfinance::Yfinance::open(settings)?;
            if settings.repeat { Box::new(Repeated::new(source)?) } else { Box::new(source) }
        }
        SourceSettings::Cards(settings) => {
            let source = cards::Cards::open(settings)?;
            if settings.repeat { Box::new(Repeated::new(source)?) } else { Box::new(source) }
        }
        SourceSettings::Yahoo(settings) => Box::new(yahoo::Yahoo::open(settings)?),
    })
}

/// Whether a source opens, as far as that shows without reading a large file from end to end.
///
/// # Errors
/// As [`open`].
pub fn check(settings: &SourceSettings) -> Result<(), SourceError> {
    match settings {
        SourceSettings::Cards(settings) => cards::Cards::check(settings),
        SourceSettings::Yahoo(settings) => yahoo::Yahoo::check(settings),
        _ => open(settings).map(drop),
    }
}

/// Users, at most: their numbers are spread by a distribution over floats, and 10^9 is more than cards exist.
pub const USERS_MAX: u64 = 1_000_000_000;

fn check_users(users: u64) -> Result<(), SourceError> {
    if (1..=USERS_MAX).contains(&users) {
        return Ok(());
    }
    Err(SourceError::Setting(format!("--users {users} is not within 1 to {USERS_MAX}")))
}
