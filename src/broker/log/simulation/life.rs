//! One life of the log on a simulated disk: opened, worked with, and ended, all on one thread.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use bytes::Bytes;
use futures_util::FutureExt;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use uuid::Uuid;

use super::super::batch::TRANSACTIONAL_BIT;
use super::super::core::Core;
use super::super::housekeeper::{self, Job};
use super::super::journal::Journal;
use super::super::partition::{Appended, Partition};
use super::super::queue::{Completion, Taken};
use super::super::records::{Change, PartitionRecord};
use super::super::{
    AppendError, Compaction, Durability, EndTransaction, LogSettings, Marker, PartitionConfig, PartitionId, checkpoint,
    compaction, read_lock, recovery, retention, shortcut, writer,
};
use super::batches::{Content, batch, stored};
use super::clients::{Clients, PRODUCERS, Sent};
use super::model::{Model, Said, Violation};
use super::partition_model::PartitionModel;
use super::sim_disk::SimDisk;

pub(super) const DIRECTORY: &str = "/data/broker";
const SLOTS: usize = 4;
/// Some batches are part of transactions there.
const TRANSACTIONAL: [usize; 2] = [1, 3];
const COMPACTED: [usize; 2] = [2, 3];
const KEYS: u8 = 6;
const CLOCK_JUMP_MS: i64 = 1_000_000;
/// Small enough that files roll and are used again within a short life.
const JOURNAL_BYTES: u64 = 8 * 1024;
const SEGMENT_BYTES: u64 = 1500;
const VALUE_BYTES_MAX: usize = 700;
/// Rounds of the writer without a checkpoint: it must never have to wait for one, there is only one thread.
const ROUNDS_MAX: usize = 6;

type Answer = Receiver<Result<(), AppendError>>;

/// What waits for an answer.
enum Asked {
    Create(PartitionId),
    Delete(PartitionId),
    LogStart(PartitionId, i64),
    State(usize, bool),
}

/// A log that is open, without its threads.
pub(super) struct Opened {
    pub core: Arc<Core>,
    jobs: Receiver<Job>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        // What waits holds its partition, which holds the queue.
        self.core.queue.clear();
    }
}

pub(super) fn open(disk: &SimDisk, durability: Durability) -> Result<Opened, Violation> {
    let settings = LogSettings { durability, journal_bytes_max: JOURNAL_BYTES };
    let (sender, jobs) = mpsc::channel();
    let opened = recovery::recover(Arc::new(disk.clone()), DIRECTORY.as_ref(), settings, sender);
    let (core, _) = opened.map_err(|error| format!("the log does not open: {error}"))?;
    Ok(Opened { core, jobs })
}

/// Slot 0 takes plain batches, slot 1 transactions as well, slot 2 is compacted, slot 3 is both.
fn config(slot: usize) -> PartitionConfig {
    let compaction = Compaction { delete_retention_ms: CLOCK_JUMP_MS / 2, dirty_ppm_min: 0, ..Compaction::default() };
    PartitionConfig {
        segment_bytes_max: SEGMENT_BYTES,
        segment_age_ms_max: i64::MAX,
        retention_bytes: Some(3 * SEGMENT_BYTES),
        retention_ms: None,
        batch_bytes_max: 1 << 20,
        log_append_time: false,
        compaction: COMPACTED.contains(&slot).then_some(compaction),
        timestamp_before_ms_max: i64::MAX,
        timestamp_after_ms_max: i64::MAX,
    }
}

/// A life in progress.
pub(super) struct Life<'a> {
    disk: &'a SimDisk,
    core: &'a Arc<Core>,
    journal: Journal<'a>,
    jobs: &'a Receiver<Job>,
    model: &'a mut Model,
    clients: &'a mut Clients,
    rng: &'a mut ChaCha8Rng,
    durability: Durability,
    leader_epoch: i32,
    asked: Vec<(Asked, Answer)>,
    rounds: usize,
    now_ms: i64,
}

