//! How full a file system is.

use std::io;
use std::path::Path;

/// Bytes of one file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DiskSpace {
    /// All of it.
    pub total_bytes: u64,
    /// In use, by anyone.
    pub used_bytes: u64,
    /// What this user may still write (the reserve of root is not in it).
    pub free_bytes: u64,
}

impl DiskSpace {
    /// Measures the file system that `path` is on.
    ///
    /// # Errors
    /// `path` does not exist, or cannot be reached.
    pub fn of(path: &Path) -> io::Result<DiskSpace> {
        let stat = rustix::fs::statvfs(path)?;
        let block_bytes = stat.f_frsize.max(1);
        Ok(DiskSpace {
            total_bytes: stat.f_blocks.saturating_mul(block_bytes),
            used_bytes: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(block_bytes),
            free_bytes: stat.f_bavail.saturating_mul(block_bytes),
        })
    }
}
