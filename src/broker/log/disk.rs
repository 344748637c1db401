//! What the log asks of a file system, and the real one.
//!
//! Everything that the log reads, writes, syncs and names goes through [`Disk`], so that a simulated disk can take its
//! place and forget what was not synced. Must not know what the files hold.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Linux takes at most 1024 parts in one vectored write.
const SLICES_PER_WRITE_MAX: usize = 1024;
/// Beyond that, 2,000 files are not synced any sooner.
const SYNCS_AT_ONCE: usize = 16;
/// The kernel reads ahead, and lets go, in pieces of about this.
#[cfg(target_os = "linux")]
const CACHE_LOOK_BYTES: u64 = 64 * 1024;

/// A file as the kernel knows it.
pub type KernelFile = File;

/// What happens to a file, or to its absence, when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenMode {
    /// To be read; it must be there.
    Read,
    /// To be read and written; it must be there.
    Write,
    /// To be read and written; made if it is missing.
    Create,
    /// To be read and written, and empty.
    Truncate,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub name: String,
    pub is_directory: bool,
}

/// An open file, or an open directory (which can only be synced).
pub(super) trait DiskFile: Send + Sync + Debug {
    /// Reads some bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of the parts, one after the other, from `position` on.
    fn write_all_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()>;
    fn length(&self) -> io::Result<u64>;
    /// Cuts, or extends by zeros.
    fn set_length(&self, bytes: u64) -> io::Result<()>;
    /// Takes the room on disk before it is needed, so that a full disk shows before a write is half done.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;
    /// Bytes and length survive a power cut afterwards; the name may not.
    fn sync_data(&self) -> io::Result<()>;
    /// As `sync_data`; of a directory: its names.
    fn sync_all(&self) -> io::Result<()>;
    /// Wall clock of the last write, in ms.
    fn modified_ms(&self) -> io::Result<i64>;

    /// The kernel's file, if this is one: what it holds can go to a socket without passing through this process.
    fn kernel_file(&self) -> Option<&KernelFile> {
        None
    }

    /// Whether a read of these bytes would wait for no disk, as far as looks at some of them tell.
    fn is_cached(&self, _position: u64, _bytes: u64) -> bool {
        true
    }

    /// Says that these bytes will be read soon.
    fn read_ahead(&self, _position: u64, _bytes: u64) {}

    /// Reads as much of `buffer` as the file holds from `position` on.
    fn read_up_to(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        if self.read_up_to(buffer, position)? < buffer.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Names, and the files behind them.
pub(super) trait Disk: Send + Sync + Debug {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// To sync its names; opened first where afterwards nothing but the sync may fail.
    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// With all that lead to it; one that is there is as good as created.
    fn create_directories(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// With all that is in it.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;
    /// In order of name.
    fn list(&self, directory: &Path) -> io::Result<Vec<Name>>;
    /// What the file system still takes; none when it does not say.
    fn free_bytes(&self, directory: &Path) -> Option<u64>;
    /// Bytes on disk of everything below `path`; what vanishes meanwhile counts as nothing.
    fn used_bytes(&self, path: &Path) -> u64;
    /// A number that nobody can foresee.
    fn random(&self) -> u64;

    /// How many syncs side by side are quicker than one after the other: file systems with a journal let those that come
    /// together share its write.
    fn syncs_at_once(&self) -> usize {
        1
    }

    /// Makes created, renamed and removed names in `directory` durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.open_directory(directory)?.sync_all()
    }

    /// All of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).map_err(|_| ErrorKind::FileTooLarge)?];
        let filled = file.read_up_to(&mut bytes, 0)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Removes a file, or a directory with all that is in it.
    fn remove(&self, path: &Path, is_directory: bool) -> io::Result<()> {
        if is_directory { self.remove_directory(path) } else { self.remove_file(path) }
    }
}

/// The file system of this machine.
#[derive(Debug)]
pub(super) struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        options.create(matches!(mode, OpenMode::Create | OpenMode::Truncate)).truncate(mode == OpenMode::Truncate);
        Ok(Arc::new(options.open(path)?))
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            // A name that is no text is none of ours.
            if let Some(name) = entry.file_name().to_str() {
                names.push(Name { name: name.to_owned(), is_directory: entry.file_type()?.is_dir() });
            }
        }
        names.sort();
        Ok(names)
    }

    fn free_bytes(&self, directory: &Path) -> Option<u64> {
        let numbers = rustix::fs::statvfs(directory).ok()?;
        Some(numbers.f_bavail.saturating_mul(numbers.f_frsize))
    }

    fn used_bytes(&self, path: &Path) -> u64 {
        let Ok(entries) = std::fs::read_dir(path) else { return 0 };
        entries
            .flatten()
            .map(|entry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => self.used_bytes(&entry.path()),
                Ok(metadata) => metadata.blocks() * 512,
                Err(_) => 0,
            })
            .sum()
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    fn syncs_at_once(&self) -> usize {
        SYNCS_AT_ONCE
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, position)
    }

    fn write_all_at(&self, parts: &[&[u8]], mut position: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let count = rest.len().min(SLICES_PER_WRITE_MAX);
            match rustix::io::pwritev(self, &rest[..count], position) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        self.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        // macOS: the standard library asks for F_FULLFSYNC here.
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn modified_ms(&self) -> io::Result<i64> {
        let since = self.metadata()?.modified()?.duration_since(UNIX_EPOCH);
        Ok(since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
    }

    fn kernel_file(&self) -> Option<&KernelFile> {
        Some(self)
    }

    #[cfg(target_os = "linux")]
    fn is_cached(&self, position: u64, bytes: u64) -> bool {
        use rustix::io::ReadWriteFlags;
        let end = position + bytes;
        let mut at = position;
        while at < end {
            let mut byte = [0];
            let look = rustix::io::preadv2(self, &mut [io::IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT);
            match look {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // A file system that cannot tell counts as one that may wait.
                Err(_) => return false,
            }
            // The last byte is looked at, too.
            at = if at + 1 == end { end } else { (at + CACHE_LOOK_BYTES).min(end - 1) };
        }
        true
    }

    #[cfg(target_os = "linux")]
    fn read_ahead(&self, position: u64, bytes: u64) {
        // Advice: whether it is taken shows in how long the read takes.
        let _ = rustix::fs::fadvise(self, position, std::num::NonZeroU64::new(bytes), rustix::fs::Advice::WillNeed);
    }
}

/// Whether the error says that there is no room, as opposed to a broken disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether the error says that the process or the machine has no file handle or memory to spare right now. It is over
/// when somebody else lets go, and says nothing about the disk.
pub(super) fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// What people can do about an error that is full or passing.
pub(super) fn cure(error: &io::Error) -> &'static str {
    if is_passing(error) {
        "it is tried again; if it stays, raise the limit of open files (ulimit -n) or free memory"
    } else {
        "free space, then try again"
    }
}
