//! Retention: closes segments by age, and removes whole closed segments by time and by bytes.

use std::sync::Arc;

use super::core::Core;
use super::partition::Partition;
use super::queue::Completion;
use super::records::Change;
use super::segment::Segment;
use super::{lock, producer_expiry};

/// Looks at all partitions once.
pub(super) fn enforce(core: &Arc<Core>, now_ms: i64) {
    let partitions = core.all_partitions();
    let silent_ms_max = producer_expiry::silent_ms_max(&partitions, now_ms);
    for partition in partitions {
        partition.expire_producers(now_ms, silent_ms_max);
        let config = partition.config();
        let (segments, closed, log_start) = {
            let store = lock(&partition.0.store);
            let segments: Vec<(Arc<Segment>, i64)> = store
                .segments
                .iter()
                .enumerate()
                .map(|(index, segment)| (segment.clone(), store.end_of(index)))
                .collect();
            (segments, store.closed_segments(), store.log_start)
        };
        if let Some((last, _)) = segments.get(closed) {
            let last = last.snapshot();
            // What must be compacted after some time must first be closed.
            let age_ms_max = config.compaction.map_or(i64::MAX, |compaction| compaction.lag_ms_max);
            let age_ms_max = age_ms_max.min(config.segment_age_ms_max);
            if last.length > 0 && now_ms.saturating_sub(last.opened_ms) > age_ms_max {
                core.queue.push_change(Change::Roll(partition.clone()), Completion::Nobody);
            }
        }
        segments.iter().take(closed).for_each(|(segment, _)| segment.release_index());
        if !config.is_cut_by_retention() {
            continue;
        }
        let cut = cut_at(&partition, &segments, closed, now_ms);
        if cut.is_some_and(|offset| offset > log_start) {
            let change = Change::LogStart(partition.clone(), cut.unwrap_or(log_start));
            core.queue.push_change(change, Completion::Nobody);
        }
    }
}

/// The new log start, if a segment may go. Time counts from the append, not from the producer's timestamps: a replay
/// of old prices must not vanish before it is read.
fn cut_at(partition: &Partition, segments: &[(Arc<Segment>, i64)], closed: usize, now_ms: i64) -> Option<i64> {
    let config = partition.config();
    let mut bytes: u64 = segments.iter().map(|(segment, _)| segment.length()).sum();
    let mut cut = None;
    // What belongs to an open transaction stays until it has ended, and what someone holds until it is let go.
    let bound = partition.last_stable_offset().min(partition.held_from());
    for (segment, end) in segments.iter().take(closed) {
        let segment = segment.snapshot();
        let too_old = config.retention_ms.is_some_and(|ms| now_ms.saturating_sub(segment.last_append_ms) > ms);
        let too_large = config.retention_bytes.is_some_and(|limit| bytes - segment.length >= limit);
        if (!too_old && !too_large) || *end > bound {
            break;
        }
        bytes -= segment.length;
        cut = Some(*end);
    }
    cut
}
