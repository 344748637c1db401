//! The checkpoint file: what segments and state hold, so that the journal before it is no longer needed.
//!
//! Magic, length u64, CRC-32C of the body, body. Replaced by rename, so that there is always a whole one.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::codec::{Decoder, Encoder};
use super::core::{Core, StateMap, journal_directory};
use super::disk::{Disk, OpenMode};
use super::producer_state::ProducerStates;
use super::records::{PartitionRecord, decode_state, encode_state};
use super::segment::SegmentSnapshot;
use super::store::{PartitionSnapshot, Unsynced};
use super::{Durability, OpenError, read_lock};

/// The action of an error after which nothing may be promised any more.
pub(super) const SYNC: &str = "sync";

const MAGIC: [u8; 8] = *b"FSCHKP02";
/// From before there was compaction: read, and never written again.
const MAGIC_WITHOUT_COMPACTION: [u8; 8] = *b"FSCHKP01";
const PREFIX_BYTES: usize = 20;
/// The least that a partition takes: guards the count that is read from disk.
const PARTITION_BYTES_MIN: usize = 60;

/// What the file says.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// How the life that wrote it stored batches: recovery depends on it.
    pub durability: Durability,
    /// Written by `close`: nothing came after it.
    pub clean: bool,
    /// All groups up to this one are held.
    pub sequence: u64,
    pub next_partition_number: u64,
    pub next_journal_number: u64,
    pub partitions: Vec<PartitionSnapshot>,
    pub state: StateMap,
}

/// Where it is.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join("checkpoint")
}

impl Checkpoint {
    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put(&[u8::from(self.durability == Durability::Os), u8::from(self.clean)]);
        body.put(&self.sequence.to_le_bytes());
        body.put(&self.next_partition_number.to_le_bytes());
        body.put(&self.next_journal_number.to_le_bytes());
        body.put(&(self.partitions.len() as u32).to_le_bytes());
        for partition in &self.partitions {
            partition.record.encode(&mut body);
            body.put(&partition.log_start.to_le_bytes());
            body.put(&partition.end_offset.to_le_bytes());
            body.put(&partition.first_dirty.to_le_bytes());
            body.put(&(partition.segments.len() as u32).to_le_bytes());
            partition.segments.iter().for_each(|segment| segment.encode(&mut body));
            partition.producers.encode(&mut body);
        }
        encode_state(&mut body, self.state.iter().map(|(key, value)| (key, Some(value))));
        body
    }

    fn decode(body: &[u8], knows_compaction: bool) -> Option<Checkpoint> {
        let mut decoder = Decoder(body);
        let durability = if decoder.u8()? == 0 { Durability::Fsync } else { Durability::Os };
        let clean = decoder.u8()? != 0;
        let (sequence, next_partition_number) = (decoder.u64()?, decoder.u64()?);
        let next_journal_number = decoder.u64()?;
        let count = decoder.count(PARTITION_BYTES_MIN)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(decode_partition(&mut decoder, knows_compaction)?);
        }
        let state = decode_state(&mut decoder)?.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let checkpoint =
            Checkpoint { durability, clean, sequence, next_partition_number, next_journal_number, partitions, state };
        decoder.is_empty().then_some(checkpoint)
    }

    /// Writes it so that a crash leaves either the old or the new one.
    pub fn write(&self, disk: &dyn Disk, directory: &Path) -> io::Result<()> {
        let body = self.encode();
        let mut prefix = MAGIC.to_vec();
        prefix.put(&(body.len() as u64).to_le_bytes());
        prefix.put(&crc32c::crc32c(&body).to_le_bytes());
        let temporary = directory.join("checkpoint.tmp");
        let file = disk.open(&temporary, OpenMode::Truncate)?;
        file.write_all_at(&[&prefix, &body], 0)?;
        file.sync_all()?;
        disk.rename(&temporary, &path(directory))?;
        // Without this the rename itself may be lost, and the journal that the old one needs is about to go.
        disk.sync_directory(directory)
    }

    /// Reads it; none when there is no such file.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Checkpoint>, OpenError> {
        let path = path(directory);
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Io { action: "read", path, source }),
        };
        let body = bytes.get(PREFIX_BYTES..).filter(|body| {
            let mut decoder = Decoder(&bytes[MAGIC.len()..]);
            decoder.u64() == Some(body.len() as u64) && decoder.u32() == Some(crc32c::crc32c(body))
        });
        let knows_compaction = bytes.starts_with(&MAGIC);
        let known = knows_compaction || bytes.starts_with(&MAGIC_WITHOUT_COMPACTION);
        match body.filter(|_| known).and_then(|body| Checkpoint::decode(body, knows_compaction)) {
            Some(checkpoint) => Ok(Some(checkpoint)),
            None => Err(OpenError::damaged(&path, 0, "this is no whole checkpoint of this version")),
        }
    }
}

