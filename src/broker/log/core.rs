//! What the log's threads share: the partitions, the state, the queue, and how a change takes effect.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;

use super::compaction::Cleaner;
use super::disk::{self, Disk, OpenMode};
use super::housekeeper::Job;
use super::journal_files::JournalFiles;
use super::partition::Partition;
use super::queue::Queue;
use super::records::{PartitionRecord, StateChanges, identity_path};
use super::store::{Store, move_away};
use super::writer::fail_all;
use super::{AppendError, Durability, LogSettings, PartitionId, lock, read_lock, write_lock};

/// Which file, and what happened to it.
pub(super) type FileError = (PathBuf, io::Error);

/// The state's keys and values.
pub(super) type StateMap = BTreeMap<Bytes, Bytes>;

/// The log, seen from its threads.
pub(super) struct Core {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    pub settings: LogSettings,
    pub queue: Arc<Queue>,
    pub state: RwLock<StateMap>,
    pub partitions: RwLock<BTreeMap<PartitionId, Partition>>,
    /// Directories of partitions were created since the names in `directory` were synced.
    pub names_changed: AtomicBool,
    pub next_partition_number: AtomicU64,
    pub journal_files: JournalFiles,
    /// The last group in the journal.
    pub written_sequence: AtomicU64,
    /// The last group whose records are all in segments and state.
    pub applied_sequence: AtomicU64,
    /// `Durability::Os`: stored since a checkpoint was asked for.
    pub unsynced_bytes: AtomicU64,
    pub jobs: Mutex<Sender<Job>>,
    /// Held for a whole pass.
    pub cleaner: Mutex<Cleaner>,
}

/// Says what happened if a thread ends by a panic: nobody waits forever.
pub(super) struct PoisonOnPanic<'a>(pub &'a Core, pub &'static str);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison(&format!("{} ended by a panic; restart the broker", self.1));
        }
    }
}

/// Where the journal's files are.
pub(super) fn journal_directory(directory: &Path) -> PathBuf {
    directory.join("journal")
}

/// Where deleted files wait for their removal, out of the way of new ones with their names.
pub(super) fn graveyard(directory: &Path) -> PathBuf {
    directory.join("deleted")
}

impl Core {
    pub fn all_partitions(&self) -> Vec<Partition> {
        read_lock(&self.partitions).values().cloned().collect()
    }

    /// After a failed write or sync: nothing is acknowledged any more, readers go on.
    pub fn poison(&self, why: &str) {
        tracing::error!("{why}");
        let waiting = self.queue.poison(why);
        fail_all(waiting, &self.storage_error());
        for partition in self.all_partitions() {
            partition.close_watches();
        }
        self.journal_files.give_up();
    }

    pub fn storage_error(&self) -> AppendError {
        AppendError::Storage(self.queue.poisoned().unwrap_or("the log is closed").to_owned())
    }

    fn job(&self, job: Job) {
        // The housekeeper is gone only when the log is being closed; what it did not do is done at the next start.
        let _ = lock(&self.jobs).send(job);
    }

    pub fn request_checkpoint(&self) {
        // In this order: the housekeeper takes the mark off when it begins.
        self.journal_files.hurry(true);
        self.job(Job::Checkpoint);
    }

    pub fn request_journal_file(&self) {
        self.job(Job::Prepare);
    }

    pub fn apply_state(&self, changes: StateChanges) {
        let mut state = write_lock(&self.state);
        for (key, value) in changes {
            match value {
                // Copied: a slice of a request would keep all of the request in memory.
                Some(value) => state.insert(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)),
                None => state.remove(&key),
            };
        }
    }

    /// Opens the directory of a partition that was just created. One that is there already stays if it is its own.
    pub fn apply_create(&self, record: &PartitionRecord) -> Result<Partition, FileError> {
        let path = self.directory.join(&record.directory);
        make_directory(&*self.disk, &path, record.number).map_err(|error| (path.clone(), error))?;
        // Before the partition can be pictured by a checkpoint.
        self.names_changed.store(true, Ordering::Release);
        let store = Store { directory_dirty: true, ..Store::default() };
        let id = record.id;
        let partition = Partition::new(record.clone(), path, self.disk.clone(), self.queue.clone(), store);
        write_lock(&self.partitions).insert(id, partition.clone());
        Ok(partition)
    }

    pub fn apply_delete(&self, partition: &Partition) -> Result<(), FileError> {
        write_lock(&self.partitions).retain(|_, known| known.number() != partition.number());
        if partition.is_deleted() {
            return Ok(());
        }
        partition.mark_deleted();
        let grave = graveyard(&self.directory).join(partition.number().to_string());
        self.disk.rename(&partition.0.path, &grave).map_err(|error| (partition.0.path.clone(), error))?;
        self.job(Job::RemoveDirectory(grave));
        Ok(())
    }

    pub fn apply_log_start(&self, partition: &Partition, offset: i64) -> Result<(), FileError> {
        let (removed, waits) = {
            let mut store = lock(&partition.0.store);
            // With `os` only the segments tell of producers and transactions, until a checkpoint does.
            let held_to = match self.settings.durability {
                Durability::Fsync => i64::MAX,
                Durability::Os => store.checkpointed_end,
            };
            (store.raise_log_start(offset, held_to), store.has_removable())
        };
        if waits {
            self.request_checkpoint();
        }
        partition.publish(0);
        let graveyard = graveyard(&self.directory);
        let mut moved = Vec::new();
        for segment in removed {
            let away = move_away(&*self.disk, &segment, partition.number(), &graveyard);
            moved.extend(away.map_err(|error| (segment.log_path(), error))?);
        }
        if !moved.is_empty() {
            self.job(Job::RemoveFiles(moved));
        }
        Ok(())
    }

    pub fn sequence(&self) -> u64 {
        self.applied_sequence.load(Ordering::Acquire)
    }
}

/// Whose directory this is; none when it does not say.
pub(super) fn identity(disk: &dyn Disk, directory: &Path) -> Option<u64> {
    number_in(&disk.read(&identity_path(directory)).ok()?)
}

/// A directory with its owner's number in it, empty unless it was the owner's before.
pub(super) fn make_directory(disk: &dyn Disk, path: &Path, number: u64) -> io::Result<()> {
    match disk.read(&identity_path(path)) {
        Ok(text) if number_in(&text) == Some(number) => return Ok(()),
        // It could not be looked at, which does not make it someone else's.
        Err(error) if disk::is_passing(&error) => return Err(error),
        _ => {}
    }
    match disk.remove_directory(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.create_directory(path)?;
    let file = disk.open(&identity_path(path), OpenMode::Truncate)?;
    file.write_all_at(&[format!("{number}\n").as_bytes()], 0)?;
    file.sync_all()
}

fn number_in(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
