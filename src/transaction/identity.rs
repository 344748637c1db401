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
    let mut out = String::new();
    write_derived_transaction_id(&mut out, id);
    out
}

/// The message of `run` that an id is derived from, if it is; written without an allocation, as it is asked for each message.
pub fn derived_from(transaction_id: &str, run: RunId) -> Option<i64> {
    let mut text = uuid::Uuid::encode_buffer();
    let sequence = transaction_id.strip_prefix(&*run.0.hyphenated().encode_lower(&mut text))?.strip_prefix('-')?;
    // As it is written: no sign, no zeros in front.
    let is_plain =
        sequence.bytes().all(|byte| byte.is_ascii_digit()) && (sequence == "0" || !sequence.starts_with('0'));
    if is_plain { sequence.parse().ok() } else { None }
}

/// The same into a buffer, whose content is replaced.
pub fn write_derived_transaction_id(out: &mut String, id: MessageId) {
    out.clear();
    out.push_str(id.run.0.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
    out.push('-');
    out.push_str(itoa::Buffer::new().format(id.sequence));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_derived_only_when_the_views_would_derive_the_same() {
        let run = RunId(uuid::Uuid::from_u128(0xABCDEF));
        let derived = derived_transaction_id(MessageId { run, sequence: 42 });
        assert_eq!(derived_from(&derived, run), Some(42));
        assert_eq!(derived_from(&derived_transaction_id(MessageId { run, sequence: 0 }), run), Some(0));
        assert_eq!(derived_from(&derived, RunId(uuid::Uuid::from_u128(0xABCDEE))), None);
        let others = ["42", "042", "+42", "-42", "", " 42", "4 2", "00", "99999999999999999999"];
        for other in others.map(|sequence| format!("{run}-{sequence}")).iter().skip(1).chain([&derived.to_uppercase()])
        {
            assert_eq!(derived_from(other, run), None, "{other}");
        }
    }
}
