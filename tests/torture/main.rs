//! Torture: 200 partitions, 50 producers, 50 consumers, and random kills of all of them, the broker first of all. Nothing
//! is lost, doubled or reordered, nothing that a consumer has read disappears, and the broker's memory stays flat.
//!
//! `FINSTREAM_TORTURE_SECONDS` sets how long it is killed (default 180; the bar of half an hour is run by
//! `make torture`), `FINSTREAM_TEST_SEED` the schedule, which is printed; `FINSTREAM_TORTURE_KEEP` names a folder, not there
//! yet, that keeps everything of a run that failed.
//!
//! `plan` says what is killed when; `broker` and `fleet` are the processes; `writers` and `readers` run in them and
//! write down what they saw (`notes`); `passing` makes topics and deletes them under their producers; `log` reads
//! everything in the end; `checker` compares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod broker;
mod checker;
mod checker_tests;
mod child;
mod figures;
mod fleet;
mod log;
mod message;
mod notes;
mod passing;
mod plan;
mod readers;
mod writers;

use std::time::{Duration, Instant};

use broker::Broker;
use checker::Evidence;
use child::Task;
use figures::Figures;
use fleet::Fleet;
use notes::Note;
use passing::Passing;
use plan::{Blow, Plan};
use rustix::process::Signal;
use support::setting;

const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// The broker lives in peace for the last sixth: what leaks within one life shows there.
const PEACE: u32 = 6;

#[test]
fn a_child_of_the_torture_and_no_test_by_itself() {
    child::run();
}

#[test]
fn whatever_is_killed_nothing_is_lost_doubled_or_reordered_and_memory_stays_flat() {
    let seconds = setting("FINSTREAM_TORTURE_SECONDS", 180);
    let seed = setting("FINSTREAM_TEST_SEED", u64::from(std::process::id()));
    println!("FINSTREAM_TEST_SEED={seed} FINSTREAM_TORTURE_SECONDS={seconds}");
    let mut torture = Torture::begin(seed);
    torture.strike_for(Duration::from_secs(seconds));
    torture.settle(seconds);
}

struct Torture {
    plan: Plan,
    // Clients are taken down before the broker.
    passing: Passing,
    writers: Fleet,
    readers: Fleet,
    broker: Broker,
    figures: Figures,
}

impl Torture {
    fn begin(seed: u64) -> Torture {
        let broker = Broker::start();
        log::create_topics(broker.address());
        let fleet = |task, clients, name| Fleet::start(task, clients, broker.address(), &broker.directory(name));
        let writers = fleet(Task::Write, writers::WRITERS, "writers");
        let readers = fleet(Task::Read, readers::READERS, "readers");
        let passing = Passing::start(broker.address());
        Torture { plan: Plan::of(seed), passing, writers, readers, broker, figures: Figures::default() }
    }

