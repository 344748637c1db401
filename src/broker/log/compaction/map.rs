//! The last offset of each key in the part of the log that a pass covers, in bounded memory.
//!
//! Keys are remembered by 128 bits of a SHA-1 over a secret and the key: who writes keys cannot make two of them meet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use uuid::Uuid;

use super::super::batch::CheckedBatch;
use super::super::compressed::plain_records;
use super::super::disk::Disk;
use super::super::record::Records;
use super::transactions::Aborted;

/// What fits into a table of 2^20 places: 26 MB.
pub(super) const KEYS_MAX: usize = (1 << 20) / 8 * 7;

pub(super) struct KeyMap {
    secret: Uuid,
    keys_max: usize,
    last_offsets: HashMap<[u8; 16], i64>,
}

impl KeyMap {
    pub fn new(disk: &dyn Disk, keys_max: usize) -> KeyMap {
        let secret = Uuid::from_u64_pair(disk.random(), disk.random());
        KeyMap { secret, keys_max, last_offsets: HashMap::new() }
    }

    fn digest(&self, key: &[u8]) -> [u8; 16] {
        Uuid::new_v5(&self.secret, key).into_bytes()
    }

    /// Notes the keys of a batch, unless it was aborted. False when there was no room for all of them: then the batch is
    /// not covered, though those that are noted are true.
    pub fn note_batch(&mut self, batch: &CheckedBatch, aborted: &Aborted) -> io::Result<bool> {
        if batch.header.is_control() || aborted.holds(&batch.header) {
            return Ok(true);
        }
        for record in Records::of(&plain_records(batch)?) {
            let record = record.ok_or(io::ErrorKind::InvalidData)?;
            let Some(key) = record.key else { continue };
            let offset = batch.header.base_offset.saturating_add(record.offset_delta);
            let has_room = self.last_offsets.len() < self.keys_max;
            match self.last_offsets.entry(self.digest(key)) {
                Entry::Occupied(mut known) => _ = known.insert(offset),
                Entry::Vacant(free) if has_room => _ = free.insert(offset),
                Entry::Vacant(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether no later record of this key is known.
    pub fn is_last(&self, key: &[u8], offset: i64) -> bool {
        self.last_offsets.get(&self.digest(key)).is_none_or(|last| offset >= *last)
    }
}
