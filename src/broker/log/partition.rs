//! One partition: gives offsets to what is appended, and says when it is durable.
//!
//! The front (next offset, producers as appended) runs ahead of the store (what is durable and readable); the writer
//! moves the one towards the other.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::arrivals::{Listeners, Readable};
use super::batch::{self, CheckedBatch, DoorRules, OFFSET_MAX, Transactional};
use super::disk::Disk;
use super::producer_state::ProducerStates;
use super::queue::{Completion, Origin, PendingBatch, Queue};
use super::records::{Change, PartitionRecord};
use super::store::Store;
use super::{AppendError, PartitionConfig, PartitionId, ReadError, lock};

/// Refusals that are remembered; only who waits right now asks for them.
const REFUSALS_MAX: usize = 1024;

/// What the end of a transaction counts as for those who wait for bytes: more than any of them asks for.
const RELEASED_BYTES: u64 = 1 << 30;

/// An accepted append. The answer may be given once [`Partition::durable`] says so.
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
    /// How often what waited had been refused before: tells it from what gets the same offsets later.
    pub(super) refusals: u64,
    /// The same of all partitions, when it was queued.
    pub(super) refusals_anywhere: u64,
}

/// What appends see and change.
pub(super) struct Front {
    next_offset: i64,
    pub producers: ProducerStates,
    config: PartitionConfig,
    /// How often what waited could not be written, and where the log ended each time, for the latest times. What lay
    /// behind was refused, and its offsets were given out again: a log without holes can be told from a torn one.
    refusals: u64,
    refused_from: VecDeque<i64>,
}

/// Where waiting tasks are woken; gone when the partition is deleted or poisoned.
pub(super) struct Watches {
    /// Who waits for bytes to read.
    pub listeners: Listeners,
    settled: watch::Sender<Settled>,
}

/// What became of appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settled {
    high_watermark: i64,
    refusals: u64,
}