    fn strike_for(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            let in_peace = began.elapsed() > time / PEACE * (PEACE - 1);
            let (pause, blow) = self.plan.next(in_peace);
            self.watch(pause, in_peace);
            self.strike(&blow);
            self.figures.count(&blow);
        }
    }

    /// Looks on for a while.
    fn watch(&mut self, pause: Duration, in_peace: bool) {
        let began = Instant::now();
        while let Some(left) = pause.checked_sub(began.elapsed()) {
            self.broker.assert_alive();
            self.writers.assert_alive();
            self.readers.assert_alive();
            let samples = if in_peace { &mut self.figures.old } else { &mut self.figures.young };
            samples.extend(self.broker.sample());
            // The pause is the schedule's, not a wait for something.
            std::thread::sleep(left.min(SAMPLE_EVERY));
        }
    }

    fn strike(&mut self, blow: &Blow) {
        match blow {
            Blow::KillBroker { again_after } => {
                self.broker.kill_and_start();
                for moment in again_after {
                    // The moment of the kill is the point of it.
                    std::thread::sleep(*moment);
                    self.broker.kill_and_start();
                }
                self.broker.wait_ready();
            }
            Blow::KillBusyBroker { pause, busy } => {
                self.pause_broker(*pause);
                std::thread::sleep(*busy);
                self.broker.kill_and_start();
                self.broker.wait_ready();
            }
            Blow::KillReadersAndBroker { process, after } => {
                self.readers.kill_and_start(*process);
                std::thread::sleep(*after);
                self.broker.kill_and_start();
                self.broker.wait_ready();
            }
            Blow::StopBroker => {
                self.broker.stop_and_start();
                self.broker.wait_ready();
            }
            Blow::PauseBroker(moment) => self.pause_broker(*moment),
            Blow::KillWriters(process) => self.writers.kill_and_start(*process),
            Blow::KillReaders(process) => self.readers.kill_and_start(*process),
        }
    }

    fn pause_broker(&self, moment: Duration) {
        self.broker.signal(Signal::STOP);
        std::thread::sleep(moment);
        self.broker.signal(Signal::CONT);
    }

    /// Lets everything drain, kills the broker once more, and does the books.
    fn settle(mut self, seconds: u64) {
        self.writers.finish();
        let passed = self.passing.finish();
        self.figures.row("topics made, written to and deleted meanwhile", passed);
        self.broker.kill_and_start();
        self.broker.wait_ready();
        let drained = Instant::now();
        log::wait_until_committed(self.broker.address(), || self.readers.assert_alive());
        let drain = drained.elapsed();
        self.readers.finish();
        let evidence = Evidence {
            log: log::read_all(self.broker.address()),
            writers: notes::read(&self.broker.directory("writers"), "writer-"),
            readers: notes::read(&self.broker.directory("readers"), "reader-"),
        };
        self.broker.stop();
        let faults = evidence.faults();
        self.tell(&evidence, drain);
        for fault in faults.iter().take(50) {
            println!("FAULT {fault}");
        }
        assert!(faults.is_empty(), "{} promises were broken", faults.len());
        assert_eq!(self.broker.panics(), [""; 0], "the broker panicked");
        self.figures.assert_flat(seconds);
        let stored: usize = evidence.log.values().map(Vec::len).sum();
        assert!(stored as u64 > 100 * seconds, "{stored} messages in {seconds} s: the test tests nothing");
    }

    fn tell(&mut self, evidence: &Evidence, drain: Duration) {
        let count = |lives: &[notes::Life], kind: fn(&Note) -> bool| {
            lives.iter().flat_map(|life| &life.notes).filter(|note| kind(note)).count()
        };
        let (writers, readers) = (&evidence.writers, &evidence.readers);
        let figures = &mut self.figures;
        figures.row("messages in the log", evidence.log.values().map(Vec::len).sum::<usize>());
        figures.row("acknowledged", count(writers, |note| matches!(note, Note::Delivered { .. })));
        figures
            .row("... without an offset", count(writers, |note| matches!(note, Note::Delivered { offset: None, .. })));
        figures.row("read by the groups", count(readers, |note| matches!(note, Note::Read { .. })));
        figures.row("partitions assigned", count(readers, |note| matches!(note, Note::Assigned { .. })));
        figures.row("offsets committed", count(readers, |note| matches!(note, Note::Committed { .. })));
        figures.row("lives of producers; of consumers", format!("{}; {}", writers.len(), readers.len()));
        figures.row("from start to ready, s: median; longest", spread(&self.broker.starts));
        figures.row("from SIGTERM to the end, s: median; longest", spread(&self.broker.stops));
        figures.row("warnings that the broker printed", self.broker.warnings());
        figures.row("groups at the end after the last kill, s", format!("{:.1}", drain.as_secs_f64()));
        for (name, count) in self.readers.errors() {
            figures.row(&format!("consumers bore {name}"), count);
        }
        figures.print();
    }
}

fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    let seconds = |place: usize| times.get(place).map_or(0.0, Duration::as_secs_f64);
    format!("{:.2}; {:.2}", seconds(times.len() / 2), seconds(times.len().saturating_sub(1)))
}
