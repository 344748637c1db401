//! The producer against librdkafka's mock cluster: what the ledger says was stored is what the log holds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use finstream::clock::{Micros, SystemClock};
use finstream::config::{KafkaSettings, Pace, ProducerSettings, SourceSettings};
use finstream::ledger::{LedgerReader, LedgerWriter, Outcome, RunRecord};
use finstream::producer::{self, ProducerError, ProducerReport};
use finstream::progress::{Progress, Stage as Latency};
use finstream::shutdown::{self, Stage};
use finstream::source;
use finstream::transaction::{
    Currency, HEADER_RUN, HEADER_RUN_INFO, HEADER_SEQUENCE, RunId, RunInfo, Transaction, derived_transaction_id,
};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: &str = "finance.transactions";
const PARTITIONS: i32 = 3;

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    cluster
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/download_two_tickers.csv")
}

fn settings(brokers: String, ledger_dir: &Path) -> ProducerSettings {
    ProducerSettings {
        kafka: KafkaSettings {
            brokers,
            properties: Vec::new(),
            topic_prefix: "finance.".into(),
            partitions: PARTITIONS,
            replication_factor: None,
        },
        source: SourceSettings::Synthetic { users: 1000, zipf_exponent: 1.0, seed: 1 },
        pace: Pace::Max,
        count: None,
        duration: None,
        drain_timeout: Duration::from_secs(20),
        ledger_dir: ledger_dir.to_path_buf(),
        run_id: None,
        command: "finstream".into(),
        durability: "external".into(),
    }
}

fn from_file(settings: ProducerSettings) -> ProducerSettings {
    let source =
        SourceSettings::Yfinance { files: vec![fixture()], symbol: None, currency: Currency::USD, users: 10, seed: 1 };
    ProducerSettings { source, ..settings }
}

async fn produce(settings: &ProducerSettings) -> Result<ProducerReport, ProducerError> {
    let (_trigger, shutdown) = shutdown::channel();
    producer::run(settings.clone(), SystemClock::shared(), shutdown, Arc::new(Progress::new())).await
}

/// Everything in the log, partition by partition.
fn log(brokers: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    let mut expected = 0;
    for partition in 0..PARTITIONS {
        let (start, end) = consumer.fetch_watermarks(TOPIC, partition, Duration::from_secs(5)).unwrap();
        assert_eq!(start, 0, "the mock cluster evicted records");
        expected += end;
        list.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut messages = Vec::new();
    while (messages.len() as i64) < expected {
        if let Some(message) = consumer.poll(Duration::from_secs(5)) {
            messages.push(message.unwrap().detach());
        }
    }
    messages
}

fn header<'a>(message: &'a OwnedMessage, name: &str) -> Option<&'a str> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}

/// Sequence -> partition, offset; fails if one is stored twice or belongs to another run.
fn stored(messages: &[OwnedMessage], run: RunId) -> BTreeMap<i64, (i32, i64)> {
    let mut stored = BTreeMap::new();
    for message in messages.iter().filter(|message| header(message, HEADER_RUN).unwrap() == run.to_string()) {
        let sequence = header(message, HEADER_SEQUENCE).unwrap().parse().unwrap();
        let twice = stored.insert(sequence, (message.partition(), message.offset()));
        assert!(twice.is_none(), "sequence {sequence} is stored twice");
    }
    stored
}

fn acknowledged(dir: &Path, run: RunId) -> BTreeMap<i64, (i32, i64)> {
    let mut acknowledged = BTreeMap::new();
    let each = |outcome| {
        if let Outcome::Acknowledged { sequence, partition, offset } = outcome {
            acknowledged.insert(sequence, (partition, offset));
        }
    };
    LedgerReader::new(dir).read_outcomes(run, each).unwrap();
    acknowledged
}

