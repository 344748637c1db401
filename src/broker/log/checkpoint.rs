//! The checkpoint file: what segments and state hold, so that the journal before it is no longer needed.
//!
//! Magic, length u64, CRC-32C of the body, body. Replaced by rename, so that there is always a whole one.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::batch::OFFSET_MAX;
use super::codec::{Decoder, Encoder, Format};
use super::core::{Core, StateMap, journal_directory};
use super::disk::{Disk, OpenMode};
use super::producer_state::ProducerStates;
use super::queue::Completion;
use super::records::{Change, NUMBER_MAX, PartitionRecord, decode_state, encode_state};
use super::segment::SegmentSnapshot;
use super::store::{PartitionSnapshot, Unsynced};
use super::{Durability, OpenError, lock, read_lock};

/// The action of an error after which nothing may be promised any more.
pub(super) const SYNC: &str = "sync";

const MAGIC: [u8; 8] = *b"FSCHKP03";
/// Written by earlier versions, and still read.
const MAGICS_BEFORE: [([u8; 8], Format); 2] = [(*b"FSCHKP02", Format::Two), (*b"FSCHKP01", Format::One)];
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
    /// The oldest file of the journal that holds, or will hold, what comes behind this. None as long as there is none.
    pub needed_journal_number: Option<u64>,
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
        // One more than the number; 0: none.
        body.put(&self.needed_journal_number.map_or(0, |number| number + 1).to_le_bytes());
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

    fn decode(body: &[u8], format: Format) -> Option<Checkpoint> {
        let mut decoder = Decoder(body);
        let durability = if decoder.u8()? == 0 { Durability::Fsync } else { Durability::Os };
        let clean = decoder.u8()? != 0;
        let (sequence, next_partition_number) = (decoder.u64()?, decoder.u64()?);
        let next_journal_number = decoder.u64()?;
        let needed_journal_number = if format >= Format::Three { decoder.u64()?.checked_sub(1) } else { None };
        // What is counted on from the highest number still has its place here.
        if sequence.max(next_partition_number).max(next_journal_number) / 2 > NUMBER_MAX {
            return None;
        }
        let count = decoder.count(PARTITION_BYTES_MIN)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(decode_partition(&mut decoder, format)?);
        }
        let directories: HashSet<&str> = partitions.iter().map(|known| known.record.directory.as_str()).collect();
        if directories.len() < partitions.len() {
            return None;
        }
        let state = decode_state(&mut decoder)?.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let checkpoint = Checkpoint {
            durability,
            clean,
            sequence,
            next_partition_number,
            next_journal_number,
            needed_journal_number,
            partitions,
            state,
        };
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
        let formats = std::iter::once((MAGIC, Format::Three)).chain(MAGICS_BEFORE);
        let format = formats.into_iter().find_map(|(magic, format)| bytes.starts_with(&magic).then_some(format));
        let body = bytes.get(PREFIX_BYTES..).filter(|body| {
            let mut decoder = Decoder(&bytes[MAGIC.len()..]);
            decoder.u64() == Some(body.len() as u64) && decoder.u32() == Some(crc32c::crc32c(body))
        });
        match body.zip(format).and_then(|(body, format)| Checkpoint::decode(body, format)) {
            Some(checkpoint) => Ok(Some(checkpoint)),
            None => Err(OpenError::damaged(&path, 0, "this is no whole checkpoint of this version")),
        }
    }
}

fn decode_partition(decoder: &mut Decoder<'_>, format: Format) -> Option<PartitionSnapshot> {
    let record = PartitionRecord::decode(decoder, format)?;
    let (log_start, end_offset) = (decoder.i64()?, decoder.i64()?);
    let first_dirty = if format >= Format::Two { decoder.i64()? } else { 0 };
    let count = decoder.count(SegmentSnapshot::BYTES_MIN)?;
    let mut segments = Vec::with_capacity(count);
    for _ in 0..count {
        segments.push(SegmentSnapshot::decode(decoder, format)?);
    }
    // The last one may begin at the end: it was made ready, and what was to go there was refused.
    let ascending = segments.is_sorted_by(|one, next| one.base_offset < next.base_offset);
    let mut offsets = segments.iter().map(|segment| segment.base_offset).chain([log_start, end_offset, first_dirty]);
    if !ascending || !offsets.all(|offset| (0..=OFFSET_MAX).contains(&offset)) {
        return None;
    }
    let producers = ProducerStates::decode(decoder, format)?;
    Some(PartitionSnapshot { record, log_start, end_offset, first_dirty, segments, producers })
}

