//! What one partition was asked and promised, and whether it keeps that after a crash.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::PartitionId;
use super::super::partition::Partition;
use super::batches::{Record, is_whole, records, split};
use super::model::{Crash, Said, Violation};
use super::reader_model::{Ended, check_transactions};

/// One life of one partition.
#[derive(Clone, Debug)]
pub(super) struct PartitionModel {
    pub id: PartitionId,
    pub slot: usize,
    pub created: Option<Said>,
    pub delete_asked: Option<usize>,
    pub deleted: Option<Said>,
    log_start_asked: i64,
    log_starts: Vec<(i64, Said)>,
    /// Everything that was ever to be stored, in its stored form: base offset and bytes.
    submitted: BTreeSet<(i64, Bytes)>,
    /// The same, record by record, by offset: what compaction leaves of a batch.
    submitted_records: BTreeSet<(i64, Bytes)>,
    /// What a consumer has read: base offset, end offset, bytes.
    seen: BTreeMap<i64, (i64, Bytes, Said)>,
    /// The committed tombstones among it, by key and offset, with the step: also those that were lost since.
    tombstones: BTreeMap<(Bytes, i64), usize>,
}

impl PartitionModel {
    pub fn new(id: PartitionId, slot: usize) -> PartitionModel {
        PartitionModel {
            id,
            slot,
            created: None,
            delete_asked: None,
            deleted: None,
            log_start_asked: 0,
            log_starts: vec![(0, Said { step: 0, strong: true })],
            submitted: BTreeSet::new(),
            submitted_records: BTreeSet::new(),
            seen: BTreeMap::new(),
            tombstones: BTreeMap::new(),
        }
    }

    pub fn submit(&mut self, base_offset: i64, bytes: Bytes) {
        self.submitted_records.extend(records(&bytes).into_iter().map(|record| (record.offset, record.body)));
        self.submitted.insert((base_offset, bytes));
    }

    pub fn ask_log_start(&mut self, offset: i64) {
        self.log_start_asked = self.log_start_asked.max(offset);
    }

    pub fn promise_log_start(&mut self, offset: i64, said: Said) {
        self.log_starts.push((offset, said));
    }

    /// Reads what was not read before.
    pub fn consume(&mut self, partition: &Partition, said: Said) -> Result<(), Violation> {
        let from = self.seen.last_key_value().map_or(0, |(_, (end, ..))| *end);
        let mut ended = Ended::of(self.seen.values().map(|(_, bytes, _)| bytes));
        for (base_offset, end, bytes) in read_all(partition, from)? {
            let tombstones = ended.apply(&bytes).into_iter().filter(|record| record.is_tombstone);
            self.tombstones.extend(tombstones.map(|record| ((record.key, record.offset), said.step)));
            self.seen.insert(base_offset, (end, bytes, said));
        }
        Ok(())
    }

    /// The log was opened after a crash at this step.
    pub fn check(&self, partition: &Partition, at_step: usize, crash: Crash) -> Result<(), Violation> {
        let name = partition.directory();
        let log_start = partition.log_start_offset();
        let kept = self.log_starts.iter().filter(|(_, said)| said.holds(at_step, crash));
        let promised = kept.map(|(offset, _)| *offset).max().unwrap_or(0);
        if log_start < promised || log_start > self.log_start_asked.max(promised) {
            let asked = self.log_start_asked;
            return Err(format!("{name}: log start {log_start}; {promised} was promised, {asked} asked for"));
        }
        let found = read_all(partition, 0)?;
        let seen = self.seen.iter().filter(|(_, (end, _, said))| said.holds(at_step, crash) && *end > log_start);
        let seen: Vec<(i64, &Bytes)> = seen.map(|(base_offset, (_, bytes, _))| (*base_offset, bytes)).collect();
        let kept = match partition.config().compaction {
            Some(_) => self.check_compacted(&found, &seen, log_start, at_step),
            None => self.check_whole(&found, &seen),
        };
        let kept = kept.and_then(|()| check_transactions(partition, &found));
        kept.map_err(|broken| format!("{name}: {broken}"))
    }

    /// Every batch is where it was, and none is there twice.
    fn check_whole(&self, found: &[(i64, i64, Bytes)], seen: &[(i64, &Bytes)]) -> Result<(), Violation> {
        let mut sequences: BTreeMap<i64, i32> = BTreeMap::new();
        let mut end_before = None;
        for (base_offset, end, bytes) in found {
            if !self.submitted.contains(&(*base_offset, bytes.clone())) {
                return Err(format!("what lies at offset {base_offset} was never sent there"));
            }
            if end_before.replace(*end).is_some_and(|before| before != *base_offset) {
                return Err(format!("there is a hole before offset {base_offset}"));
            }
            let Some((header, _)) = split(bytes.clone()).pop() else { continue };
            if header.producer_id < 0 || header.is_control() {
                continue;
            }
            let next = sequences.insert(header.producer_id, header.last_sequence() + 1);
            if next.is_some_and(|next| next != header.base_sequence) {
                let (id, got) = (header.producer_id, header.base_sequence);
                return Err(format!("sequence {got} of producer {id} at {base_offset} follows {next:?}"));
            }
        }
        for (base_offset, bytes) in seen {
            if !found.iter().any(|(base, _, found)| base == base_offset && found == *bytes) {
                return Err(format!("offset {base_offset}, which was read, is not there any more"));
            }
        }
        Ok(())
    }

