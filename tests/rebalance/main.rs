//! Groups under change: their members come, leave, and die, while a producer goes on. Every message is processed once a
//! group, and no partition waits for longer than for the session of a member that died.
//!
//! `FINSTREAM_REBALANCE_SECONDS` sets how long (default 30; the bar of five minutes is run by `make rebalance-test`),
//! `FINSTREAM_TEST_SEED` the schedules, which is printed; `FINSTREAM_REBALANCE_KEEP` names a folder, not there yet, that
//! keeps everything of the run.
//!
//! `kind` says which groups there are, `plan` who comes and goes when; `load` produces; `group` runs the processes of its
//! members, and `member` is what they do; they write down what they saw (`notes`), and `checker` compares. What it
//! forbids and what it allows is what Apache Kafka and librdkafka promise:
//!
//! - Whoever gives a partition back has committed before, so nobody reads its messages again. What a member read after
//!   its last acknowledged commit may be read again when it was killed.
//! - A member that is killed is missed when its session ends; so is a static one that only closes: librdkafka does not
//!   tell the group then (KIP-345), so that it may come back. One that unsubscribes does.
//! - librdkafka's commits wait behind its own request to join, and are refused when the group went on meanwhile. The
//!   ones in between may fail so; the last one is tried again, which any consumer has to do that leaves cleanly.
//! - librdkafka may hand over the last message before a cooperative rebalance a second time (`checker` says why). It is
//!   counted; two messages, or another one, are a fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod checker;
mod checker_tests;
mod figures;
mod group;
mod kind;
mod load;
mod member;
mod notes;
mod plan;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use checker::{Books, Fault};
use group::Group;
use kind::{Kind, PARTITIONS, TOPIC};
use load::Stored;
use rdkafka::ClientConfig;
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::BaseConsumer;
use support::{Sandbox, kafka, setting};

/// Longest time without any progress, when nothing new comes.
const STALLED_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_member_of_a_group_and_no_test_by_itself() {
    member::run();
}

#[test]
fn whoever_comes_and_goes_each_group_processes_every_message_once_and_no_partition_waits_long() {
    let seconds = setting("FINSTREAM_REBALANCE_SECONDS", 30);
    let seed = setting("FINSTREAM_TEST_SEED", u64::from(std::process::id()));
    println!("FINSTREAM_TEST_SEED={seed} FINSTREAM_REBALANCE_SECONDS={seconds}");
    let sandbox = Sandbox::new();
    // Until the broker is gone, and before its directory is.
    let _keeps = Keeps(sandbox.path());
    let mut broker = sandbox.spawn(&["--role", "broker", "--durability", "fsync"]);
    let brokers = broker.wait_ready()["kafka"].as_str().unwrap().to_owned();
    kafka::create_topics(&brokers, &[NewTopic::new(TOPIC, PARTITIONS as i32, TopicReplication::Fixed(1))]);
    let groups = Kind::ALL.iter().map(|kind| Group::new(kind, &brokers, sandbox.path().join(kind.name)));
    let (stored, books, groups) = run(groups.collect(), &brokers, seed, Duration::from_secs(seconds));

    let findings: Vec<_> = books.iter().map(|books| books.check(&stored)).collect();
    figures::print(&stored, &groups, &findings);
    let mut faults: Vec<_> = findings.iter().flat_map(|findings| &findings.faults).collect();
    // There is one for each message, and they would drown the others.
    faults.sort_by_key(|fault| matches!(fault, Fault::Doubled { .. }));
    faults.iter().take(50).for_each(|fault| println!("FAULT {fault}"));
    assert!(faults.is_empty(), "{} promises were broken", faults.len());
    let stored: usize = stored.iter().map(Vec::len).sum();
    assert!(stored as u64 > 1_000 * seconds, "{stored} messages in {seconds} s: the test tests nothing");
    let handed_over = findings.iter().map(|findings| findings.assigned).min();
    assert!(handed_over > Some(2 * PARTITIONS as usize), "{handed_over:?} partitions given: the test tests nothing");
    let (code, output) = broker.stop();
    assert_eq!(code, Some(0), "the broker did not stop cleanly:\n{output}");
    assert!(!output.contains("panicked at"), "the broker panicked:\n{output}");
}