/// Syncs everything, `at_once` partitions side by side. After an error some may be left out.
fn sync_all(all_unsynced: &[(PathBuf, Unsynced)], at_once: usize) -> Result<(), OpenError> {
    let next = AtomicUsize::new(0);
    let sync_some = || {
        while let Some((path, unsynced)) = all_unsynced.get(next.fetch_add(1, Ordering::Relaxed)) {
            unsynced.sync().map_err(OpenError::io(SYNC, path))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        // Without another thread this one does it all.
        let others = (1..at_once.min(all_unsynced.len()))
            .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, sync_some).ok())
            .collect::<Vec<_>>();
        let here = sync_some();
        let panicked = |_| Err(OpenError::Unavailable("a sync ended by a panic".to_owned()));
        others.into_iter().map(|other| other.join().unwrap_or_else(panicked)).fold(here, Result::and)
    })
}

/// A checkpoint must not name a partition whose directory a power cut could still take away.
fn sync_names(core: &Core) -> Result<(), OpenError> {
    if !core.names_changed.load(Ordering::Acquire) {
        return Ok(());
    }
    // Before the mark is taken off: from there on nothing may fail but the sync itself.
    let names = core.disk.open_directory(&core.directory).map_err(OpenError::io("open", &core.directory))?;
    core.names_changed.store(false, Ordering::Release);
    names.sync_all().map_err(OpenError::io(SYNC, &core.directory))
}

