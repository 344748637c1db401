//! The log as its users see it: open, partitions, state, close.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::compaction::{self, Look};
use super::core::Core;
use super::disk::OsDisk;
use super::housekeeper::{self, Job};
use super::partition::Partition;
use super::queue::{Completion, Stop};
use super::records::{Change, NUMBER_MAX, PartitionRecord, is_plain_name};
use super::{
    AppendError, LogSettings, OpenError, PartitionConfig, PartitionId, RecoveryReport, checkpoint, lock, read_lock,
    recovery, retention, writer,
};

/// The longest file name that every file system takes.
const DIRECTORY_NAME_BYTES_MAX: usize = 255;

/// The opened log. Cheap to clone. When the last clone goes without `close`, what waits is abandoned.
#[derive(Clone)]
pub struct Log(Arc<Handle>);

struct Handle {
    core: Arc<Core>,
    threads: Mutex<Option<Threads>>,
    /// One creation at a time, so that a name is looked up and taken in one step.
    creating: Mutex<()>,
}

struct Threads {
    writer: JoinHandle<()>,
    housekeeper: JoinHandle<()>,
    cleaner: JoinHandle<()>,
    looks: mpsc::Sender<Look>,
}

impl Threads {
    /// Ends all, the writer first and the housekeeper last. False when one of them panicked.
    fn end(self, core: &Core, stop: Stop) -> bool {
        core.queue.stop(stop);
        if stop == Stop::Abandon {
            core.journal_files.give_up();
        }
        let writer_ended = self.writer.join().is_ok();
        // Nobody waits for a journal file any more.
        core.journal_files.give_up();
        // It gives up a pass once the queue is stopped. Its error means that it has ended already.
        let _ = self.looks.send(Look::Stop);
        let cleaner_ended = self.cleaner.join().is_ok();
        // It ends by itself only if its channel is closed, which this handle holds open.
        let _ = lock(&core.jobs).send(Job::Stop);
        self.housekeeper.join().is_ok() && cleaner_ended && writer_ended
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(threads) = lock(&self.threads).take() {
            threads.end(&self.core, Stop::Abandon);
        }
        for partition in self.core.all_partitions() {
            partition.close_watches();
        }
    }
}

impl Log {
    /// Opens or creates the log in `dir` (already locked by the caller), recovering by what was promised.
    /// Partitions that existed are open afterwards.
    ///
    /// # Errors
    /// `Damaged` when something that was acknowledged cannot be read; `Io` otherwise.
    pub fn open(dir: &Path, settings: LogSettings) -> Result<(Log, RecoveryReport), OpenError> {
        let (jobs, received) = mpsc::channel();
        let (core, report) = recovery::recover(Arc::new(OsDisk), dir, settings, jobs)?;
        let (looks, to_look) = mpsc::channel();
        let (writing, keeping, cleaning) = (core.clone(), core.clone(), core.clone());
        let sequence = core.sequence();
        let writer = spawn("log-writer", move || writer::run(&writing, sequence));
        let housekeeper = spawn("log-housekeeper", move || housekeeper::run(&keeping, &received));
        let cleaner = spawn("log-cleaner", move || compaction::run(&cleaning, &to_look));
        let threads = match (writer, housekeeper, cleaner) {
            (Ok(writer), Ok(housekeeper), Ok(cleaner)) => Threads { writer, housekeeper, cleaner, looks },
            (writer, housekeeper, cleaner) => {
                // Those that did start end: by the stop, or because their channels close with us.
                core.queue.stop(Stop::Abandon);
                let _ = lock(&core.jobs).send(Job::Stop);
                let source = [writer.err(), housekeeper.err(), cleaner.err()].into_iter().flatten().next();
                let source = source.unwrap_or_else(|| std::io::ErrorKind::Other.into());
                return Err(OpenError::Io { action: "start the threads for", path: dir.to_owned(), source });
            }
        };
        // The first journal file is made before the first append asks for it.
        let _ = lock(&core.jobs).send(Job::Prepare);
        let threads = Mutex::new(Some(threads));
        Ok((Log(Arc::new(Handle { core, threads, creating: Mutex::default() })), report))
    }

