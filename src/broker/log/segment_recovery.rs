//! Opens a partition's segments as the checkpoint knows them, and decides about what lies beyond.
//!
//! `fsync`: everything beyond the checkpoint is in the journal, so it is cut and replayed. `os`: it is only here, so it
//! is read up to the first batch that is not whole.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, OpenMode};
use super::journal_witness::Beyond;
use super::recovery::whole_batch;
use super::segment::{Noted, Segment, SegmentSnapshot};
use super::segment_name::SegmentName;
use super::store::{PartitionSnapshot, Store};
use super::{Durability, OpenError, RecoveryReport};

/// Opens the segments in `path`. `snapshot.log_start` is where the log starts in the end, `journal_end` the offset behind
/// the last batch that the journal holds.
pub(super) fn open_store(
    disk: &Arc<dyn Disk>,
    path: &Path,
    snapshot: PartitionSnapshot,
    mode: Durability,
    journal_end: i64,
    report: &mut RecoveryReport,
) -> Result<Store, OpenError> {
    let mut store = Store {
        log_start: snapshot.log_start,
        end_offset: snapshot.end_offset,
        checkpointed_end: snapshot.end_offset,
        first_dirty: snapshot.first_dirty,
        producers: snapshot.producers,
        directory_dirty: true,
        ..Store::default()
    };
    let ends = snapshot.segments.iter().skip(1).map(|next| next.base_offset).chain([snapshot.end_offset]);
    for (segment, end) in snapshot.segments.iter().zip(ends) {
        match open_known(disk, path, segment.clone())? {
            Some(open) => {
                store.segments.push_back(Arc::new(open));
                store.last_is_closed = false;
            }
            // Removed after the checkpoint, by a raised log start that the journal tells of.
            None if end <= snapshot.log_start => store.last_is_closed = true,
            None => {
                let file = path.join(segment.name().log());
                let what = format!("the file is missing, though it holds offsets up to {}", end - 1);
                return Err(OpenError::damaged(&file, 0, what));
            }
        }
    }
    let known: HashSet<SegmentName> = snapshot.segments.iter().map(SegmentSnapshot::name).collect();
    let mut strangers = list(&**disk, path, "log")?;
    strangers.retain(|name| !known.contains(name));
    match mode {
        Durability::Fsync => {
            let last = snapshot.segments.last().map(|last| (last.name(), last.length, snapshot.end_offset));
            let known_end = journal_end.max(store.end_offset).max(store.log_start);
            let beyond = Beyond { disk: &**disk, directory: path, last, strangers: &strangers };
            beyond.check_end(known_end)?;
            cut_beyond(&**disk, path, &store, &strangers)?;
        }
        Durability::Os => read_beyond(disk, path, &mut store, &strangers, report)?,
    }
    remove_strange_indexes(&**disk, path, &store)?;
    Ok(store)
}

/// None when the file is missing.
fn open_known(disk: &Arc<dyn Disk>, path: &Path, snapshot: SegmentSnapshot) -> Result<Option<Segment>, OpenError> {
    let file = path.join(snapshot.name().log());
    let held = snapshot.length;
    let segment = match Segment::open(disk, path, snapshot) {
        Ok(segment) => segment,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { action: "open", path: file, source }),
    };
    let length = segment.file.length().map_err(OpenError::io("read", &file))?;
    if length < held {
        let what = format!("the file ends there, but it held {held} bytes");
        return Err(OpenError::damaged(&file, length, what));
    }
    Ok(Some(segment))
}

fn list(disk: &dyn Disk, path: &Path, kind: &str) -> Result<Vec<SegmentName>, OpenError> {
    let names = disk.list(path).map_err(OpenError::io("list", path))?;
    let mut found: Vec<SegmentName> = names.iter().filter_map(|entry| SegmentName::parse(&entry.name, kind)).collect();
    found.sort_unstable();
    Ok(found)
}

fn remove(disk: &dyn Disk, path: &Path, name: SegmentName) -> Result<u64, OpenError> {
    let file = path.join(name.log());
    let bytes = disk.open(&file, OpenMode::Read).and_then(|open| open.length()).unwrap_or(0);
    disk.remove_file(&file).map_err(OpenError::io("remove", &file))?;
    Ok(bytes)
}

