//! The consumer role against the embedded broker: the topics that it finds, creates and refuses.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::sink_support::{Schema, purchase};
use finstream::broker::Broker;
use finstream::clock::SystemClock;
use finstream::config::{BrokerSettings, ConsumerSettings, KafkaSettings, LatencyLayout};
use finstream::consumer::{ConsumerError, run};
use finstream::progress::Progress;
use finstream::shutdown::{Stage, channel};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::watch;

const TEST_TIMEOUT: Duration = Duration::from_secs(30);

async fn broker(dir: &Path) -> Broker {
    let settings = BrokerSettings {
        default_partitions: 2,
        retention: Duration::from_secs(3_600),
        retention_bytes_per_partition: 1 << 30,
        ..BrokerSettings::local(dir.to_owned())
    };
    Broker::start(settings).await.unwrap()
}

fn settings(broker: &Broker) -> ConsumerSettings {
    ConsumerSettings {
        kafka: KafkaSettings {
            brokers: broker.address().to_string(),
            properties: Vec::new(),
            topic_prefix: "finance.".to_owned(),
            partitions: 2,
            replication_factor: None,
        },
        group: "g".to_owned(),
        group_instance_id: "i".to_owned(),
        batch_messages_max: 100,
        batch_wait: Duration::from_millis(5),
        duration: None,
        drain_timeout: Duration::from_secs(20),
        latency_layout: LatencyLayout::Rows,
        window: None,
        publish_aggregates: true,
    }
}

fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address().to_string());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_topics_are_created_and_a_started_consumer_gets_what_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let (schema, broker) = (Schema::create().await, broker(dir.path()).await);
    let (_trigger, shutdown) = channel();
    let (drain_to, drain) = watch::channel(None);
    let progress = Arc::new(Progress::new());
    let mut samples = progress.samples();
    let consumer =
        tokio::spawn(run(settings(&broker), schema.options.clone(), SystemClock::shared(), shutdown, progress, drain));
    let producer: FutureProducer = client(&broker).set("message.timeout.ms", "20000").create().unwrap();
    let mut payload = Vec::new();
    purchase("ann", 150).encode_into(&mut payload);
    let mut acknowledged = std::collections::HashMap::new();
    for _ in 0..20 {
        let record = FutureRecord::to("finance.transactions").key("ann").payload(&payload);
        let delivery = producer.send(record, TEST_TIMEOUT).await.unwrap();
        acknowledged.insert(delivery.partition, delivery.offset);
    }
    tokio::time::timeout(TEST_TIMEOUT, samples.recv()).await.unwrap().unwrap();
    drain_to.send_replace(Some(acknowledged));
    let report = tokio::time::timeout(TEST_TIMEOUT, consumer).await.unwrap().unwrap().unwrap();
    assert_eq!((report.stored, report.drained), (20, true));
    assert_eq!(schema.rows("select run_ref is null, count(*) from messages group by 1").await, ["true 20"]);
    assert_eq!(schema.rows("select count(*) from aggregate_changes").await, ["0"]);

    let admin: AdminClient<DefaultClientContext> = client(&broker).create().unwrap();
    let topics = [ResourceSpecifier::Topic("finance.aggregates")];
    let described = admin.describe_configs(&topics, &AdminOptions::new()).await.unwrap();
    let policy = described[0].as_ref().unwrap().get("cleanup.policy").unwrap().value.clone();
    assert_eq!(policy.as_deref(), Some("compact"));
    drop((admin, producer));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_was_paused_is_fenced_by_the_next_one_and_its_old_totals_are_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let (schema, broker) = (Schema::create().await, broker(dir.path()).await);
    let admin: AdminClient<DefaultClientContext> = client(&broker).create().unwrap();
    let aggregates =
        NewTopic::new("finance.aggregates", 2, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let transactions = NewTopic::new("finance.transactions", 2, TopicReplication::Fixed(1));
    admin.create_topics([&aggregates, &transactions], &AdminOptions::new()).await.unwrap();
    let old: FutureProducer = client(&broker).set("transactional.id", "g/finance.aggregates").create().unwrap();
    old.init_transactions(TEST_TIMEOUT).unwrap();
    old.begin_transaction().unwrap();
    let value = FutureRecord::to("finance.aggregates").key("user/ann/USD").payload("{\"old\": true}");
    old.send(value, TEST_TIMEOUT).await.unwrap();

    let producer: FutureProducer = client(&broker).create().unwrap();
    let mut payload = Vec::new();
    purchase("ann", 150).encode_into(&mut payload);
    let mut acknowledged = std::collections::HashMap::new();
    for _ in 0..20 {
        let record = FutureRecord::to("finance.transactions").key("ann").payload(&payload);
        let delivery = producer.send(record, TEST_TIMEOUT).await.unwrap();
        acknowledged.insert(delivery.partition, delivery.offset);
    }
    let (_trigger, shutdown) = channel();
    let (_drain_to, drain) = watch::channel(Some(acknowledged));
    let progress = Arc::new(Progress::new());
    let consumer = run(settings(&broker), schema.options.clone(), SystemClock::shared(), shutdown, progress, drain);
    let report = tokio::time::timeout(TEST_TIMEOUT, consumer).await.unwrap().unwrap();
    assert_eq!((report.stored, report.drained), (20, true));
    assert_eq!(schema.rows("select count(*) from aggregate_changes").await, ["0"]);

    let fenced = old.commit_transaction(TEST_TIMEOUT).unwrap_err();
    assert!(matches!(&fenced, KafkaError::Transaction(error) if error.is_fatal()), "{fenced}");
    let values = tokio::task::spawn_blocking({
        let config = client(&broker);
        move || read_committed(config, "finance.aggregates", 2)
    });
    let values = values.await.unwrap();
    assert!(values.iter().all(|value| value.get("old").is_none()), "{values:?}");
    assert_eq!(values.last().unwrap()["purchases"], 20, "{values:?}");
    drop((admin, old, producer));
    broker.stop().await.unwrap();
}

/// All values that a reader of committed records sees, in order within a partition.
fn read_committed(mut config: ClientConfig, topic: &str, partitions: i32) -> Vec<serde_json::Value> {
    config.set("group.id", "reader").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    (0..partitions).for_each(|index| list.add_partition_offset(topic, index, Offset::Beginning).unwrap());
    consumer.assign(&list).unwrap();
    let (mut values, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(TEST_TIMEOUT).expect("a record or the end") {
            Ok(record) => values.push(serde_json::from_slice(record.payload().unwrap()).unwrap()),
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_input_topic_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (schema, broker) = (Schema::create().await, broker(dir.path()).await);
    let admin: AdminClient<DefaultClientContext> = client(&broker).create().unwrap();
    let topic = NewTopic::new("finance.transactions", 2, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    let (trigger, shutdown) = channel();
    let (_drain_to, drain) = watch::channel(None);
    let progress = Arc::new(Progress::new());
    let running = run(settings(&broker), schema.options.clone(), SystemClock::shared(), shutdown, progress, drain);
    let error = tokio::time::timeout(TEST_TIMEOUT, running).await.unwrap().unwrap_err();
    assert!(matches!(&error, ConsumerError::Compacted { topic, .. } if topic == "finance.transactions"), "{error}");
    trigger.raise(Stage::Drain);
    drop(admin);
    broker.stop().await.unwrap();
}