/// Ledger and log agree: every intent is in the log with its user and amount, and every outcome at its place.
fn assert_books_balance(dir: &Path, run: RunId, messages: &[OwnedMessage]) {
    assert_eq!(acknowledged(dir, run), stored(messages, run));
    let mut transactions = BTreeMap::new();
    for message in messages.iter().filter(|message| header(message, HEADER_RUN).unwrap() == run.to_string()) {
        let sequence: i64 = header(message, HEADER_SEQUENCE).unwrap().parse().unwrap();
        let transaction = Transaction::decode(message.payload().unwrap()).unwrap();
        assert_eq!(message.key().unwrap(), transaction.user_id.as_bytes());
        assert!(transaction.sent_at >= transaction.scheduled_at);
        let sent_at = transaction.sent_at.unwrap();
        assert_eq!(message.timestamp().to_millis(), Some(sent_at.as_millis()));
        transactions.insert(sequence, (transaction.user_id.into_owned(), transaction.currency, transaction.amount));
    }
    let mut intents = BTreeMap::new();
    LedgerReader::new(dir)
        .read_intents(run, |intent| {
            let twice = intents.insert(intent.sequence, (intent.user_id.to_owned(), intent.currency, intent.amount));
            assert!(twice.is_none(), "sequence {} is intended twice", intent.sequence);
        })
        .unwrap();
    assert_eq!(intents, transactions);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counted_run_stores_each_message_once_and_the_ledger_knows_where() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = ProducerSettings { count: Some(5_000), ..settings(cluster.bootstrap_servers(), dir.path()) };
    let report = produce(&settings).await.unwrap();
    let run = report.run.unwrap();
    assert_eq!((report.scheduled, report.sent, report.acknowledged, report.unknown), (5_000, 5_000, 5_000, 0));
    assert!(report.complete);
    let messages = log(&settings.kafka.brokers);
    assert_eq!(messages.len(), 5_000);
    assert_books_balance(dir.path(), run, &messages);
    for message in &messages {
        let sequence = header(message, HEADER_SEQUENCE).unwrap().parse().unwrap();
        let id = finstream::transaction::MessageId { run, sequence };
        let transaction = Transaction::decode(message.payload().unwrap()).unwrap();
        assert_eq!(transaction.transaction_id, derived_transaction_id(id));
        assert_eq!(header(message, HEADER_RUN_INFO).is_some(), sequence < 64, "{sequence}");
    }
    let info: RunInfo = messages
        .iter()
        .find_map(|message| header(message, HEADER_RUN_INFO))
        .map(serde_json::from_str)
        .unwrap()
        .unwrap();
    assert_eq!((info.source.as_str(), info.rate.as_str(), info.seed), ("synthetic", "max", Some(1)));
    for partition in 0..PARTITIONS {
        let highest = messages.iter().filter(|message| message.partition() == partition).map(Message::offset).max();
        assert_eq!(report.highest_acknowledged.get(&partition).copied(), highest);
    }
    assert!(LedgerReader::new(dir.path()).runs().unwrap()[0].finished);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_and_a_duration_give_their_product_of_messages() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = ProducerSettings {
        pace: Pace::Rate(2_000.0),
        duration: Some(Duration::from_millis(1_500)),
        ..settings(cluster.bootstrap_servers(), dir.path())
    };
    let progress = Arc::new(Progress::new());
    let (_trigger, shutdown) = shutdown::channel();
    let report = producer::run(settings.clone(), SystemClock::shared(), shutdown, Arc::clone(&progress)).await.unwrap();
    assert_eq!((report.scheduled, report.sent, report.acknowledged), (3_000, 3_000, 3_000));
    assert_eq!(progress.scheduled.load(Ordering::Relaxed), 3_000);
    assert_eq!(progress.acknowledged.load(Ordering::Relaxed), 3_000);
    for stage in [Latency::Sent, Latency::Acknowledged] {
        assert_eq!(progress.latencies(stage).histogram.len(), 3_000);
        assert_eq!(progress.latencies(stage).negative, 0);
    }
    assert_books_balance(dir.path(), report.run.unwrap(), &log(&settings.kafka.brokers));
}

#[tokio::test(flavor = "multi_thread")]
async fn retried_requests_are_neither_lost_nor_stored_twice() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ];
    cluster.request_errors(RDKafkaApiKey::Produce, &errors);
    let settings = ProducerSettings { count: Some(3_000), ..settings(cluster.bootstrap_servers(), dir.path()) };
    let report = produce(&settings).await.unwrap();
    assert_eq!((report.acknowledged, report.unknown), (3_000, 0));
    assert_books_balance(dir.path(), report.run.unwrap(), &log(&settings.kafka.brokers));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_for_a_while_costs_time_and_no_message() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = ProducerSettings {
        pace: Pace::Rate(1_000.0),
        duration: Some(Duration::from_secs(2)),
        ..settings(cluster.bootstrap_servers(), dir.path())
    };
    let progress = Arc::new(Progress::new());
    let (_trigger, shutdown) = shutdown::channel();
    let running = producer::run(settings.clone(), SystemClock::shared(), shutdown, Arc::clone(&progress));
    let running = tokio::spawn(running);
    while progress.acknowledged.load(Ordering::Relaxed) < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.broker_down(1).unwrap();
    let stuck = progress.acknowledged.load(Ordering::Relaxed);
    while progress.sent.load(Ordering::Relaxed) < stuck + 300 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.broker_up(1).unwrap();
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.scheduled, report.sent, report.acknowledged), (2_000, 2_000, 2_000));
    // Lateness shows where it belongs: the arrival clock went on.
    assert!(progress.latencies(Latency::Acknowledged).histogram.max() > 200_000);
    assert_books_balance(dir.path(), report.run.unwrap(), &log(&settings.kafka.brokers));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_an_endless_run_cleanly_and_also_the_wait_for_a_broker() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    for (brokers, reachable) in [(cluster.bootstrap_servers(), true), ("127.0.0.1:1".to_owned(), false)] {
        let settings = ProducerSettings { pace: Pace::Rate(500.0), ..settings(brokers, dir.path()) };
        let progress = Arc::new(Progress::new());
        let (trigger, shutdown) = shutdown::channel();
        let running =
            tokio::spawn(producer::run(settings.clone(), SystemClock::shared(), shutdown, Arc::clone(&progress)));
        while reachable && progress.acknowledged.load(Ordering::Relaxed) < 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        trigger.raise(Stage::Drain);
        let report = running.await.unwrap().unwrap();
        assert_eq!(report.run.is_some(), reachable);
        assert_eq!((report.sent, report.unknown), (report.acknowledged, 0));
        assert_eq!(report.scheduled, report.sent);
    }
    assert_eq!(LedgerReader::new(dir.path()).runs().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_ends_its_run_and_the_next_start_is_another_run_that_repeats_the_ids() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = from_file(settings(cluster.bootstrap_servers(), dir.path()));
    let total = source::open(&settings.source).unwrap().total().unwrap();
    let (first, second) = (produce(&settings).await.unwrap(), produce(&settings).await.unwrap());
    assert_ne!(first.run, second.run);
    assert!(first.complete && second.complete && !second.continued);
    let messages = log(&settings.kafka.brokers);
    let mut ids: BTreeMap<String, u32> = BTreeMap::new();
    for message in &messages {
        let transaction = Transaction::decode(message.payload().unwrap()).unwrap();
        *ids.entry(transaction.transaction_id.into_owned()).or_default() += 1;
    }
    assert_eq!(ids.len() as u64, total);
    assert!(ids.values().all(|count| *count == 2));
    for run in [first.run.unwrap(), second.run.unwrap()] {
        assert_books_balance(dir.path(), run, &messages);
    }
}

