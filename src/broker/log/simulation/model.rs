//! What the log was asked and what it promised, each with the disk's step at which that was said; and whether a log
//! that was opened after a crash keeps it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::PartitionId;
use super::super::core::Core;
use super::super::partition::Partition;
use super::super::read_lock;
use super::batches::{is_whole, split};

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The process; the page cache lives on.
    Kill,
    /// The machine: of what was not synced, each part is left with this probability in percent.
    PowerCut(u8),
}

/// A promise that was broken, in words.
pub(super) type Violation = String;

/// Said at a step; what is not `strong` is lost with the machine (`Durability::Os`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub step: usize,
    pub strong: bool,
}

impl Said {
    fn holds(self, at_step: usize, crash: Crash) -> bool {
        self.step <= at_step && (self.strong || crash == Crash::Kill)
    }
}

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
    /// What a consumer has read: base offset, end offset, bytes.
    seen: BTreeMap<i64, (i64, Bytes, Said)>,
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
            seen: BTreeMap::new(),
        }
    }

    pub fn submit(&mut self, base_offset: i64, bytes: Bytes) {
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
        for (base_offset, end, bytes) in read_all(partition, from)? {
            self.seen.insert(base_offset, (end, bytes, said));
        }
        Ok(())
    }

    fn check(&self, partition: &Partition, at_step: usize, crash: Crash) -> Result<(), Violation> {
        let name = partition.directory();
        let log_start = partition.log_start_offset();
        let kept = self.log_starts.iter().filter(|(_, said)| said.holds(at_step, crash));
        let promised = kept.map(|(offset, _)| *offset).max().unwrap_or(0);
        if log_start < promised || log_start > self.log_start_asked.max(promised) {
            let asked = self.log_start_asked;
            return Err(format!("{name}: log start {log_start}; {promised} was promised, {asked} asked for"));
        }
        let found = read_all(partition, 0)?;
        let mut sequences: BTreeMap<i64, i32> = BTreeMap::new();
        for (base_offset, _, bytes) in &found {
            if !self.submitted.contains(&(*base_offset, bytes.clone())) {
                return Err(format!("{name}: what lies at offset {base_offset} was never sent there"));
            }
            let Some((header, _)) = split(bytes.clone()).pop().filter(|(header, _)| header.producer_id >= 0) else {
                continue;
            };
            let next = sequences.insert(header.producer_id, header.last_sequence() + 1);
            if next.is_some_and(|next| next != header.base_sequence) {
                let (id, got) = (header.producer_id, header.base_sequence);
                return Err(format!("{name}: sequence {got} of producer {id} at {base_offset} follows {next:?}"));
            }
        }
        for (base_offset, (end, bytes, said)) in &self.seen {
            if !said.holds(at_step, crash) || *end <= log_start {
                continue;
            }
            if !found.iter().any(|(base, _, found)| base == base_offset && found == bytes) {
                return Err(format!("{name}: offset {base_offset}, which was read, is not there any more"));
            }
        }
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
            let expected = found.last().map(|(_, end, _)| *end);
            let fits = expected.map_or(header.base_offset <= offset, |expected| header.base_offset == expected);
            if !fits || !is_whole(&header, &bytes) {
                return Err(format!("{name}: no whole batch at offset {offset}, but one of {}", header.base_offset));
            }
            offset = header.last_offset() + 1;
            found.push((header.base_offset, offset, bytes));
        }
    }
    Ok(found)
}

/// One change of the state: all of its keys get its number.
#[derive(Clone, Debug)]
struct StateChange {
    keys: Vec<u8>,
    promised: Option<Said>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub partitions: Vec<PartitionModel>,
    /// The step at which the log was open.
    opened_at: usize,
    state: Vec<StateChange>,
}

impl Model {
    /// The newest partition of a slot that is not being deleted.
    pub fn live(&mut self, slot: usize) -> Option<&mut PartitionModel> {
        let live = |partition: &&mut PartitionModel| partition.slot == slot && partition.delete_asked.is_none();
        self.partitions.iter_mut().rev().find(live)
    }

    /// The key and value of the next change of some keys.
    pub fn ask_state(&mut self, keys: &[u8]) -> Vec<(Bytes, Option<Bytes>)> {
        self.state.push(StateChange { keys: keys.to_vec(), promised: None });
        let number = Bytes::from(self.state.len().to_string());
        keys.iter().map(|key| (Bytes::copy_from_slice(&[*key]), Some(number.clone()))).collect()
    }