pub(super) struct Inner {
    record: PartitionRecord,
    pub path: PathBuf,
    pub disk: Arc<dyn Disk>,
    queue: Arc<Queue>,
    pub(super) front: Mutex<Front>,
    pub store: Mutex<Store>,
    /// Held while files are removed by name, so that the directory is not given away meanwhile.
    pub names: Mutex<()>,
    pub watches: Mutex<Option<Watches>>,
    high_watermark: AtomicI64,
    last_stable_offset: AtomicI64,
    log_start: AtomicI64,
    held_from: AtomicI64,
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
        let (end, stable) = (store.end_offset, store.last_stable_offset());
        let front = Front {
            next_offset: end,
            producers: store.producers.clone(),
            config: record.config.clone(),
            refusals: 0,
            refused_from: VecDeque::new(),
        };
        let settled = Settled { high_watermark: end, refusals: 0 };
        let watches = Watches { listeners: Listeners::default(), settled: watch::Sender::new(settled) };
        Partition(Arc::new(Inner {
            record,
            path,
            disk,
            queue,
            front: Mutex::new(front),
            high_watermark: AtomicI64::new(end),
            last_stable_offset: AtomicI64::new(stable),
            log_start: AtomicI64::new(store.log_start),
            held_from: AtomicI64::new(i64::MAX),
            store: Mutex::new(store),
            names: Mutex::default(),
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
        let appended = self.enqueue(batches, leader_epoch, now_ms)?;
        self.wake_writer_for(&appended);
        Ok(appended)
    }

    /// As `append`, but nobody is told that something waits.
    pub(super) fn enqueue(&self, batches: Bytes, leader_epoch: i32, now_ms: i64) -> Result<Appended, AppendError> {
        self.check_and_append(batches, Transactional::Refused, Origin::Client, leader_epoch, now_ms)
    }

    pub(super) fn wake_writer_for(&self, appended: &Appended) {
        if !appended.duplicate {
            self.0.queue.wake_writer();
        }
    }

    pub(super) fn check_and_append(
        &self,
        batches: Bytes,
        transactional: Transactional,
        origin: Origin,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let checked = self.check(&batches, transactional, origin, now_ms)?;
        self.append_checked(checked, origin, leader_epoch, now_ms)
    }

    pub(super) fn check(
        &self,
        batches: &Bytes,
        transactional: Transactional,
        origin: Origin,
        now_ms: i64,
    ) -> Result<Vec<CheckedBatch>, AppendError> {
        let rules = DoorRules::of(&lock(&self.0.front).config, transactional, now_ms);
        // Whoever tries again while the disk is behind shall not have every byte checked each time.
        self.0.queue.has_room(batches.len(), origin)?;
        // The checks read every byte: not under the lock.
        batch::check_all(batches, &rules)
    }

    /// Gives batches that may be stored their offsets, and queues them for the writer, who is to be woken next.
    pub(super) fn append_checked(
        &self,
        mut checked: Vec<CheckedBatch>,
        origin: Origin,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let log_append_time = lock(&self.0.front).config.log_append_time;
        let log_append_time_ms = if log_append_time { now_ms } else { -1 };
        if log_append_time {
            checked.iter_mut().for_each(|batch| batch.stamp(now_ms));
        }
        let mut front = lock(&self.0.front);
        if self.0.deleted.load(Ordering::Acquire) {
            return Err(AppendError::Deleted);
        }
        let known = front.place(&mut checked, leader_epoch, now_ms)?;
        let (base_offset, last_offset, duplicate, refusals_anywhere) = match known {
            Some((base_offset, last_offset)) => (base_offset, last_offset, true, self.0.queue.refusals()),
            None => {
                let headers: Vec<_> = checked.iter().map(|batch| (batch.header, batch.marker())).collect();
                let pending = |batch| PendingBatch { partition: self.clone(), batch, now_ms, origin };
                let refusals = self.0.queue.push_batches(checked.into_iter().map(pending).collect(), origin)?;
                let base_offset = front.next_offset;
                for (header, marker) in &headers {
                    front.producers.apply(header, *marker, now_ms);
                    front.next_offset = header.last_offset() + 1;
                }
                (base_offset, front.next_offset - 1, false, refusals)
            }
        };
        let refusals = front.refusals;
        drop(front);
        Ok(Appended {
            base_offset,
            last_offset,
            log_append_time_ms,
            log_start_offset: self.log_start_offset(),
            duplicate,
            refusals,
            refusals_anywhere,
        })
    }

    /// The end of what is durable and may be read.
    pub fn high_watermark(&self) -> i64 {
        self.0.high_watermark.load(Ordering::Acquire)
    }

    /// The end of what a reader of committed records may read: the first offset of the oldest open transaction, or the
    /// high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        self.0.last_stable_offset.load(Ordering::Acquire)
    }

    /// Retention removes nothing from this offset on, until it is told another one or the log is opened anew.
    pub fn hold_from(&self, offset: i64) {
        self.0.held_from.store(offset, Ordering::Release);
    }

    /// See [`Self::hold_from`]; without a hold, beyond every record.
    pub(super) fn held_from(&self) -> i64 {
        self.0.held_from.load(Ordering::Acquire)
    }

    /// The first offset that may be read.
    pub fn log_start_offset(&self) -> i64 {
        self.0.log_start.load(Ordering::Acquire)
    }

    /// Resolves Ok when what was appended is durable, and can be read.
    ///
    /// # Errors
    /// `Storage` when that will not be: a write or sync failed, or the disk was full. `Deleted` likewise.
    pub async fn durable(&self, appended: &Appended) -> Result<(), AppendError> {
        let mut settled = match &*lock(&self.0.watches) {
            Some(watches) => watches.settled.subscribe(),
            None => return self.durable_without_watch(appended),
        };
        let is_settled =
            |settled: &Settled| settled.high_watermark > appended.last_offset || settled.refusals > appended.refusals;
        match settled.wait_for(is_settled).await {
            Ok(_) => self.check_refused(appended),
            Err(_) => self.durable_without_watch(appended),
        }
    }

    fn durable_without_watch(&self, appended: &Appended) -> Result<(), AppendError> {
        if self.0.deleted.load(Ordering::Acquire) {
            return Err(AppendError::Deleted);
        }
        if self.high_watermark() > appended.last_offset {
            return self.check_refused(appended);
        }
        let why = self.0.queue.poisoned().unwrap_or("the log is closed");
        Err(AppendError::Storage(why.to_owned()))
    }

    /// The first refusal after an append decides about it.
    fn check_refused(&self, appended: &Appended) -> Result<(), AppendError> {
        let front = lock(&self.0.front);
        let later = front.refusals - appended.refusals;
        let first = front.refused_from.len().checked_sub(usize::try_from(later).unwrap_or(usize::MAX));
        // Whoever waited through more of them than are remembered tries again, and is recognised if it was stored.
        let refused_from = first.map_or(Some(i64::MIN), |first| front.refused_from.get(first).copied());
        if refused_from.is_some_and(|from| appended.last_offset >= from) {
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
        let (end, stable) = {
            let store = lock(&self.0.store);
            self.0.log_start.store(store.log_start, Ordering::Release);
            (store.end_offset, store.last_stable_offset())
        };
        // In this order: who reads the last stable offset first never finds it beyond the high watermark.
        let end_before = self.0.high_watermark.swap(end, Ordering::AcqRel);
        let stable_before = self.0.last_stable_offset.swap(stable, Ordering::AcqRel);
        let (end_moved, stable_moved) = (end != end_before, stable != stable_before);
        if !end_moved && !stable_moved {
            return;
        }
        // The end of a transaction makes readable what came long before.
        let was_held_back = stable_before < end_before;
        let released = if was_held_back { bytes.saturating_add(RELEASED_BYTES) } else { bytes };
        let came = Readable { uncommitted: end_moved.then_some(bytes), committed: stable_moved.then_some(released) };
        let enough = match &*lock(&self.0.watches) {
            Some(watches) => {
                if end_moved {
                    watches.settled.send_modify(|settled| settled.high_watermark = end);
                }
                watches.listeners.count(came)
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

    /// The disk is full and nothing of what waited was written: appends go on from what is durable.
    pub(super) fn refuse_waiting(&self) {
        let mut front = lock(&self.0.front);
        let (end, producers) = {
            let store = lock(&self.0.store);
            (store.end_offset, store.producers.clone())
        };
        if front.next_offset <= end {
            return;
        }
        front.next_offset = end;
        front.producers = producers;
        front.refusals += 1;
        front.refused_from.push_back(end);
        if front.refused_from.len() > REFUSALS_MAX {
            front.refused_from.pop_front();
        }
        let settled = Settled { high_watermark: end, refusals: front.refusals };
        drop(front);
        if let Some(watches) = &*lock(&self.0.watches) {
            watches.settled.send_replace(settled);
        }
    }

    /// Wakes everyone who waits for something that will not come.
    pub(super) fn close_watches(&self) {
        lock(&self.0.watches).take();
    }

    /// By the writer, once the deletion is durable.
    pub(super) fn mark_deleted(&self) {
        {
            let _names = lock(&self.0.names);
            // Under the lock of appends: none is on its way to the queue afterwards.
            let _front = lock(&self.0.front);
            self.0.deleted.store(true, Ordering::Release);
        }
        self.close_watches();
    }

    /// Forgets producers that were silent for long.
    pub(super) fn expire_producers(&self, now_ms: i64, silent_ms_max: i64) {
        lock(&self.0.front).producers.expire(now_ms, silent_ms_max);
        lock(&self.0.store).producers.expire(now_ms, silent_ms_max);
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
        self.producers.check_room(batches.iter().map(|batch| &batch.header))?;
        let mut originals: Option<(i64, i64)> = None;
        let mut next_offset = self.next_offset;
        // Later batches of one append build on the earlier ones, none of which counts before all are accepted.
        let several = batches.len() > 1;
        let mut tried = several.then(|| self.producers.only(batches.iter().map(|batch| &batch.header)));
        for (index, batch) in batches.iter_mut().enumerate() {
            let producers = tried.as_ref().unwrap_or(&self.producers);
            match producers.check(&batch.header, batch.marker())? {
                Some(original) if index == 0 || originals.is_some() => {
                    let base_offset = originals.map_or(original.base_offset, |(base, _)| base);
                    originals = Some((base_offset, original.last_offset));
                }
                None if originals.is_none() => {
                    batch.place(next_offset, leader_epoch);
                    if batch.header.last_offset() >= OFFSET_MAX {
                        return Err(AppendError::Storage("it has no offsets left".to_owned()));
                    }
                    next_offset = batch.header.last_offset() + 1;
                    if let Some(tried) = &mut tried {
                        tried.apply(&batch.header, batch.marker(), now_ms);
                    }
                }
                _ => return Err(AppendError::InvalidRecord("an append mixes retries with new batches".to_owned())),
            }
        }
        Ok(originals)
    }
}
