//! What can go wrong, in words for people. Mapped to Kafka's error codes by the broker's handlers, not here.

use std::io;
use std::path::{Path, PathBuf};

/// Why the log, or one of its partitions, cannot be opened, created, deleted or closed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), cure(source))]
    Io {
        /// What was tried, e.g. "read".
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Something that was acknowledged is not readable any more.
    #[error(
        "{} is damaged at byte {position}: {what}. It was acknowledged, so it is not cut silently: restore the directory \
         from a backup, or move it away to start with an empty log", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// What was found there.
        what: String,
    },
    /// A file that must be there is not.
    #[error(
        "{} is missing, though {what}. Nothing is begun anew in its place: put it back, restore the directory from a \
         backup, or move it away to start with an empty log", path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// How that is known.
        what: String,
    },
    /// The name cannot be used for a partition's directory.
    #[error("cannot use {0:?} as a partition's directory: {1}")]
    Name(String, &'static str),
    /// The log does not accept changes now.
    #[error("the log does not accept changes: {0}")]
    Unavailable(String),
}

/// What a person can do about it, where the operating system's answer does not say.
fn cure(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::IsADirectory => {
            "; move this folder to another place, and if it took the place of a file, restore that file from a copy"
        }
        _ => "",
    }
}

impl OpenError {
    /// For `map_err` on an I/O call.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.to_owned();
        move |source| OpenError::Io { action, path, source }
    }

    pub(super) fn damaged(path: &Path, position: u64, what: impl Into<String>) -> OpenError {
        OpenError::Damaged { path: path.to_owned(), position, what: what.into() }
    }
}

fn others(count: usize) -> String {
    if count > 1 { format!("; so have {} others", count - 1) } else { String::new() }
}

/// Why an append or a change of the state was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The bytes are not whole batches, or not those that their CRC was made of.
    #[error("corrupt batch: {0}")]
    Corrupt(String),
    /// Larger than the partition's limit.
    #[error("batch of {bytes} bytes is over the topic's limit of {limit} (max.message.bytes)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The partition's `batch_bytes_max`.
        limit: u32,
    },
    /// An old message format.
    #[error("unsupported record format (magic {0}); only magic 2 is stored")]
    UnsupportedMagic(i8),
    /// An intact batch that contradicts itself, or holds what clients may not write or this topic does not take.
    #[error("{0}")]
    InvalidRecord(String),
    /// A compacted topic keeps the last record of a key: these, counted from 0, have none. Not all are named where there are
    /// very many.
    #[error(
        "record {} has no key, and the topic is compacted: it keeps the last record of a key{}",
        .0.first().copied().unwrap_or_default(), others(.0.len())
    )]
    KeylessRecords(Vec<i32>),
    /// A record's time is too far from now.
    #[error("record {index} has the timestamp {timestamp}; the topic takes {earliest} to {latest} now")]
    InvalidTimestamp {
        /// Which record of its batch.
        index: i64,
        /// Its timestamp.
        timestamp: i64,
        /// The earliest that is taken.
        earliest: i64,
        /// The latest that is taken.
        latest: i64,
    },
    /// A producer says that the broker has stamped its batch.
    #[error("a producer may not set the timestamp type LogAppendTime")]
    TimestampType,
    /// Neither the next sequence nor a known retry.
    #[error("sequence {got} of producer {producer_id} is out of order; expected {expected}")]
    OutOfOrderSequence {
        /// Who.
        producer_id: i64,
        /// The next sequence.
        expected: i32,
        /// The batch's base sequence.
        got: i32,
    },
    /// The producer was fenced by a newer one.
    #[error("producer {producer_id} epoch {got} is older than {known}")]
    InvalidProducerEpoch {
        /// Who.
        producer_id: i64,
        /// The newest epoch seen.
        known: i16,
        /// The batch's epoch.
        got: i16,
    },
    /// A transactional batch came from where no coordinator knows of a transaction.
    #[error("producer {producer_id} sent a transactional batch outside of any transaction")]
    OutsideOfTransaction {
        /// Who.
        producer_id: i64,
    },
    /// The batch does not fit the state of its producer's transaction.
    #[error("producer {producer_id} is not in the right state of a transaction: {what}")]
    InvalidTransaction {
        /// Who.
        producer_id: i64,
        /// What is wrong.
        what: &'static str,
    },
    /// A newer transaction coordinator has written before.
    #[error("the marker for producer {producer_id} is from coordinator epoch {got}, which is older than {known}")]
    CoordinatorFenced {
        /// Whose transaction.
        producer_id: i64,
        /// The newest coordinator epoch seen.
        known: i32,
        /// The marker's.
        got: i32,
    },
    /// Retriable: transactions must end before further producers can be remembered.
    #[error(
        "{open} producers have open transactions here, and no more than {limit} producers are remembered; try again"
    )]
    TooManyOpen {
        /// How many.
        open: usize,
        /// The bound.
        limit: usize,
    },
    /// A write or sync failed, the disk is full, or the log is closed; reads go on.
    #[error("the partition is read-only: {0}")]
    Storage(String),
    /// Retriable: more waits for the disk than may be held in memory.
    #[error("the disk is behind: {waiting_bytes} bytes wait to be written; try again")]
    Busy {
        /// What waits already.
        waiting_bytes: usize,
    },
    /// The partition is gone.
    #[error("the partition was deleted")]
    Deleted,
}

/// Why a read was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing is stored there (any more, or yet).
    #[error("offset {offset} is outside of [{log_start}, {high_watermark}]")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: i64,
        /// The first offset that may be read.
        log_start: i64,
        /// The end of what may be read.
        high_watermark: i64,
    },
    /// The file cannot be read.
    #[error("cannot read the log: {0}")]
    Storage(String),
    /// The partition is gone.
    #[error("the partition was deleted")]
    Deleted,
}
