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
    /// Earlier records are refused, in milliseconds before now. `i64::MAX`: no limit.
    pub timestamp_before_ms_max: i64,
    /// Later records are refused, in milliseconds after now. `i64::MAX`: no limit.
    pub timestamp_after_ms_max: i64,
    /// Set: of each key only the last record is kept. None: retention alone removes records.
    pub compaction: Option<Compaction>,
}

impl PartitionConfig {
    /// Whether retention by time and bytes holds.
    pub fn is_cut_by_retention(&self) -> bool {
        self.compaction.is_none_or(|compaction| compaction.and_retention)
    }
}

/// How a partition is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Retention by time and bytes holds as well (`cleanup.policy=compact,delete`).
    pub and_retention: bool,
    /// How long a tombstone stays after compaction has met it first.
    pub delete_retention_ms: i64,
    /// What was appended more recently stays as it is.
    pub lag_ms_min: i64,
    /// What was appended longer ago is compacted, however little there is to clean.
    pub lag_ms_max: i64,
    /// Compacted from this share of bytes on that were not compacted yet, in millionths.
    pub dirty_ppm_min: u32,
}

impl Default for Compaction {
    /// Apache Kafka's defaults.
    fn default() -> Self {
        Compaction {
            and_retention: false,
            delete_retention_ms: 24 * 3600 * 1000,
            lag_ms_min: 0,
            lag_ms_max: i64::MAX,
            dirty_ppm_min: 500_000,
        }
    }
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
