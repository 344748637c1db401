//! Transactions under `kill -9`: five producers commit and abort at random, each transaction with records in several
//! partitions and an offset of a group, while the broker is killed every few seconds. A reader of committed records
//! sees every committed transaction whole and once, and nothing of an aborted one.
//!
//! `FINSTREAM_TEST_TRANSACTIONS` sets how many transactions there are (default 300; the bar is 5,000),
//! `FINSTREAM_TEST_SEED` the random choices, which is printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use support::{Sandbox, kafka, setting};

type Transactional = ThreadedProducer<DefaultProducerContext>;

const PRODUCERS: u64 = 5;
const PARTITIONS: i32 = 6;
/// Longest wait for one thing, kills of the broker in between included.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait within one call, so that it is seen when nothing moves.
const CALL: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    Aborted,
}

/// What a producer knows of one of its transactions.
#[derive(Clone, Copy, Debug)]
struct Done {
    records: usize,
    outcome: Outcome,
    /// Its producer was not told, and found out by the offset that it had sent along.
    was_unknown: bool,
}

/// Who, which transaction, which record of it.
type Record = (u64, i64, usize);

struct Run {
    config: ClientConfig,
    /// Transactions that have not begun.
    left: AtomicU64,
    done: Mutex<BTreeMap<(u64, i64), Done>>,
}

impl Run {
    fn begins_another(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn client(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.config.clone();
        settings.iter().for_each(|(key, value)| _ = config.set(*key, *value));
        config
    }

    fn producer(&self, who: u64) -> Transactional {
        let began = Instant::now();
        loop {
            let id = format!("writer-{who}");
            let settings = [("transactional.id", id.as_str()), ("linger.ms", "2")];
            let producer: Transactional = self.client(&settings).create().unwrap();
            match producer.init_transactions(CALL) {
                Ok(()) => return producer,
                Err(error) => assert!(began.elapsed() < PATIENCE, "producer {who} does not begin: {error}"),
            }
        }
    }

    /// Transactions one after another, until there are enough.
    fn write(&self, who: u64, mut random: ChaCha8Rng) {
        let group = self.client(&[("group.id", &format!("group-{who}"))]).create::<BaseConsumer>().unwrap();
        let mut producer = self.producer(who);
        let mut number = 0;
        while self.begins_another() {
            number += 1;
            let records = random.random_range(1..30);
            let told = transaction(&producer, &group, (who, number, records), &mut random);
            let was_unknown = told.is_err();
            let outcome = told.unwrap_or_else(|error| {
                println!("producer {who} begins anew in transaction {number}: {error}");
                // The next life ends whatever this one left behind; the offset tells how.
                producer = self.producer(who);
                if committed(&group) == Some(number) { Outcome::Committed } else { Outcome::Aborted }
            });
            self.done.lock().unwrap().insert((who, number), Done { records, outcome, was_unknown });
        }
        let is_mine = |producer: u64, done: &Done| producer == who && done.outcome == Outcome::Committed;
        let done = self.done.lock().unwrap().clone();
        let last = done.iter().filter(|((who, _), done)| is_mine(*who, done)).map(|((_, number), _)| *number).max();
        assert_eq!(committed(&group), last, "the offset that producer {who} has sent along with its transactions");
    }

    /// Collects what a reader of committed records sees, until `is_over`.
    fn read(&self, group: &str, mut is_over: impl FnMut(&[Record], i32) -> bool) -> Vec<Record> {
        let settings = [
            ("group.id", group),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("enable.auto.commit", "false"),
            ("check.crcs", "true"),
        ];
        let reader: BaseConsumer = self.client(&settings).create().unwrap();
        let mut all = TopicPartitionList::new();
        (0..PARTITIONS).for_each(|at| all.add_partition_offset("t", at, Offset::Beginning).unwrap());
        reader.assign(&all).unwrap();
        let (mut records, mut ends) = (Vec::new(), 0);
        while !is_over(&records, ends) {
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let text = std::str::from_utf8(message.payload().unwrap()).unwrap();
                    let mut parts = text.split(' ').map(|part| part.parse::<u64>().unwrap());
                    let mut next = || parts.next().unwrap();
                    records.push((next(), next() as i64, next() as usize));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
                // The broker was killed.
                Some(Err(_)) | None => {}
            }
        }
        records
    }
}

/// Sends a transaction with its records and its number as the offset of a group, and ends it at random.
fn transaction(
    producer: &Transactional,
    group: &BaseConsumer,
    (who, number, records): (u64, i64, usize),
    random: &mut ChaCha8Rng,
) -> Result<Outcome, KafkaError> {
    producer.begin_transaction()?;
    for index in 0..records {
        let value = format!("{who} {number} {index}");
        let mut record = BaseRecord::<(), str>::to("t").partition(random.random_range(0..PARTITIONS)).payload(&value);
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return abort(producer);
            }
            record = back;
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", 0, Offset::Offset(number)).unwrap();
    let metadata = group.group_metadata().unwrap();
    match patiently(|| producer.send_offsets_to_transaction(&offsets, &metadata, CALL)) {
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => return abort(producer),
        sent => sent?,
    }
    if random.random_bool(0.3) {
        return abort(producer);
    }
    match patiently(|| producer.commit_transaction(CALL)) {
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => abort(producer),
        ended => ended.map(|()| Outcome::Committed),
    }
}