fn decode_partition(decoder: &mut Decoder<'_>, knows_compaction: bool) -> Option<PartitionSnapshot> {
    let record = PartitionRecord::decode(decoder, knows_compaction)?;
    let (log_start, end_offset) = (decoder.i64()?, decoder.i64()?);
    let first_dirty = if knows_compaction { decoder.i64()? } else { 0 };
    let count = decoder.count(SegmentSnapshot::BYTES_MIN)?;
    let mut segments = Vec::with_capacity(count);
    for _ in 0..count {
        segments.push(SegmentSnapshot::decode(decoder, knows_compaction)?);
    }
    let producers = ProducerStates::decode(decoder)?;
    Some(PartitionSnapshot { record, log_start, end_offset, first_dirty, segments, producers })
}

fn sync_all(all_unsynced: &[(PathBuf, Unsynced)]) -> Result<(), OpenError> {
    for (path, unsynced) in all_unsynced {
        unsynced.sync().map_err(OpenError::io(SYNC, path))?;
    }
    Ok(())
}

/// Syncs what segments hold, writes a checkpoint, and frees the journal files that it replaces.
pub(super) fn take(core: &Core, clean: bool) -> Result<(), OpenError> {
    // Read first: what is applied while the pictures are taken is in the journal behind it, and replayed on top.
    let sequence = core.sequence();
    let mut partitions = Vec::new();
    let mut all_unsynced: Vec<(PathBuf, Unsynced)> = Vec::new();
    let mut all_replaced = Vec::new();
    for partition in core.all_partitions() {
        // One that was deleted meanwhile is also deleted in the journal.
        if partition.is_deleted() {
            continue;
        }
        let pictured = partition.checkpoint();
        let (snapshot, unsynced) = match pictured {
            Ok(pictured) => pictured,
            Err(_) if partition.is_deleted() => continue,
            Err(error) => {
                // The marks of those before it are taken off: the next checkpoint would not sync them.
                sync_all(&all_unsynced)?;
                return Err(OpenError::io("checkpoint", &partition.0.path)(error));
            }
        };
        partitions.push(snapshot);
        all_replaced.push((partition.clone(), unsynced.replaced.clone()));
        all_unsynced.push((partition.0.path.clone(), unsynced));
    }
    let state = read_lock(&core.state).clone();
    sync_all(&all_unsynced)?;
    let checkpoint = Checkpoint {
        durability: core.settings.durability,
        clean,
        sequence,
        next_partition_number: core.next_partition_number.load(std::sync::atomic::Ordering::Acquire),
        next_journal_number: core.journal_files.next_number(),
        partitions,
        state,
    };
    checkpoint.write(&*core.disk, &core.directory).map_err(OpenError::io("write", &path(&core.directory)))?;
    // No checkpoint tells of them any more, so no start will look for them.
    for (partition, replaced) in all_replaced {
        partition.remove_replaced(&*core.disk, &replaced);
    }
    core.journal_files.free(sequence).map_err(OpenError::io("recycle", &journal_directory(&core.directory)))
}
