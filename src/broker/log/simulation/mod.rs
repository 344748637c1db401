//! The log on a simulated disk that forgets and reorders what was not synced, driven by a seed.
//!
//! A run is a few lives of one log. After each write, sync and change of a name of a life, the machine is stopped: the
//! log must open again, and keep all that was promised up to that step. Now and then it is stopped again while it opens.
//! Everything happens on one thread and follows from the seed, so that a run can be repeated byte for byte.

mod batches;
mod clients;
mod image;
mod life;
mod model;
mod partition_model;
mod reader_model;
mod sim_disk;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use self::clients::Clients;
use self::image::Image;
use self::life::{Life, open};
use self::model::{Crash, Model, Violation};
use self::sim_disk::{Faults, SimDisk};
use super::Durability;
use super::room::FREE_BYTES_MIN;

const LIVES: usize = 3;
const ACTIONS_MAX: usize = 60;
/// Of the stops, those in which the machine is stopped a second time while the log opens.
const SECOND_STOPS: f64 = 0.25;
/// A disk with so much room beyond what the log wants to be free is full now and then.
const ROOM_BYTES: std::ops::Range<u64> = 25_000..90_000;
const SEEDS: u64 = 1000;
/// How many seeds a mistake may take to be noticed.
const SEEDS_TO_NOTICE: u64 = 100;

/// A check of the log that can be left out, to see whether the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// That a producer's batch is the next one, and no retry.
    ProducerSequence,
    /// That no group of the journal is missing before this one.
    GroupSequence,
    /// That the cleaner asks which transactions were aborted.
    AbortedInCleaner,
}

thread_local! {
    static LEFT_OUT: Cell<Option<Check>> = const { Cell::new(None) };
}

/// Whether the log shall do without this check, on this thread.
pub(super) fn is_left_out(check: Check) -> bool {
    LEFT_OUT.get() == Some(check)
}

/// What a run did, to compare runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// CRC-32C of all that was done to the disk.
    trace: u32,
    stops: u64,
    found: Option<Violation>,
}

fn crash(rng: &mut ChaCha8Rng) -> Crash {
    match rng.random_range(0..6) {
        0 => Crash::Kill,
        1 => Crash::PowerCut(0),
        2 => Crash::PowerCut(100),
        3 => Crash::PowerCut(10),
        4 => Crash::PowerCut(90),
        _ => Crash::PowerCut(50),
    }
}

/// The disk as the next life finds it.
fn after(crash: Crash, image: &Image, rng: &mut ChaCha8Rng) -> Image {
    match crash {
        Crash::Kill => image.clone(),
        Crash::PowerCut(kept) => image.after_power_cut(rng, f64::from(kept) / 100.0),
    }
}

struct Run {
    rng: ChaCha8Rng,
    faults: Faults,
    outcome: Outcome,
}

impl Run {
    fn new(seed: u64, faults: Faults) -> Run {
        Run { rng: ChaCha8Rng::seed_from_u64(seed), faults, outcome: Outcome::default() }
    }

    fn disk(&mut self, image: Image, faults: Faults, keeps_steps: bool) -> SimDisk {
        SimDisk::new(image, self.rng.random(), faults, keeps_steps)
    }

    fn note(&mut self, disk: &SimDisk) {
        self.outcome.trace = crc32c::crc32c_append(self.outcome.trace, &disk.trace().to_le_bytes());
    }

    fn lives(&mut self) -> Result<(), Violation> {
        let mut image = Image::empty();
        let mut model = Model::default();
        let mut clients = Clients::default();
        for life in 0..LIVES {
            let durability = if self.rng.random_bool(0.75) { Durability::Fsync } else { Durability::Os };
            // More often than any disk does.
            let failing_sync = self.rng.random_bool(0.1).then(|| self.rng.random_range(10..60));
            let failing_open = self.rng.random_bool(0.1).then(|| self.rng.random_range(10..60));
            let failing_write = self.rng.random_bool(0.1).then(|| self.rng.random_range(10..60));
            let room = self.rng.random_bool(0.25).then(|| FREE_BYTES_MIN + self.rng.random_range(ROOM_BYTES));
            let faults = Faults { failing_sync, failing_open, failing_write, room, ..self.faults };
            let before = model.clone();
            let disk = self.disk(image.clone(), faults, true);
            let ended = self.live(&disk, durability, &mut model, &mut clients);
            self.note(&disk);
            let steps = disk.take_steps();
            if let Err(found) = ended {
                // It may have failed to open because a sync failed, or there was no file handle or room, which is its right.
                let may_fail = (failing_sync.is_some() && found.contains("failed to sync"))
                    || (failing_open.is_some() && found.contains("does not open") && found.contains("open files"))
                    || (failing_write.is_some() && found.contains("does not open") && found.contains("storage space"));
                return if may_fail { Ok(()) } else { Err(format!("life {life}, running: {found}")) };
            }
            self.stop_everywhere(&steps, &before, &model).map_err(|found| format!("life {life}, {found}"))?;
            let crash = crash(&mut self.rng);
            let last = steps.last().unwrap_or(&image).clone();
            image = after(crash, &last, &mut self.rng);
            model.begin_life(crash);
            clients.begin_life(durability == Durability::Os && crash != Crash::Kill);
        }
        Ok(())
    }

