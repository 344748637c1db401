//! Holds what the clients noted against what the log holds in the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::message::{Identity, Place};
use super::notes::{Life, Note};

/// A record of the log, as the last reader found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: u64,
    /// None: its bytes are not what anybody sent.
    pub identity: Option<Identity>,
}

/// All that there is to judge by.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub log: BTreeMap<Place, Vec<Record>>,
    pub writers: Vec<Life>,
    pub readers: Vec<Life>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{place}: after offset {after:?} comes {offset}")]
    Gap { place: Place, after: Option<u64>, offset: u64 },
    #[error("{place}, offset {offset}: the bytes are not what anybody sent here")]
    Changed { place: Place, offset: u64 },
    #[error("{place}, offset {offset}: message {sequence} of producer {life} is there a second time")]
    Doubled { place: Place, offset: u64, life: u32, sequence: u32 },
    #[error("{place}, offset {offset}: message {sequence} of producer {life} comes after a later one")]
    Reordered { place: Place, offset: u64, life: u32, sequence: u32 },
    #[error("{place}: message {sequence} of producer {life} is missing, and later ones are there")]
    Missing { place: Place, life: u32, sequence: u32 },
    #[error("{place}, offset {offset:?}: acknowledged message {sequence} of producer {life} is not there")]
    Lost { place: Place, offset: Option<u64>, life: u32, sequence: u32 },
    #[error("{place}, offset {offset}: {reader} read something else there")]
    Vanished { place: Place, offset: u64, reader: String },
    #[error("{place}: {reader} read offset {offset} where {expected} was next")]
    Jumped { place: Place, expected: u64, offset: u64, reader: String },
    #[error("{place}: {reader} began at {offset}, and {committed} was committed before")]
    CommitLost { place: Place, committed: u64, offset: u64, reader: String },
    #[error("{place}: {reader} read offset {offset} of a partition that it was not given")]
    NotAssigned { place: Place, offset: u64, reader: String },
    #[error("{place}: the group never read offset {offset}")]
    Skipped { place: Place, offset: u64 },
}

impl Evidence {
    /// Every broken promise, those of the log first.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut stored = Stored::default();
        for (place, records) in &self.log {
            stored.add(*place, records, &mut faults);
        }
        for note in self.writers.iter().flat_map(|life| &life.notes) {
            self.check_delivery(*note, &stored, &mut faults);
        }
        self.check_readers(&mut faults);
        faults
    }

    fn at(&self, place: Place, offset: u64) -> Option<Identity> {
        self.log.get(&place)?.get(usize::try_from(offset).ok()?)?.identity
    }

    fn check_delivery(&self, note: Note, stored: &Stored, faults: &mut Vec<Fault>) {
        let Note::Delivered { place, offset, life, sequence } = note else { return };
        let there = match offset {
            Some(offset) => self.at(place, offset) == Some(Identity { life, place, sequence }),
            None => stored.holds(place, life, sequence),
        };
        if !there {
            faults.push(Fault::Lost { place, offset, life, sequence });
        }
    }

    fn check_readers(&self, faults: &mut Vec<Fault>) {
        let commits = Commits::of(&self.readers);
        let mut unread: HashMap<Place, Vec<bool>> =
            self.log.iter().map(|(place, records)| (*place, vec![true; records.len()])).collect();
        for reader in &self.readers {
            let mut turns = HashMap::new();
            for note in &reader.notes {
                match *note {
                    Note::Assigned { place, at_us } => {
                        turns.insert(place, Turn::Begins { committed: commits.before(place, at_us) });
                    }
                    Note::Read { place, offset, life, sequence } => {
                        if let Some(fault) = Turn::read(&mut turns, place, offset, &reader.name) {
                            faults.push(fault);
                        }
                        if self.at(place, offset) != Some(Identity { life, place, sequence }) {
                            faults.push(Fault::Vanished { place, offset, reader: reader.name.clone() });
                        } else if let Some(unread) = unread.get_mut(&place) {
                            unread[offset as usize] = false;
                        }
                    }
                    Note::Committed { .. } | Note::Delivered { .. } => {}
                }
            }
        }
        for place in self.log.keys() {
            let offsets = unread[place].iter().enumerate().filter(|(_, unread)| **unread);
            faults.extend(offsets.map(|(offset, _)| Fault::Skipped { place: *place, offset: offset as u64 }));
        }
    }
}

