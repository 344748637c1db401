//! Transactions as librdkafka's producers and consumers know them: commit, abort, offsets, fencing, timeouts, restarts.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, client, consumer, create_topic, payload, settings, start, take};
use finstream::broker::Broker;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

fn transactional(broker: &Broker, id: &str, more: &[(&str, &str)]) -> BaseProducer {
    let mut config = client(broker);
    config.set("transactional.id", id).set("linger.ms", "1");
    for (key, value) in more {
        config.set(*key, *value);
    }
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, value: &str) {
    producer.send(BaseRecord::<(), str>::to(topic).partition(partition).payload(value)).unwrap();
}

/// A whole transaction of one record a partition.
fn transaction(producer: &BaseProducer, topic: &str, values: &[&str], is_committed: bool) {
    producer.begin_transaction().unwrap();
    values.iter().zip(0..).for_each(|(value, partition)| send(producer, topic, partition, value));
    if is_committed {
        producer.commit_transaction(PATIENCE).unwrap();
    } else {
        producer.flush(PATIENCE).unwrap();
        producer.abort_transaction(PATIENCE).unwrap();
    }
}

/// Every value of these partitions up to their ends, sorted.
fn all(broker: &Broker, topic: &str, partitions: i32, isolation: &str) -> Vec<String> {
    let more = [("isolation.level", isolation), ("enable.partition.eof", "true")];
    let consumer = consumer(broker, "reader", &more);
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut values, mut ended) = (Vec::new(), 0);
    let began = Instant::now();
    while ended < partitions {
        assert!(began.elapsed() < PATIENCE, "only {values:?} came");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(message) => values.push(payload(&message.unwrap())),
            None => {}
        }
    }
    values.sort();
    values
}

async fn start_at(dir: &Path, listen: SocketAddr) -> Broker {
    let mut settings = settings(dir);
    settings.listen = listen;
    Broker::start(settings).await.unwrap()
}

/// What blocks, away from the runtime that the broker runs on.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn committed_records_are_read_and_aborted_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 3).await;
    let producer = transactional(&broker, "one", &[]);
    transaction(&producer, "t", &["a0", "a1", "a2"], true);
    transaction(&producer, "t", &["b0", "b1"], false);
    transaction(&producer, "t", &["c0", "c1"], true);
    assert_eq!(all(&broker, "t", 3, "read_committed"), ["a0", "a1", "a2", "c0", "c1"]);
    assert_eq!(all(&broker, "t", 3, "read_uncommitted"), ["a0", "a1", "a2", "b0", "b1", "c0", "c1"]);
    // One that is open holds back what comes behind it, and an empty one touches nothing.
    producer.begin_transaction().unwrap();
    send(&producer, "t", 0, "d0");
    producer.flush(PATIENCE).unwrap();
    let other = transactional(&broker, "two", &[]);
    transaction(&other, "t", &["e0"], true);
    assert_eq!(all(&broker, "t", 3, "read_committed"), ["a0", "a1", "a2", "c0", "c1"]);
    producer.abort_transaction(PATIENCE).unwrap();
    transaction(&producer, "t", &[], true);
    assert_eq!(all(&broker, "t", 3, "read_committed"), ["a0", "a1", "a2", "c0", "c1", "e0"]);
    drop((producer, other));
    broker.stop().await.unwrap();
}

fn committed(consumer: &BaseConsumer) -> Offset {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition("in", 0);
    let found = consumer.committed_offsets(wanted, PATIENCE).unwrap();
    found.find_partition("in", 0).unwrap().offset()
}

/// Sends the consumer's position with the producer's transaction.
fn send_offsets(producer: &BaseProducer, consumer: &BaseConsumer) -> Result<(), KafkaError> {
    let position = consumer.position().unwrap();
    producer.send_offsets_to_transaction(&position, &consumer.group_metadata().unwrap(), PATIENCE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn offsets_sent_to_a_transaction_count_when_it_is_committed_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "in", 1).await;
    create_topic(&broker, "out", 1).await;
    let source = crate::support::producer(&broker);
    for value in ["0", "1", "2"] {
        crate::support::send(&source, "in", 0, value).await;
    }
    let producer = transactional(&broker, "copy", &[]);
    let reader = consumer(&broker, "g", &[]);
    reader.subscribe(&["in"]).unwrap();
    assert_eq!(take(&reader, 3), ["0", "1", "2"]);
    for is_committed in [false, true] {
        producer.begin_transaction().unwrap();
        send(&producer, "out", 0, if is_committed { "good" } else { "bad" });
        send_offsets(&producer, &reader).unwrap();
        assert_eq!(committed_as_it_is(&broker), Offset::Invalid);
        if is_committed {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.flush(PATIENCE).unwrap();
            producer.abort_transaction(PATIENCE).unwrap();
        }
        assert_eq!(committed(&reader), if is_committed { Offset::Offset(3) } else { Offset::Invalid });
    }
    assert_eq!(all(&broker, "out", 1, "read_committed"), ["good"]);
    drop((producer, reader, source));
    broker.stop().await.unwrap();
    let broker = start(dir.path()).await;
    assert_eq!(committed(&consumer(&broker, "g", &[])), Offset::Offset(3));
    broker.stop().await.unwrap();
}