/// Syncs what segments hold, writes a checkpoint, and frees the journal files that it replaces.
pub(super) fn take(core: &Core, clean: bool) -> Result<(), OpenError> {
    // Read first: what is applied while the pictures are taken is in the journal behind it, and replayed on top.
    let sequence = core.sequence();
    let mut partitions = Vec::new();
    let mut pictured_partitions = Vec::new();
    let mut all_unsynced: Vec<(PathBuf, Unsynced)> = Vec::new();
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
                sync_all(&all_unsynced, 1)?;
                return Err(OpenError::io("checkpoint", &partition.0.path)(error));
            }
        };
        all_unsynced.push((partition.0.path.clone(), unsynced));
        pictured_partitions.push((partition, snapshot.end_offset));
        partitions.push(snapshot);
    }
    let state = read_lock(&core.state).clone();
    // While the log is in use, the journal's syncs come first.
    sync_all(&all_unsynced, if clean { core.disk.syncs_at_once() } else { 1 })?;
    sync_names(core)?;
    let checkpoint = Checkpoint {
        durability: core.settings.durability,
        clean,
        sequence,
        next_partition_number: core.next_partition_number.load(Ordering::Acquire),
        next_journal_number: core.journal_files.next_number(),
        needed_journal_number: if clean { None } else { core.journal_files.needed(sequence) },
        partitions,
        state,
    };
    checkpoint.write(&*core.disk, &core.directory).map_err(OpenError::io("write", &path(&core.directory)))?;
    for ((partition, end_offset), (_, unsynced)) in pictured_partitions.into_iter().zip(all_unsynced) {
        // No checkpoint tells of them any more, so no start will look for them.
        partition.remove_replaced(&*core.disk, &unsynced.replaced);
        let removable = {
            let mut store = lock(&partition.0.store);
            store.checkpointed_end = end_offset;
            store.has_removable().then_some(store.log_start)
        };
        // What waited for this checkpoint may go now.
        if let Some(log_start) = removable {
            core.queue.push_change(Change::LogStart(partition, log_start), Completion::Nobody);
        }
    }
    core.journal_files.free(sequence).map_err(OpenError::io("recycle", &journal_directory(&core.directory)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::disk::OsDisk;
    use super::super::offset_index::IndexMark;
    use super::super::open_transactions::OpenTransaction;
    use super::super::segment_name::SegmentName;
    use super::super::{PartitionConfig, PartitionId};
    use super::*;

    fn partition() -> PartitionSnapshot {
        let config = PartitionConfig {
            segment_bytes_max: 1,
            segment_age_ms_max: 2,
            retention_bytes: None,
            retention_ms: None,
            batch_bytes_max: 3,
            log_append_time: false,
            compaction: None,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: i64::MAX,
        };
        let id = PartitionId { topic_id: uuid::Uuid::from_u128(7), partition: 0 };
        let empty = SegmentSnapshot::empty(SegmentName { base_offset: 0, generation: 0 }, 5, Arc::default());
        let segment = SegmentSnapshot { index: IndexMark { entries: 4, crc: 5 }, length: 99, ..empty };
        PartitionSnapshot {
            record: PartitionRecord { number: 1, id, directory: "topic-0".to_owned(), config },
            log_start: 0,
            end_offset: 10,
            first_dirty: 0,
            segments: vec![segment],
            producers: ProducerStates::default(),
        }
    }

    fn checkpoint(partition: PartitionSnapshot) -> Checkpoint {
        Checkpoint {
            durability: Durability::Fsync,
            clean: true,
            sequence: 1,
            next_partition_number: 2,
            next_journal_number: 3,
            needed_journal_number: Some(2),
            partitions: vec![partition],
            state: StateMap::new(),
        }
    }

    #[test]
    fn the_transactions_open_where_a_segment_begins_survive() {
        let mut partition = partition();
        let segment = &mut partition.segments[0];
        segment.aborted = IndexMark { entries: 6, crc: 7 };
        segment.open = [OpenTransaction { producer_id: 8, first_offset: 9 }].into();
        let expected = partition.segments.clone();
        let body = checkpoint(partition).encode();
        assert_eq!(Checkpoint::decode(&body, Format::Three).unwrap().partitions[0].segments, expected);
        for length in 0..body.len() {
            assert!(Checkpoint::decode(&body[..length], Format::Three).is_none(), "{length}");
        }
    }

    #[test]
    fn a_checkpoint_of_an_earlier_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = partition();
        // As it was written before there were transactions and compaction, from the format's description.
        let mut body = vec![1, 1];
        [4u64, 5, 6].iter().for_each(|number| body.put(&number.to_le_bytes()));
        body.put(&1u32.to_le_bytes());
        let mut record = Vec::new();
        snapshot.record.encode(&mut record);
        // Without the limits of times and compaction, which came later.
        body.put(&record[..record.len() - (2 * 8 + 1 + 3 * 8 + 4)]);
        body.put(&[0u64.to_le_bytes(), 10u64.to_le_bytes()].concat());
        body.put(&1u32.to_le_bytes());
        [0i64, 99, -1, 5, 5].iter().for_each(|number| body.put(&number.to_le_bytes()));
        [4u32, 5].iter().for_each(|number| body.put(&number.to_le_bytes()));
        body.put(&1u32.to_le_bytes());
        body.put(&77i64.to_le_bytes());
        body.put(&3i16.to_le_bytes());
        body.put(&1000i64.to_le_bytes());
        body.put(&[1]);
        [0i32, 1].iter().for_each(|number| body.put(&number.to_le_bytes()));
        [8i64, 9].iter().for_each(|number| body.put(&number.to_le_bytes()));
        body.put(&0u32.to_le_bytes());
        let mut bytes = b"FSCHKP01".to_vec();
        bytes.put(&(body.len() as u64).to_le_bytes());
        bytes.put(&crc32c::crc32c(&body).to_le_bytes());
        bytes.put(&body);
        std::fs::write(path(dir.path()), bytes).unwrap();
        let read = Checkpoint::read(&OsDisk, dir.path()).unwrap().unwrap();
        assert_eq!((read.sequence, read.next_journal_number, read.durability), (4, 6, Durability::Os));
        let found = &read.partitions[0];
        assert_eq!((&found.record, &found.segments), (&snapshot.record, &snapshot.segments));
        let [producer] = found.producers.active()[..] else { panic!("one producer") };
        assert_eq!((producer.producer_id, producer.epoch, producer.last_sequence), (77, 3, 1));
        assert_eq!((producer.coordinator_epoch, producer.transaction_start), (-1, -1));
        // And written as it is written now.
        read.write(&OsDisk, dir.path()).unwrap();
        assert!(std::fs::read(path(dir.path())).unwrap().starts_with(&MAGIC));
        let again = Checkpoint::read(&OsDisk, dir.path()).unwrap().unwrap();
        assert_eq!(again.partitions[0].producers, read.partitions[0].producers);
    }
}
