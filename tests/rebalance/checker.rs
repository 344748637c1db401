//! Holds what the members of a group noted against what the broker acknowledged.

use std::collections::HashMap;

use super::kind::SESSION;
use super::load::Stored;
use super::notes::{Life, Note};

/// The bar: no partition with unread messages goes unread for longer.
pub const IDLE_US_MAX: u64 = SESSION.as_micros() as u64 + 2_000_000;
/// Where every member was heard from or has said that it goes, nobody waits for a session to end.
pub const IDLE_US_MAX_WITHOUT_SILENCE: u64 = SESSION.as_micros() as u64;

/// A member's life, as it and its killer noted it.
#[derive(Clone, Debug)]
pub struct Member {
    pub life: Life,
    pub killed_us: Option<u64>,
}

/// A group's books.
#[derive(Clone, Debug)]
pub struct Books {
    pub group: String,
    /// When the first member was started.
    pub began_us: u64,
    pub members: Vec<Member>,
    /// When a member fell silent that had not left: it was killed, or is static and only closed.
    pub silences_us: Vec<u64>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(
        "{group}/{partition}: offset {offset} was processed by {again}, and before that by {before}, who could commit it"
    )]
    Doubled { group: String, partition: u32, offset: u64, before: String, again: String },
    #[error("{group}/{partition}: {messages} messages were never processed, the first is {offset}")]
    Skipped { group: String, partition: u32, offset: u64, messages: usize },
    #[error("{group}/{partition}: {member} processed offset {offset}, which nobody stored")]
    NotStored { group: String, partition: u32, offset: u64, member: String },
    #[error("{group}/{partition}: {member} processed offset {offset} while the partition was not its own")]
    NotAssigned { group: String, partition: u32, offset: u64, member: String },
    #[error("{group}/{partition}: {other} was given what {owner} had not given back")]
    Shared { group: String, partition: u32, owner: String, other: String },
    #[error("{group}/{}: nobody processed offset {} for {} ms, silent members: {}", .idle.partition, .idle.offset, .idle.us / 1000, .idle.in_silence)]
    Idle { group: String, idle: Idle },
}

/// How long a message was there, and nobody read from its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    pub us: u64,
    pub partition: u32,
    pub offset: u64,
    /// Whether the group waited for a silent member meanwhile.
    pub in_silence: bool,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Findings {
    pub faults: Vec<Fault>,
    pub processed: usize,
    /// Processed again, because its first reader was killed before it committed.
    pub again_after_kill: usize,
    /// Processed again, because its first reader lost its assignment.
    pub again_after_loss: usize,
    /// Given to the application twice in a row, with nothing in between, by one client: librdkafka, when it pauses a partition
    /// for a rebalance, goes on behind the message that the application has taken last, and that one may just be on its way
    /// (`rd_kafka_toppar_pause_resume` against `rd_kafka_event_message_next`). The group and the broker have no part in it.
    pub again_by_client: usize,
    /// How often a member was given a partition, and how often it lost one.
    pub assigned: usize,
    pub lost: usize,
    pub longest: Idle,
    pub longest_in_silence: Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Given back with everything committed, or kept to the end.
    Orderly,
    Killed(u64),
    Lost,
}

/// A member's time with a partition.
struct Turn<'a> {
    member: &'a Member,
    from_us: u64,
    until_us: u64,
    end: End,
    /// Acknowledged: what is below is nobody's to read again.
    committed: u64,
    reads: Vec<(u64, u64)>,
}

impl Books {
    pub fn check(&self, stored: &Stored) -> Findings {
        let mut findings = Findings::default();
        for (partition, acknowledged_us) in (0..).zip(stored) {
            let turns = self.turns(partition, &mut findings);
            self.check_owners(partition, &turns, &mut findings);
            let mut reads: Vec<(u64, u64, usize)> = Vec::new();
            for (turn, number) in turns.iter().zip(0..) {
                reads.extend(turn.reads.iter().map(|(at_us, offset)| (*at_us, *offset, number)));
            }
            // Stable: what one member read at the same microsecond stays in its order.
            reads.sort_by_key(|(at_us, ..)| *at_us);
            findings.processed += reads.len();
            self.check_once(partition, acknowledged_us.len(), &turns, &reads, &mut findings);
            self.check_idle(partition, acknowledged_us, &reads, &mut findings);
        }
        findings
    }

