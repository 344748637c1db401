//! The journal: groups of records, each written and synced as one, in preallocated files that are used again.
//!
//! A file begins with its number and a random salt; each group carries the salt, so that what an earlier use of the
//! file left behind never counts. Groups begin at multiples of [`ALIGNMENT`]. Their sequence rises by one.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::codec::{Decoder, Encoder};
use super::disk::{self, Disk, DiskFile, OpenMode};
use super::records::NUMBER_MAX;
use super::{Durability, lock, wait};

/// Groups begin at multiples of this.
pub(super) const ALIGNMENT: u64 = 512;
/// Where the first group begins.
pub(super) const FIRST_GROUP_AT: u64 = ALIGNMENT;
pub(super) const GROUP_HEADER_BYTES: usize = 44;
const FILE_MAGIC: [u8; 8] = *b"FSJRNL01";
const GROUP_MAGIC: [u8; 4] = *b"FSGR";
const FILE_HEADER_BYTES: usize = 28;
/// The writer waits for the checkpoint when this many full files wait for it.
const CLOSED_FILES_MAX: usize = 8;
/// Emptied files kept for the next use: overwriting what is allocated makes a sync cheap.
const SPARE_FILES_MAX: usize = 2;

/// Rounds up to the next possible beginning of a group.
pub(super) fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

/// The name of a journal file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:020}.journal")
}

/// The number in a journal file's name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".journal")?.parse().ok().filter(|number| *number <= NUMBER_MAX && file_name(*number) == name)
}

/// What a journal file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub number: u64,
    pub salt: u64,
}

impl FileHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = FILE_MAGIC.to_vec();
        out.put(&self.number.to_le_bytes());
        out.put(&self.salt.to_le_bytes());
        out.put(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<FileHeader> {
        let (counted, crc) = bytes.get(..FILE_HEADER_BYTES)?.split_last_chunk::<4>()?;
        let mut decoder = Decoder(counted.strip_prefix(&FILE_MAGIC)?);
        let header = FileHeader { number: decoder.u64()?, salt: decoder.u64()? };
        (crc32c::crc32c(counted) == u32::from_le_bytes(*crc)).then_some(header)
    }
}

/// What stands before a group's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub sequence: u64,
    /// All groups up to this one were synced when this one was written.
    pub durable_sequence: u64,
    pub salt: u64,
    pub payload_bytes: u64,
    pub payload_crc: u32,
}

impl GroupHeader {
    pub fn encode(&self) -> [u8; GROUP_HEADER_BYTES] {
        let mut out = [0; GROUP_HEADER_BYTES];
        out[0..4].copy_from_slice(&GROUP_MAGIC);
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.durable_sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.salt.to_le_bytes());
        out[32..40].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[40..44].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<GroupHeader> {
        let mut decoder = Decoder(bytes.get(..GROUP_HEADER_BYTES)?.strip_prefix(&GROUP_MAGIC)?);
        let crc = decoder.u32()?;
        if crc32c::crc32c(decoder.0) != crc {
            return None;
        }
        let (sequence, durable_sequence, salt) = (decoder.u64()?, decoder.u64()?, decoder.u64()?);
        let (payload_bytes, payload_crc) = (decoder.u64()?, decoder.u32()?);
        Some(GroupHeader { sequence, durable_sequence, salt, payload_bytes, payload_crc })
    }
}

struct JournalFile {
    file: Arc<dyn DiskFile>,
    header: FileHeader,
    path: PathBuf,
    length: u64,
    position: u64,
}

/// A full file; free once a checkpoint holds all of it.
struct ClosedFile {
    path: PathBuf,
    last_sequence: u64,
}

#[derive(Default)]
struct Files {
    closed: VecDeque<ClosedFile>,
    spares: Vec<PathBuf>,
    prepared: Option<JournalFile>,
    /// One is being made, by whom ever: files must be used in the order of their numbers, so never two at once.
    making: bool,
    next_number: u64,
    gave_up: bool,
    /// The last checkpoint found no room: waiting for it would be waiting for ever.
    stuck: bool,
}

impl Files {
    fn waits_for_checkpoint(&self) -> bool {
        self.closed.len() >= CLOSED_FILES_MAX && !self.gave_up
    }
}

/// The journal's files apart from the one that is written: full ones, spare ones, and one prepared ahead.
pub(super) struct JournalFiles {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    bytes_each: u64,
    files: Mutex<Files>,
    changed: Condvar,
}

impl JournalFiles {
    pub fn new(disk: Arc<dyn Disk>, directory: &Path, bytes_each: u64, next_number: u64) -> JournalFiles {
        let files = Mutex::new(Files { next_number, ..Files::default() });
        JournalFiles { disk, directory: directory.to_owned(), bytes_each, files, changed: Condvar::new() }
    }

    /// Makes the next file ready, so that the writer need not wait for it.
    pub fn prepare(&self) {
        let mut files = lock(&self.files);
        while files.making {
            files = wait(&self.changed, files);
        }
        if files.prepared.is_some() {
            return;
        }
        let (mut files, made) = self.make(files, self.bytes_each);
        match made {
            Ok(file) => files.prepared = Some(file),
            // The writer will try again when it needs one, and tell the producers.
            Err(error) => tracing::warn!("cannot prepare a journal file in {}: {error}", self.directory.display()),
        }
    }