    /// Creates (or finds) a partition; its directory is `dir/<directory>` e.g. `finance.transactions-0`.
    ///
    /// # Errors
    /// Those of [`Log::create_partitions`].
    pub fn create_partition(
        &self,
        id: PartitionId,
        directory: &str,
        config: PartitionConfig,
    ) -> Result<Partition, OpenError> {
        let mut created = self.create_partitions(&[(id, directory.to_owned())], config)?;
        created.pop().ok_or_else(|| OpenError::Unavailable("the partition was deleted meanwhile".to_owned()))
    }

    /// Creates (or finds) partitions, which share their syncs. Waits for the disk: not for async code without
    /// `spawn_blocking`. A partition that is found gets the config. None is on its way any more when this returns.
    ///
    /// # Errors
    /// `Name` for a directory that is taken or not a plain name; `Unavailable` when the log takes no changes.
    pub fn create_partitions(
        &self,
        wanted: &[(PartitionId, String)],
        config: PartitionConfig,
    ) -> Result<Vec<Partition>, OpenError> {
        let _one_at_a_time = lock(&self.0.creating);
        let (found, new): (Vec<_>, Vec<_>) = wanted.iter().partition(|(id, _)| self.partition(*id).is_some());
        new.iter().try_for_each(|(_, directory)| self.check_name(directory))?;
        let first = self.0.core.next_partition_number.fetch_add(new.len() as u64, Ordering::AcqRel);
        if !new.is_empty() && first + (new.len() as u64 - 1) > NUMBER_MAX {
            return Err(OpenError::Unavailable(format!("partition numbers end at {NUMBER_MAX}, and all are used up")));
        }
        let answers: Vec<_> = (first..)
            .zip(new)
            .map(|(number, (id, directory))| {
                let record = PartitionRecord { number, id: *id, directory: directory.clone(), config: config.clone() };
                let (sender, receiver) = mpsc::sync_channel(1);
                self.0.core.queue.push_change(Change::Create(record), Completion::Thread(sender));
                receiver
            })
            .collect();
        let answers: Vec<_> =
            answers.into_iter().map(|answer| answer.recv().unwrap_or_else(|_| Err(closed()))).collect();
        answers.into_iter().collect::<Result<(), _>>().map_err(unavailable)?;
        for partition in found.iter().filter_map(|(id, _)| self.partition(*id)) {
            partition.set_config(config.clone());
        }
        let deleted = || OpenError::Unavailable("the partition was deleted meanwhile".to_owned());
        wanted.iter().map(|(id, _)| self.partition(*id).ok_or_else(deleted)).collect()
    }

    fn check_name(&self, directory: &str) -> Result<(), OpenError> {
        let refuse = |why| Err(OpenError::Name(directory.to_owned(), why));
        if directory.is_empty() || directory.len() > DIRECTORY_NAME_BYTES_MAX {
            return refuse("it must have 1 to 255 bytes");
        }
        if !is_plain_name(directory) {
            return refuse("it must be a plain name that the log does not use itself");
        }
        let partitions = read_lock(&self.0.core.partitions);
        if partitions.values().any(|partition| partition.directory() == directory) {
            return refuse("another partition uses it");
        }
        Ok(())
    }

    pub(super) fn core(&self) -> &Core {
        &self.0.core
    }

    /// An open partition.
    pub fn partition(&self, id: PartitionId) -> Option<Partition> {
        read_lock(&self.0.core.partitions).get(&id).cloned()
    }

    /// All open partitions with their directories, sorted.
    pub fn partitions(&self) -> Vec<(PartitionId, String)> {
        let partitions = read_lock(&self.0.core.partitions);
        let mut all: Vec<_> =
            partitions.iter().map(|(id, partition)| (*id, partition.directory().to_owned())).collect();
        all.sort();
        all
    }

    /// Removes the partition durably; waiting readers wake with `Deleted`. One that is not there is as good as removed.
    ///
    /// # Errors
    /// `Unavailable` when the log takes no changes.
    pub async fn delete_partition(&self, id: PartitionId) -> Result<(), OpenError> {
        let Some(partition) = self.partition(id) else { return Ok(()) };
        self.change(Change::Delete(partition)).await.map_err(unavailable)
    }

