//! Small helpers around files: vectored writes at a position, preallocation, directory syncs.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Linux takes at most 1024 parts in one vectored write.
const SLICES_PER_WRITE_MAX: usize = 1024;

/// Makes created, renamed and removed names in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Takes the room on disk before it is needed, so that a full disk shows before a write is half done.
pub(super) fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    file.set_len(bytes)
}

/// Writes all of the parts, one after the other, from `position` on.
pub(super) fn write_all_vectored_at(file: &File, parts: &[&[u8]], mut position: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let count = rest.len().min(SLICES_PER_WRITE_MAX);
        match rustix::io::pwritev(file, &rest[..count], position) {
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

/// Reads as much of `buffer` as the file holds from `position` on.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
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

/// What the file system still takes; none when it does not say.
pub(super) fn free_bytes(directory: &Path) -> Option<u64> {
    let numbers = rustix::fs::statvfs(directory).ok()?;
    Some(numbers.f_bavail.saturating_mul(numbers.f_frsize))
}

/// Bytes on disk of everything below `path`; what vanishes meanwhile counts as nothing.
pub(super) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
