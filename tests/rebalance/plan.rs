//! Who comes and goes when: a seed decides.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::kind::{Kind, SESSION};

/// Members of a group, at most.
pub const SLOTS: usize = 10;
/// So many are always there and heard from.
const LEAST: usize = 3;
const PAUSE_MS: std::ops::RangeInclusive<u64> = 300..=2_000;
/// From one member that falls silent to the next of its group. The bar allows one session: whoever dies right after it
/// was given the partitions of one that died before makes them wait for two, here as in Apache Kafka.
const SILENCES_APART: Duration = SESSION.saturating_add(Duration::from_secs(3));
/// One that came back under its instance id reads again by then.
const BACK_FOR: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Start,
    /// It leaves the group, whether static or not, and then ends.
    Unsubscribe,
    /// It ends; a static member does not tell its group.
    Close,
    /// kill -9
    Kill,
}

impl Action {
    /// Whether the group is not told, and learns it by the end of the session only.
    pub fn is_silent(self, is_static: bool) -> bool {
        self == Action::Kill || self == Action::Close && is_static
    }
}

/// What happens to a member of a group, so long after the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Duration,
    pub slot: usize,
    pub action: Action,
}

/// All that happens to a group.
pub fn schedule(seed: u64, kind: &Kind, length: Duration) -> Vec<Event> {
    let mut plan = Plan {
        random: ChaCha8Rng::seed_from_u64(seed),
        kind,
        here: [false; SLOTS],
        silent: None,
        quiet_until: Duration::ZERO,
    };
    let mut events: Vec<Event> = (0..LEAST).map(|slot| plan.start(slot, Duration::ZERO)).collect();
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_millis(plan.random.random_range(PAUSE_MS));
        if at >= length {
            return events;
        }
        events.push(plan.next(at));
    }
}

struct Plan<'a> {
    random: ChaCha8Rng,
    kind: &'a Kind,
    here: [bool; SLOTS],
    /// The static member that fell silent last, until it is back.
    silent: Option<usize>,
    quiet_until: Duration,
}

impl Plan<'_> {
    fn next(&mut self, at: Duration) -> Event {
        let here = self.here.iter().filter(|here| **here).count();
        let comes = match here {
            ..=LEAST => true,
            SLOTS.. => false,
            _ => self.random.random_bool(0.5),
        };
        let slot = self.any(!comes);
        let (returns, way) = (self.random.random_bool(0.5), self.random.random_range(0..10));
        match self.silent {
            Some(silent) if comes && returns => self.start(silent, at),
            _ if comes => self.start(slot, at),
            _ => self.go(slot, way, at),
        }
    }

    fn any(&mut self, here: bool) -> usize {
        let slots: Vec<usize> = (0..SLOTS).filter(|slot| self.here[*slot] == here).collect();
        slots[self.random.random_range(0..slots.len())]
    }

    fn start(&mut self, slot: usize, at: Duration) -> Event {
        self.here[slot] = true;
        if self.silent == Some(slot) {
            self.silent = None;
            self.quiet_until = self.quiet_until.max(at + BACK_FOR);
        }
        Event { at, slot, action: Action::Start }
    }

    fn go(&mut self, slot: usize, way: u32, at: Duration) -> Event {
        let is_static = self.kind.is_static(slot);
        let wanted = match way {
            0..=3 => Action::Kill,
            4..=6 => Action::Close,
            _ => Action::Unsubscribe,
        };
        let action = match wanted.is_silent(is_static) {
            true if at < self.quiet_until => Action::Unsubscribe,
            _ => wanted,
        };
        if action.is_silent(is_static) {
            self.quiet_until = at + SILENCES_APART;
            self.silent = Some(slot).filter(|_| is_static);
        }
        self.here[slot] = false;
        Event { at, slot, action }
    }
}

#[test]
fn a_seed_gives_the_same_schedule_and_it_has_everything() {
    let length = Duration::from_secs(300);
    for kind in &Kind::ALL {
        let events = schedule(7, kind, length);
        assert_eq!(events, schedule(7, kind, length));
        assert_ne!(events, schedule(8, kind, length));
        let count = |action: Action| events.iter().filter(|event| event.action == action).count();
        assert!(count(Action::Start) > 60 && count(Action::Unsubscribe) > 20, "{}", kind.name);
        assert!(count(Action::Close) > 8 && count(Action::Kill) > 8, "{}", kind.name);
    }
}

#[test]
fn members_come_before_they_go_and_one_at_a_time_falls_silent() {
    for (seed, kind) in (0..100).zip(Kind::ALL.iter().cycle()) {
        let (mut here, mut silent) = ([false; SLOTS], None);
        for Event { at, slot, action } in schedule(seed, kind, Duration::from_secs(60)) {
            assert_eq!(here[slot], action != Action::Start, "seed {seed} at {at:?}");
            here[slot] = action == Action::Start;
            assert!(at.is_zero() || here.iter().filter(|here| **here).count() >= LEAST);
            if action.is_silent(kind.is_static(slot)) {
                assert!(silent.is_none_or(|before| at >= before + SILENCES_APART), "seed {seed} at {at:?}");
                silent = Some(at);
            }
        }
    }
}
