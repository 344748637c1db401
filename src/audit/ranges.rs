//! Ranges [from, to) of sequences, in order.

/// Adds a sequence to the range that ends before it, if that is the last one.
pub(super) fn push_range(ranges: &mut Vec<(i64, i64)>, sequence: i64) {
    match ranges.last_mut() {
        Some((_, end)) if *end == sequence => *end += 1,
        _ => ranges.push((sequence, sequence + 1)),
    }
}

/// The same ranges in order, without overlaps.
pub(super) fn merged(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged
}
