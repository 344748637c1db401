//! When what is killed: a seed decides.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Processes of producers, and of consumers.
pub const PROCESSES: usize = 10;

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blow {
    /// kill -9 and a start; then again while it recovers, so often and so late.
    KillBroker {
        again_after: Vec<Duration>,
    },
    /// SIGSTOP, then SIGCONT, and kill -9 while it is busy with what came in: much is stored and not answered.
    KillBusyBroker {
        pause: Duration,
        busy: Duration,
    },
    /// A clean stop.
    StopBroker,
    /// SIGSTOP, and SIGCONT after a moment.
    PauseBroker(Duration),
    KillWriters(usize),
    KillReaders(usize),
    /// Consumers, and the broker while they come back.
    KillReadersAndBroker {
        process: usize,
        after: Duration,
    },
}

/// The endless schedule of a seed.
pub struct Plan(ChaCha8Rng);

impl Plan {
    pub fn of(seed: u64) -> Plan {
        Plan(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The pause before the next blow, and the blow. A spared broker is neither killed nor stopped: its clients are.
    pub fn next(&mut self, broker_spared: bool) -> (Duration, Blow) {
        // Always the same numbers, so that the rest of the schedule does not depend on who is spared.
        let pause = self.ms(1_000, 3_000);
        let (kind, process) = (self.0.random_range(0..100), self.0.random_range(0..PROCESSES));
        let (moment, early, late) = (self.ms(50, 1_000), self.ms(0, 60), self.ms(0, 400));
        let busy = self.ms(0, 40);
        let again = self.0.random_range(0..8);
        let blow = match kind {
            0..=11 if !broker_spared => Blow::KillBusyBroker { pause: moment, busy },
            12..=33 if !broker_spared => {
                let again_after = match again {
                    0 => vec![early],
                    1 => vec![late],
                    2 => vec![early, late],
                    _ => Vec::new(),
                };
                Blow::KillBroker { again_after }
            }
            34..=38 if !broker_spared => Blow::KillReadersAndBroker { process, after: late },
            39..=43 if !broker_spared => Blow::StopBroker,
            44..=51 => Blow::PauseBroker(moment),
            kind if kind % 2 == 0 => Blow::KillWriters(process),
            _ => Blow::KillReaders(process),
        };
        (pause, blow)
    }

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.0.random_range(least..=most))
    }
}

#[test]
fn a_seed_gives_the_same_schedule_and_it_has_everything() {
    let blows = |seed: u64| {
        let mut plan = Plan::of(seed);
        (0..500).map(|_| plan.next(false)).collect::<Vec<_>>()
    };
    assert_eq!(blows(7), blows(7));
    assert_ne!(blows(7), blows(8));
    let count = |wanted: fn(&Blow) -> bool| blows(7).iter().filter(|(_, blow)| wanted(blow)).count();
    assert!(count(|blow| matches!(blow, Blow::KillBroker { again_after } if again_after.len() == 2)) > 3);
    assert!(count(|blow| matches!(blow, Blow::KillBroker { again_after } if again_after.is_empty())) > 30);
    assert!(count(|blow| matches!(blow, Blow::KillBusyBroker { .. })) > 20);
    assert!(count(|blow| matches!(blow, Blow::StopBroker)) > 10);
    assert!(count(|blow| matches!(blow, Blow::KillReadersAndBroker { .. })) > 10);
    assert!(count(|blow| matches!(blow, Blow::PauseBroker(_))) > 10);
    assert!(count(|blow| matches!(blow, Blow::KillWriters(_))) > 50);
    assert!(count(|blow| matches!(blow, Blow::KillReaders(_))) > 50);
    let mut spared = Plan::of(7);
    let clients_die = |blow| matches!(blow, Blow::KillWriters(_) | Blow::KillReaders(_) | Blow::PauseBroker(_));
    assert!((0..500).all(|_| clients_die(spared.next(true).1)));
}
