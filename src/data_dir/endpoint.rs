//! Where a service listens: one file per service, written by its lock's holder, void when that lock is free.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::format::write_atomically;
use super::{DataDir, DataDirError, ServiceLock};

/// The ending of an endpoint that is no more.
pub(super) const LAST: &str = "last";

impl DataDir {
    /// Tells the other processes on this data directory where the service is. Set aside when the lock is dropped.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn publish_endpoint(&self, lock: &ServiceLock, endpoint: &impl Serialize) -> Result<(), DataDirError> {
        let path = self.endpoint_path(lock.service());
        let text = serde_json::to_vec(endpoint).map_err(std::io::Error::other);
        text.and_then(|text| write_atomically(&path, &text)).map_err(DataDirError::io("write", &path))
    }

    /// Where the service is, if it runs: None without a file, and None when nobody holds the lock (the file is then
    /// left over from a crash).
    pub fn endpoint(&self, service: &str) -> Option<Value> {
        let text = fs::read(self.endpoint_path(service)).ok()?;
        // The file is read before the lock is asked: a holder that leaves in between voids it.
        match self.try_shared_lock(service) {
            Ok(None) => serde_json::from_slice(&text).ok(),
            Ok(Some(_)) | Err(_) => None,
        }
    }

    /// Where the service was before it stopped or crashed: a new one had better be there again, for those who wait.
    pub fn last_endpoint(&self, service: &str) -> Option<Value> {
        let text = fs::read(self.endpoint_path(service).with_extension(LAST)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn endpoint_path(&self, service: &str) -> PathBuf {
        self.path().join("endpoints").join(format!("{service}.json"))
    }
}