    /// Of each key the last committed record is there or a later one, unless it was a tombstone; and nothing that was
    /// aborted counts, or came back to life.
    fn check_compacted(
        &self,
        found: &[(i64, i64, Bytes)],
        seen: &[(i64, &Bytes)],
        log_start: i64,
        at_step: usize,
    ) -> Result<(), Violation> {
        for Record { offset, body, .. } in found.iter().flat_map(|(_, _, bytes)| records(bytes)) {
            if !self.submitted_records.contains(&(offset, body)) {
                return Err(format!("the record at offset {offset} was never sent there"));
            }
        }
        let found = Ended::of(found.iter().map(|(_, _, bytes)| bytes));
        let seen = Ended::of(seen.iter().map(|(_, bytes)| *bytes));
        if let Some(offset) = seen.aborted.keys().find(|offset| found.committed.contains_key(*offset)) {
            return Err(format!("the record at offset {offset} was aborted, and counts"));
        }
        let by_key = |(offset, record): (i64, Record)| (record.key, offset);
        let last_found: BTreeMap<Bytes, i64> = found.committed.into_iter().map(by_key).collect();
        let last_seen: BTreeMap<Bytes, Record> = seen
            .committed
            .into_values()
            .filter(|record| record.offset >= log_start)
            .map(|record| (record.key.clone(), record))
            .collect();
        for (key, Record { offset, is_tombstone, .. }) in last_seen {
            match last_found.get(&key) {
                Some(found) if *found < offset => {
                    return Err(format!(
                        "{key:?} at offset {found} came back to life; its last record was at {offset}"
                    ));
                }
                None if !is_tombstone && !self.was_deleted(&key, offset, at_step) => {
                    return Err(format!("{key:?}, last written at offset {offset}, is gone"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a tombstone of the key was read behind `offset`, synced or not: by the time at which compaction drops both,
    /// a checkpoint has synced it.
    fn was_deleted(&self, key: &Bytes, offset: i64, at_step: usize) -> bool {
        self.tombstones.iter().any(|((of, at), step)| of == key && *at > offset && *step <= at_step)
    }

    /// A new life begins after this crash: what holds is old by then, and what was lost is forgotten.
    pub fn begin_life(&mut self, crash: Crash) {
        let holds = |said: &Said| said.holds(usize::MAX, crash);
        self.created = self.created.filter(holds).map(Said::of_old);
        self.deleted = self.deleted.filter(holds).map(Said::of_old);
        self.delete_asked = self.delete_asked.map(|_| 0);
        self.log_starts.retain(|(_, said)| holds(said));
        self.log_starts.iter_mut().for_each(|(_, said)| *said = said.of_old());
        self.tombstones.values_mut().for_each(|step| *step = 0);
        self.seen.retain(|_, (_, _, said)| holds(said));
        self.seen.values_mut().for_each(|(_, _, said)| *said = said.of_old());
    }

    /// The log is open: what it holds now is synced and shown.
    pub fn adopt(&mut self, partition: &Partition, said: Said) -> Result<(), Violation> {
        (self.created, self.delete_asked) = (Some(said), None);
        self.promise_log_start(partition.log_start_offset(), said);
        self.log_start_asked = partition.log_start_offset();
        // What was cut will never come back, and its offsets are given out again.
        self.seen.clear();
        self.tombstones.clear();
        self.submitted.clear();
        self.submitted_records.clear();
        self.consume(partition, said)?;
        let seen: Vec<_> = self.seen.iter().map(|(base, (_, bytes, _))| (*base, bytes.clone())).collect();
        seen.into_iter().for_each(|(base_offset, bytes)| self.submit(base_offset, bytes));
        Ok(())
    }
}

/// Everything that can be read from `from` on: base offset, end offset, bytes.
pub(super) fn read_all(partition: &Partition, from: i64) -> Result<Vec<(i64, i64, Bytes)>, Violation> {
    let name = partition.directory();
    let mut offset = from.max(partition.log_start_offset());
    let mut found: Vec<(i64, i64, Bytes)> = Vec::new();
    while offset < partition.high_watermark() {
        let read = partition.read(offset, 4096, true).map_err(|error| format!("{name}: {error}"))?;
        let batches = split(read.batches);
        if batches.is_empty() {
            return Err(format!("{name}: nothing at offset {offset}, below the high watermark"));
        }
        for (header, bytes) in batches {
            // Compaction leaves holes; who must not have any looks for them.
            let goes_on = found.last().is_none_or(|(_, end, _)| header.base_offset >= *end);
            if !goes_on || header.last_offset() < offset || !is_whole(&header, &bytes) {
                return Err(format!("{name}: no whole batch at offset {offset}, but one of {}", header.base_offset));
            }
            offset = header.last_offset() + 1;
            found.push((header.base_offset, offset, bytes));
        }
    }
    Ok(found)
}
