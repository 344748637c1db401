//! What the producer's tests share: a mock cluster, settings, and the comparison of ledger and log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use finstream::clock::SystemClock;
use finstream::config::{
    EventTimes, KafkaSettings, Pace, ProducerSettings, Shares, SourceSettings, SyntheticSettings, YfinanceSettings,
};
use finstream::ledger::{LedgerReader, Outcome};
use finstream::producer::{self, ProducerError, ProducerReport};
use finstream::progress::Progress;
use finstream::shutdown;
use finstream::transaction::{Currency, HEADER_RUN, HEADER_SEQUENCE, RunId, Transaction};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};

pub const TOPIC: &str = "finance.transactions";
pub const PARTITIONS: i32 = 3;

/// Nobody pauses this producer.
pub fn unpaused() -> tokio::sync::watch::Receiver<bool> {
    tokio::sync::watch::channel(false).1
}

pub fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    cluster
}

pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/download_two_tickers.csv")
}

pub fn settings(brokers: String, ledger_dir: &Path) -> ProducerSettings {
    ProducerSettings {
        kafka: KafkaSettings {
            brokers,
            properties: Vec::new(),
            topic_prefix: "finance.".into(),
            partitions: PARTITIONS,
            replication_factor: None,
        },
        source: SourceSettings::Synthetic(SyntheticSettings {
            users: 1000,
            zipf_exponent: 1.0,
            seed: 1,
            shares: Shares::default(),
            event_times: EventTimes::Live,
        }),
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

pub fn from_file(settings: ProducerSettings) -> ProducerSettings {
    let source = SourceSettings::Yfinance(YfinanceSettings {
        files: vec![fixture()],
        symbol: None,
        currency: Currency::USD,
        users: 10,
        seed: 1,
        repeat: false,
    });
    ProducerSettings { source, ..settings }
}

pub async fn produce(settings: &ProducerSettings) -> Result<ProducerReport, ProducerError> {
    let (_trigger, shutdown) = shutdown::channel();
    producer::run(settings.clone(), SystemClock::shared(), shutdown, unpaused(), Arc::new(Progress::new())).await
}

/// Everything in the log, partition by partition.
pub fn log(brokers: &str) -> Vec<OwnedMessage> {
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

pub fn header<'a>(message: &'a OwnedMessage, name: &str) -> Option<&'a str> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}

/// Sequence -> partition, offset; fails if one is stored twice or belongs to another run.
pub fn stored(messages: &[OwnedMessage], run: RunId) -> BTreeMap<i64, (i32, i64)> {
    let mut stored = BTreeMap::new();
    for message in messages.iter().filter(|message| header(message, HEADER_RUN).unwrap() == run.to_string()) {
        let sequence = header(message, HEADER_SEQUENCE).unwrap().parse().unwrap();
        let twice = stored.insert(sequence, (message.partition(), message.offset()));
        assert!(twice.is_none(), "sequence {sequence} is stored twice");
    }
    stored
}

pub fn acknowledged(dir: &Path, run: RunId) -> BTreeMap<i64, (i32, i64)> {
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
pub fn assert_books_balance(dir: &Path, run: RunId, messages: &[OwnedMessage]) {
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
