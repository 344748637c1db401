//! Compaction: of each key only the last record is kept, in closed segments, without anybody waiting for it.
//!
//! Owns: which partition is next, one pass over it, and what happens when that fails. One pass reads what is dirty into
//! a map of bounded size ([`map`]), decides batch by batch what the map, and how transactions ended ([`transactions`]),
//! leave of the log ([`filter`]), and writes segments anew where something goes ([`rewrite`]). Must not know: the writer,
//! the journal, the network.
//!
//! Nothing that counts is changed in place. A segment that was written anew has a name of its own and takes the old ones'
//! place in memory; the next checkpoint syncs it with its directory and tells of it, and only then the old files are
//! removed. Until then a start finds the old ones in the checkpoint and removes the new one as a stranger; afterwards it
//! is the other way round. All files are read and written without any lock but the cleaner's own.
//!
//! Source: KIP-58 (lag), KIP-354 (largest lag), KIP-534 (tombstones).

mod batches;
mod filter;
mod map;
mod rewrite;
mod transactions;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use self::filter::Filter;
use self::map::{KEYS_MAX, KeyMap};
use self::transactions::{Aborted, Transactions};
use super::core::{Core, FileError, PoisonOnPanic};
use super::partition::Partition;
use super::segment::Segment;
use super::settings::Compaction;
use super::{disk, lock};

/// A partition that could not be cleaned is left alone for so long.
const FAILED_PAUSE_MS: i64 = 10 * 60 * 1000;
/// The same when the disk was full, or no file could be opened.
const FULL_PAUSE_MS: i64 = 60 * 1000;

/// What the cleaner's thread is asked to do.
pub(super) enum Look {
    /// Clean what needs it at this wall clock, in ms.
    At(i64),
    Stop,
}

/// What the cleaner remembers between passes.
pub(super) struct Cleaner {
    /// Keys that one pass may hold in memory.
    keys_max: usize,
    /// Partitions, by number, that could not be cleaned: until when they are left alone.
    failed: HashMap<u64, i64>,
}

impl Default for Cleaner {
    fn default() -> Self {
        Cleaner { keys_max: KEYS_MAX, failed: HashMap::new() }
    }
}

/// Why a pass ended early.
#[derive(Debug)]
enum PassError {
    /// The log is being closed, or the partition or some of its segments are gone.
    Stopped,
    File(FileError),
}

/// Runs until it is told to stop.
pub(super) fn run(core: &Arc<Core>, looks: &Receiver<Look>) {
    let _guard = PoisonOnPanic(core, "the cleaner of the log");
    while let Ok(first) = looks.recv() {
        // Looks that came while the last one was carried out are one.
        let Some(Look::At(now_ms)) = std::iter::once(first).chain(looks.try_iter()).last() else { return };
        while clean_one(core, now_ms) {}
    }
}

/// Cleans the partition that needs it most. False when none needs it, or the log is being closed.
pub(super) fn clean_one(core: &Arc<Core>, now_ms: i64) -> bool {
    // One pass at a time: it is what bounds memory and I/O.
    let mut cleaner = lock(&core.cleaner);
    cleaner.failed.retain(|_, until_ms| now_ms < *until_ms);
    let candidates = core.all_partitions().into_iter().filter_map(|partition| {
        let waits = cleaner.failed.contains_key(&partition.number());
        if waits { None } else { Candidate::of(&partition, now_ms) }
    });
    let Some(chosen) = candidates.max_by_key(|candidate| (candidate.overdue, candidate.dirty_ppm)) else {
        return false;
    };
    let pass = Pass { core, candidate: &chosen, now_ms };
    match pass.run(cleaner.keys_max) {
        Ok(()) => true,
        Err(PassError::Stopped) => false,
        Err(PassError::File((path, error))) => {
            let lacks = disk::is_full(&error) || disk::is_passing(&error);
            let pause_ms = if lacks { FULL_PAUSE_MS } else { FAILED_PAUSE_MS };
            cleaner.failed.insert(chosen.partition.number(), now_ms.saturating_add(pause_ms));
            let cure = if lacks { disk::cure(&error) } else { "its other work goes on; it is tried again later" };
            tracing::warn!("cannot compact {}: {}: {error}; {cure}", chosen.partition.directory(), path.display());
            true
        }
    }
}

/// A partition with something to clean.
struct Candidate {
    partition: Partition,
    config: Compaction,
    /// What may be cleaned, and where each ends.
    segments: Vec<(Arc<Segment>, i64)>,
    segment_bytes_max: u64,
    /// Looked at by earlier passes: everything before.
    first_dirty: i64,
    /// The last offset that a reader of committed records can reach.
    last_offset: i64,
    dirty_ppm: u64,
    overdue: bool,
}