/// As told to those who do not wait for stable offsets.
fn committed_as_it_is(broker: &Broker) -> Offset {
    committed(&consumer(broker, "g", &[("isolation.level", "read_uncommitted")]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_takes_a_transactional_id_over_fences_the_one_before_and_aborts_what_it_left() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 1).await;
    let zombie = transactional(&broker, "id", &[]);
    zombie.begin_transaction().unwrap();
    send(&zombie, "t", 0, "left behind");
    zombie.flush(PATIENCE).unwrap();
    let heir = transactional(&broker, "id", &[]);
    transaction(&heir, "t", &["mine"], true);
    send(&zombie, "t", 0, "too late");
    let Err(KafkaError::Transaction(error)) = zombie.commit_transaction(PATIENCE) else { panic!("it was not fenced") };
    assert!(error.is_fatal(), "{error}");
    assert_eq!(zombie.client().fatal_error().map(|(code, _)| code), Some(RDKafkaErrorCode::Fenced));
    transaction(&heir, "t", &["mine again"], true);
    assert_eq!(all(&broker, "t", 1, "read_committed"), ["mine", "mine again"]);
    drop((zombie, heir));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 1).await;
    let slow = transactional(&broker, "slow", &[("transaction.timeout.ms", "1000"), ("message.timeout.ms", "1000")]);
    slow.begin_transaction().unwrap();
    send(&slow, "t", 0, "forgotten");
    slow.flush(PATIENCE).unwrap();
    let quick = transactional(&broker, "quick", &[]);
    transaction(&quick, "t", &["seen"], true);
    let reader = consumer(&broker, "g", &[("isolation.level", "read_committed")]);
    reader.subscribe(&["t"]).unwrap();
    assert_eq!(take(&reader, 1), ["seen"]);
    assert!(slow.commit_transaction(PATIENCE).is_err());
    drop((slow, quick, reader));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_goes_on_after_a_restart_of_the_broker_with_all_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let address = broker.address();
    create_topic(&broker, "in", 1).await;
    create_topic(&broker, "out", 2).await;
    crate::support::send(&crate::support::producer(&broker), "in", 0, "0").await;
    let producer = transactional(&broker, "id", &[]);
    let reader = consumer(&broker, "g", &[]);
    reader.subscribe(&["in"]).unwrap();
    take(&reader, 1);
    transaction(&producer, "out", &["before"], true);
    producer.begin_transaction().unwrap();
    send(&producer, "out", 0, "across");
    send_offsets(&producer, &reader).unwrap();
    producer.flush(PATIENCE).unwrap();
    broker.stop().await.unwrap();
    let broker = start_at(dir.path(), address).await;
    assert_eq!(committed_as_it_is(&broker), Offset::Invalid);
    assert_eq!(all(&broker, "out", 2, "read_committed"), ["before"]);
    send(&producer, "out", 1, "after");
    let producer = aside(move || {
        producer.commit_transaction(PATIENCE).unwrap();
        transaction(&producer, "out", &["aborted"], false);
        producer
    })
    .await;
    assert_eq!(committed(&reader), Offset::Offset(1));
    assert_eq!(all(&broker, "out", 2, "read_committed"), ["across", "after", "before"]);
    drop((producer, reader));
    broker.stop().await.unwrap();
    // What was ended stays so.
    let broker = start(dir.path()).await;
    assert_eq!(all(&broker, "out", 2, "read_committed"), ["across", "after", "before"]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compressed_transactions_of_many_records_come_out_whole() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 3).await;
    for (codec, is_committed) in [("zstd", true), ("gzip", false), ("lz4", true)] {
        let producer = transactional(&broker, "id", &[("compression.type", codec)]);
        producer.begin_transaction().unwrap();
        (0..3000).for_each(|number| send(&producer, "t", number % 3, &format!("{codec} {number}")));
        if is_committed {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.flush(PATIENCE).unwrap();
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }
    let committed = all(&broker, "t", 3, "read_committed");
    assert_eq!(committed.len(), 6000);
    assert!(committed.iter().all(|value| !value.starts_with("gzip")));
    assert_eq!(all(&broker, "t", 3, "read_uncommitted").len(), 9000);
    broker.stop().await.unwrap();
}
