//! CONTRACT SKETCH, to be replaced by the real modules with these names and signatures.
#![allow(unused_variables, clippy::todo, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

/// When an append counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync` (macOS: `F_FULLFSYNC`).
    Fsync,
    /// After the write to the page cache.
    Os,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub durability: Durability,
    /// The journal file is preallocated in steps of at most this.
    pub journal_bytes_max: u64,
}

/// A partition's limits; changed by topic configs at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionConfig {
    pub segment_bytes_max: u64,
    pub segment_age_ms_max: i64,
    /// None: no limit.
    pub retention_bytes: Option<u64>,
    pub retention_ms: Option<i64>,
    pub batch_bytes_max: u32,
    /// LogAppendTime: timestamp type, max timestamp and CRC are rewritten.
    pub log_append_time: bool,
    /// Compacted topics are not cut by retention.
    pub compacted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    pub topic_id: Uuid,
    pub partition: i32,
}

/// The opened log. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<()>);

#[derive(Clone)]
pub struct Partition(Arc<()>);

/// What start-up found, for one line on the terminal.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    pub partitions: usize,
    pub replayed_batches: u64,
    pub cut_bytes: u64,
    pub clean_stop: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("sketch")]
pub struct OpenError;

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("corrupt batch: {0}")]
    Corrupt(String),
    #[error("batch of {bytes} bytes is over the limit of {limit}")]
    TooLarge { bytes: usize, limit: u32 },
    #[error("unsupported record format (magic {0}); only magic 2 is stored")]
    UnsupportedMagic(i8),
    #[error("sequence {got} of producer {producer_id} is out of order; expected {expected}")]
    OutOfOrderSequence { producer_id: i64, expected: i32, got: i32 },
    #[error("producer {producer_id} epoch {got} is older than {known}")]
    InvalidProducerEpoch { producer_id: i64, known: i16, got: i16 },
    #[error("the partition is read-only: {0}")]
    Storage(String),
    #[error("deleted")]
    Deleted,
}

/// An accepted append. The answer may be given once `high_watermark >= last_offset + 1`.
#[derive(Clone, Debug)]
pub struct Appended {
    pub base_offset: i64,
    pub last_offset: i64,
    /// -1 unless LogAppendTime.
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    /// A recognised retry: nothing was written; offsets are those of the original.
    pub duplicate: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is outside of [{log_start}, {high_watermark}]")]
    OffsetOutOfRange { offset: i64, log_start: i64, high_watermark: i64 },
    #[error("cannot read the log: {0}")]
    Storage(String),
    #[error("deleted")]
    Deleted,
}

/// Whole raw batches, the first of which contains the offset asked for; empty when the offset is the high watermark.
#[derive(Clone, Debug)]
pub struct Read {
    pub batches: Bytes,
    pub high_watermark: i64,
    pub log_start_offset: i64,
}

impl Log {
    /// Opens or creates the log in `dir` (already locked by the caller), recovering by what was promised.
    /// Partitions that existed are open afterwards.
    pub fn open(dir: &Path, settings: LogSettings) -> Result<(Log, RecoveryReport), OpenError> {
        todo!()
    }
    /// Creates (or finds) a partition; its directory is `dir/<directory>` e.g. `finance.transactions-0`.
    pub fn create_partition(
        &self,
        id: PartitionId,
        directory: &str,
        config: PartitionConfig,
    ) -> Result<Partition, OpenError> {
        todo!()
    }
    pub fn partition(&self, id: PartitionId) -> Option<Partition> {
        todo!()
    }
    pub fn partitions(&self) -> Vec<(PartitionId, String)> {
        todo!()
    }
    /// Removes the partition durably; waiting readers wake with `Deleted`.
    pub async fn delete_partition(&self, id: PartitionId) -> Result<(), OpenError> {
        todo!()
    }
    /// Durable key-value state (topics, configs, groups, offsets, producer ids): shares the group commit.
    /// Resolves when all of the changes are durable (`Os`: when in the page cache). Applied atomically.
    pub async fn put_state(&self, changes: Vec<(Bytes, Option<Bytes>)>) -> Result<(), AppendError> {
        todo!()
    }
    /// All state entries whose key starts with `prefix`, sorted by key.
    pub fn state(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        todo!()
    }
    /// Rolls by age and cuts by retention; called every few seconds by the broker with the wall clock in ms.
    pub fn enforce_retention(&self, now_ms: i64) {
        todo!()
    }
    /// Bytes on disk of everything in `dir`.
    pub fn disk_bytes(&self) -> u64 {
        todo!()
    }
    /// Writes what waits, checkpoints, and marks a clean stop.
    pub async fn close(&self) -> Result<(), OpenError> {
        todo!()
    }
}

impl Partition {
    /// Validates (length, magic, CRC-32C, attributes, counts) and appends one or more concatenated batches, atomically
    /// as far as errors go: nothing is appended unless all batches are accepted. Sync; never blocks on the disk.
    /// `leader_epoch` is patched into the batches. `now_ms`: wall clock, for LogAppendTime.
    pub fn append(&self, batches: Bytes, leader_epoch: i32, now_ms: i64) -> Result<Appended, AppendError> {
        todo!()
    }
    /// Whole batches from the one that contains `offset`, up to the high watermark. At least one batch even if it is
    /// larger than `max_bytes` when `at_least_one`, else may be empty. Blocking file read (page cache).
    pub fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Result<Read, ReadError> {
        todo!()
    }
    pub fn high_watermark(&self) -> i64 {
        todo!()
    }
    pub fn log_start_offset(&self) -> i64 {
        todo!()
    }
    /// Moves whenever the high watermark moves; closed (sender dropped) when the partition is deleted or poisoned.
    pub fn watch_high_watermark(&self) -> watch::Receiver<i64> {
        todo!()
    }
    /// Resolves Ok when `high_watermark > last_offset`; Err when the partition is poisoned by a failed write or sync.
    pub async fn durable(&self, last_offset: i64) -> Result<(), AppendError> {
        todo!()
    }
    /// First offset whose batch max timestamp is >= `timestamp_ms`: (offset, timestamp) of the first record >= it.
    pub fn offset_for_timestamp(&self, timestamp_ms: i64) -> Result<Option<(i64, i64)>, ReadError> {
        todo!()
    }
    /// (offset, timestamp) of the record with the largest timestamp.
    pub fn offset_of_max_timestamp(&self) -> Result<Option<(i64, i64)>, ReadError> {
        todo!()
    }
    pub fn set_config(&self, config: PartitionConfig) {
        todo!()
    }
    /// Raises the log start (DeleteRecords); files wholly below it are removed.
    pub async fn delete_records_before(&self, offset: i64) -> Result<i64, ReadError> {
        todo!()
    }
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }
}
