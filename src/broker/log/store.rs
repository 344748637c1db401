//! What a partition holds on disk: its segments in order, the end of what counts, producer state as far as that.
//!
//! The lock around it is held for looks and for counting, never for reading or writing batches.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::batch::CheckedBatch;
use super::disk::{Disk, DiskFile};
use super::lock;
use super::open_transactions::AbortedTransaction;
use super::partition::Partition;
use super::producer_state::ProducerStates;
use super::queue::PendingBatch;
use super::records::PartitionRecord;
use super::segment::{Noted, Segment, SegmentSnapshot};
use super::segment_name::SegmentName;

/// A segment's positions and relative offsets are 32 bits wide.
const SEGMENT_BYTES_LIMIT: u64 = i32::MAX as u64;

/// What a checkpoint says about a partition.
#[derive(Clone, Debug)]
pub(super) struct PartitionSnapshot {
    pub record: PartitionRecord,
    pub log_start: i64,
    pub end_offset: i64,
    /// Compaction has looked at everything before.
    pub first_dirty: i64,
    pub segments: Vec<SegmentSnapshot>,
    pub producers: ProducerStates,
}

/// The durable side of a partition.
#[derive(Default)]
pub(super) struct Store {
    pub segments: VecDeque<Arc<Segment>>,
    /// The next batch begins a new segment.
    pub last_is_closed: bool,
    pub log_start: i64,
    pub end_offset: i64,
    /// Compaction has looked at everything before.
    pub first_dirty: i64,
    /// Written anew by compaction; the files stay until a checkpoint tells of the new ones.
    pub replaced: Vec<Arc<Segment>>,
    /// How often compaction has put something into another's place.
    pub replacements: u64,
    pub producers: ProducerStates,
    /// The end that the last checkpoint holds, and with it all that its batches told of producers.
    pub checkpointed_end: i64,
    /// A file was created or removed since the directory was synced.
    pub directory_dirty: bool,
}

impl Store {
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length()).sum()
    }

    /// The first offset of the oldest open transaction that can still be read, or the end.
    pub fn last_stable_offset(&self) -> i64 {
        self.producers.open().oldest().map_or(self.end_offset, |first| first.max(self.log_start).min(self.end_offset))
    }

    /// Counts the next batch. Tells of the transaction that it aborted.
    pub fn apply(&mut self, batch: &CheckedBatch, now_ms: i64) -> Option<AbortedTransaction> {
        self.end_offset = batch.header.last_offset() + 1;
        self.producers.apply(&batch.header, batch.marker(), now_ms)
    }

    /// A segment that would begin with the next batch.
    pub fn next_segment(&self, base_offset: i64, now_ms: i64) -> SegmentSnapshot {
        let name = SegmentName { base_offset, generation: 0 };
        SegmentSnapshot::empty(name, now_ms, self.producers.open().all().collect())
    }

    /// The segment that holds `offset`, and where it ends; where there is none, the next one.
    pub fn segment_at(&self, offset: i64) -> Option<(Arc<Segment>, i64)> {
        let index = self.index_at(offset);
        self.segments.get(index).map(|segment| (segment.clone(), self.end_of(index)))
    }

    /// Segments that get no batches any more, from the first on.
    pub fn closed_segments(&self) -> usize {
        self.segments.len() - usize::from(!self.last_is_closed && !self.segments.is_empty())
    }

    /// Puts what compaction made of some segments into their place, if they are all still there.
    pub fn replace(&mut self, old: &[Arc<Segment>], new: Option<Arc<Segment>>) -> bool {
        let Some(first) = old.first() else { return false };
        let Some(at) = self.segments.iter().position(|segment| Arc::ptr_eq(segment, first)) else { return false };
        let here = self.segments.range(at..).zip(old).filter(|(here, old)| Arc::ptr_eq(here, old)).count();
        if here < old.len() {
            return false;
        }
        self.replaced.extend(self.segments.drain(at..at + old.len()));
        if let Some(new) = new {
            self.segments.insert(at, new);
        }
        self.directory_dirty = true;
        self.replacements += 1;
        true
    }

    /// The segment that holds `offset`, and all behind it.
    pub fn all_from(&self, offset: i64) -> Vec<Arc<Segment>> {
        self.segments.iter().skip(self.index_at(offset)).cloned().collect()
    }

    fn index_at(&self, offset: i64) -> usize {
        self.segments.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1)
    }

    /// Where a segment ends: the next one's base, or the end of the log.
    pub fn end_of(&self, index: usize) -> i64 {
        self.segments.get(index + 1).map_or(self.end_offset, |next| next.base_offset)
    }

    /// The first segment lies wholly below the log start, and will get no more batches.
    pub fn has_removable(&self) -> bool {
        self.closed_segments() > 0 && self.end_of(0) <= self.log_start
    }

    /// Raises the log start and takes out the segments that lie wholly below it, as far as they end by `held_to`.
    pub fn raise_log_start(&mut self, offset: i64, held_to: i64) -> Vec<Arc<Segment>> {
        self.log_start = self.log_start.max(offset);
        let mut removed = Vec::new();
        while self.has_removable() && self.end_of(0) <= held_to {
            removed.extend(self.segments.pop_front());
            self.directory_dirty = true;
        }
        removed
    }
}

