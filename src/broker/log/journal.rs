//! The journal: groups of records, each written and synced as one, in preallocated files that are used again.
//!
//! A file begins with its number and a random salt; each group carries the salt, so that what an earlier use of the
//! file left behind never counts. Groups begin at multiples of [`ALIGNMENT`]. Their sequence rises by one.

use std::io;
use std::path::PathBuf;

use super::Durability;
use super::codec::{Decoder, Encoder};
use super::disk;
use super::journal_files::{JournalFile, JournalFiles};
use super::records::NUMBER_MAX;

/// Groups begin at multiples of this.
pub(super) const ALIGNMENT: u64 = 512;
/// Where the first group begins.
pub(super) const FIRST_GROUP_AT: u64 = ALIGNMENT;
pub(super) const GROUP_HEADER_BYTES: usize = 44;
const FILE_MAGIC: [u8; 8] = *b"FSJRNL01";
const GROUP_MAGIC: [u8; 4] = *b"FSGR";
const FILE_HEADER_BYTES: usize = 28;
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
    /// The file is half full: the next one will be needed.
    pub next_is_due: bool,
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
        self.files.close(full, self.sequence);
        Ok(true)
    }

    /// Writes one group, whose CRC-32C is known, and, if asked to, syncs it. Makes room for it if that was not done.
    pub fn write(&mut self, payload: &[&[u8]], payload_crc: u32, sync: bool) -> Result<Written, JournalError> {
        let payload_bytes: u64 = payload.iter().map(|part| part.len() as u64).sum();
        self.make_room(payload_bytes)?;
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
        let half = current.length / 2;
        let was_below_half = current.position < half;
        current.position += aligned(GROUP_HEADER_BYTES as u64 + payload_bytes);
        let next_is_due = was_below_half && current.position >= half;
        Ok(Written { sequence, next_is_due, sync_seconds })
    }
}

/// Whether batches go through the journal.
pub(super) fn journals_batches(durability: Durability) -> bool {
    durability == Durability::Fsync
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

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
