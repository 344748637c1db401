//! The transaction layer, broken at each of its seams: the books balance all the same.
//!
//! Each run starts the real binary as a consumer with a failpoint (`finstream::seam`), lets it be killed, held up, or told
//! that its connection broke, has whoever is left go on, and asks `finstream verify`. Users and the symbol are in all
//! partitions. `FINSTREAM_TEST_FAILPOINT_RUNS` sets how many runs (default 50; the bar of 500 is run by
//! `make failpoint-test`), `FINSTREAM_TEST_SEED` the plans, which is printed.
//!
//! `plan` says what happens in a run, `drive` does it, `world` has the broker, PostgreSQL and the books. `sabotage` takes a
//! safeguard out, to show that these runs would notice. `stopped` is SIGSTOP at each seam, `churn` consumers that come and
//! go under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod churn;
mod drive;
mod plan;
mod published;
mod sabotage;
mod stopped;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drive::drive;
use finstream::seam::{ALLOW_FAILPOINTS, FAILPOINTS};
use plan::Plan;
use sabotage::{Sabotage, listen};
use support::{Sandbox, setting};
use world::{Lane, World};

/// Lanes at the same time: most of a run is waiting.
const LANES: u64 = 4;
/// Runs that continue the same books.
const RUNS_PER_LANE: u64 = 20;
/// A fault must be found within so many runs.
const CAUGHT_WITHIN: u64 = 6;

/// One test at a time: they measure.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seed() -> u64 {
    let seed = setting("FINSTREAM_TEST_SEED", u64::from(std::process::id()));
    println!("FINSTREAM_TEST_SEED={seed}");
    seed
}

#[test]
fn whatever_breaks_at_whichever_seam_the_books_balance() {
    let _alone = alone();
    let (seed, runs) = (seed(), setting("FINSTREAM_TEST_FAILPOINT_RUNS", 50));
    let (world, next, times) = (World::start(), AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for number in 0..LANES {
            let (world, next, times) = (&world, &next, &times);
            scope.spawn(move || {
                let mut lane = None;
                let mut runs_of_lane = 0;
                loop {
                    let run = next.fetch_add(1, Ordering::SeqCst);
                    if run >= runs {
                        return;
                    }
                    if runs_of_lane % RUNS_PER_LANE == 0 {
                        lane = Some(Lane::new(world, &format!("lane_{number}_{runs_of_lane}")));
                    }
                    runs_of_lane += 1;
                    let plan = Plan::of(seed, run);
                    let began = Instant::now();
                    if let Err(why) = drive(lane.as_mut().unwrap(), &plan, None) {
                        next.store(u64::MAX / 2, Ordering::SeqCst);
                        panic!("run {run} of FINSTREAM_TEST_SEED={seed}: {plan:?}\n{why}");
                    }
                    times.lock().unwrap().insert(run, (began.elapsed(), plan));
                }
            });
        }
    });
    let times = times.into_inner().unwrap();
    assert_eq!(times.len() as u64, runs);
    let mut longest: Vec<_> = times.iter().collect();
    longest.sort_by_key(|(_, (time, _))| std::cmp::Reverse(*time));
    println!("{runs} runs: the books balance in each. The longest:");
    for (run, (time, plan)) in longest.iter().take(5) {
        println!("{:5.1} s  run {run}: {} rival {:?}", time.as_secs_f64(), plan.failpoint, plan.rival);
    }
}

/// Whether runs like these notice that a safeguard is missing; in which, and what they say.
fn first_fault(world: &World, sabotage: Sabotage, plan: impl Fn(u64) -> Plan, runs: u64) -> Option<(u64, String)> {
    let proxy = listen(&world.socket_dir, sabotage);
    let mut lane = Lane::new(world, &format!("{sabotage:?}").to_lowercase());
    let found = (0..runs).find_map(|run| drive(&mut lane, &plan(run), Some(&proxy.url)).err().map(|why| (run, why)));
    let taken_out = proxy.taken_out.load(Ordering::SeqCst);
    assert!(sabotage == Sabotage::Nothing || taken_out > 0, "{sabotage:?}: its text is not in the SQL any more");
    found
}

#[test]
fn a_safeguard_that_is_missing_is_noticed() {
    let _alone = alone();
    let (seed, world) = (seed(), World::start());
    let duel = |run| Plan::duel(seed, run);
    let torn = |run| Plan::torn(seed, run);
    std::thread::scope(|scope| {
        let world = &world;
        let nothing = scope.spawn(move || {
            let found = first_fault(world, Sabotage::Nothing, duel, 1);
            found.or_else(|| first_fault_torn(world, torn))
        });
        let missing = [Sabotage::CompareAndSet, Sabotage::OwnerEpoch, Sabotage::OneTransaction].map(|sabotage| {
            let searched = scope.spawn(move || match sabotage {
                Sabotage::OneTransaction => first_fault(world, sabotage, torn, CAUGHT_WITHIN),
                _ => first_fault(world, sabotage, duel, CAUGHT_WITHIN),
            });
            (sabotage, searched)
        });
        for (sabotage, searched) in missing {
            let found = searched.join().unwrap();
            let (run, why) =
                found.unwrap_or_else(|| panic!("nobody notices that {sabotage:?} is missing (seed {seed})"));
            println!("without {sabotage:?}, run {run} says: {}", reason_in(&why));
        }
        let nothing = nothing.join().unwrap();
        assert!(nothing.is_none(), "the way through the proxy does harm by itself (seed {seed}): {nothing:?}");
    });
}

/// What people would read.
fn reason_in(why: &str) -> String {
    let reasons = why.lines().filter(|line| line.starts_with("finstream: ") || line.contains(" not stored: "));
    why.lines().take(1).chain(reasons).collect::<Vec<_>>().join("; ")
}

fn first_fault_torn(world: &World, plan: impl Fn(u64) -> Plan) -> Option<(u64, String)> {
    let proxy = listen(&world.socket_dir, Sabotage::Nothing);
    let mut lane = Lane::new(world, "nothing_torn");
    drive(&mut lane, &plan(0), Some(&proxy.url)).err().map(|why| (0, why))
}

#[test]
fn failpoints_are_refused_without_consent_and_under_a_wrong_name() {
    let sandbox = Sandbox::new();
    let run = |failpoints: &str, consent: &str| {
        let mut command = sandbox.command(&["schema"]);
        let output = command.env(FAILPOINTS, failpoints).env(ALLOW_FAILPOINTS, consent).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run("inside-copy=kill@3", "");
    assert!(code == Some(2) && text.contains(ALLOW_FAILPOINTS), "{code:?} {text}");
    let (code, text) = run("inside-coffee=kill@3", "yes");
    assert!(code == Some(2) && text.contains("inside-copy"), "{code:?} {text}");
    let (code, text) = run("inside-copy=kill@3", "yes");
    assert!(code == Some(0) && text.contains("will break itself"), "{code:?} {text}");
    assert_eq!(run("", ""), (Some(0), String::new()));
}

/// For figures of many waits.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}
