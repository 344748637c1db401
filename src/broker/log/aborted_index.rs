//! The aborted transactions whose markers lie in one segment, in the order of their markers.
//!
//! On disk it is the bare entries, appended at each checkpoint; how many of them count, and their CRC-32C, is in the
//! checkpoint, with the transactions that were open where the segment begins. From those and the segment's batches a
//! missing or wrong file is rebuilt, to the same bytes.

use std::io;
use std::path::Path;

use super::batch::CheckedBatch;
use super::disk::{Disk, DiskFile, OpenMode};
use super::header_walk::HeaderWalk;
use super::offset_index::IndexMark;
use super::open_transactions::{AbortedTransaction, OpenTransaction, OpenTransactions};

const ENTRY_BYTES: usize = 32;

/// The entries, ascending by marker.
#[derive(Debug, Default)]
pub(super) struct AbortedIndex {
    entries: Vec<AbortedTransaction>,
}

fn to_bytes(entry: &AbortedTransaction) -> [u8; ENTRY_BYTES] {
    let mut out = [0; ENTRY_BYTES];
    out[0..8].copy_from_slice(&entry.producer_id.to_le_bytes());
    out[8..16].copy_from_slice(&entry.first_offset.to_le_bytes());
    out[16..24].copy_from_slice(&entry.last_offset.to_le_bytes());
    out[24..32].copy_from_slice(&entry.last_stable_offset.to_le_bytes());
    out
}

fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> AbortedTransaction {
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        i64::from_le_bytes(number)
    };
    AbortedTransaction {
        producer_id: number(0),
        first_offset: number(8),
        last_offset: number(16),
        last_stable_offset: number(24),
    }
}

impl AbortedIndex {
    pub fn note(&mut self, aborted: AbortedTransaction) {
        self.entries.push(aborted);
    }

    /// Adds to `found` what a reader of the offsets from `from` up to `to` must know. True: no later segment knows of
    /// more.
    pub fn collect(&self, from: i64, to: i64, found: &mut Vec<AbortedTransaction>) -> bool {
        let after = self.entries.partition_point(|entry| entry.last_offset < from);
        for entry in self.entries.iter().skip(after) {
            if entry.first_offset < to {
                found.push(*entry);
            }
            if entry.last_stable_offset >= to {
                return true;
            }
        }
        false
    }

    /// Reads what counts; none when the file does not hold it. What lies behind it is cut off.
    pub fn load(disk: &dyn Disk, path: &Path, mark: IndexMark) -> Option<AbortedIndex> {
        if mark.entries == 0 {
            return Some(AbortedIndex::default());
        }
        let file = disk.open(path, OpenMode::Write).ok()?;
        let bytes_counting = u64::from(mark.entries) * ENTRY_BYTES as u64;
        let length = file.length().ok()?;
        if length < bytes_counting {
            return None;
        }
        let mut bytes = vec![0; bytes_counting as usize];
        file.read_exact_at(&mut bytes, 0).ok()?;
        if crc32c::crc32c(&bytes) != mark.crc {
            return None;
        }
        if length > bytes_counting {
            file.set_length(bytes_counting).ok()?;
        }
        let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
        Some(AbortedIndex { entries: entries.iter().map(from_bytes).collect() })
    }

    /// Finds the entries again, in the segment's first `length` bytes.
    ///
    /// # Errors
    /// Those of reading; `InvalidData` when the segment does not hold whole batches.
    pub fn rebuild(file: &dyn DiskFile, length: u64, open: &[OpenTransaction]) -> io::Result<AbortedIndex> {
        let mut open: OpenTransactions = open.iter().copied().collect();
        let mut index = AbortedIndex::default();
        let mut walk = HeaderWalk::new(file, 0, length);
        while let Some((position, header)) = walk.next()? {
            let mut marker = None;
            if header.is_control() {
                let mut bytes = vec![0; header.total_bytes().unwrap_or_default()];
                file.read_exact_at(&mut bytes, position)?;
                marker = CheckedBatch::split(&bytes.into(), header).and_then(|batch| batch.marker());
            }
            index.entries.extend(open.apply(&header, marker.map(|stored| stored.marker)));
        }
        Ok(index)
    }

    /// What counts once the file holds all of it; `held` is what it held before.
    pub fn mark(&self, held: IndexMark) -> IndexMark {
        let crc = crc32c::crc32c_append(held.crc, &self.bytes_behind(held));
        IndexMark { entries: self.entries.len() as u32, crc }
    }

    fn bytes_behind(&self, held: IndexMark) -> Vec<u8> {
        self.entries.iter().skip(held.entries as usize).flat_map(to_bytes).collect()
    }

    /// Appends to the file what it does not hold yet.
    pub fn persist(&self, disk: &dyn Disk, path: &Path, held: IndexMark) -> io::Result<()> {
        let fresh = self.bytes_behind(held);
        if fresh.is_empty() {
            return Ok(());
        }
        // What a file holds that nobody promised anything of is no part of it.
        let mode = if held.entries == 0 { OpenMode::Truncate } else { OpenMode::Create };
        disk.open(path, mode)?.write_all_at(&[&fresh], u64::from(held.entries) * ENTRY_BYTES as u64)
    }
}
