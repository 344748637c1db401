//! May a partition go on where PostgreSQL says? Decided from what the log holds now.

use std::fmt;

use super::streams::PartitionProgress;

/// The offsets that a partition's log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRange {
    /// Of the first record kept.
    pub start: i64,
    /// Of the next record to be written.
    pub end: i64,
}

/// How a partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Read on from here; nothing was applied before that could be compared.
    At(i64),
    /// Read from `from`: that record was the last one applied, and must have this fingerprint; do not apply it again.
    Verify { from: i64, fingerprint: Vec<u8> },
    /// The last applied record was retired after it was counted: read on from here, and say so.
    Retired(i64),
}

/// The log is not the one that was applied, or has lost what was not applied yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub topic: String,
    pub partition: i32,
    pub next_offset: i64,
    pub log: LogRange,
    pub reason: Reason,
    /// Where the log goes on with what is not in the totals, as far as is known: the log's start at least.
    pub go_on_at: i64,
}

/// What is wrong with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The log starts behind `next_offset`.
    Cut,
    /// The log ends before `next_offset`.
    EndsBefore,
    /// The record before `next_offset` is another one.
    OtherRecord,
    /// There is no record before `next_offset`, though the log starts lower.
    NoRecord,
    /// The topic got another id while it was read.
    Recreated,
    /// A record came with an offset that is behind: a batch before it held more records than it said.
    Backward { offset: i64 },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { topic, partition, next_offset, log, reason, go_on_at } = self;
        let LogRange { start, end } = log;
        write!(
            formatter,
            "{topic} partition {partition}: PostgreSQL has applied everything before offset {next_offset}, "
        )?;
        match reason {
            Reason::Cut => write!(
                formatter,
                "but the log now starts at {start}: {} offsets were deleted (retention?) before they were applied",
                start - next_offset
            )?,
            Reason::EndsBefore => {
                write!(formatter, "but the log ends at {end}: the topic was recreated, or the log has lost records")?;
            }
            Reason::OtherRecord => write!(
                formatter,
                "but the record at {} is not the one that was applied: the topic was recreated (log {start} to {end})",
                next_offset - 1
            )?,
            Reason::NoRecord => write!(
                formatter,
                "but there is no record at {} any more (log {start} to {end}): the topic was recreated, or compacted",
                next_offset - 1
            )?,
            Reason::Recreated => write!(
                formatter,
                "but the topic was deleted and created anew meanwhile (log {start} to {end}), so its offsets mean other \
                 records now"
            )?,
            Reason::Backward { offset } => write!(
                formatter,
                "but another record came with offset {offset}: a batch in the log holds more records than it says (log \
                 {start} to {end})"
            )?,
        }
        let from = if go_on_at > start { "behind what is in the totals already" } else { "from the log's start" };
        write!(
            formatter,
            ". Nothing was skipped. To go on {from}, on record, type: finstream reset --topic {topic} --partition \
             {partition} --to {go_on_at} --accept-loss"
        )
    }
}

/// Compares a partition's progress with its log.
///
/// # Errors
/// [`Mismatch`] when going on would skip records or count another topic's.
pub fn resume(topic: &str, progress: &PartitionProgress, log: LogRange) -> Result<Resume, Box<Mismatch>> {
    let next_offset = progress.next_offset;
    let mismatch = |reason| {
        let partition = progress.partition;
        Err(Box::new(Mismatch { topic: topic.to_owned(), partition, next_offset, log, reason, go_on_at: log.start }))
    };
    if log.start > next_offset {
        return mismatch(Reason::Cut);
    }
    if log.end < next_offset {
        return mismatch(Reason::EndsBefore);
    }
    match &progress.fingerprint {
        None => Ok(Resume::At(next_offset)),
        Some(_) if log.start == next_offset => Ok(Resume::Retired(next_offset)),
        Some(fingerprint) => Ok(Resume::Verify { from: next_offset - 1, fingerprint: fingerprint.clone() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(next_offset: i64, fingerprint: Option<&[u8]>, start: i64, end: i64) -> Result<Resume, Reason> {
        let progress = PartitionProgress { partition: 3, next_offset, fingerprint: fingerprint.map(<[u8]>::to_vec) };
        resume("t", &progress, LogRange { start, end }).map_err(|mismatch| mismatch.reason)
    }

    #[test]
    fn what_was_applied_last_is_compared_before_going_on() {
        assert_eq!(at(10, Some(b"f"), 0, 10), Ok(Resume::Verify { from: 9, fingerprint: b"f".to_vec() }));
        assert_eq!(at(0, None, 0, 0), Ok(Resume::At(0)));
    }

    #[test]
    fn a_record_retired_after_it_was_counted_is_no_loss() {
        assert_eq!(at(10, Some(b"f"), 10, 12), Ok(Resume::Retired(10)));
    }

    #[test]
    fn a_log_that_starts_behind_or_ends_before_stops_with_the_cure() {
        assert_eq!(at(10, Some(b"f"), 11, 12), Err(Reason::Cut));
        assert_eq!(at(10, None, 11, 12), Err(Reason::Cut));
        assert_eq!(at(10, Some(b"f"), 0, 9), Err(Reason::EndsBefore));
        let progress = PartitionProgress { partition: 3, next_offset: 10, fingerprint: None };
        let text = resume("t", &progress, LogRange { start: 11, end: 12 }).unwrap_err().to_string();
        assert!(text.ends_with("finstream reset --topic t --partition 3 --to 11 --accept-loss"), "{text}");
    }
}
