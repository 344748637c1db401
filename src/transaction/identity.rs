//! Who a message is: the run that sent it and its place in that run. Both travel in the message's headers.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Header with the run's UUID in its hyphenated text form.
pub const HEADER_RUN: &str = "finstream-run";
/// Header with the sequence in decimal text, from 0.
pub const HEADER_SEQUENCE: &str = "finstream-sequence";
/// Header with [`RunInfo`] as JSON. The client chooses partitions, so the first 64 messages of a run carry it, and then
/// every 10,000th, for a partition that got none of those.
pub const HEADER_RUN_INFO: &str = "finstream-run-info";

/// One start of a producer; UUID v7 unless the user fixed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

/// The identity by which the audit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    /// The run.
    pub run: RunId,
    /// From 0, without gaps.
    pub sequence: i64,
}

/// What a run says about itself; fills a row of the table `runs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// RFC 3339.
    pub started_at: String,
    /// The command line, secrets redacted.
    pub command: String,
    /// Such as `synthetic` or `yfinance:prices.csv`.
    pub source: String,
    /// Such as `1000/s constant` or `max`.
    pub rate: String,
    /// Of the synthetic source.
    pub seed: Option<i64>,
    /// `fsync`, `os` or `external`.
    pub durability: String,
    /// finstream's version.
    pub version: String,
}

/// The transaction id of a synthetic message: `RUN-SEQUENCE`. The SQL views derive it in the same way, so that it is
/// not stored a second time.
pub fn derived_transaction_id(id: MessageId) -> String {
    format!("{}-{}", id.run, id.sequence)
}