/// Leaves the ledger and the log as a process killed in the middle of the file would: everything is intended, the
/// messages for which `stored` holds are in the log, and only the first is known to be.
fn crash(settings: &ProducerSettings, stored: impl Fn(i64) -> bool) -> RunId {
    let mut source = source::open(&settings.source).unwrap();
    let run = RunId(uuid::Uuid::now_v7());
    let record = RunRecord {
        run,
        info: RunInfo { started_at: "2020-01-01T00:00:00.000000Z".into(), ..RunInfo::default() },
        topic: TOPIC.into(),
        cluster_id: None,
        source: finstream::ledger::SourceRecord { finite: true, fingerprint: source.fingerprint(), count: None },
        finished: false,
    };
    let mut ledger = LedgerWriter::create(&settings.ledger_dir, &record).unwrap();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &settings.kafka.brokers).create().unwrap();
    let mut draft = source::Draft::default();
    let mut sequence = 0;
    // The last three were not even intended; one of them is in the log all the same.
    let intended = source.total().unwrap() as i64 - 3;
    while source.next_into(&mut draft).unwrap() {
        if sequence < intended {
            ledger.intend(sequence, &draft.user_id, draft.currency, draft.amount).unwrap();
        }
        if stored(sequence) {
            let mut payload = Vec::new();
            let now = Micros(1_700_000_000_000_000);
            draft.transaction("", now, now).encode_into(&mut payload);
            let headers = OwnedHeaders::new()
                .insert(Header { key: HEADER_RUN, value: Some(&run.to_string()) })
                .insert(Header { key: HEADER_SEQUENCE, value: Some(&sequence.to_string()) });
            let record = BaseRecord::to(TOPIC).key(&draft.user_id).payload(&payload).headers(headers);
            producer.send(record.timestamp(now.as_millis())).map_err(|(error, _): (KafkaError, _)| error).unwrap();
        }
        sequence += 1;
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    ledger.flush_intents().unwrap();
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_file_run_is_continued_and_sends_only_what_is_absent_from_the_log() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = from_file(settings(cluster.bootstrap_servers(), dir.path()));
    let total = source::open(&settings.source).unwrap().total().unwrap();
    let run = crash(&settings, |sequence| sequence % 3 == 0);
    let report = produce(&settings).await.unwrap();
    assert_eq!(report.run, Some(run));
    assert!(report.continued && report.complete);
    assert_eq!((report.found, report.sent), (total.div_ceil(3), total - total.div_ceil(3)));
    let messages = log(&settings.kafka.brokers);
    assert_eq!(stored(&messages, run).len() as u64, total);
    assert_eq!(acknowledged(dir.path(), run), stored(&messages, run));
    assert!(LedgerReader::new(dir.path()).runs().unwrap()[0].finished);
}

#[tokio::test(flavor = "multi_thread")]
async fn paces_that_make_no_sense_are_refused_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    for (pace, expected) in [
        (Pace::Rate(0.0), "--rate 0 is not a positive number"),
        (Pace::Rate(f64::NAN), "--rate NaN"),
        (Pace::Speed(-1.0), "--speed -1 is not a positive factor"),
        (Pace::Speed(2.0), "--speed needs a source with times of its own"),
    ] {
        let settings = ProducerSettings { pace, ..settings("127.0.0.1:1".into(), dir.path()) };
        let error = produce(&settings).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(LedgerReader::new(dir.path()).runs().unwrap().is_empty());
}
