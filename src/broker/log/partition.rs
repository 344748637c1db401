//! One partition: gives offsets to what is appended, and says when it is durable.
//!
//! The front (next offset, producers as appended) runs ahead of the store (what is durable and readable); the writer
//! moves the one towards the other.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::arrivals::Listeners;
use super::batch::{self, CheckedBatch};
use super::disk::Disk;
use super::producer_state::ProducerStates;
use super::queue::{Completion, PendingBatch, Queue};
use super::records::{Change, PartitionRecord};
use super::store::Store;
use super::{AppendError, PartitionConfig, PartitionId, ReadError, lock};

/// Ranges of refused offsets that are remembered; only who waits right now asks for them.
const REFUSED_RANGES_MAX: usize = 1024;

/// An accepted append. The answer may be given once `high_watermark >= last_offset + 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// -1 unless LogAppendTime.
    pub log_append_time_ms: i64,
    /// The first offset that may be read.
    pub log_start_offset: i64,
    /// A recognised retry: nothing was written; offsets are those of the original.
    pub duplicate: bool,
}

/// What appends see and change.
struct Front {
    next_offset: i64,
    producers: ProducerStates,
    config: PartitionConfig,
    /// `[from, to)`: got offsets, but could not be written. These offsets are never given out again.
    refused: Vec<(i64, i64)>,
}

/// Where waiting tasks are woken; gone when the partition is deleted or poisoned.
pub(super) struct Watches {
    /// Who waits for bytes to read.
    pub listeners: Listeners,
    /// Everything below is durable or refused.
    settled: watch::Sender<i64>,
}

pub(super) struct Inner {
    record: PartitionRecord,
    pub path: PathBuf,
    pub disk: Arc<dyn Disk>,
    queue: Arc<Queue>,
    front: Mutex<Front>,
    pub store: Mutex<Store>,
    pub watches: Mutex<Option<Watches>>,
    high_watermark: AtomicI64,
    log_start: AtomicI64,
    deleted: AtomicBool,
}

/// An open partition. Cheap to clone.
#[derive(Clone)]
pub struct Partition(pub(super) Arc<Inner>);

impl std::fmt::Debug for Partition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Partition").field(&self.0.record.directory).finish()
    }
}

impl Partition {
    pub(super) fn new(
        record: PartitionRecord,
        path: PathBuf,
        disk: Arc<dyn Disk>,
        queue: Arc<Queue>,
        store: Store,
    ) -> Partition {
        let end = store.end_offset;
        let front = Front {
            next_offset: end,
            producers: store.producers.clone(),
            config: record.config.clone(),
            refused: Vec::new(),
        };
        let watches = Watches { listeners: Listeners::default(), settled: watch::Sender::new(end) };
        Partition(Arc::new(Inner {
            record,
            path,
            disk,
            queue,
            front: Mutex::new(front),
            high_watermark: AtomicI64::new(end),
            log_start: AtomicI64::new(store.log_start),
            store: Mutex::new(store),
            watches: Mutex::new(Some(watches)),
            deleted: AtomicBool::new(false),
        }))
    }

    pub(super) fn number(&self) -> u64 {
        self.0.record.number
    }

    /// Whose partition this is.
    pub fn id(&self) -> PartitionId {
        self.0.record.id
    }

    /// The name of its directory.
    pub fn directory(&self) -> &str {
        &self.0.record.directory
    }

    /// As it is told in a checkpoint, with the config as it is now.
    pub(super) fn record(&self) -> PartitionRecord {
        PartitionRecord { config: self.config(), ..self.0.record.clone() }
    }