    fn turns(&self, partition: u32, findings: &mut Findings) -> Vec<Turn<'_>> {
        let mut turns: Vec<Turn<'_>> = Vec::new();
        for member in &self.members {
            let first = turns.len();
            let mut is_open = false;
            for note in member.life.notes.iter().filter(|note| note.partition() == partition) {
                let turn = turns[first..].last_mut();
                match (*note, turn) {
                    (Note::Assigned { at_us, .. }, _) => {
                        findings.assigned += 1;
                        is_open = true;
                        let (until_us, end) = match member.killed_us {
                            Some(killed_us) => (killed_us, End::Killed(killed_us)),
                            None => (u64::MAX, End::Orderly),
                        };
                        turns.push(Turn { member, from_us: at_us, until_us, end, committed: 0, reads: Vec::new() });
                    }
                    (Note::Read { offset, at_us, .. }, Some(turn)) if is_open => turn.reads.push((at_us, offset)),
                    (Note::Read { offset, .. }, _) => {
                        let (group, member) = (self.group.clone(), member.life.name.clone());
                        findings.faults.push(Fault::NotAssigned { group, partition, offset, member });
                    }
                    // Also the late acknowledgement of a commit in between.
                    (Note::Committed { next_offset, .. }, Some(turn)) => {
                        turn.committed = turn.committed.max(next_offset);
                    }
                    (Note::Revoked { at_us, .. }, Some(turn)) => {
                        is_open = false;
                        (turn.until_us, turn.end) = (at_us, End::Orderly);
                    }
                    (Note::Lost { at_us, .. }, Some(turn)) => {
                        is_open = false;
                        findings.lost += 1;
                        (turn.until_us, turn.end) = (at_us, End::Lost);
                    }
                    (Note::Committed { .. } | Note::Revoked { .. } | Note::Lost { .. }, None) => {}
                }
            }
        }
        turns.sort_by_key(|turn| turn.from_us);
        turns
    }

    fn check_owners(&self, partition: u32, turns: &[Turn<'_>], findings: &mut Findings) {
        let mut owner: Option<&Turn<'_>> = None;
        // Who has lost a partition learns it after the next one got it.
        for turn in turns.iter().filter(|turn| turn.end != End::Lost) {
            if let Some(owner) = owner.filter(|owner| owner.until_us > turn.from_us) {
                let name = |turn: &Turn<'_>| turn.member.life.name.clone();
                let (group, owner, other) = (self.group.clone(), name(owner), name(turn));
                findings.faults.push(Fault::Shared { group, partition, owner, other });
            }
            owner = owner.filter(|owner| owner.until_us > turn.until_us).or(Some(turn));
        }
    }

    fn check_once(
        &self,
        partition: u32,
        stored: usize,
        turns: &[Turn<'_>],
        reads: &[(u64, u64, usize)],
        findings: &mut Findings,
    ) {
        let mut readers: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut previous = None;
        for (at_us, offset, number) in reads {
            if previous.replace((*offset, *number)) == Some((*offset, *number)) {
                findings.again_by_client += 1;
                continue;
            }
            let (offset, turn) = (*offset, &turns[*number]);
            let group = self.group.clone();
            if offset >= stored as u64 {
                let member = turn.member.life.name.clone();
                findings.faults.push(Fault::NotStored { group, partition, offset, member });
                continue;
            }
            let before = readers.entry(offset).or_default();
            if let Some(last) = before.last().map(|number| &turns[*number]) {
                match last.end {
                    End::Killed(killed_us) if killed_us <= *at_us && offset >= last.committed => {
                        findings.again_after_kill += 1;
                    }
                    End::Lost if offset >= last.committed => findings.again_after_loss += 1,
                    _ => {
                        let (before, again) = (last.member.life.name.clone(), turn.member.life.name.clone());
                        findings.faults.push(Fault::Doubled { group, partition, offset, before, again });
                    }
                }
            }
            before.push(*number);
        }
        let skipped: Vec<u64> = (0..stored as u64).filter(|offset| !readers.contains_key(offset)).collect();
        if let Some(offset) = skipped.first().copied() {
            let (group, messages) = (self.group.clone(), skipped.len());
            findings.faults.push(Fault::Skipped { group, partition, offset, messages });
        }
    }

    fn check_idle(
        &self,
        partition: u32,
        acknowledged_us: &[u64],
        reads: &[(u64, u64, usize)],
        findings: &mut Findings,
    ) {
        let mut last_us = self.began_us;
        for (at_us, offset, _) in reads {
            let there_us = acknowledged_us.get(*offset as usize).copied().unwrap_or(0);
            let from_us = last_us.max(there_us);
            last_us = *at_us;
            let in_silence =
                self.silences_us.iter().any(|silence_us| *silence_us < *at_us && from_us < silence_us + IDLE_US_MAX);
            let idle = Idle { us: at_us.saturating_sub(from_us), partition, offset: *offset, in_silence };
            let (longest, us_max) = match in_silence {
                true => (&mut findings.longest_in_silence, IDLE_US_MAX),
                false => (&mut findings.longest, IDLE_US_MAX_WITHOUT_SILENCE),
            };
            if idle.us > longest.us {
                *longest = idle;
            }
            if idle.us > us_max {
                findings.faults.push(Fault::Idle { group: self.group.clone(), idle });
            }
        }
    }
}