/// How far a run is: at first members come and go.
#[derive(Default)]
struct Stage(AtomicU8);

impl Stage {
    /// Nothing new is produced; the members read what there is.
    const DRAIN: u8 = 1;
    /// All leave.
    const END: u8 = 2;
    const FAILED: u8 = 3;

    /// Whether it has come to this stage.
    fn is_at(&self, stage: u8) -> bool {
        let now = self.0.load(Ordering::Acquire);
        assert_ne!(now, Self::FAILED, "something else failed");
        now >= stage
    }

    fn advance(&self, stage: u8) {
        self.0.fetch_max(stage, Ordering::AcqRel);
    }
}

/// When one thread fails, none goes on.
struct FailsAll<'a>(&'a Stage);

impl Drop for FailsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.advance(Stage::FAILED);
        }
    }
}

fn run(groups: Vec<Group>, brokers: &str, seed: u64, length: Duration) -> (Stored, Vec<Books>, Vec<Group>) {
    let stage = Stage::default();
    std::thread::scope(|scope| {
        let _fails_all = FailsAll(&stage);
        let load = scope.spawn(|| {
            let _fails_all = FailsAll(&stage);
            load::produce(brokers, || stage.is_at(Stage::DRAIN))
        });
        let live = |(mut group, kind): (Group, &'static Kind), seed: u64| {
            let stage = &stage;
            // A thread of its own for a group: its members live as long as that.
            scope.spawn(move || {
                let _fails_all = FailsAll(stage);
                group.live(&plan::schedule(seed, kind, length), stage);
                (group.finish(), group)
            })
        };
        let seeds = (0..).map(|number| seed.wrapping_mul(1_000).wrapping_add(number));
        let groups: Vec<_> =
            groups.into_iter().zip(&Kind::ALL).zip(seeds).map(|(each, seed)| live(each, seed)).collect();
        let began = Instant::now();
        while began.elapsed() < length {
            assert!(!stage.is_at(Stage::DRAIN));
            std::thread::park_timeout(Duration::from_millis(100));
        }
        stage.advance(Stage::DRAIN);
        let stored = load.join().unwrap();
        wait_until_committed(brokers, &stored, &stage);
        stage.advance(Stage::END);
        let (books, groups) = groups.into_iter().map(|group| group.join().unwrap()).unzip();
        (stored, books, groups)
    })
}

/// Waits until each group has committed the ends of all partitions.
fn wait_until_committed(brokers: &str, stored: &Stored, stage: &Stage) {
    let end = |(partition, acknowledged): (i32, &Vec<u64>)| ((TOPIC.to_owned(), partition), acknowledged.len() as i64);
    let ends: BTreeMap<(String, i32), i64> = (0..).zip(stored).map(end).collect();
    let group = |kind: &Kind| -> BaseConsumer {
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", kind.name).create().unwrap()
    };
    let groups: Vec<BaseConsumer> = Kind::ALL.iter().map(group).collect();
    let (mut behind, mut progressed) = (i64::MAX, Instant::now());
    while behind > 0 {
        assert!(!stage.is_at(Stage::END));
        let now: i64 = groups.iter().map(|group| kafka::messages_behind(group, &ends)).sum();
        if now < behind {
            (behind, progressed) = (now, Instant::now());
        }
        assert!(progressed.elapsed() < STALLED_MAX, "the groups stay {behind} messages behind the end");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// Keeps what a run leaves behind, for whoever looks for a cause.
struct Keeps<'a>(&'a Path);

impl Drop for Keeps<'_> {
    fn drop(&mut self) {
        if let Some(keep) = std::env::var_os("FINSTREAM_REBALANCE_KEEP") {
            println!("kept in {}: {:?}", keep.display(), std::fs::rename(self.0, &keep));
        }
    }
}