/// What must be synced before a snapshot counts.
pub(super) struct Unsynced {
    pub segments: Vec<Arc<Segment>>,
    pub directory: Option<Arc<dyn DiskFile>>,
    /// No longer needed once the snapshot counts.
    pub replaced: Vec<Arc<Segment>>,
}

impl Unsynced {
    pub fn sync(&self) -> io::Result<()> {
        for segment in &self.segments {
            segment.file.sync_data()?;
        }
        self.directory.as_ref().map_or(Ok(()), |directory| directory.sync_all())
    }
}

impl Partition {
    /// Makes sure that the next batch has a segment to go to, before it is promised a place in the journal.
    pub(super) fn prepare_segment(&self, first: &PendingBatch) -> io::Result<()> {
        let config = self.config();
        let bytes_max = config.segment_bytes_max.min(SEGMENT_BYTES_LIMIT);
        self.segment_for(first, bytes_max, config.segment_age_ms_max).map(drop)
    }

    /// Writes batches to the segments and counts them; `rest` is what is left after an error. By the writer (or
    /// recovery) only.
    pub(super) fn store_batches(&self, rest: &mut &[PendingBatch]) -> io::Result<()> {
        let config = self.config();
        let bytes_max = config.segment_bytes_max.min(SEGMENT_BYTES_LIMIT);
        while let Some(first) = rest.first() {
            let (segment, room_used) = self.segment_for(first, bytes_max, config.segment_age_ms_max)?;
            let count = batches_that_fit(rest, &segment, room_used, bytes_max);
            let (now, later) = rest.split_at(count);
            segment.write(now)?;
            let mut store = lock(&self.0.store);
            segment.note(now.iter().map(|PendingBatch { batch, now_ms, .. }| Noted {
                header: &batch.header,
                total_bytes: batch.total_bytes(),
                now_ms: *now_ms,
                aborted: store.apply(batch, *now_ms),
            }))?;
            *rest = later;
        }
        Ok(())
    }

