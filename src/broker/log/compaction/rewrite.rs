//! Writes segments anew: what the filter leaves of some adjacent ones becomes one file.

use std::io;
use std::sync::Arc;

use super::super::batch::{BatchHeader, CheckedBatch};
use super::super::segment::{Noted, Segment, SegmentSnapshot};
use super::super::segment_name::SegmentName;
use super::filter::{Filter, Left};
use super::{Pass, PassError, failed};

/// Written at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Synced in portions, so that the journal's own syncs need not wait behind a large one.
const SYNC_BYTES: u64 = 8 << 20;
/// Left on the disk for appends, whatever there is to clean.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// Positions in a segment have 31 bits.
const SEGMENT_BYTES_LIMIT: u64 = i32::MAX as u64;

/// A segment, and where it ends.
type Bounded = (Arc<Segment>, i64);

/// Adjacent segments that fit into one, by their sizes before.
pub(super) fn groups(segments: &[Bounded], bytes_max: u64) -> Vec<&[Bounded]> {
    let bytes_max = bytes_max.min(SEGMENT_BYTES_LIMIT);
    let mut groups = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, (segment, end)) in segments.iter().enumerate() {
        let offsets = end.saturating_sub(segments[from].0.base_offset);
        let fits = bytes + segment.length() <= bytes_max && offsets <= i64::from(i32::MAX);
        if at > from && !fits {
            groups.push(&segments[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += segment.length();
    }
    if from < segments.len() {
        groups.push(&segments[from..]);
    }
    groups
}

impl Pass<'_> {
    /// What takes the place of a group; none when the group stays as it is, and nothing in it when all of it goes.
    pub(super) fn rewrite(
        &self,
        group: &[Bounded],
        filter: &mut Filter<'_>,
    ) -> Result<Option<Option<Arc<Segment>>>, PassError> {
        self.check_room(group)?;
        let mut output =
            Output { pass: self, group, segment: None, chunk: Vec::new(), headers: Vec::new(), unsynced: 0 };
        match self.copy(group, filter, &mut output).and_then(|changed| output.finish(changed)) {
            Ok(true) => Ok(Some(output.segment.take().map(Arc::new))),
            Ok(false) => Ok(None),
            Err(error) => {
                output.segment.iter().for_each(|segment| self.discard(segment));
                Err(error)
            }
        }
    }

    /// Appends come first.
    fn check_room(&self, group: &[Bounded]) -> Result<(), PassError> {
        let needed = FREE_BYTES_MIN + group.iter().map(|(segment, _)| segment.length()).sum::<u64>();
        let directory = &self.core.directory;
        if self.core.disk.free_bytes(directory).is_some_and(|free| free < needed) {
            return Err(failed(directory.clone(), io::ErrorKind::StorageFull.into()));
        }
        Ok(())
    }

    /// False when there is nothing to change, and nothing was written.
    fn copy(&self, group: &[Bounded], filter: &mut Filter<'_>, output: &mut Output<'_>) -> Result<bool, PassError> {
        // Several become one in any case. A single one is written only from the first change on.
        let mut changed = group.len() > 1;
        for (segment, _) in group {
            let mut batches = self.batches(segment, 0, segment.length());
            while let Some((position, batch)) = batches.next()? {
                let left = filter.left_of(&batch).map_err(|error| failed(segment.log_path(), error))?;
                if !changed && !matches!(left, Left::All) {
                    changed = true;
                    let mut before = self.batches(segment, 0, position);
                    while let Some((_, batch)) = before.next()? {
                        output.push(&batch)?;
                    }
                }
                match left {
                    Left::All if changed => output.push(&batch)?,
                    Left::All | Left::Nothing => {}
                    Left::Some(batch) => output.push(&batch)?,
                }
            }
        }
        Ok(changed)
    }
}

/// The new segment; made when there is something to put into it.
struct Output<'a> {
    pass: &'a Pass<'a>,
    group: &'a [Bounded],
    segment: Option<Segment>,
    chunk: Vec<u8>,
    /// Of the batches in `chunk`, with their sizes.
    headers: Vec<(BatchHeader, usize)>,
    unsynced: u64,
}

impl Output<'_> {
    fn push(&mut self, batch: &CheckedBatch) -> Result<(), PassError> {
        self.chunk.extend_from_slice(&batch.head);
        self.chunk.extend_from_slice(&batch.records);
        self.headers.push((batch.header, batch.total_bytes()));
        if self.chunk.len() >= CHUNK_BYTES { self.write() } else { Ok(()) }
    }

    fn create(&self) -> Result<Segment, PassError> {
        let first = &self.group[0].0;
        let generation = self.group.iter().map(|(segment, _)| segment.generation).max().unwrap_or(0) + 1;
        let name = SegmentName { base_offset: first.base_offset, generation };
        let directory = &self.pass.candidate.partition.0.path;
        let first = first.snapshot();
        let empty = SegmentSnapshot::empty(name, first.opened_ms, first.open);
        Segment::create(&self.pass.core.disk, directory, empty)
            .map_err(|error| failed(directory.join(name.log()), error))
    }

    fn write(&mut self) -> Result<(), PassError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.pass.go_on()?;
        if self.segment.is_none() {
            self.segment = Some(self.create()?);
        }
        let Some(segment) = &self.segment else { return Ok(()) };
        let last_append_ms = self.group.iter().map(|(segment, _)| segment.snapshot().last_append_ms).max();
        let last_append_ms = last_append_ms.unwrap_or(0);
        // Aborted transactions are found again when all of it is written.
        let noted = self.headers.iter().map(|(header, bytes)| Noted {
            header,
            total_bytes: *bytes,
            now_ms: last_append_ms,
            aborted: None,
        });
        let written = if segment.length() + self.chunk.len() as u64 > SEGMENT_BYTES_LIMIT {
            // Only what was compressed far better than we do.
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            segment.write_bytes(&self.chunk).and_then(|()| segment.note(noted))
        };
        self.unsynced += self.chunk.len() as u64;
        let synced = written.and_then(|()| if self.unsynced >= SYNC_BYTES { segment.file.sync_data() } else { Ok(()) });
        synced.map_err(|error| failed(segment.log_path(), error))?;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
        }
        self.chunk.clear();
        self.headers.clear();
        Ok(())
    }

    /// Syncs all of it. The checkpoint would, too, but had to wait for it.
    fn finish(&mut self, changed: bool) -> Result<bool, PassError> {
        self.write()?;
        if let Some(segment) = &self.segment {
            let done = segment.find_aborted().and_then(|()| segment.file.sync_data());
            done.map_err(|error| failed(segment.log_path(), error))?;
        }
        Ok(changed)
    }
}
