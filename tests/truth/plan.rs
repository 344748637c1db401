//! What happens in a run: a seed decides.

use std::time::Duration;

use finstream::seam::{Action, Failpoint, Seam};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Of each seam one; a delay's length is drawn.
const ACTIONS: [Action; 3] = [Action::Kill, Action::Error, Action::Delay(Duration::ZERO)];
/// Longer than a consumer waits for its writer when it gives partitions back: the rest of the batch then may come behind
/// the claim of the next owner.
const LONG_MS: std::ops::Range<u64> = 3_800..7_000;
/// So long that it does: the next owner starts (0.5 s), is noticed with a heartbeat (0.5 s), the writer is waited for
/// (3 s), and the group settles for a second time (1 s) before the claim.
const DUEL_MS: std::ops::Range<u64> = 6_300..7_000;
const SHORT_MS: std::ops::Range<u64> = 20..500;
/// The heir of a batch that is held up waits so long before its own first one, to give it its chance.
const HEIR_WAITS: Duration = Duration::from_secs(5);

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub failpoint: Failpoint,
    /// What the consumer meets besides: it has two writers.
    pub also: Option<Failpoint>,
    /// Another consumer of the group that starts as soon as it has happened, and what happens to that.
    pub rival: Option<Vec<Failpoint>>,
    /// Messages that are there when the consumer starts.
    pub before: i64,
    /// Messages that come after it has happened.
    pub after: i64,
    /// Ends by kill -9 once all is stored, so that the next run begins with what that leaves.
    pub ends_killed: bool,
}

impl Plan {
    /// Run `number` of a seed: each seam with each action comes once in 36 runs.
    pub fn of(seed: u64, number: u64) -> Plan {
        let mut random = random(seed, number);
        let seam = Seam::ALL[number as usize % Seam::ALL.len()];
        let action = ACTIONS[number as usize / Seam::ALL.len() % ACTIONS.len()];
        let is_duel = matches!(action, Action::Delay(_)) && seam == Seam::BeforeCompareAndSet;
        if is_duel { duel(&mut random) } else { any(&mut random, seam, action) }
    }

    /// Two write the same batch at the same time.
    pub fn duel(seed: u64, number: u64) -> Plan {
        duel(&mut random(seed, number))
    }

    /// A consumer dies in the middle of a batch's transaction.
    pub fn torn(seed: u64, number: u64) -> Plan {
        let seams = [Seam::AfterCompareAndSet, Seam::InsideCopy, Seam::BeforeCommit];
        any(&mut random(seed, number), seams[number as usize % seams.len()], Action::Kill)
    }
}

fn random(seed: u64, number: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number))
}

fn any(random: &mut ChaCha8Rng, seam: Seam, action: Action) -> Plan {
    // Without another, nothing is given back but at the end.
    let has_rival = random.random_bool(0.3) || seam == Seam::Revoke;
    let action = match action {
        Action::Delay(_) => {
            let range = if has_rival { LONG_MS } else { SHORT_MS };
            Action::Delay(Duration::from_millis(random.random_range(range)))
        }
        other => other,
    };
    let hits_max = match seam {
        Seam::BeforeClaim | Seam::AfterClaim => 3,
        Seam::BeforeKafkaCommit | Seam::Revoke => 1,
        Seam::BeforePublish | Seam::InsidePublish | Seam::AfterPublish => 2,
        _ => 6,
    };
    Plan {
        failpoint: Failpoint { seam, action, hit: random.random_range(1..=hits_max) },
        also: None,
        rival: has_rival.then(Vec::new),
        before: random.random_range(0..400),
        after: random.random_range(1..200),
        ends_killed: random.random_bool(0.5),
    }
}

fn duel(random: &mut ChaCha8Rng) -> Plan {
    let seam = Seam::BeforeCompareAndSet;
    let delay = Action::Delay(Duration::from_millis(random.random_range(DUEL_MS)));
    let heir = Failpoint { seam, action: Action::Delay(HEIR_WAITS), hit: 1 };
    Plan {
        // The first batches of both writers have records of all partitions, so it does not matter which the rival is given.
        failpoint: Failpoint { seam, action: delay, hit: 1 },
        also: Some(Failpoint { seam, action: delay, hit: 2 }),
        rival: Some(vec![heir]),
        before: random.random_range(30..45),
        after: random.random_range(100..200),
        ends_killed: false,
    }
}

#[test]
fn a_seed_gives_the_same_plans_and_they_have_everything() {
    let plans: Vec<Plan> = (0..50).map(|number| Plan::of(7, number)).collect();
    assert_eq!(plans, (0..50).map(|number| Plan::of(7, number)).collect::<Vec<_>>());
    assert_ne!(plans, (0..50).map(|number| Plan::of(8, number)).collect::<Vec<_>>());
    for seam in Seam::ALL {
        let actions = plans.iter().filter(|plan| plan.failpoint.seam == seam).map(|plan| plan.failpoint.action);
        let kinds: std::collections::HashSet<_> = actions.map(|action| std::mem::discriminant(&action)).collect();
        assert_eq!(kinds.len(), 3, "{seam}");
    }
    assert!(plans.iter().filter(|plan| plan.rival.is_some()).count() > 5);
}