impl<'a> Life<'a> {
    pub fn new(
        disk: &'a SimDisk,
        opened: &'a Opened,
        model: &'a mut Model,
        clients: &'a mut Clients,
        rng: &'a mut ChaCha8Rng,
    ) -> Life<'a> {
        let core = &opened.core;
        let leader_epoch = rng.random_range(0..1000);
        Life {
            disk,
            core,
            journal: Journal::new(&core.journal_files, core.sequence()),
            jobs: &opened.jobs,
            model,
            clients,
            rng,
            durability: core.settings.durability,
            leader_epoch,
            asked: Vec::new(),
            rounds: 0,
            now_ms: 1_700_000_000_000,
        }
    }

    /// Does this and that, `actions` times. Ends early when a sync failed.
    pub fn work(&mut self, actions: usize) -> Result<(), Violation> {
        for sent in std::mem::take(&mut self.clients.unanswered) {
            if let Some(partition) = self.partition(sent.id) {
                self.send(&partition, sent.bytes, true)?;
            }
        }
        for _ in 0..actions {
            self.now_ms += 1;
            match self.rng.random_range(0..100) {
                0..41 => self.append()?,
                41..42 => self.configure(),
                42..58 => self.put_state(),
                58..59 => self.delete(),
                59..62 => self.raise_log_start(),
                62..64 => self.roll(),
                64..66 => retention::enforce(self.core, self.now_ms),
                66..71 => self.end_transaction()?,
                71..75 => drop(compaction::clean_one(self.core, self.now_ms)),
                75..76 => self.now_ms += CLOCK_JUMP_MS,
                76..91 => self.write()?,
                _ => self.keep_house(),
            }
            if self.core.queue.poisoned().is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes what waits and leaves a clean mark.
    pub fn close(&mut self) -> Result<(), Violation> {
        while !self.core.queue.is_empty() && self.core.queue.poisoned().is_none() {
            self.write()?;
        }
        if self.core.queue.poisoned().is_none() {
            // A sync that fails here is told to whoever closes; there is nobody else left to tell.
            let _ = checkpoint::take(self.core, true);
        }
        Ok(())
    }

    fn said(&self) -> Said {
        Said { step: self.disk.steps_taken(), strong: self.durability == Durability::Fsync }
    }

    fn partition(&self, id: PartitionId) -> Option<Partition> {
        read_lock(&self.core.partitions).get(&id).cloned()
    }

    fn slot(&mut self) -> usize {
        self.rng.random_range(0..SLOTS)
    }

    /// Sends a batch, now and then several, or one that was sent before.
    fn append(&mut self) -> Result<(), Violation> {
        let slot = self.slot();
        // Also while its deletion waits: producers know nothing of that.
        let Some(id) = self.model.newest(slot).map(|partition| partition.id) else {
            self.create(slot);
            return Ok(());
        };
        let Some(partition) = self.partition(id) else { return Ok(()) };
        let producer = self.rng.random_range(-1..PRODUCERS);
        let contents: Vec<Content> = (0..self.rng.random_range(1..4)).map(|_| self.content()).collect();
        let is_transactional = TRANSACTIONAL.contains(&slot) && producer == PRODUCERS - 1;
        let attributes = if is_transactional { TRANSACTIONAL_BIT } else { 0 };
        let writer = (producer >= 0).then(|| self.clients.writer(id, producer, contents.len()));
        let bytes = batch(writer, attributes, self.now_ms, &contents);
        let Some(offset) = self.send(&partition, bytes.clone(), writer.is_some())? else { return Ok(()) };
        // Its answer was lost, as far as the client knows.
        if writer.is_some() && self.rng.random_bool(0.2) {
            let again = partition.append_transactional(bytes, self.leader_epoch, self.now_ms);
            let again = again.map_err(|error| format!("t-{slot}: a retry was refused: {error}"))?;
            if !again.duplicate || again.base_offset != offset {
                return Err(format!("t-{slot}: what was stored at {offset} was stored again at {}", again.base_offset));
            }
        }
        Ok(())
    }

    /// Where it is to be stored; none when the log takes nothing now.
    fn send(&mut self, partition: &Partition, bytes: Bytes, is_idempotent: bool) -> Result<Option<i64>, Violation> {
        let appended = match partition.append_transactional(bytes.clone(), self.leader_epoch, self.now_ms) {
            Ok(appended) => appended,
            Err(AppendError::Storage(_)) if self.core.queue.obstacle().is_some() => {
                self.clients.begin_anew();
                return Ok(None);
            }
            Err(error) => return Err(format!("{}: refused: {error}", partition.directory())),
        };
        let base_offset = appended.base_offset;
        self.note_sent(partition.id(), appended, bytes, is_idempotent)?;
        Ok(Some(base_offset))
    }

    fn note_sent(
        &mut self,
        id: PartitionId,
        appended: Appended,
        bytes: Bytes,
        is_idempotent: bool,
    ) -> Result<(), Violation> {
        if !appended.duplicate {
            let model = self.model.partitions.iter_mut().find(|model| model.id == id);
            let model = model.ok_or("an append to a partition that is not in the model")?;
            model.submit(appended.base_offset, stored(&bytes, &appended, self.leader_epoch));
        }
        self.clients.unanswered.push(Sent { id, appended, bytes, is_idempotent });
        Ok(())
    }

    fn content(&mut self) -> Content {
        let key = vec![b'k', self.rng.random_range(0..KEYS)];
        let bytes = self.rng.random_range(0..VALUE_BYTES_MAX);
        let value = self.rng.random_bool(0.8).then(|| (0..bytes).map(|_| self.rng.random()).collect());
        (key, value)
    }

    /// As the coordinator does, whether or not there is one.
    fn end_transaction(&mut self) -> Result<(), Violation> {
        let slot = TRANSACTIONAL[self.rng.random_range(0..TRANSACTIONAL.len())];
        let Some(id) = self.model.live(slot).map(|partition| partition.id) else { return Ok(()) };
        let Some(partition) = self.partition(id) else { return Ok(()) };
        let producer_id = self.clients.producer_id(PRODUCERS - 1);
        let marker = if self.rng.random_bool(0.5) { Marker::Commit } else { Marker::Abort };
        let end = EndTransaction { producer_id, producer_epoch: 0, marker, coordinator_epoch: 0 };
        let batch = end.batch(self.now_ms);
        let written = match partition.write_marker(end, self.leader_epoch, self.now_ms) {
            Ok(written) => written,
            Err(AppendError::Storage(_)) if self.core.queue.obstacle().is_some() => return Ok(()),
            Err(error) => return Err(format!("a marker was refused: {error}")),
        };
        let bytes = Bytes::from([&batch.head[..], &batch.records].concat());
        self.note_sent(id, written, bytes, false)
    }

    fn ask(&mut self, asked: Asked, change: Change) {
        let (sender, answer) = mpsc::sync_channel(1);
        self.core.queue.push_change(change, Completion::Thread(sender));
        self.asked.push((asked, answer));
    }

    fn put_state(&mut self) {
        let keys: Vec<u8> = (0..self.rng.random_range(1..4)).map(|_| self.rng.random_range(b'a'..b'f')).collect();
        let changes = self.model.ask_state(&keys);
        let synced = self.rng.random_bool(0.2);
        self.ask(Asked::State(self.model.asked_states(), synced), Change::State { changes, synced });
    }

    fn create(&mut self, slot: usize) {
        if self.model.live(slot).is_some()
            || self.model.partitions.iter().any(|known| known.slot == slot && known.deleted.is_none())
        {
            return;
        }
        let id = PartitionId { topic_id: Uuid::from_u128(self.rng.random()), partition: slot as i32 };
        let number = self.core.next_partition_number.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        self.model.partitions.push(PartitionModel::new(id, slot));
        let record = PartitionRecord { number, id, directory: format!("t-{slot}"), config: config(slot) };
        self.ask(Asked::Create(id), Change::Create(record));
    }

    fn delete(&mut self) {
        let slot = self.slot();
        let step = self.disk.steps_taken();
        let Some(model) = self.model.live(slot) else { return };
        let id = model.id;
        if let Some(partition) = read_lock(&self.core.partitions).get(&id).cloned() {
            model.delete_asked = Some(step);
            self.ask(Asked::Delete(id), Change::Delete(partition));
        }
    }

    /// Limits change at any time, with immediate effect.
    fn configure(&mut self) {
        let slot = self.slot();
        let Some(id) = self.model.newest(slot).map(|model| model.id) else { return };
        if let Some(partition) = self.partition(id) {
            let segment_bytes_max = self.rng.random_range(SEGMENT_BYTES / 2..2 * SEGMENT_BYTES);
            let log_append_time = self.rng.random_bool(0.3);
            partition.set_config(PartitionConfig { segment_bytes_max, log_append_time, ..config(slot) });
        }
    }

    fn raise_log_start(&mut self) {
        let slot = self.slot();
        let Some(id) = self.model.live(slot).map(|model| model.id) else { return };
        let Some(partition) = self.partition(id) else { return };
        let (from, to) = (partition.log_start_offset(), partition.high_watermark());
        if from < to {
            let offset = self.rng.random_range(from..=to);
            self.ask(Asked::LogStart(id, offset), Change::LogStart(partition, offset));
        }
    }

    fn roll(&mut self) {
        let slot = self.slot();
        let Some(id) = self.model.live(slot).map(|model| model.id) else { return };
        if let Some(partition) = self.partition(id) {
            self.core.queue.push_change(Change::Roll(partition), Completion::Nobody);
        }
    }

    /// The writer's turn; then whoever waits hears, and consumers read on.
    fn write(&mut self) -> Result<(), Violation> {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            self.keep_house();
        }
        if self.core.queue.obstacle().is_some() {
            writer::serve(self.core, &mut self.journal, Taken::LookForRoom);
        }
        // Also when a sync has failed, just now: then nothing waits any more.
        if self.core.queue.is_empty() {
            return Ok(());
        }
        // Retention's cuts are decided when they are queued, and known from here on.
        for model in &mut self.model.partitions {
            if let Some(partition) = read_lock(&self.core.partitions).get(&model.id) {
                model.ask_log_start(partition.high_watermark());
            }
        }
        if !(self.rng.random_bool(0.5) && shortcut::write_waiting(self.core)) {
            self.round()?;
        }
        let said = self.said();
        let mut waiting = Vec::new();
        for (asked, answer) in std::mem::take(&mut self.asked) {
            match answer.try_recv() {
                Ok(Ok(())) => self.note(&asked, said),
                Ok(Err(_)) if self.core.queue.poisoned().is_none() => self.note_refused(&asked),
                // The log gave up: nothing was promised, and nobody knows what was written.
                Ok(Err(_)) => {}
                Err(_) => waiting.push((asked, answer)),
            }
        }
        self.asked = waiting;
        self.hear_of_batches(said)
    }

    /// One round of the writer, with what other threads do between its steps.
    fn round(&mut self) -> Result<(), Violation> {
        let Taken::Entries(entries) = self.core.queue.take() else { return Ok(()) };
        self.meanwhile()?;
        if let Some(promised) = writer::promise(self.core, &mut self.journal, entries) {
            self.meanwhile()?;
            writer::apply(self.core, promised);
        }
        self.core.queue.end_turn();
        Ok(())
    }

    fn meanwhile(&mut self) -> Result<(), Violation> {
        if self.core.queue.poisoned().is_some() {
            return Ok(());
        }
        match self.rng.random_range(0..10) {
            0..2 => self.append(),
            2 => {
                self.keep_house();
                Ok(())
            }
            3 => {
                self.core.request_checkpoint();
                self.keep_house();
                Ok(())
            }
            4 => {
                compaction::clean_one(self.core, self.now_ms);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Nothing of it was written.
    fn note_refused(&mut self, asked: &Asked) {
        match asked {
            Asked::Create(id) => self.model.partitions.retain(|model| model.id != *id),
            Asked::Delete(id) => self.with_model(*id, |model| model.delete_asked = None),
            Asked::LogStart(..) => {}
            Asked::State(number, _) => self.model.refuse_state(*number),
        }
    }

    fn note(&mut self, asked: &Asked, said: Said) {
        // Files are made and removed by these, or it was asked for: they are synced whatever the mode is.
        let synced = Said { strong: true, ..said };
        match asked {
            Asked::Create(id) => self.with_model(*id, |model| model.created = Some(synced)),
            Asked::Delete(id) => self.with_model(*id, |model| model.deleted = Some(synced)),
            Asked::LogStart(id, offset) => self.with_model(*id, |model| model.promise_log_start(*offset, synced)),
            Asked::State(number, true) => self.model.promise_state(*number, synced),
            Asked::State(number, false) => self.model.promise_state(*number, said),
        }
    }

    fn with_model(&mut self, id: PartitionId, change: impl FnOnce(&mut PartitionModel)) {
        self.model.partitions.iter_mut().find(|model| model.id == id).map(change);
    }

    fn hear_of_batches(&mut self, said: Said) -> Result<(), Violation> {
        let partitions = read_lock(&self.core.partitions).clone();
        for model in &mut self.model.partitions {
            if let Some(partition) = partitions.get(&model.id) {
                model.consume(partition, said)?;
            }
        }
        let mut refused = false;
        for sent in std::mem::take(&mut self.clients.unanswered) {
            let Some(partition) = partitions.get(&sent.id) else { continue };
            match partition.durable(&sent.appended).now_or_never() {
                // What was acknowledged can be read, so `consume` has seen it.
                Some(Ok(())) if partition.high_watermark() <= sent.appended.last_offset => {
                    let (name, offset) = (partition.directory(), sent.appended.last_offset);
                    return Err(format!("{name}: offset {offset} was acknowledged, and cannot be read"));
                }
                Some(Ok(())) => {}
                Some(Err(_)) if self.core.queue.poisoned().is_none() => refused = true,
                Some(Err(_)) | None => self.clients.unanswered.push(sent),
            }
        }
        if refused {
            self.clients.begin_anew();
        }
        Ok(())
    }

    fn keep_house(&mut self) {
        let jobs: Vec<Job> = self.jobs.try_iter().collect();
        self.rounds = 0;
        housekeeper::serve(self.core, jobs.into_iter());
    }
}
