//! What the log was asked and what it promised, each with the disk's step at which that was said; and whether a log
//! that was opened after a crash keeps it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::core::Core;
use super::super::read_lock;
use super::partition_model::PartitionModel;

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
    /// As it stands in the next life.
    pub fn of_old(self) -> Said {
        Said { step: 0, ..self }
    }

    pub fn holds(self, at_step: usize, crash: Crash) -> bool {
        self.step <= at_step && (self.strong || crash == Crash::Kill)
    }
}

/// One change of the state: all of its keys get its number.
#[derive(Clone, Debug)]
struct StateChange {
    keys: Vec<u8>,
    promised: Option<Said>,
    /// It was told that nothing of it was written.
    refused: bool,
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

    /// The newest partition of a slot that may still be there.
    pub fn newest(&mut self, slot: usize) -> Option<&mut PartitionModel> {
        self.partitions.iter_mut().rev().find(|partition| partition.slot == slot && partition.deleted.is_none())
    }

    /// The key and value of the next change of some keys.
    pub fn ask_state(&mut self, keys: &[u8]) -> Vec<(Bytes, Option<Bytes>)> {
        self.state.push(StateChange { keys: keys.to_vec(), promised: None, refused: false });
        let number = Bytes::from(self.state.len().to_string());
        keys.iter().map(|key| (Bytes::copy_from_slice(&[*key]), Some(number.clone()))).collect()
    }

    pub fn asked_states(&self) -> usize {
        self.state.len()
    }

    pub fn promise_state(&mut self, number: usize, said: Said) {
        self.state[number - 1].promised = Some(said);
    }

    pub fn refuse_state(&mut self, number: usize) {
        self.state[number - 1].refused = true;
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
        for (index, change) in self.state.iter().take(last).enumerate().filter(|(_, change)| !change.refused) {
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
        self.partitions.iter_mut().for_each(|partition| partition.begin_life(crash));
        for change in &mut self.state {
            let kept = change.promised.filter(|said| said.holds(usize::MAX, crash));
            change.promised = kept.map(Said::of_old);
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
            model.adopt(partition, said)?;
        }
        drop(partitions);
        let last =
            read_lock(&core.state).values().filter_map(|value| std::str::from_utf8(value).ok()?.parse().ok()).max();
        self.state.truncate(last.unwrap_or(0));
        self.state.iter_mut().filter(|change| !change.refused).for_each(|change| change.promised = Some(said));
        Ok(())
    }
}