    pub fn asked_states(&self) -> usize {
        self.state.len()
    }

    pub fn promise_state(&mut self, number: usize, said: Said) {
        self.state[number - 1].promised = Some(said);
    }

    /// The log was opened after a crash at this step.
    pub fn check(&self, core: &Core, at_step: usize, crash: Crash) -> Result<(), Violation> {
        for model in &self.partitions {
            let partition = read_lock(&core.partitions).get(&model.id).cloned();
            let may_be_gone = model.delete_asked.is_some_and(|asked| asked <= at_step);
            let must_be = model.created.is_some_and(|said| said.holds(at_step, crash)) && !may_be_gone;
            let must_not_be = model.deleted.is_some_and(|said| said.holds(at_step, crash));
            match partition {
                None if must_be => return Err(format!("partition {} is gone", model.slot)),
                Some(partition) if must_not_be => {
                    return Err(format!("{} was deleted, and is back", partition.directory()));
                }
                Some(partition) => model.check(&partition, at_step, crash)?,
                None => {}
            }
        }
        self.check_state(core, at_step, crash)
    }

    /// Changes are there up to one of them, which is no older than the last one that was promised.
    fn check_state(&self, core: &Core, at_step: usize, crash: Crash) -> Result<(), Violation> {
        let state = read_lock(&core.state);
        let number = |value: &Bytes| std::str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok());
        let last = state.values().filter_map(number).max().unwrap_or(0);
        let kept = self.state.iter().map(|change| change.promised.is_some_and(|said| said.holds(at_step, crash)));
        let promised = kept.enumerate().filter(|(_, kept)| *kept).map(|(index, _)| index + 1).max().unwrap_or(0);
        if last < promised {
            return Err(format!("change {promised} of the state was promised; {last} is the last"));
        }
        let mut expected: BTreeMap<Bytes, usize> = BTreeMap::new();
        for (index, change) in self.state.iter().take(last).enumerate() {
            expected.extend(change.keys.iter().map(|key| (Bytes::copy_from_slice(&[*key]), index + 1)));
        }
        let found = state.iter().filter_map(|(key, value)| Some((key.clone(), number(value)?))).collect();
        if expected == found { Ok(()) } else { Err(format!("the state is {found:?}, not {expected:?}")) }
    }

    pub fn opened_at(&self) -> usize {
        self.opened_at
    }

    /// A new life begins after this crash: what holds is old by then, and what was lost is forgotten.
    pub fn begin_life(&mut self, crash: Crash) {
        let age = |said: Said| Said { step: 0, ..said };
        let holds = |said: &Said| said.holds(usize::MAX, crash);
        for partition in &mut self.partitions {
            partition.created = partition.created.filter(holds).map(age);
            partition.deleted = partition.deleted.filter(holds).map(age);
            partition.delete_asked = partition.delete_asked.map(|_| 0);
            partition.log_starts.retain(|(_, said)| holds(said));
            partition.log_starts.iter_mut().for_each(|(_, said)| *said = age(*said));
            partition.seen.retain(|_, (_, _, said)| holds(said));
            partition.seen.values_mut().for_each(|(_, _, said)| *said = age(*said));
        }
        for change in &mut self.state {
            change.promised = change.promised.filter(holds).map(age);
        }
    }

    /// The log is open: what it holds now is synced and shown.
    pub fn adopt(&mut self, core: &Core, step: usize) -> Result<(), Violation> {
        self.opened_at = step;
        let said = Said { step, strong: true };
        let partitions = read_lock(&core.partitions);
        self.partitions.retain(|model| partitions.contains_key(&model.id) || model.deleted.is_some());
        for model in &mut self.partitions {
            let Some(partition) = partitions.get(&model.id) else { continue };
            (model.created, model.delete_asked) = (Some(said), None);
            model.promise_log_start(partition.log_start_offset(), said);
            model.log_start_asked = partition.log_start_offset();
            model.seen.clear();
            model.consume(partition, said)?;
            // What was cut will never come back, and its offsets are given out again.
            let seen: BTreeSet<_> = model.seen.iter().map(|(base, (_, bytes, _))| (*base, bytes.clone())).collect();
            model.submitted = seen;
        }
        drop(partitions);
        let last =
            read_lock(&core.state).values().filter_map(|value| std::str::from_utf8(value).ok()?.parse().ok()).max();
        self.state.truncate(last.unwrap_or(0));
        self.state.iter_mut().for_each(|change| change.promised = Some(said));
        Ok(())
    }
}