    fn live(
        &mut self,
        disk: &SimDisk,
        durability: Durability,
        model: &mut Model,
        clients: &mut Clients,
    ) -> Result<(), Violation> {
        let opened = open(disk, durability)?;
        // Recovery has kept what the last life promised: nothing was promised since.
        model.check(&opened.core, 0, Crash::Kill)?;
        model.adopt(&opened.core, disk.steps_taken())?;
        let actions = self.rng.random_range(1..ACTIONS_MAX);
        let closes = self.rng.random_bool(0.2);
        let mut life = Life::new(disk, &opened, model, clients, &mut self.rng);
        life.work(actions)?;
        if closes { life.close() } else { Ok(()) }
    }

    /// Stops the machine after each step of a life. `before`: what held when it began.
    fn stop_everywhere(&mut self, steps: &[Image], before: &Model, model: &Model) -> Result<(), Violation> {
        // While the log opens, what the last life promised must hold; afterwards, what this one says.
        let opened_at = model.opened_at();
        for (index, image) in steps.iter().enumerate() {
            let step = index + 1;
            let (held, at) = if step < opened_at { (before, 0) } else { (model, step) };
            let crash = crash(&mut self.rng);
            self.stop(image, held, at, crash).map_err(|found| format!("{crash:?} after step {step}: {found}"))?;
        }
        Ok(())
    }

    fn stop(&mut self, image: &Image, model: &Model, step: usize, crash: Crash) -> Result<(), Violation> {
        self.outcome.stops += 1;
        let found = after(crash, image, &mut self.rng);
        let stops_again = self.rng.random_bool(SECOND_STOPS);
        let disk = self.disk(found, self.faults, stops_again);
        let opened = open(&disk, Durability::Fsync)?;
        model.check(&opened.core, step, crash)?;
        self.note(&disk);
        if !stops_again {
            return Ok(());
        }
        let steps = disk.take_steps();
        let Some(image) = steps.get(self.rng.random_range(0..steps.len().max(1))) else { return Ok(()) };
        let second = self::crash(&mut self.rng);
        let worse = if crash == Crash::Kill { second } else { crash };
        let found = after(second, image, &mut self.rng);
        let disk = self.disk(found, self.faults, false);
        let opened = open(&disk, Durability::Fsync).map_err(|error| format!("then {second:?}: {error}"))?;
        model.check(&opened.core, step, worse).map_err(|found| format!("then {second:?}: {found}"))
    }
}

fn run(seed: u64, faults: Faults) -> Outcome {
    let mut run = Run::new(seed, faults);
    run.outcome.found = match catch_unwind(AssertUnwindSafe(|| run.lives())) {
        Ok(lived) => lived.err(),
        Err(_) => Some("it panicked".to_owned()),
    };
    run.outcome
}

fn seeds() -> u64 {
    std::env::var("FINSTREAM_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn whatever_stops_the_machine_what_was_promised_is_kept() {
    let first = std::env::var("FINSTREAM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (next, stops) = (AtomicU64::new(first), AtomicU64::new(0));
    let count = seeds();
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let outcome = run(seed, Faults::default());
                    stops.fetch_add(outcome.stops, Ordering::Relaxed);
                    assert_eq!(
                        outcome.found, None,
                        "seed {seed}; FINSTREAM_TEST_SEED={seed} FINSTREAM_SIM_SEEDS=1 repeats it"
                    );
                }
            });
        }
    });
    eprintln!("{count} seeds from {first}: the machine was stopped {} times, no violation", stops.into_inner());
}

#[test]
fn the_same_seed_gives_the_same_run_byte_for_byte() {
    for seed in 0..10 {
        assert_eq!(run(seed, Faults::default()), run(seed, Faults::default()), "seed {seed}");
    }
    assert_ne!(run(1, Faults::default()).trace, run(2, Faults::default()).trace);
}

/// The first seed that notices that something is missing.
fn first_to_notice(what: &str, faults: Faults) -> Option<u64> {
    let first = (0..SEEDS_TO_NOTICE).find_map(|seed| run(seed, faults).found.map(|found| (seed, found)));
    eprintln!("without {what}: {first:?}");
    first.map(|(seed, _)| seed)
}

fn first_to_notice_without(check: Check) -> Option<u64> {
    LEFT_OUT.set(Some(check));
    let first = first_to_notice(&format!("{check:?}"), Faults::default());
    LEFT_OUT.set(None);
    first
}

#[test]
fn a_log_that_does_not_sync_is_noticed() {
    assert!(first_to_notice("file syncs", Faults { no_file_sync: true, ..Faults::default() }).is_some());
}

#[test]
fn a_log_that_does_not_sync_its_directories_is_noticed() {
    let faults = Faults { no_directory_sync: true, ..Faults::default() };
    assert!(first_to_notice("directory syncs", faults).is_some());
}

#[test]
fn a_log_that_does_not_check_its_producers_sequences_is_noticed() {
    assert!(first_to_notice_without(Check::ProducerSequence).is_some());
}

#[test]
fn a_cleaner_that_takes_aborted_records_for_committed_ones_is_noticed() {
    assert!(first_to_notice_without(Check::AbortedInCleaner).is_some());
}

#[test]
fn a_log_that_does_not_check_its_journals_sequence_is_noticed() {
    assert!(first_to_notice_without(Check::GroupSequence).is_some());
}