    /// Makes a file with the next number. The lock is free meanwhile; nobody else takes a number until it is made.
    fn make<'a>(
        &'a self,
        mut files: MutexGuard<'a, Files>,
        bytes: u64,
    ) -> (MutexGuard<'a, Files>, io::Result<JournalFile>) {
        let (number, spare) = (files.next_number, files.spares.pop());
        files.next_number += 1;
        files.making = true;
        drop(files);
        let made = self.make_numbered(number, spare, bytes);
        let mut files = lock(&self.files);
        files.making = false;
        self.changed.notify_all();
        (files, made)
    }

    fn make_numbered(&self, number: u64, spare: Option<PathBuf>, bytes: u64) -> io::Result<JournalFile> {
        let path = self.directory.join(file_name(number));
        let header = FileHeader { number, salt: self.disk.random() };
        if let Some(spare) = spare {
            self.disk.rename(&spare, &path)?;
        }
        let made = self.fill(&path, header, bytes);
        if made.is_err() {
            // Nothing was promised in it; a leftover without groups would do no harm either.
            let _ = self.disk.remove_file(&path);
        }
        made
    }

    fn fill(&self, path: &Path, header: FileHeader, bytes: u64) -> io::Result<JournalFile> {
        let file = self.disk.open(path, OpenMode::Create)?;
        let length = file.length()?.max(bytes);
        if file.length()? < bytes {
            file.preallocate(bytes)?;
        }
        file.write_all_at(&[&header.encode()], 0)?;
        file.sync_all()?;
        self.disk.sync_directory(&self.directory)?;
        Ok(JournalFile { file, header, path: path.to_owned(), length, position: FIRST_GROUP_AT })
    }

    fn next(&self, group_bytes: u64) -> io::Result<JournalFile> {
        let mut files = lock(&self.files);
        while files.making || (files.waits_for_checkpoint() && !files.stuck) {
            files = wait(&self.changed, files);
        }
        if files.waits_for_checkpoint() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match files.prepared.take() {
            Some(file) if FIRST_GROUP_AT + group_bytes <= file.length => return Ok(file),
            // Too small for this group; used later, its number would be out of order.
            Some(small) => self.disk.remove_file(&small.path)?,
            None => {}
        }
        self.make(files, self.bytes_each.max(FIRST_GROUP_AT + group_bytes)).1
    }

    fn close(&self, path: PathBuf, last_sequence: u64) {
        lock(&self.files).closed.push_back(ClosedFile { path, last_sequence });
    }

    /// Gives back the files whose groups are all in a checkpoint.
    pub fn free(&self, sequence: u64) -> io::Result<()> {
        let mut files = lock(&self.files);
        files.stuck = false;
        while files.closed.front().is_some_and(|file| file.last_sequence <= sequence) {
            let Some(done) = files.closed.pop_front() else { break };
            let ordinary = self.disk.open(&done.path, OpenMode::Read)?.length()? == self.bytes_each;
            if ordinary && files.spares.len() < SPARE_FILES_MAX {
                // Renamed, so that recovery does not look into it.
                let spare = done.path.with_extension("spare");
                self.disk.rename(&done.path, &spare)?;
                files.spares.push(spare);
            } else {
                self.disk.remove_file(&done.path)?;
            }
        }
        self.changed.notify_all();
        drop(files);
        self.disk.sync_directory(&self.directory)
    }

    /// A checkpoint found no room.
    pub fn stuck(&self) {
        lock(&self.files).stuck = true;
        self.changed.notify_all();
    }

    /// No checkpoint will free anything any more: the writer shall not wait for it.
    pub fn give_up(&self) {
        lock(&self.files).gave_up = true;
        self.changed.notify_all();
    }

    /// The number after all that were used.
    pub fn next_number(&self) -> u64 {
        lock(&self.files).next_number
    }
}

/// Why a group was not written.
pub(super) enum JournalError {
    /// No room, no file handle or no memory for another file; nothing of the group was written.
    Refused(io::Error),
    /// It may or may not be on disk: nothing can be promised any more.
    Broken(PathBuf, io::Error),
}

/// The end of the journal, where the writer appends.
pub(super) struct Journal<'a> {
    files: &'a JournalFiles,
    current: Option<JournalFile>,
    sequence: u64,
    durable_sequence: u64,
}

/// What writing a group did.
pub(super) struct Written {
    pub sequence: u64,
    /// A file is full: a checkpoint is due.
    pub file_is_full: bool,
    pub sync_seconds: Option<f64>,
}