    /// Durable key-value state (topics, configs, groups, offsets, producer ids): shares the group commit.
    /// Resolves when all of the changes are durable (`Os`: when in the page cache). Applied atomically.
    ///
    /// # Errors
    /// `Storage` when that cannot be; `Busy` when the disk is far behind.
    pub async fn put_state(&self, changes: Vec<(Bytes, Option<Bytes>)>) -> Result<(), AppendError> {
        self.change(Change::State { changes, synced: false }).await
    }

    /// As `put_state`, and durable when it resolves whatever the durability is: for what must never be told again
    /// otherwise, e.g. ids that were given out.
    ///
    /// # Errors
    /// Those of `put_state`.
    pub async fn put_state_synced(&self, changes: Vec<(Bytes, Option<Bytes>)>) -> Result<(), AppendError> {
        self.change(Change::State { changes, synced: true }).await
    }

    async fn change(&self, change: Change) -> Result<(), AppendError> {
        if matches!(&change, Change::State { changes, .. } if changes.is_empty()) {
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        self.0.core.queue.push_change(change, Completion::Task(sender));
        receiver.await.unwrap_or_else(|_| Err(closed()))
    }

    /// All state entries whose key starts with `prefix`, sorted by key.
    pub fn state(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let state = read_lock(&self.0.core.state);
        let from = Bytes::copy_from_slice(prefix);
        state
            .range(from..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Why nothing is acknowledged any more; none while all is well. Only a restart cures it.
    pub fn failure(&self) -> Option<&str> {
        self.0.core.queue.poisoned()
    }

    /// Why appends are refused, or wait, for the time being: a full disk, too many open files. It is over by itself once
    /// the cause is.
    pub fn obstacle(&self) -> Option<String> {
        self.0.core.queue.obstacle()
    }

    /// Rolls by age and cuts by retention; called every few seconds by the broker with the wall clock in ms.
    pub fn enforce_retention(&self, now_ms: i64) {
        retention::enforce(&self.0.core, now_ms);
    }

    /// Lets the cleaner look for what to compact, on its own thread; called every few seconds by the broker, likewise.
    pub fn wake_cleaner(&self, now_ms: i64) {
        if let Some(threads) = &*lock(&self.0.threads) {
            // It has ended only if it panicked, which has stopped the log.
            let _ = threads.looks.send(Look::At(now_ms));
        }
    }

    /// Compacts the partition that needs it most, now and here: for those who do not want to wait for the cleaner. False
    /// when there is none. Blocks for as long as it takes.
    pub fn compact_one(&self, now_ms: i64) -> bool {
        compaction::clean_one(&self.0.core, now_ms)
    }

    /// Bytes on disk of everything in `dir`.
    pub fn disk_bytes(&self) -> u64 {
        self.0.core.disk.used_bytes(&self.0.core.directory)
    }

    /// Writes what waits, checkpoints, and marks a clean stop. Reads go on afterwards; a second call does nothing.
    ///
    /// # Errors
    /// `Unavailable` when a write failed before; `Io` when the checkpoint cannot be written.
    pub async fn close(&self) -> Result<(), OpenError> {
        let log = self.clone();
        let closed = tokio::task::spawn_blocking(move || log.close_blocking()).await;
        closed.unwrap_or_else(|_| Err(OpenError::Unavailable("closing it ended by a panic".to_owned())))
    }

    fn close_blocking(&self) -> Result<(), OpenError> {
        let core = &self.0.core;
        let mut threads = lock(&self.0.threads);
        let Some(running) = threads.take() else { return Ok(()) };
        let ended = running.end(core, Stop::Drain);
        let result = match core.queue.poisoned() {
            Some(why) => Err(OpenError::Unavailable(why.to_owned())),
            None if !ended => Err(OpenError::Unavailable("a thread of the log ended by a panic".to_owned())),
            None => checkpoint::take(core, true),
        };
        for partition in core.all_partitions() {
            partition.close_watches();
        }
        result
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn closed() -> AppendError {
    AppendError::Storage("the log is closed".to_owned())
}

fn unavailable(error: AppendError) -> OpenError {
    match error {
        AppendError::Storage(why) => OpenError::Unavailable(why),
        other => OpenError::Unavailable(other.to_string()),
    }
}
