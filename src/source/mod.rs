//! Where transactions come from, and when each is due.
//!
//! A source fills a [`Draft`], whose strings are used again and again; the producer adds identity and times. Nothing
//! here knows Kafka or PostgreSQL.

use std::borrow::Cow;
use std::path::PathBuf;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::clock::Micros;
use crate::config::SourceSettings;
use crate::transaction::{Currency, Detail, Side, Transaction};

pub mod arrival;
mod merchants;
mod synthetic;
mod yfinance;

/// A transaction without identity and times of its own way. Buffers are reused from message to message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Empty: derived from run and sequence.
    pub transaction_id: String,
    /// Whose transaction.
    pub user_id: String,
    /// Never negative.
    pub amount: Decimal,
    /// Of `amount` and `price`.
    pub currency: Currency,
    /// None: it happens when it is due.
    pub event_time: Option<Micros>,
    /// Which of the following fields count.
    pub kind: Kind,
    /// Of a card transaction.
    pub merchant: String,
    /// Of a card transaction.
    pub category: String,
    /// Of a trade.
    pub symbol: String,
    /// Of a trade.
    pub side: Side,
    /// Of a trade.
    pub quantity: i64,
    /// Of a trade.
    pub price: Decimal,
}

/// What kind of transaction a draft is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Money spent with a card.
    Purchase,
    /// Money back.
    Refund,
    /// A trade.
    Trade,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            transaction_id: String::new(),
            user_id: String::new(),
            amount: Decimal::ZERO,
            currency: Currency::USD,
            event_time: None,
            kind: Kind::Purchase,
            merchant: String::new(),
            category: String::new(),
            symbol: String::new(),
            side: Side::Buy,
            quantity: 0,
            price: Decimal::ZERO,
        }
    }
}

impl Draft {
    /// The transaction, borrowing the draft's strings; `derived_id` stands in for an empty id.
    pub fn transaction<'a>(&'a self, derived_id: &'a str, scheduled_at: Micros, sent_at: Micros) -> Transaction<'a> {
        let (merchant, category) = (Cow::Borrowed(self.merchant.as_str()), Cow::Borrowed(self.category.as_str()));
        let detail = match self.kind {
            Kind::Purchase => Detail::Purchase { merchant, category },
            Kind::Refund => Detail::Refund { merchant, category },
            Kind::Trade => Detail::Trade {
                symbol: Cow::Borrowed(&self.symbol),
                side: self.side,
                quantity: self.quantity,
                price: self.price,
            },
        };
        let id = if self.transaction_id.is_empty() { derived_id } else { &self.transaction_id };
        Transaction {
            transaction_id: Cow::Borrowed(id),
            user_id: Cow::Borrowed(&self.user_id),
            amount: self.amount,
            currency: self.currency,
            event_time: self.event_time.unwrap_or(scheduled_at),
            scheduled_at: Some(scheduled_at),
            sent_at: Some(sent_at),
            detail,
        }
    }
}

/// Yields transactions one after the other.
pub trait Source: Send {
    /// Fills `out` with the next one; false at the end.
    ///
    /// # Errors
    /// If the source cannot go on.
    fn next_into(&mut self, out: &mut Draft) -> Result<bool, SourceError>;

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

/// What a source left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SkipReport {
    /// One entry a kind, in the order of first appearance.
    pub kinds: Vec<SkippedKind>,
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
        match self.kinds.iter_mut().find(|known| known.kind == kind) {
            Some(known) => known.count += 1,
            None => self.kinds.push(SkippedKind { kind, count: 1, first: explain() }),
        }
    }

    /// Everything that was left out.
    pub fn total(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.count).sum()
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
             Close, Volume", path = .path.display())]
    UnknownLayout {
        /// The file.
        path: PathBuf,
        /// What stands where a header was expected.
        found: String,
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
        SourceSettings::Synthetic { users, zipf_exponent, seed } => {
            Box::new(synthetic::Synthetic::new(*users, *zipf_exponent, *seed)?)
        }
        SourceSettings::Yfinance { files, symbol, currency, users, seed } => {
            Box::new(yfinance::Yfinance::open(files, symbol.as_deref(), *currency, *users, *seed)?)
        }
    })
}

/// Users, at most: their numbers are spread by a distribution over floats, and 10^9 is more than cards exist.
pub const USERS_MAX: u64 = 1_000_000_000;

fn check_users(users: u64) -> Result<(), SourceError> {
    if (1..=USERS_MAX).contains(&users) {
        return Ok(());
    }
    Err(SourceError::Setting(format!("--users {users} is not within 1 to {USERS_MAX}")))
}

/// `user-000042`.
fn write_user_id(out: &mut String, number: u64) {
    use std::fmt::Write;
    out.clear();
    // Writing to a String cannot fail.
    let _ = write!(out, "user-{number:06}");
}