impl Candidate {
    /// None when there is nothing to clean, or not enough of it.
    fn of(partition: &Partition, now_ms: i64) -> Option<Candidate> {
        let limits = partition.config();
        let config = limits.compaction?;
        let readable = cleanable_end(partition);
        let (mut segments, first_dirty) = {
            let store = lock(&partition.0.store);
            let closed = store.segments.iter().take(store.closed_segments()).enumerate();
            let segments: Vec<_> = closed.map(|(index, segment)| (segment.clone(), store.end_of(index))).collect();
            (segments, store.first_dirty.max(store.log_start))
        };
        let (mut clean_bytes, mut dirty_bytes, mut overdue) = (0, 0, false);
        let mut count = 0;
        for (segment, end) in &segments {
            let (segment, is_dirty) = (segment.snapshot(), *end > first_dirty);
            // Without a lag there is none, also when the clock was set back.
            let is_fresh = config.lag_ms_min > 0 && now_ms.saturating_sub(segment.last_append_ms) < config.lag_ms_min;
            if *end > readable || (is_dirty && is_fresh) {
                break;
            }
            overdue |= is_dirty && now_ms.saturating_sub(segment.opened_ms) > config.lag_ms_max;
            *(if is_dirty { &mut dirty_bytes } else { &mut clean_bytes }) += segment.length;
            count += 1;
        }
        segments.truncate(count);
        let all_bytes: u64 = clean_bytes + dirty_bytes;
        let dirty_ppm = dirty_bytes.saturating_mul(1_000_000).checked_div(all_bytes)?;
        let enough = dirty_ppm > u64::from(config.dirty_ppm_min) || overdue;
        (dirty_bytes > 0 && enough).then(|| Candidate {
            partition: partition.clone(),
            config,
            segments,
            segment_bytes_max: limits.segment_bytes_max,
            first_dirty,
            last_offset: readable - 1,
            dirty_ppm,
            overdue,
        })
    }
}

/// Nothing at or beyond is cleaned: open transactions may still be aborted, and what is older than theirs stays until it
/// is known whether they count.
fn cleanable_end(partition: &Partition) -> i64 {
    partition.last_stable_offset()
}

/// One pass over one partition.
struct Pass<'a> {
    core: &'a Arc<Core>,
    candidate: &'a Candidate,
    now_ms: i64,
}

impl Pass<'_> {
    fn run(&self, keys_max: usize) -> Result<(), PassError> {
        let Candidate { partition, segments, .. } = self.candidate;
        let mut map = KeyMap::new(&*self.core.disk, keys_max);
        let aborted = self.aborted()?;
        let covered = self.fill(&mut map, &aborted)?;
        let mut filter = Filter {
            map: &map,
            covered,
            last_offset: self.candidate.last_offset,
            now_ms: self.now_ms,
            delete_retention_ms: self.candidate.config.delete_retention_ms,
            transactions: Transactions::new(&aborted),
        };
        let until = segments.partition_point(|(segment, _)| segment.base_offset < covered);
        // In order, and all or none of what follows: a tombstone may only begin to count down where everything before
        // it has been cleaned.
        for group in rewrite::groups(&segments[..until], self.candidate.segment_bytes_max) {
            let Some(written) = self.rewrite(group, &mut filter)? else { continue };
            let old: Vec<Arc<Segment>> = group.iter().map(|(segment, _)| segment.clone()).collect();
            let replaced = lock(&partition.0.store).replace(&old, written.clone());
            if !replaced {
                // Retention was faster: what is left is looked at again by the next pass.
                written.iter().for_each(|segment| self.discard(segment));
                return Err(PassError::Stopped);
            }
            // What it replaces can go only behind a checkpoint.
            self.core.request_checkpoint();
        }
        lock(&partition.0.store).first_dirty = covered;
        self.core.request_checkpoint();
        tracing::debug!("compacted {} up to offset {covered}", partition.directory());
        Ok(())
    }

    /// The aborted transactions in what may be cleaned.
    fn aborted(&self) -> Result<Aborted, PassError> {
        let Candidate { partition, segments, .. } = self.candidate;
        let from = segments.first().map_or(0, |(segment, _)| segment.base_offset);
        let to = segments.last().map_or(0, |(_, end)| *end);
        let mut aborted = Vec::new();
        // Markers may lie behind, also where it is still written.
        let all = lock(&partition.0.store).all_from(from);
        for segment in all {
            let found = segment.collect_aborted(from, to, &mut aborted);
            if found.map_err(|error| failed(segment.log_path(), error))? {
                break;
            }
        }
        Ok(Aborted::of(aborted))
    }

    /// Reads what is dirty into the map, as far as it has room; returns the end of what it covers.
    fn fill(&self, map: &mut KeyMap, aborted: &Aborted) -> Result<i64, PassError> {
        let from = self.candidate.first_dirty;
        let mut covered = from;
        for (segment, end) in self.candidate.segments.iter().filter(|(_, end)| *end > from) {
            let start = segment.position_of(from).map_err(|error| failed(segment.log_path(), error))?;
            let mut batches = self.batches(segment, start, segment.length());
            while let Some((_, batch)) = batches.next()? {
                if batch.header.last_offset() < from {
                    continue;
                }
                let noted = map.note_batch(&batch, aborted).map_err(|error| failed(segment.log_path(), error))?;
                if noted {
                    covered = batch.header.last_offset() + 1;
                } else if covered > from {
                    return Ok(covered);
                } else {
                    let error = std::io::Error::other("one batch has more keys than fit into the cleaner's memory");
                    return Err(failed(segment.log_path(), error));
                }
            }
            covered = *end;
        }
        Ok(covered)
    }

    /// Whether there is still a reason to go on.
    fn go_on(&self) -> Result<(), PassError> {
        let queue = &self.core.queue;
        let over = queue.is_stopping() || queue.poisoned().is_some() || self.candidate.partition.is_deleted();
        if over { Err(PassError::Stopped) } else { Ok(()) }
    }

    /// Removes a file that never counted.
    fn discard(&self, segment: &Segment) {
        if let Err(error) = self.core.disk.remove_file(&segment.log_path()) {
            tracing::debug!("cannot remove {}: {error}; the next start does", segment.log_path().display());
        }
    }
}

fn failed(path: PathBuf, error: std::io::Error) -> PassError {
    PassError::File((path, error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