/// Of segments that are gone, by retention or compaction.
fn remove_strange_indexes(disk: &dyn Disk, path: &Path, store: &Store) -> Result<(), OpenError> {
    let known: HashSet<SegmentName> = store.segments.iter().map(|segment| segment.name()).collect();
    for kind in SegmentName::INDEX_KINDS {
        for name in list(disk, path, kind)?.into_iter().filter(|name| !known.contains(name)) {
            let file = path.join(name.file(kind));
            disk.remove_file(&file).map_err(OpenError::io("remove", &file))?;
        }
    }
    Ok(())
}

fn cut(segment: &Segment) -> Result<u64, OpenError> {
    segment.cut().map_err(OpenError::io("cut", &segment.log_path()))
}

fn cut_beyond(disk: &dyn Disk, path: &Path, store: &Store, strangers: &[SegmentName]) -> Result<(), OpenError> {
    for segment in &store.segments {
        cut(segment)?;
    }
    for name in strangers {
        remove(disk, path, *name)?;
    }
    Ok(())
}

fn read_beyond(
    disk: &Arc<dyn Disk>,
    path: &Path,
    store: &mut Store,
    strangers: &[SegmentName],
    report: &mut RecoveryReport,
) -> Result<(), OpenError> {
    let mut torn = false;
    if let Some(last) = store.segments.back().cloned() {
        report.replayed_batches += read_on(&last, store)?;
        let cut_bytes = cut(&last)?;
        report.cut_bytes += cut_bytes;
        torn = cut_bytes > 0;
    }
    for &name in strangers {
        let base_offset = name.base_offset;
        if name.generation > 0 || base_offset < store.end_offset {
            // Written by compaction without ever counting, replaced by it, or below the log start: it holds nothing
            // that is not elsewhere, or gone for good.
            remove(&**disk, path, name)?;
            continue;
        }
        // What lies between the end and the log start was cut off by a raised log start, and is missing rightly.
        if base_offset <= store.log_start {
            store.end_offset = base_offset;
        }
        // Behind what is torn, or behind a hole.
        if torn || base_offset != store.end_offset {
            report.cut_bytes += remove(&**disk, path, name)?;
            continue;
        }
        let file = path.join(name.log());
        let fresh = store.next_segment(base_offset, 0);
        let segment = Arc::new(Segment::open(disk, path, fresh).map_err(OpenError::io("open", &file))?);
        let batches = read_on(&segment, store)?;
        let cut_bytes = cut(&segment)?;
        torn = cut_bytes > 0;
        report.cut_bytes += cut_bytes;
        report.replayed_batches += batches;
        if batches == 0 {
            remove(&**disk, path, name)?;
        } else {
            store.segments.push_back(segment);
            store.last_is_closed = false;
        }
    }
    Ok(())
}

/// Counts whole batches behind the ones that count, up to the first that is not whole or not in order.
fn read_on(segment: &Segment, store: &mut Store) -> Result<u64, OpenError> {
    let path = segment.log_path();
    let length = segment.file.length().map_err(OpenError::io("read", &path))?;
    let appended_ms = segment.file.modified_ms().map_err(OpenError::io("read", &path))?;
    let mut batches = 0;
    let mut position = segment.length();
    while let Some(batch) = whole_batch(&*segment.file, position, length) {
        let header = &batch.header;
        if header.base_offset != store.end_offset {
            break;
        }
        let total_bytes = batch.total_bytes();
        // Written again: pages that a failed sync has lost count as clean, and only look as if they were on disk.
        let written = segment.file.write_all_at(&[&batch.head, &batch.records], position);
        written.map_err(OpenError::io("write", &path))?;
        let noted = std::iter::once_with(|| {
            let aborted = store.apply(&batch, appended_ms);
            Noted { header, total_bytes, now_ms: appended_ms, aborted }
        });
        segment.note(noted).map_err(|error| match error.kind() {
            ErrorKind::InvalidData => {
                OpenError::damaged(&path, position, format!("no index can be made for the batches there: {error}"))
            }
            _ => OpenError::Io { action: "read", path: path.clone(), source: error },
        })?;
        position += total_bytes as u64;
        batches += 1;
    }
    Ok(batches)
}
