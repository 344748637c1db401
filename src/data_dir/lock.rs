//! Locks per service: `flock` on `DATA/locks/SERVICE.lock`, given back by the system when a process dies.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::endpoint::LAST;
use super::{DataDir, DataDirError, INSTANCE_SLOTS_MAX};

/// Whoever asks whether a service runs takes its lock for an instant; trying for this long tells that from an owner.
const PROBE_PATIENCE: Duration = Duration::from_millis(100);
const PROBE_STEP: Duration = Duration::from_millis(5);
/// Bytes read of a lock file, at most.
const LOCK_FILE_BYTES_MAX: u64 = 256;

/// A lock that is held for as long as this value lives.
#[derive(Debug)]
pub struct ServiceLock {
    service: String,
    /// Closing it gives the lock back.
    file: File,
    /// Set aside on drop, if it was published: an endpoint is void without its holder. None for shared locks.
    endpoint: Option<PathBuf>,
}

/// Someone else holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Busy {
    /// Such as `broker`.
    pub service: String,
    /// Of the holder, if it said so.
    pub pid: Option<u32>,
    /// The data directory.
    pub data_dir: PathBuf,
}

impl fmt::Display for Busy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Busy { service, pid, data_dir } = self;
        write!(formatter, "another process")?;
        if let Some(pid) = pid {
            write!(formatter, " (pid {pid})")?;
        }
        write!(
            formatter,
            " already runs the {service} on {}; stop it, or choose another --data-dir",
            data_dir.display()
        )
    }
}

/// A place among the consumers of one data directory.
#[derive(Debug)]
pub struct InstanceSlot {
    /// `group.instance.id`: the same after each restart, unique over data directories.
    pub group_instance_id: String,
    /// Counts from 0.
    pub slot: u32,
    /// Keeps the slot taken.
    pub lock: ServiceLock,
}

impl ServiceLock {
    /// Which service this is the lock of.
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl Drop for ServiceLock {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            set_aside(endpoint);
        }
        let _ = self.file.unlock();
    }
}

impl DataDir {
    /// Takes the service's exclusive lock, or says who has it. `service` is a plain file name, such as `broker`.
    ///
    /// # Errors
    /// [`DataDirError::Busy`] when another process (or another part of this one) holds it.
    pub fn lock(&self, service: &str) -> Result<ServiceLock, DataDirError> {
        let path = self.lock_path(service);
        let mut file = open(&path)?;
        let mut waited = Duration::ZERO;
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(DataDirError::io("lock", &path)(error)),
                TryLockError::WouldBlock if waited < PROBE_PATIENCE => {
                    std::thread::sleep(PROBE_STEP);
                    waited += PROBE_STEP;
                }
                TryLockError::WouldBlock => {
                    let pid = holder(&mut file);
                    let data_dir = self.path().to_owned();
                    return Err(Busy { service: service.to_owned(), pid, data_dir }.into());
                }
            }
        }
        // Left behind by a holder that crashed.
        let endpoint = self.endpoint_path(service);
        set_aside(&endpoint);
        let named = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        named.map_err(DataDirError::io("write", &path))?;
        Ok(ServiceLock { service: service.to_owned(), file, endpoint: Some(endpoint) })
    }

    /// Takes a shared lock: for users of a service that runs as long as anyone uses it. None when someone holds it
    /// exclusively.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn try_shared_lock(&self, service: &str) -> Result<Option<ServiceLock>, DataDirError> {
        let path = self.lock_path(service);
        let file = open(&path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(ServiceLock { service: service.to_owned(), file, endpoint: None })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(DataDirError::io("lock", &path)(error)),
        }
    }

    /// As [`DataDir::try_shared_lock`], but waits while someone holds it exclusively (blocks the thread).
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn shared_lock(&self, service: &str) -> Result<ServiceLock, DataDirError> {
        let path = self.lock_path(service);
        let file = open(&path)?;
        file.lock_shared().map_err(DataDirError::io("lock", &path))?;
        Ok(ServiceLock { service: service.to_owned(), file, endpoint: None })
    }

    /// Takes the exclusive lock once whoever has it lets go (blocks the thread): for short critical sections.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn lock_waiting(&self, service: &str) -> Result<ServiceLock, DataDirError> {
        let file = wait_exclusive(&self.lock_path(service))?;
        Ok(ServiceLock { service: service.to_owned(), file, endpoint: None })
    }

    /// Takes the first free place among the consumers, so that each restart finds its old `group.instance.id`.
    ///
    /// # Errors
    /// All places are taken, or the lock files cannot be made.
    pub fn instance_slot(&self) -> Result<InstanceSlot, DataDirError> {
        for slot in 0..INSTANCE_SLOTS_MAX {
            match self.lock(&format!("consumer-{slot}")) {
                Ok(lock) => {
                    let group_instance_id = format!("finstream-{}-{slot}", self.id().simple());
                    return Ok(InstanceSlot { group_instance_id, slot, lock });
                }
                Err(DataDirError::Busy(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(DataDirError::NoFreeSlot(self.path().to_owned()))
    }

    pub(super) fn lock_path(&self, service: &str) -> PathBuf {
        self.path().join("locks").join(format!("{service}.lock"))
    }
}

/// Nobody believes an endpoint whose lock is free, so a failure changes nothing.
fn set_aside(endpoint: &Path) {
    let _ = fs::rename(endpoint, endpoint.with_extension(LAST));
}

/// Waits for the exclusive lock of a file.
pub(super) fn wait_exclusive(path: &Path) -> Result<File, DataDirError> {
    let file = open(path)?;
    file.lock().map_err(DataDirError::io("lock", path))?;
    Ok(file)
}

fn open(path: &Path) -> Result<File, DataDirError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(DataDirError::io("open", path))
}

/// Who wrote itself into the lock file.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(LOCK_FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
