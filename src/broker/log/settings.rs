//! What the log is told from outside: durability, sizes, a partition's limits and names.

use uuid::Uuid;

/// When an append counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync` (macOS: `F_FULLFSYNC`).
    Fsync,
    /// After the write to the page cache.
    Os,
}

/// Settings of the whole log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// When an append counts as done.
    pub durability: Durability,
    /// Size of one journal file; it is preallocated in one step of at most this.
    pub journal_bytes_max: u64,
}

/// A partition's limits; changed by topic configs at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionConfig {
    /// A segment is closed before it grows beyond this.
    pub segment_bytes_max: u64,
    /// A segment is closed when its first batch was appended longer ago than this.
    pub segment_age_ms_max: i64,
    /// None: no limit.
    pub retention_bytes: Option<u64>,
    /// Closed segments whose last batch was appended longer ago are removed. None: no limit.
    pub retention_ms: Option<i64>,
    /// A larger batch is refused.
    pub batch_bytes_max: u32,
    /// LogAppendTime: timestamp type, max timestamp and CRC are rewritten.
    pub log_append_time: bool,
    /// Compacted topics are not cut by retention.
    pub compacted: bool,
}

/// A partition of a topic, in one life of that topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic's id; a recreated topic has another one.
    pub topic_id: Uuid,
    /// The partition's number, from 0.
    pub partition: i32,
}

/// What start-up found, for one line on the terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Partitions that are open.
    pub partitions: usize,
    /// Batches that the last checkpoint did not hold yet.
    pub replayed_batches: u64,
    /// Bytes cut off: never acknowledged (`fsync`), or torn (`os`).
    pub cut_bytes: u64,
    /// The last life ended with `close`.
    pub clean_stop: bool,
}
