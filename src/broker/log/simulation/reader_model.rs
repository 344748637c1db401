//! What a reader of committed records sees: as the batches and markers in the log say, and as a client works it out from
//! what it is told of aborted transactions.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::Marker;
use super::super::batch::{BatchHeader, CheckedBatch};
use super::super::open_transactions::{AbortedTransaction, OpenTransactions};
use super::super::partition::Partition;
use super::batches::{Record, records, split};
use super::model::Violation;

/// The records of some batches, by how their transactions ended; plain ones count as committed.
#[derive(Default)]
pub(super) struct Ended {
    pub committed: BTreeMap<i64, Record>,
    pub aborted: BTreeMap<i64, Record>,
    /// Of each producer, in its transaction.
    open: BTreeMap<i64, Vec<Record>>,
}

impl Ended {
    pub fn of<'a>(batches: impl Iterator<Item = &'a Bytes>) -> Ended {
        let mut ended = Ended::default();
        batches.for_each(|batch| _ = ended.apply(batch));
        ended
    }

    /// Counts the next batch; returns the records that it makes committed.
    pub fn apply(&mut self, batch: &Bytes) -> Vec<Record> {
        let Some((header, marker)) = header_of(batch) else { return Vec::new() };
        if header.is_transactional() && !header.is_control() {
            self.open.entry(header.producer_id).or_default().extend(records(batch));
            return Vec::new();
        }
        let (records, kept) = match marker {
            None => (records(batch), &mut self.committed),
            Some(Marker::Commit) => (self.open.remove(&header.producer_id).unwrap_or_default(), &mut self.committed),
            Some(Marker::Abort) => (self.open.remove(&header.producer_id).unwrap_or_default(), &mut self.aborted),
        };
        kept.extend(records.iter().map(|record| (record.offset, record.clone())));
        if marker == Some(Marker::Abort) { Vec::new() } else { records }
    }
}

fn header_of(batch: &Bytes) -> Option<(BatchHeader, Option<Marker>)> {
    let (header, bytes) = split(batch.clone()).pop()?;
    let marker = CheckedBatch::split(&bytes, header)?.marker();
    Some((header, marker.map(|stored| stored.marker)))
}

/// The last stable offset and the aborted transactions follow from the batches; those of a compacted log are told only
/// as far as a reader has something to skip.
pub(super) fn check_transactions(partition: &Partition, found: &[(i64, i64, Bytes)]) -> Result<(), Violation> {
    let is_compacted = partition.config().compaction.is_some();
    if partition.log_start_offset() == 0 {
        let mut open = OpenTransactions::default();
        let mut aborted = Vec::new();
        for (header, marker) in found.iter().filter_map(|(_, _, bytes)| header_of(bytes)) {
            aborted.extend(open.apply(&header, marker));
        }
        let stable = open.oldest().unwrap_or(partition.high_watermark());
        if partition.last_stable_offset() != stable {
            return Err(format!("the last stable offset is {}, not {stable}", partition.last_stable_offset()));
        }
        let told = told(partition, 0, partition.high_watermark())?;
        if told != aborted && !is_compacted {
            return Err(format!("{told:?} are told to be aborted, not {aborted:?}"));
        }
    }
    let stable = partition.last_stable_offset();
    let reaches = found.iter().any(|(base, end, _)| (base + 1..=*end).contains(&stable));
    if partition.log_start_offset() < stable && !reaches {
        return Err(format!("a reader of committed records does not reach the last stable offset {stable}"));
    }
    check_reader(partition, found, 0)?;
    check_reader(partition, found, found.len() / 3)?;
    check_reader(partition, found, found.len() * 2 / 3)
}

fn told(partition: &Partition, from: i64, to: i64) -> Result<Vec<AbortedTransaction>, Violation> {
    partition.aborted_transactions(from, to).map_err(|error| error.to_string())
}

/// A client that begins with this batch is shown what was committed, and nothing else.
fn check_reader(partition: &Partition, found: &[(i64, i64, Bytes)], skipped: usize) -> Result<(), Violation> {
    let Some((base_offset, ..)) = found.get(skipped) else { return Ok(()) };
    // The log may start within a batch.
    let from = partition.log_start_offset().max(*base_offset);
    let stable = partition.last_stable_offset();
    let is_read = |offset: &i64| (from..stable).contains(offset);
    let mut to_come = told(partition, from, stable)?;
    to_come.sort_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
    let mut skips: BTreeSet<i64> = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for (_, end, bytes) in found[skipped..].iter().filter(|(base, ..)| *base < stable) {
        let Some((header, marker)) = header_of(bytes) else { continue };
        while let Some(begun) = to_come.pop_if(|aborted| aborted.first_offset < *end) {
            skips.insert(begun.producer_id);
        }
        match marker {
            Some(Marker::Abort) => _ = skips.remove(&header.producer_id),
            Some(Marker::Commit) => {}
            None if header.is_transactional() && skips.contains(&header.producer_id) => {}
            None => shown.extend(records(bytes).into_iter().map(|record| record.offset).filter(is_read)),
        }
    }
    let ended = Ended::of(found.iter().map(|(_, _, bytes)| bytes));
    let committed: BTreeSet<i64> = ended.committed.into_keys().filter(is_read).collect();
    match shown.symmetric_difference(&committed).next() {
        None => Ok(()),
        Some(offset) if shown.contains(offset) => {
            Err(format!("a reader from {from} on is shown offset {offset}, which was not committed"))
        }
        Some(offset) => Err(format!("a reader from {from} on is not shown offset {offset}, which was committed")),
    }
}