fn abort(producer: &Transactional) -> Result<Outcome, KafkaError> {
    patiently(|| producer.abort_transaction(CALL)).map(|()| Outcome::Aborted)
}

/// As often as the client says that it may help.
fn patiently(mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let began = Instant::now();
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && began.elapsed() < PATIENCE => {}
            done => return done,
        }
    }
}

/// The offset that the group holds.
fn committed(group: &BaseConsumer) -> Option<i64> {
    let began = Instant::now();
    loop {
        let mut asked = TopicPartitionList::new();
        asked.add_partition("t", 0);
        match group.committed_offsets(asked, CALL) {
            Ok(found) => return found.find_partition("t", 0)?.offset().to_raw().filter(|offset| *offset >= 0),
            Err(error) => assert!(began.elapsed() < PATIENCE, "the group's offset is not told: {error}"),
        }
    }
}

/// Every committed transaction is there once and whole, and nothing of any other.
fn check(name: &str, records: &[Record], done: &BTreeMap<(u64, i64), Done>) {
    let mut found: BTreeMap<(u64, i64), Vec<usize>> = BTreeMap::new();
    records.iter().for_each(|(who, number, index)| found.entry((*who, *number)).or_default().push(*index));
    for (transaction, done) in done {
        let mut indexes = found.remove(transaction).unwrap_or_default();
        indexes.sort_unstable();
        let expected = if done.outcome == Outcome::Committed { done.records } else { 0 };
        assert!(indexes.iter().copied().eq(0..expected), "{name} saw {indexes:?} of {transaction:?}, {done:?}");
    }
    assert!(found.is_empty(), "{name} saw what nobody sent: {found:?}");
}

/// The live reader ends, whatever happens to this thread.
struct EndsReader<'a>(&'a AtomicU64);

impl Drop for EndsReader<'_> {
    fn drop(&mut self) {
        self.0.fetch_min(u64::MAX - 1, Ordering::AcqRel);
        if std::thread::panicking() {
            self.0.store(0, Ordering::Release);
        }
    }
}

#[test]
fn transactions_are_whole_and_once_or_not_at_all_however_often_the_broker_is_killed() {
    under_kills("fsync", setting("FINSTREAM_TEST_TRANSACTIONS", 300));
}

#[test]
fn so_they_are_when_only_the_page_cache_has_them() {
    under_kills("os", setting("FINSTREAM_TEST_TRANSACTIONS", 300) / 3);
}

fn under_kills(durability: &str, transactions: u64) {
    let seed = setting("FINSTREAM_TEST_SEED", u64::from(std::process::id()));
    println!("FINSTREAM_TEST_SEED={seed}, {transactions} transactions, {durability}");
    let sandbox = Sandbox::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let start = || sandbox.start(&["--role", "broker", "--kafka-listen", &listen, "--durability", durability]);
    let mut broker = Some(start());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &listen).set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
    config.set("retry.backoff.ms", "20").set("log_level", "0");
    kafka::create_topics(&listen, &[NewTopic::new("t", PARTITIONS, TopicReplication::Fixed(1))]);

    let began = Instant::now();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let run = Run { config, left: AtomicU64::new(transactions), done: Mutex::default() };
    let (expected, mut kills) = (AtomicU64::new(u64::MAX), 0);
    let (live, at_last) = std::thread::scope(|scope| {
        let ends_reader = EndsReader(&expected);
        let (run, expected) = (&run, &expected);
        let live = scope.spawn(move || {
            let mut waits_since = None;
            run.read("live", |records, _| {
                let expected = expected.load(Ordering::Acquire);
                let waits_since = (expected < u64::MAX).then(|| *waits_since.get_or_insert_with(Instant::now));
                records.len() as u64 >= expected || waits_since.is_some_and(|since| since.elapsed() > PATIENCE)
            })
        });
        let write = |who: u64| {
            let random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(who + 1));
            scope.spawn(move || run.write(who, random))
        };
        let writers: Vec<_> = (0..PRODUCERS).map(write).collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            // The moment of the kill is the point of the test, not a wait for something.
            std::thread::park_timeout(Duration::from_millis(random.random_range(500..3_000)));
            broker.take().unwrap().kill();
            broker = Some(start());
            kills += 1;
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let at_last = run.read("at last", |_, ends| ends == PARTITIONS);
        expected.store(at_last.len() as u64, Ordering::Release);
        let live = live.join().unwrap();
        drop(ends_reader);
        (live, at_last)
    });
    let done = run.done.into_inner().unwrap();
    let committed = done.values().filter(|done| done.outcome == Outcome::Committed).count();
    let unknown = done.values().filter(|done| done.was_unknown).count();
    println!(
        "{durability}: {} transactions in {:?}, {committed} committed, {unknown} with an end that was not told, {} records, {kills} kills",
        done.len(),
        began.elapsed(),
        at_last.len(),
    );
    assert_eq!(done.len() as u64, transactions);
    check("a reader from the beginning", &at_last, &done);
    check("a reader that was there all the time", &live, &done);
    assert_eq!(broker.unwrap().stop().0, Some(0));
}
