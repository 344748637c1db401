//! The sparse offset index of one segment: where to begin to look for an offset or a time.
//!
//! On disk it is the bare entries, appended at each checkpoint; how many of them count, and their CRC-32C, is in the
//! checkpoint. A missing or wrong file is rebuilt from the segment.

use std::io;
use std::path::Path;

use super::batch::BatchHeader;
use super::disk::{Disk, OpenMode};

/// Bytes of the segment between two entries.
const INTERVAL_BYTES: u64 = 4096;
const ENTRY_BYTES: usize = 16;

/// One batch's place. Segments are below 4 GiB and 2^31 offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IndexEntry {
    relative_offset: u32,
    position: u32,
    /// Largest timestamp of all batches before this one.
    max_timestamp_before: i64,
}

impl IndexEntry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[0..4].copy_from_slice(&self.relative_offset.to_le_bytes());
        out[4..8].copy_from_slice(&self.position.to_le_bytes());
        out[8..16].copy_from_slice(&self.max_timestamp_before.to_le_bytes());
        out
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> IndexEntry {
        let [a, b, c, d, e, f, g, h, time @ ..] = *bytes;
        IndexEntry {
            relative_offset: u32::from_le_bytes([a, b, c, d]),
            position: u32::from_le_bytes([e, f, g, h]),
            max_timestamp_before: i64::from_le_bytes(time),
        }
    }
}

/// What of the index file counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct IndexMark {
    pub entries: u32,
    pub crc: u32,
}

/// The entries, ascending.
#[derive(Debug, Default)]
pub(super) struct OffsetIndex {
    entries: Vec<IndexEntry>,
}

impl OffsetIndex {
    /// Notes a batch if the last entry is far enough behind.
    pub fn note(&mut self, segment_base: i64, batch: &BatchHeader, position: u64, max_timestamp_before: i64) {
        let due = self.entries.last().is_none_or(|last| position >= u64::from(last.position) + INTERVAL_BYTES);
        let relative = u32::try_from(batch.base_offset.saturating_sub(segment_base));
        if let (true, Ok(relative_offset), Ok(position)) = (due, relative, u32::try_from(position)) {
            self.entries.push(IndexEntry { relative_offset, position, max_timestamp_before });
        }
    }

    /// A position at or before the batch that contains `relative_offset`.
    pub fn position_of(&self, relative_offset: u64) -> u64 {
        let after = self.entries.partition_point(|entry| u64::from(entry.relative_offset) <= relative_offset);
        after.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(0, |entry| u64::from(entry.position))
    }

    /// The last batch with an entry that begins neither behind `position` nor behind `relative_offset`: all batches
    /// before it end there at the latest.
    pub fn last_within(&self, position: u64, relative_offset: u64) -> u64 {
        let after = self.entries.partition_point(|entry| {
            u64::from(entry.position) <= position && u64::from(entry.relative_offset) <= relative_offset
        });
        after.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(0, |entry| u64::from(entry.position))
    }

    /// The first batch with an entry that begins at or behind `position`: where it begins, in offsets.
    pub fn offset_from(&self, position: u64) -> Option<u32> {
        let before = self.entries.partition_point(|entry| u64::from(entry.position) < position);
        self.entries.get(before).map(|entry| entry.relative_offset)
    }

    /// A position at or before the first batch whose largest timestamp is at least `timestamp_ms`.
    pub fn position_of_time(&self, timestamp_ms: i64) -> u64 {
        let after = self.entries.partition_point(|entry| entry.max_timestamp_before < timestamp_ms);
        after.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(0, |entry| u64::from(entry.position))
    }

    /// Reads what counts; none when the file does not hold it.
    pub fn load(disk: &dyn Disk, path: &Path, mark: IndexMark) -> Option<OffsetIndex> {
        let file = disk.open(path, OpenMode::Write).ok()?;
        let bytes_counting = u64::from(mark.entries) * ENTRY_BYTES as u64;
        let length = file.length().ok()?;
        if length < bytes_counting {
            return None;
        }
        if length > bytes_counting {
            // From a checkpoint that never was.
            file.set_length(bytes_counting).ok()?;
        }
        let mut bytes = vec![0; bytes_counting as usize];
        file.read_exact_at(&mut bytes, 0).ok()?;
        if crc32c::crc32c(&bytes) != mark.crc {
            return None;
        }
        let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
        Some(OffsetIndex { entries: entries.iter().map(IndexEntry::from_bytes).collect() })
    }

    /// Appends to the file what it does not hold yet, and returns what counts then.
    pub fn persist(&self, disk: &dyn Disk, path: &Path, held: IndexMark) -> io::Result<IndexMark> {
        let fresh: Vec<u8> =
            self.entries.iter().skip(held.entries as usize).flat_map(|entry| entry.to_bytes()).collect();
        if fresh.is_empty() {
            return Ok(held);
        }
        let mode = if held.entries == 0 { OpenMode::Truncate } else { OpenMode::Create };
        let file = disk.open(path, mode)?;
        file.write_all_at(&[&fresh], u64::from(held.entries) * ENTRY_BYTES as u64)?;
        Ok(IndexMark { entries: self.entries.len() as u32, crc: crc32c::crc32c_append(held.crc, &fresh) })
    }
}