    /// Validates (length, magic, CRC-32C, attributes, counts) and appends one or more concatenated batches, atomically
    /// as far as errors go: nothing is appended unless all batches are accepted. Sync; never blocks on the disk.
    /// `leader_epoch` is patched into the batches. `now_ms`: wall clock, for LogAppendTime, ages and retention.
    ///
    /// # Errors
    /// Offsets and producer state are untouched then. `Busy` and a full disk's `Storage` are worth a retry.
    pub fn append(&self, batches: Bytes, leader_epoch: i32, now_ms: i64) -> Result<Appended, AppendError> {
        let (batch_bytes_max, log_append_time) = {
            let front = lock(&self.0.front);
            (front.config.batch_bytes_max, front.config.log_append_time)
        };
        // Whoever tries again while the disk is behind shall not have every byte checked each time.
        self.0.queue.has_room(batches.len())?;
        // The checks read every byte: not under the lock.
        let mut checked = batch::check_all(&batches, batch_bytes_max)?;
        let log_append_time_ms = if log_append_time { now_ms } else { -1 };
        if log_append_time {
            checked.iter_mut().for_each(|batch| batch.stamp(now_ms));
        }
        let mut front = lock(&self.0.front);
        if self.0.deleted.load(Ordering::Acquire) {
            return Err(AppendError::Deleted);
        }
        let known = front.place(&mut checked, leader_epoch, now_ms)?;
        let (base_offset, last_offset, duplicate) = match known {
            Some((base_offset, last_offset)) => (base_offset, last_offset, true),
            None => {
                let headers: Vec<_> = checked.iter().map(|batch| batch.header).collect();
                let pending = checked.into_iter().map(|batch| PendingBatch { partition: self.clone(), batch, now_ms });
                self.0.queue.push_batches(pending.collect())?;
                let base_offset = front.next_offset;
                for header in &headers {
                    front.producers.apply(header, now_ms);
                    front.next_offset = header.last_offset() + 1;
                }
                (base_offset, front.next_offset - 1, false)
            }
        };
        drop(front);
        if !duplicate {
            self.0.queue.wake_writer();
        }
        let log_start_offset = self.log_start_offset();
        Ok(Appended { base_offset, last_offset, log_append_time_ms, log_start_offset, duplicate })
    }

    /// The end of what is durable and may be read.
    pub fn high_watermark(&self) -> i64 {
        self.0.high_watermark.load(Ordering::Acquire)
    }

    /// The first offset that may be read.
    pub fn log_start_offset(&self) -> i64 {
        self.0.log_start.load(Ordering::Acquire)
    }

    /// Resolves Ok when `high_watermark > last_offset`.
    ///
    /// # Errors
    /// `Storage` when that will not be: a write or sync failed, or the disk was full. `Deleted` likewise.
    pub async fn durable(&self, last_offset: i64) -> Result<(), AppendError> {
        let mut settled = match &*lock(&self.0.watches) {
            Some(watches) => watches.settled.subscribe(),
            None => return self.durable_without_watch(last_offset),
        };
        match settled.wait_for(|settled| *settled > last_offset).await {
            Ok(_) => self.check_refused(last_offset),
            Err(_) => self.durable_without_watch(last_offset),
        }
    }

    fn durable_without_watch(&self, last_offset: i64) -> Result<(), AppendError> {
        if self.0.deleted.load(Ordering::Acquire) {
            return Err(AppendError::Deleted);
        }
        if self.high_watermark() > last_offset {
            return self.check_refused(last_offset);
        }
        let why = self.0.queue.poisoned().unwrap_or("the log is closed");
        Err(AppendError::Storage(why.to_owned()))
    }

    fn check_refused(&self, last_offset: i64) -> Result<(), AppendError> {
        let front = lock(&self.0.front);
        if front.refused.iter().any(|&(from, to)| (from..to).contains(&last_offset)) {
            return Err(AppendError::Storage(
                "it could not be written, because the disk was full or no file could be opened; try again".to_owned(),
            ));
        }
        Ok(())
    }

    /// Its limits.
    pub fn config(&self) -> PartitionConfig {
        lock(&self.0.front).config.clone()
    }

    /// Changes its limits. They hold at once, and survive a restart from the next checkpoint on.
    pub fn set_config(&self, config: PartitionConfig) {
        lock(&self.0.front).config = config;
    }

    /// Raises the log start (DeleteRecords), durably; files wholly below it are removed. Returns the log start then.
    ///
    /// # Errors
    /// `OffsetOutOfRange` for an offset that is negative or beyond the high watermark.
    pub async fn delete_records_before(&self, offset: i64) -> Result<i64, ReadError> {
        self.check_deleted()?;
        let (log_start, high_watermark) = (self.log_start_offset(), self.high_watermark());
        if offset < 0 || offset > high_watermark {
            return Err(ReadError::OffsetOutOfRange { offset, log_start, high_watermark });
        }
        if offset > log_start {
            let (sender, receiver) = oneshot::channel();
            self.0.queue.push_change(Change::LogStart(self.clone(), offset), Completion::Task(sender));
            let gone = || AppendError::Storage("the log is closed".to_owned());
            match receiver.await.unwrap_or_else(|_| Err(gone())) {
                Ok(()) => {}
                Err(AppendError::Deleted) => return Err(ReadError::Deleted),
                Err(other) => return Err(ReadError::Storage(other.to_string())),
            }
        }
        Ok(self.log_start_offset())
    }