    /// Whether these batches go into the segment that is written now, and nothing must be opened or read for it.
    pub(super) fn takes_at_once<'a>(&self, batches: impl Iterator<Item = &'a PendingBatch>) -> bool {
        let config = self.config();
        let last = {
            let store = lock(&self.0.store);
            if store.last_is_closed { None } else { store.segments.back().cloned() }
        };
        let Some(last) = last.filter(|last| last.has_indexes_at_hand()) else { return false };
        let now = last.snapshot();
        let bytes_max = config.segment_bytes_max.min(SEGMENT_BYTES_LIMIT);
        let mut used = now.length;
        for pending in batches {
            let is_old = pending.now_ms.saturating_sub(now.opened_ms) > config.segment_age_ms_max;
            if is_old || !fits(pending, &last, used, bytes_max) {
                return false;
            }
            used += pending.batch.total_bytes() as u64;
        }
        true
    }

    /// The segment that takes `first`: the last one, or a new one.
    fn segment_for(&self, first: &PendingBatch, bytes_max: u64, age_ms_max: i64) -> io::Result<(Arc<Segment>, u64)> {
        let base_offset = first.batch.header.base_offset;
        let last = {
            let mut store = lock(&self.0.store);
            let last = store.segments.back().cloned();
            // One that was made ready and got nothing has the name that its successor would have.
            store.last_is_closed &= last.as_ref().is_none_or(|last| last.base_offset != base_offset);
            if store.last_is_closed { None } else { last }
        };
        if let Some(last) = last {
            let now = last.snapshot();
            let fits = fits(first, &last, now.length, bytes_max);
            let takes_it = now.length == 0 || (fits && first.now_ms.saturating_sub(now.opened_ms) <= age_ms_max);
            if takes_it && can_grow(&last)? {
                return Ok((last, now.length));
            }
        }
        let empty = lock(&self.0.store).next_segment(base_offset, first.now_ms);
        let fresh = Arc::new(Segment::create(&self.0.disk, &self.0.path, empty)?);
        let mut store = lock(&self.0.store);
        store.segments.push_back(fresh.clone());
        store.last_is_closed = false;
        store.directory_dirty = true;
        Ok((fresh, 0))
    }

    /// A consistent picture for a checkpoint, and what to sync before it may be written.
    pub(super) fn checkpoint(&self) -> io::Result<(PartitionSnapshot, Unsynced)> {
        let record = self.record();
        let mut store = lock(&self.0.store);
        let mut segments = Vec::with_capacity(store.segments.len());
        let mut unsynced = Unsynced { segments: Vec::new(), directory: None, replaced: store.replaced.clone() };
        // Before the marks are taken off: from there on nothing may fail but the sync itself.
        if store.directory_dirty {
            unsynced.directory = Some(self.0.disk.open_directory(&self.0.path)?);
            store.directory_dirty = false;
        }
        for segment in &store.segments {
            let (snapshot, dirty) = segment.checkpoint();
            segments.push(snapshot);
            if dirty {
                unsynced.segments.push(segment.clone());
            }
        }
        let (log_start, end_offset, first_dirty) = (store.log_start, store.end_offset, store.first_dirty);
        let producers = store.producers.clone();
        let snapshot = PartitionSnapshot { record, log_start, end_offset, first_dirty, segments, producers };
        Ok((snapshot, unsynced))
    }

    /// Removes the files of segments that a durable checkpoint tells of no longer.
    pub(super) fn remove_replaced(&self, disk: &dyn Disk, replaced: &[Arc<Segment>]) {
        // A deleted partition's directory may be somebody else's by now, with files of the same names.
        let names = lock(&self.0.names);
        if self.is_deleted() {
            return;
        }
        for segment in replaced {
            for (path, _) in segment.files() {
                match disk.remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!("cannot remove {}: {error}; the next start tries again", path.display());
                    }
                    _ => {}
                }
            }
        }
        drop(names);
        let mut store = lock(&self.0.store);
        store.replaced.retain(|left| !replaced.iter().any(|removed| Arc::ptr_eq(left, removed)));
    }
}

/// False for a segment whose indexes are lost, and whose batches have rotted: that is for its readers to hear, and no
/// reason to refuse what comes next.
fn can_grow(segment: &Segment) -> io::Result<bool> {
    match segment.load_indexes() {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let path = segment.log_path();
            tracing::error!("{} is damaged: {error}; the log goes on in a new segment", path.display());
            Ok(false)
        }
        loaded => loaded.map(|()| true),
    }
}

fn fits(pending: &PendingBatch, segment: &Segment, used: u64, bytes_max: u64) -> bool {
    let offsets = pending.batch.header.last_offset().saturating_sub(segment.base_offset);
    used + pending.batch.total_bytes() as u64 <= bytes_max && offsets <= i64::from(i32::MAX)
}

/// How many of the batches (at least one) the segment takes before it is closed.
fn batches_that_fit(batches: &[PendingBatch], segment: &Segment, mut used: u64, bytes_max: u64) -> usize {
    let mut count = 0;
    for pending in batches {
        if count > 0 && !fits(pending, segment, used, bytes_max) {
            break;
        }
        used += pending.batch.total_bytes() as u64;
        count += 1;
    }
    count
}

/// Removes a segment's files from the directory; open handles stay readable. A missing file is as good as removed.
pub(super) fn move_away(
    disk: &dyn Disk,
    segment: &Segment,
    number: u64,
    graveyard: &Path,
) -> io::Result<Vec<std::path::PathBuf>> {
    let mut moved = Vec::with_capacity(3);
    let name = segment.name();
    for (from, kind) in segment.files() {
        let to = graveyard.join(format!("{number}-{:020}-{}.{kind}", name.base_offset, name.generation));
        match disk.rename(&from, &to) {
            Ok(()) => moved.push(to),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(moved)
}
