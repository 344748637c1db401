//! Ten consumers of one group that come and go (SIGTERM) under load: the books balance, and no partition waits for long.
//!
//! `FINSTREAM_TEST_CHURN_SECONDS` sets how long (default 20; the bar of ten minutes is run by `make churn-test`),
//! `FINSTREAM_TEST_CHURN_RATE` the messages a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sqlx::{Connection, PgConnection, Row};

use super::support::{self, Running, Sandbox, Signal, setting};
use super::{alone, percentile, seed};

const CONSUMERS: usize = 10;
/// As many as consumers, so that each may have one.
const PARTITIONS: &str = "10";
const PAUSE_MS: std::ops::Range<u64> = 200..1_500;
/// The bar.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Where the machine has other things to do, too. Longer than the session of a consumer that did not leave, and no more.
const IDLE_MAX_BUSY: Duration = Duration::from_secs(10);
/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[test]
fn consumers_that_come_and_go_leave_no_partition_idle_and_the_books_balanced() {
    let _alone = alone();
    let (seed, seconds) = (seed(), setting("FINSTREAM_TEST_CHURN_SECONDS", 20));
    let rate = setting("FINSTREAM_TEST_CHURN_RATE", 20_000);
    let sandbox = Sandbox::new();
    let shared = ["--partitions", PARTITIONS];
    let broker = sandbox.start(&[&["--role", "broker"], &shared[..]].concat());
    // For whoever looks for a cause.
    let log = std::env::var("FINSTREAM_TEST_CHURN_LOG").unwrap_or_else(|_| "finstream=info".to_owned());
    let consumer =
        || sandbox.spawn_with(&[&["--role", "consumer"], &shared[..]].concat(), &[("FINSTREAM_LOG", log.as_str())]);
    let mut slots: Vec<Option<Running>> = (0..CONSUMERS).map(|_| None).collect();
    let mut first = consumer();
    first.wait_ready();
    slots[0] = Some(first);
    let rate_text = rate.to_string();
    let producer = sandbox.spawn(&[&["--role", "producer", "--rate", &rate_text], &shared[..]].concat());
    let is_over = AtomicBool::new(false);
    let (mut starts, mut stops) = (0, 0);
    let gaps = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&sandbox, &is_over));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) && !watcher.is_finished() {
            // The pause is the schedule's, not a wait for something.
            std::thread::sleep(Duration::from_millis(random.random_range(PAUSE_MS)));
            let slot = random.random_range(0..CONSUMERS);
            let here = slots.iter().flatten().count();
            match slots[slot].take() {
                None => {
                    slots[slot] = Some(consumer());
                    starts += 1;
                }
                Some(mut running) if here > 1 => {
                    running.signal(Signal::TERM);
                    stops += 1;
                    scope.spawn(move || {
                        let code = running.wait();
                        assert_eq!(code, Some(0), "a consumer did not stop well:\n{}", running.output());
                        keep(&running);
                    });
                }
                last => slots[slot] = last,
            }
            for running in slots.iter_mut().flatten() {
                assert!(running.is_running(), "a consumer ended by itself:\n{}", running.output());
            }
        }
        is_over.store(true, Ordering::SeqCst);
        watcher.join().unwrap()
    });
    let (code, output) = producer.stop();
    assert_eq!(code, Some(0), "{output}");
    sandbox.expect(0, &["verify"]);
    for running in slots.into_iter().flatten() {
        keep(&running);
        let (code, output) = running.stop();
        assert_eq!(code, Some(0), "{output}");
    }
    assert_eq!(sandbox.sql("select count(*) from dead_letters"), "0");
    let messages = sandbox.sql("select count(*) from messages");
    assert_eq!(broker.stop().0, Some(0));
    println!(
        "{seconds} s, {messages} messages, {starts} consumers came and {stops} left; a partition waited p50 {:?}, p99 {:?}, at most {:?}",
        percentile(&gaps, 50),
        percentile(&gaps, 99),
        gaps.last().unwrap()
    );
    assert!(starts > seconds / 10 && stops > seconds / 20, "the test tests nothing");
    println!(
        "{} of {} waits are above the bar of {IDLE_MAX:?}",
        gaps.iter().filter(|gap| **gap > IDLE_MAX).count(),
        gaps.len()
    );
    assert!(*gaps.last().unwrap() <= IDLE_MAX_BUSY, "a partition was idle");
}

/// Keeps what a consumer said, for whoever looks for a cause.
fn keep(running: &Running) {
    if let Some(folder) = std::env::var_os("FINSTREAM_TEST_CHURN_KEEP") {
        let path = std::path::Path::new(&folder).join(format!("{}.log", running.pid()));
        std::fs::write(path, running.output()).unwrap();
    }
}

/// As in the logs of the consumers.
fn now_text() -> String {
    finstream::clock::Micros(support::notes::now_us() as i64).to_string()
}

/// The times between two moves of each partition's progress, sorted; the load never ends, so a partition that does not
/// move is idle.
fn watch(sandbox: &Sandbox, is_over: &AtomicBool) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let record = std::fs::read_to_string(sandbox.data().join("postgres.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    runtime.block_on(async {
        let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
            .socket(record["socket_dir"].as_str().unwrap())
            .username("finstream")
            .database("postgres")
            .options([("search_path", "finstream")]);
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        let mut moved: BTreeMap<i32, (i64, Instant)> = BTreeMap::new();
        let mut gaps = Vec::new();
        while !is_over.load(Ordering::SeqCst) {
            let rows = sqlx::query("select partition, next_offset from partition_offsets where next_offset > 0");
            let rows = rows.fetch_all(&mut connection).await.unwrap();
            let now = Instant::now();
            for row in rows {
                let (partition, next_offset): (i32, i64) = (row.get(0), row.get(1));
                let known = moved.entry(partition).or_insert((next_offset, now));
                if known.0 != next_offset {
                    if now - known.1 > IDLE_MAX / 2 {
                        println!("{}: partition {partition} waited for {:?}", now_text(), now - known.1);
                    }
                    gaps.push(now - known.1);
                    *known = (next_offset, now);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        gaps.extend(moved.values().map(|(_, since)| since.elapsed()));
        gaps.sort_unstable();
        gaps
    })
}
