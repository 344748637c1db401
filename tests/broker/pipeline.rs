//! Topics, producing and consuming through rdkafka, and what a restart keeps.

use std::time::{Duration, Instant};

use crate::support::{
    PATIENCE, Raw, admin, client, consumer, create_topic, payload, producer, send, settings, start, take,
};
use finstream::broker::Broker;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::{AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

fn assign(consumer: &BaseConsumer, topic: &str, partition: i32, offset: Offset) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, offset).unwrap();
    consumer.assign(&list).unwrap();
}

async fn round_trip(codec: &str) {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 2).await;
    let producer: FutureProducer = client(&broker)
        .set("enable.idempotence", "true")
        .set("compression.type", codec)
        .set("linger.ms", "20")
        .create()
        .unwrap();
    let sends = (0..500).map(|number| {
        let producer = producer.clone();
        async move {
            let payload = format!("message {number} {}", "x".repeat(100));
            let record = FutureRecord::<(), _>::to("t").partition(number % 2).payload(&payload);
            producer.send(record, PATIENCE).await.unwrap()
        }
    });
    let stored = futures_util::future::join_all(sends).await;
    let mut offsets: Vec<i64> = stored.iter().filter(|d| d.partition == 0).map(|delivery| delivery.offset).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..250).collect::<Vec<i64>>());
    let consumer = consumer(&broker, "g", &[]);
    assign(&consumer, "t", 0, Offset::Beginning);
    let read = take(&consumer, 250);
    assert!(read.iter().all(|text| text.starts_with("message ")));
    assert_eq!(read.len(), 250);
    drop(consumer);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_idempotent_producer_sends_is_read_once_and_in_order() {
    round_trip("none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_batches_pass_through_unchanged() {
    for codec in ["gzip", "zstd", "lz4", "snappy"] {
        round_trip(codec).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_messages_and_the_cluster_id_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let cluster_id = broker.cluster_id().to_owned();
    assert_eq!(cluster_id.len(), 22);
    let topic = NewTopic::new("kept", -1, TopicReplication::Fixed(-1)).set("retention.ms", "3600000");
    admin(&broker).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    send(&producer(&broker), "kept", 2, "before").await;
    broker.stop().await.unwrap();

    let broker = start(dir.path()).await;
    assert_eq!(broker.cluster_id(), cluster_id);
    assert!(broker.recovery().clean_stop);
    let metadata = consumer(&broker, "g", &[]).fetch_metadata(Some("kept"), PATIENCE).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 3, "-1 partitions are the broker's default");
    let options = AdminOptions::new();
    let described = admin(&broker).describe_configs(&[ResourceSpecifier::Topic("kept")], &options).await.unwrap();
    let configs = described[0].as_ref().unwrap();
    assert_eq!(configs.get("retention.ms").unwrap().value.as_deref(), Some("3600000"));
    assert_eq!(configs.get("retention.bytes").unwrap().value.as_deref(), Some("1073741824"));
    assert_eq!(send(&producer(&broker), "kept", 2, "after").await, 1);
    let consumer = consumer(&broker, "g", &[]);
    assign(&consumer, "kept", 2, Offset::Beginning);
    assert_eq!(take(&consumer, 2), ["before", "after"]);
    drop(consumer);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_topics_and_configs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "there.is", 1).await;
    let cases = [
        (NewTopic::new("there.is", 1, TopicReplication::Fixed(1)), RDKafkaErrorCode::TopicAlreadyExists),
        (NewTopic::new("there_is", 1, TopicReplication::Fixed(1)), RDKafkaErrorCode::InvalidTopic),
        (NewTopic::new("no/such", 1, TopicReplication::Fixed(1)), RDKafkaErrorCode::InvalidTopic),
        (NewTopic::new("two", 1, TopicReplication::Fixed(2)), RDKafkaErrorCode::InvalidReplicationFactor),
        (NewTopic::new("many", 100_000, TopicReplication::Fixed(1)), RDKafkaErrorCode::InvalidPartitions),
        (
            NewTopic::new("odd", 1, TopicReplication::Fixed(1)).set("no.such.config", "1"),
            RDKafkaErrorCode::InvalidConfig,
        ),
        (
            NewTopic::new("odd", 1, TopicReplication::Fixed(1)).set("min.insync.replicas", "2"),
            RDKafkaErrorCode::InvalidConfig,
        ),
    ];
    for (topic, expected) in cases {
        let results = admin(&broker).create_topics([&topic], &AdminOptions::new()).await.unwrap();
        assert_eq!(results[0].as_ref().unwrap_err().1, expected, "{topic:?}");
    }
    let dry = NewTopic::new("dry", 1, TopicReplication::Fixed(1));
    admin(&broker).create_topics([&dry], &AdminOptions::new().validate_only(true)).await.unwrap();
    let metadata = consumer(&broker, "g", &[]).fetch_metadata(None, PATIENCE).unwrap();
    assert_eq!(metadata.topics().iter().map(|topic| topic.name()).collect::<Vec<_>>(), ["there.is"]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_never_created_by_asking_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let producer: FutureProducer = client(&broker).set("topic.metadata.propagation.max.ms", "100").create().unwrap();
    let record = FutureRecord::<(), str>::to("absent").payload("x");
    let (error, _) = producer.send(record, PATIENCE).await.unwrap_err();
    assert!(
        matches!(
            error,
            KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
        ),
        "{error}"
    );
    let metadata = consumer(&broker, "g", &[]).fetch_metadata(None, PATIENCE).unwrap();
    assert!(metadata.topics().is_empty());
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_gone_and_its_name_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "again", 2).await;
    send(&producer(&broker), "again", 1, "old").await;
    let deleted = admin(&broker).delete_topics(&["again"], &AdminOptions::new()).await.unwrap();
    assert_eq!(deleted, vec![Ok("again".to_owned())]);
    let gone = admin(&broker).delete_topics(&["again"], &AdminOptions::new()).await.unwrap();
    assert_eq!(gone[0].as_ref().unwrap_err().1, RDKafkaErrorCode::UnknownTopicOrPartition);
    create_topic(&broker, "again", 2).await;
    assert_eq!(send(&producer(&broker), "again", 1, "new").await, 0);
    broker.stop().await.unwrap();
    let broker = start(dir.path()).await;
    let consumer = consumer(&broker, "g", &[]);
    assign(&consumer, "again", 1, Offset::Beginning);
    assert_eq!(take(&consumer, 1), ["new"]);
    drop(consumer);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_can_be_added_and_configs_changed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "grow", 1).await;
    let options = AdminOptions::new();
    admin(&broker).create_partitions([&NewPartitions::new("grow", 4)], &options).await.unwrap()[0].clone().unwrap();
    let less = admin(&broker).create_partitions([&NewPartitions::new("grow", 2)], &options).await.unwrap();
    assert_eq!(less[0].as_ref().unwrap_err().1, RDKafkaErrorCode::InvalidPartitions);
    let change = AlterConfig::new(ResourceSpecifier::Topic("grow")).set("max.message.bytes", "1000");
    admin(&broker).alter_configs([&change], &options).await.unwrap()[0].as_ref().unwrap();
    assert_eq!(send(&producer(&broker), "grow", 3, "small").await, 0);
    let record = FutureRecord::<(), str>::to("grow").partition(3);
    let large = "x".repeat(5000);
    let (error, _) = producer(&broker).send(record.payload(&large), PATIENCE).await.unwrap_err();
    assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)), "{error}");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time_and_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "times", 1).await;
    let producer = producer(&broker);
    for timestamp in [1_000, 2_000, 3_000, 2_500] {
        let record = FutureRecord::<(), str>::to("times").partition(0).payload("x").timestamp(timestamp);
        producer.send(record, PATIENCE).await.unwrap();
    }
    let mut raw = Raw::connect(&broker);
    let mut ask_in = |timestamp: i64, version: i16| {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let name = TopicName(StrBytes::from_static_str("times"));
        let topic = ListOffsetsTopic::default().with_name(name).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let answer = raw.ask(&request, version).topics[0].partitions[0].clone();
        assert_eq!(answer.error_code, 0);
        (answer.offset, answer.timestamp)
    };
    for version in 1..=9 {
        assert_eq!(ask_in(-1, version).0, 4, "version {version}");
        assert_eq!(ask_in(1_500, version), (1, 2_000), "version {version}");
    }
    let mut ask = |timestamp: i64| ask_in(timestamp, 7);
    assert_eq!(ask(1_500), (1, 2_000));
    assert_eq!(ask(3_000), (2, 3_000));
    assert_eq!(ask(3_001), (-1, -1));
    assert_eq!(ask(0), (0, 1_000));
    assert_eq!(ask(-1).0, 4);
    assert_eq!(ask(-2).0, 0);
    assert_eq!(ask(-3), (2, 3_000));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_acknowledgement_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "zero", 1).await;
    let producer: FutureProducer = client(&broker).set("acks", "0").create().unwrap();
    for number in 0..10 {
        send(&producer, "zero", 0, &number.to_string()).await;
    }
    let consumer = consumer(&broker, "g", &[]);
    assign(&consumer, "zero", 0, Offset::Beginning);
    assert_eq!(take(&consumer, 10), (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    drop(consumer);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_the_fetch_limits_is_read_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "large", 1).await;
    let large = "x".repeat(200_000);
    send(&producer(&broker), "large", 0, &large).await;
    send(&producer(&broker), "large", 0, "small").await;
    let limits = [("fetch.message.max.bytes", "1000"), ("fetch.max.bytes", "1000"), ("message.max.bytes", "1000")];
    let consumer = consumer(&broker, "g", &limits);
    assign(&consumer, "large", 0, Offset::Beginning);
    assert_eq!(take(&consumer, 2), [large, "small".to_owned()]);
    drop(consumer);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_behind_or_beyond_the_log_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "short", 1).await;
    send(&producer(&broker), "short", 0, "one").await;
    let consumer = consumer(&broker, "g", &[("auto.offset.reset", "error")]);
    assign(&consumer, "short", 0, Offset::Offset(100));
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < PATIENCE);
        match consumer.poll(Duration::from_millis(100)) {
            Some(Err(error)) => {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset), "{error}");
                break;
            }
            Some(Ok(message)) => panic!("read {}", payload(&message)),
            None => {}
        }
    }
    drop(consumer);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_and_a_consumer_live_through_a_restart_on_the_same_port() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let address = broker.address();
    create_topic(&broker, "alive", 1).await;
    let producer: FutureProducer =
        client(&broker).set("enable.idempotence", "true").set("reconnect.backoff.max.ms", "200").create().unwrap();
    let consumer = consumer(&broker, "g", &[("reconnect.backoff.max.ms", "200")]);
    assign(&consumer, "alive", 0, Offset::Beginning);
    send(&producer, "alive", 0, "one").await;
    assert_eq!(take(&consumer, 1), ["one"]);
    broker.stop().await.unwrap();
    let mut settings = settings(dir.path());
    settings.listen = address;
    let broker = Broker::start(settings).await.unwrap();
    assert_eq!(send(&producer, "alive", 0, "two").await, 1);
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < PATIENCE);
        // Errors of the time in between are reported, and pass.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            assert_eq!((message.offset(), payload(&message)), (1, "two".to_owned()));
            break;
        }
    }
    drop(consumer);
    broker.stop().await.unwrap();
}