    /// Bytes of all its segments.
    pub fn size_bytes(&self) -> u64 {
        lock(&self.0.store).size_bytes()
    }

    pub(super) fn check_deleted(&self) -> Result<(), ReadError> {
        if self.0.deleted.load(Ordering::Acquire) { Err(ReadError::Deleted) } else { Ok(()) }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.0.deleted.load(Ordering::Acquire)
    }

    /// Lets everyone see what the store holds now, `bytes` more than before. By the writer.
    pub(super) fn publish(&self, bytes: u64) {
        let end = {
            let store = lock(&self.0.store);
            self.0.log_start.store(store.log_start, Ordering::Release);
            store.end_offset
        };
        if self.0.high_watermark.swap(end, Ordering::AcqRel) == end {
            return;
        }
        let enough = match &*lock(&self.0.watches) {
            Some(watches) => {
                watches.settled.send_replace(end);
                watches.listeners.count(bytes)
            }
            None => Vec::new(),
        };
        // Not under the lock, which they take next.
        enough.iter().for_each(|arrivals| arrivals.wake());
    }

    /// After recovery has stored batches without `append`: appends go on behind them.
    pub(super) fn catch_up(&self) {
        let mut front = lock(&self.0.front);
        let store = lock(&self.0.store);
        front.next_offset = store.end_offset;
        front.producers = store.producers.clone();
    }

    /// The disk is full and nothing of what waited was written: appends go on from what is durable, at new offsets.
    pub(super) fn refuse_waiting(&self) {
        let mut front = lock(&self.0.front);
        let (end, producers) = {
            let store = lock(&self.0.store);
            (store.end_offset, store.producers.clone())
        };
        if front.next_offset <= end {
            return;
        }
        let next_offset = front.next_offset;
        front.producers = producers;
        match front.refused.last_mut() {
            Some(last) if last.0 == end => last.1 = next_offset,
            _ => front.refused.push((end, next_offset)),
        }
        if front.refused.len() > REFUSED_RANGES_MAX {
            front.refused.remove(0);
        }
        drop(front);
        if let Some(watches) = &*lock(&self.0.watches) {
            watches.settled.send_replace(next_offset);
        }
    }

    /// Wakes everyone who waits for something that will not come.
    pub(super) fn close_watches(&self) {
        lock(&self.0.watches).take();
    }

    /// By the writer, once the deletion is durable.
    pub(super) fn mark_deleted(&self) {
        {
            // Under the lock of appends: none is on its way to the queue afterwards.
            let _front = lock(&self.0.front);
            self.0.deleted.store(true, Ordering::Release);
        }
        self.close_watches();
    }

    /// Forgets producers that were silent for long.
    pub(super) fn expire_producers(&self, now_ms: i64) {
        lock(&self.0.front).producers.expire(now_ms);
        lock(&self.0.store).producers.expire(now_ms);
    }
}

impl Front {
    /// Gives the batches their offsets, or finds that all of them are stored already: first and last offset then.
    fn place(
        &self,
        batches: &mut [CheckedBatch],
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Option<(i64, i64)>, AppendError> {
        let mut originals: Option<(i64, i64)> = None;
        let mut next_offset = self.next_offset;
        // Later batches of one append build on the earlier ones, none of which counts before all are accepted.
        let several = batches.len() > 1;
        let mut tried = several.then(|| self.producers.only(batches.iter().map(|batch| &batch.header)));
        for (index, batch) in batches.iter_mut().enumerate() {
            let producers = tried.as_ref().unwrap_or(&self.producers);
            match producers.check(&batch.header)? {
                Some(original) if index == 0 || originals.is_some() => {
                    let base_offset = originals.map_or(original.base_offset, |(base, _)| base);
                    originals = Some((base_offset, original.last_offset));
                }
                None if originals.is_none() => {
                    batch.place(next_offset, leader_epoch);
                    next_offset = batch.header.last_offset() + 1;
                    if let Some(tried) = &mut tried {
                        tried.apply(&batch.header, now_ms);
                    }
                }
                _ => return Err(AppendError::Corrupt("an append mixes retries with new batches".to_owned())),
            }
        }
        Ok(originals)
    }
}