/// What of each producer's messages a partition holds.
#[derive(Default)]
struct Stored(HashMap<(Place, u32), Sequences>);

#[derive(Default)]
struct Sequences {
    next: u32,
    /// Below `next`, and not seen.
    missing: BTreeSet<u32>,
}

impl Stored {
    fn add(&mut self, place: Place, records: &[Record], faults: &mut Vec<Fault>) {
        let mut lives = BTreeSet::new();
        let mut after = None;
        for record in records {
            let offset = record.offset;
            if offset != after.map_or(0, |after| after + 1) {
                faults.push(Fault::Gap { place, after, offset });
            }
            after = Some(offset);
            let Some(Identity { life, sequence, .. }) = record.identity.filter(|identity| identity.place == place)
            else {
                faults.push(Fault::Changed { place, offset });
                continue;
            };
            lives.insert(life);
            let known = self.0.entry((place, life)).or_default();
            if sequence >= known.next {
                known.missing.extend(known.next..sequence);
                known.next = sequence + 1;
            } else if known.missing.remove(&sequence) {
                faults.push(Fault::Reordered { place, offset, life, sequence });
            } else {
                faults.push(Fault::Doubled { place, offset, life, sequence });
            }
        }
        for life in lives {
            let missing = self.0[&(place, life)].missing.iter();
            faults.extend(missing.map(|sequence| Fault::Missing { place, life, sequence: *sequence }));
        }
    }

    fn holds(&self, place: Place, life: u32, sequence: u32) -> bool {
        self.0.get(&(place, life)).is_some_and(|known| sequence < known.next && !known.missing.contains(&sequence))
    }
}

/// A consumer's reading of one partition, from its assignment on.
enum Turn {
    Begins { committed: u64 },
    Reads { next: u64 },
}

impl Turn {
    fn read(turns: &mut HashMap<Place, Turn>, place: Place, offset: u64, reader: &str) -> Option<Fault> {
        let reader = || reader.to_owned();
        let fault = match turns.insert(place, Turn::Reads { next: offset + 1 }) {
            None => Fault::NotAssigned { place, offset, reader: reader() },
            Some(Turn::Begins { committed }) if offset < committed => {
                Fault::CommitLost { place, committed, offset, reader: reader() }
            }
            Some(Turn::Reads { next }) if offset != next => {
                Fault::Jumped { place, expected: next, offset, reader: reader() }
            }
            Some(_) => return None,
        };
        Some(fault)
    }
}

/// Acknowledged commits. A partition is read by one group only.
struct Commits(HashMap<Place, BTreeMap<u64, u64>>);

impl Commits {
    fn of(readers: &[Life]) -> Commits {
        let mut commits: HashMap<Place, BTreeMap<u64, u64>> = HashMap::new();
        for note in readers.iter().flat_map(|reader| &reader.notes) {
            if let Note::Committed { place, next_offset, at_us } = *note {
                let highest = commits.entry(place).or_default().entry(at_us).or_default();
                *highest = next_offset.max(*highest);
            }
        }
        for by_time in commits.values_mut() {
            let mut highest = 0;
            for next_offset in by_time.values_mut() {
                highest = highest.max(*next_offset);
                *next_offset = highest;
            }
        }
        Commits(commits)
    }

    /// The highest offset that was committed before then; 0 when none was.
    fn before(&self, place: Place, at_us: u64) -> u64 {
        let by_time = self.0.get(&place);
        by_time.and_then(|by_time| by_time.range(..at_us).next_back()).map_or(0, |(_, next_offset)| *next_offset)
    }
}