impl<'a> Journal<'a> {
    /// Begins behind `sequence`, in a new file.
    pub fn new(files: &'a JournalFiles, sequence: u64) -> Journal<'a> {
        Journal { files, current: None, sequence, durable_sequence: sequence }
    }

    /// Makes sure that a group of this size has a place. True when a full file was left behind for it.
    pub fn make_room(&mut self, payload_bytes: u64) -> Result<bool, JournalError> {
        let group_bytes = aligned(GROUP_HEADER_BYTES as u64 + payload_bytes);
        if self.current.as_ref().is_some_and(|current| current.position + group_bytes <= current.length) {
            return Ok(false);
        }
        let next = self.files.next(group_bytes).map_err(|error| {
            if disk::is_full(&error) || disk::is_passing(&error) {
                JournalError::Refused(error)
            } else {
                JournalError::Broken(self.files.directory.clone(), error)
            }
        })?;
        let Some(full) = self.current.replace(next) else { return Ok(false) };
        // Unsynced groups of the full file (`Durability::Os`) would otherwise stay unsynced behind synced ones.
        if self.durable_sequence < self.sequence {
            full.file.sync_data().map_err(|error| JournalError::Broken(full.path.clone(), error))?;
            self.durable_sequence = self.sequence;
        }
        self.files.close(full.path, self.sequence);
        Ok(true)
    }

    /// Writes one group, whose CRC-32C is known, and, if asked to, syncs it.
    pub fn write(&mut self, payload: &[&[u8]], payload_crc: u32, sync: bool) -> Result<Written, JournalError> {
        let payload_bytes: u64 = payload.iter().map(|part| part.len() as u64).sum();
        let file_is_full = self.make_room(payload_bytes)?;
        let Some(current) = &mut self.current else {
            return Err(JournalError::Broken(self.files.directory.clone(), io::ErrorKind::NotFound.into()));
        };
        let sequence = self.sequence + 1;
        let (durable_sequence, salt) = (self.durable_sequence, current.header.salt);
        let header = GroupHeader { sequence, durable_sequence, salt, payload_bytes, payload_crc }.encode();
        let mut parts = Vec::with_capacity(payload.len() + 1);
        parts.push(header.as_slice());
        parts.extend_from_slice(payload);
        let broken = |error| JournalError::Broken(current.path.clone(), error);
        current.file.write_all_at(&parts, current.position).map_err(broken)?;
        self.sequence = sequence;
        let mut sync_seconds = None;
        if sync {
            let began = std::time::Instant::now();
            current.file.sync_data().map_err(broken)?;
            sync_seconds = Some(began.elapsed().as_secs_f64());
            self.durable_sequence = sequence;
        }
        current.position += aligned(GROUP_HEADER_BYTES as u64 + payload_bytes);
        Ok(Written { sequence, file_is_full, sync_seconds })
    }
}

/// Whether batches go through the journal.
pub(super) fn journals_batches(durability: Durability) -> bool {
    durability == Durability::Fsync
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_no_cut_or_flip_of_them_is_read() {
        let file = FileHeader { number: 7, salt: 11 };
        let group = GroupHeader {
            sequence: 3,
            durable_sequence: 2,
            salt: 11,
            payload_bytes: 1 << 40,
            payload_crc: 0xdead_beef,
        };
        let (file_bytes, group_bytes) = (file.encode(), group.encode());
        assert_eq!(FileHeader::decode(&file_bytes), Some(file));
        assert_eq!(GroupHeader::decode(&group_bytes), Some(group));
        for at in 0..file_bytes.len() {
            let mut bad = file_bytes.clone();
            bad[at] ^= 1;
            assert_eq!(FileHeader::decode(&bad), None);
            assert_eq!(FileHeader::decode(&file_bytes[..at]), None);
        }
        for at in 0..group_bytes.len() {
            let mut bad = group_bytes;
            bad[at] ^= 1;
            assert_eq!(GroupHeader::decode(&bad), None);
            assert_eq!(GroupHeader::decode(&group_bytes[..at]), None);
        }
    }

    #[test]
    fn files_are_used_in_the_order_of_their_numbers_whoever_makes_them() {
        for round in 0..100 {
            let dir = tempfile::tempdir().unwrap();
            let files = JournalFiles::new(Arc::new(disk::OsDisk), dir.path(), 8192, 1);
            let mut journal = Journal::new(&files, 0);
            std::thread::scope(|scope| {
                scope.spawn(|| files.prepare());
                let mut number = 0;
                for _ in 0..6 {
                    assert!(journal.write(&[&[1; 3000]], 0, true).is_ok());
                    let now = journal.current.as_ref().unwrap().header.number;
                    assert!(now >= number, "round {round}: file {now} follows file {number}");
                    number = now;
                }
            });
        }
    }

    #[test]
    fn emptied_files_are_used_again_under_a_new_salt() {
        let dir = tempfile::tempdir().unwrap();
        let files = JournalFiles::new(Arc::new(disk::OsDisk), dir.path(), 8192, 1);
        let mut journal = Journal::new(&files, 0);
        let mut salts = std::collections::HashSet::new();
        for sequence in 1..=40u64 {
            let Ok(written) = journal.write(&[&[1; 3000]], 0, true) else { panic!("a group was not written") };
            assert_eq!(written.sequence, sequence);
            salts.insert(journal.current.as_ref().unwrap().header.salt);
            files.free(sequence).unwrap();
            assert!(std::fs::read_dir(dir.path()).unwrap().count() <= 3);
        }
        assert_eq!(salts.len(), 20);
    }
}
