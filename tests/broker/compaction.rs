//! Compacted topics and topic configs as clients see them.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::*;
use finstream::broker::{Broker, Limits};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest,
    OffsetForLeaderEpochRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, Offset, TopicPartitionList};

const INVALID_TIMESTAMP: i16 = 32;
const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const POLICY_VIOLATION: i16 = 44;
const KEYS: usize = 50;

async fn busy(dir: &Path) -> Broker {
    start_with(dir, Limits { housekeeping_pause: Duration::from_millis(50), ..Limits::default() }).await
}

async fn create(broker: &Broker, name: &str, configs: &[(&str, &str)]) -> Result<String, (String, RDKafkaErrorCode)> {
    let mut topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    for (name, value) in configs {
        topic = topic.set(name, value);
    }
    admin(broker).create_topics([&topic], &AdminOptions::new()).await.unwrap().remove(0)
}

/// All that a reader from the start sees: offset, key and value.
fn read_all(broker: &Broker, topic: &str) -> Vec<(i64, String, Option<Vec<u8>>)> {
    let consumer: BaseConsumer =
        client(broker).set("group.id", "reader").set("enable.partition.eof", "true").create().unwrap();
    let mut from_start = TopicPartitionList::new();
    from_start.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&from_start).unwrap();
    let started = Instant::now();
    let mut found = Vec::new();
    while started.elapsed() < PATIENCE {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
                found.push((message.offset(), key, message.payload().map(<[u8]>::to_vec)));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return found,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    panic!("the end was not reached after {} records", found.len());
}

fn segment_bytes(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap().flatten();
    files
        .filter(|file| file.file_name().to_string_lossy().ends_with(".log"))
        .filter_map(|file| file.metadata().ok())
        .map(|file| file.len())
        .sum()
}

/// Sends many updates of few keys through a producer of each codec; returns the last offset and value of each key.
async fn update(broker: &Broker, topic: &str, per_codec: usize) -> HashMap<String, (i64, Vec<u8>)> {
    let mut last: HashMap<String, (i64, Vec<u8>)> = HashMap::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let mut config = client(broker);
        config.set("compression.type", codec).set("enable.idempotence", "true").set("linger.ms", "5");
        let producer: FutureProducer = config.create().unwrap();
        let mut waiting = Vec::new();
        for index in 0..per_codec {
            let key = format!("key-{}", (index * 7919) % KEYS);
            // Not to be compressed away.
            let value: Vec<u8> = (0..1_000).map(|_| rand::random()).collect();
            let record = FutureRecord::to(topic).partition(0).key(&key).payload(&value);
            waiting.push((key.clone(), value.clone(), producer.send_result(record).unwrap()));
        }
        for (key, value, delivery) in waiting {
            let offset = delivery.await.unwrap().unwrap().offset;
            if last.get(&key).is_none_or(|(known, _)| *known < offset) {
                last.insert(key, (offset, value));
            }
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_few_keys_stays_small_and_shows_the_last_value_of_each_to_whoever_reads_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = busy(dir.path()).await;
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.3")];
    create(&broker, "totals", &configs).await.unwrap();
    for round in 0..2 {
        let last = update(&broker, "totals", 1_500).await;
        let started = Instant::now();
        // 7.5 MB came: what is left is the open segment, and what is dirty or was cleaned.
        while segment_bytes(&dir.path().join("totals-0")) > 3 << 20 {
            assert!(started.elapsed() < PATIENCE, "{}", segment_bytes(&dir.path().join("totals-0")));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for life in 0..2 {
            let found = read_all(&broker, "totals");
            assert!(found.is_sorted_by_key(|(offset, ..)| *offset));
            let seen: HashMap<_, _> =
                found.into_iter().map(|(offset, key, value)| (key, (offset, value.unwrap()))).collect();
            assert_eq!(seen, last, "round {round}, life {life}");
            broker.stop().await.unwrap();
            broker = busy(dir.path()).await;
        }
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_is_gone_in_the_end_with_its_tombstone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = busy(dir.path()).await;
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "1"),
        ("min.cleanable.dirty.ratio", "0"),
        ("delete.retention.ms", "100"),
    ];
    create(&broker, "t", &configs).await.unwrap();
    let producer = producer(&broker);
    for value in [Some("1"), Some("2"), None] {
        let mut record = FutureRecord::to("t").partition(0).key("gone");
        record.payload = value;
        producer.send(record, PATIENCE).await.unwrap();
    }
    let started = Instant::now();
    loop {
        // Something dirty, or there is no reason to look.
        producer.send(FutureRecord::to("t").partition(0).key("stays").payload("x"), PATIENCE).await.unwrap();
        let keys: Vec<_> = read_all(&broker, "t").into_iter().map(|(_, key, _)| key).collect();
        if keys.iter().all(|key| key == "stays") && keys.len() <= 2 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{keys:?}");
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_topic_does_not_take_are_refused_with_kafkas_errors() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create(&broker, "keyed", &[("cleanup.policy", "compact")]).await.unwrap();
    create(
        &broker,
        "timely",
        &[("message.timestamp.before.max.ms", "1000"), ("message.timestamp.after.max.ms", "1000")],
    )
    .await
    .unwrap();
    for codec in ["none", "zstd"] {
        let producer: FutureProducer = client(&broker).set("compression.type", codec).create().unwrap();
        let keyless = producer.send(FutureRecord::<(), str>::to("keyed").payload("x"), PATIENCE).await.unwrap_err().0;
        assert_eq!(keyless.rdkafka_error_code(), Some(RDKafkaErrorCode::InvalidRecord));
        producer.send(FutureRecord::to("keyed").key("k").payload("x"), PATIENCE).await.unwrap();
        let old = FutureRecord::<(), str>::to("timely").payload("x").timestamp(1_000_000);
        let refused = producer.send(old, PATIENCE).await.unwrap_err().0;
        assert_eq!(refused.rdkafka_error_code().map(|code| code as i16), Some(INVALID_TIMESTAMP));
        producer.send(FutureRecord::<(), str>::to("timely").payload("x"), PATIENCE).await.unwrap();
    }
    broker.stop().await.unwrap();
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn describe(raw: &mut Raw, resource_type: i8, name: &str) -> HashMap<String, (String, i8, i8, Vec<String>)> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let result = raw.ask(&request, 4).results.remove(0);
    assert_eq!(result.error_code, 0);
    let told = result.configs.into_iter().map(|config| {
        assert!(config.documentation.is_some_and(|words| !words.is_empty()), "{}", &*config.name);
        let synonyms = config.synonyms.iter().map(|known| format!("{}:{}", known.source, &*known.name)).collect();
        let value = config.value.unwrap_or_default().to_string();
        (config.name.to_string(), (value, config.config_source, config.config_type, synonyms))
    });
    told.collect()
}

fn alter(raw: &mut Raw, changes: &[(&str, i8, Option<&str>)], validate_only: bool) -> (i16, String) {
    let configs = changes.iter().map(|(name, operation, value)| {
        AlterableConfig::default().with_name(text(name)).with_config_operation(*operation).with_value(value.map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configs(configs.collect());
    let request =
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only);
    let answer = raw.ask(&request, 1).responses.remove(0);
    (answer.error_code, answer.error_message.unwrap_or_default().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_configs_are_described_and_changed_as_kafkas_tools_expect() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create(&broker, "t", &[("cleanup.policy", "compact, delete"), ("segment.ms", "60000")]).await.unwrap();
    let refused = create(&broker, "u", &[("unclean.leader.election.enable", "true")]).await.unwrap_err();
    assert_eq!(refused.1, RDKafkaErrorCode::InvalidConfig);
    let mut raw = Raw::connect(&broker);
    let (set, delete, append, subtract) = (0, 1, 2, 3);
    let told = describe(&mut raw, 2, "t");
    let expected = |value: &str, source, kind, synonyms: &[&str]| {
        (value.to_owned(), source, kind, synonyms.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(told["cleanup.policy"], expected("compact,delete", 1, 7, &["1:cleanup.policy", "5:log.cleanup.policy"]));
    assert_eq!(told["retention.ms"], expected("86400000", 4, 5, &["4:log.retention.ms"]));
    assert_eq!(told["min.cleanable.dirty.ratio"], expected("0.5", 5, 6, &["5:log.cleaner.min.cleanable.ratio"]));
    assert_eq!(told["preallocate"], expected("false", 5, 1, &["5:log.preallocate"]));
    assert_eq!(told["message.timestamp.type"].2, 2);
    assert_eq!(told["max.message.bytes"].2, 3);
    let told = describe(&mut raw, 4, "0");
    assert_eq!(told["num.partitions"], expected("3", 4, 3, &["4:num.partitions"]));
    assert_eq!(told["log.retention.ms"].0, "86400000");
    assert!(describe(&mut raw, 4, "").is_empty());

    assert_eq!(alter(&mut raw, &[("cleanup.policy", subtract, Some("delete"))], false).0, 0);
    assert_eq!(describe(&mut raw, 2, "t")["cleanup.policy"].0, "compact");
    assert_eq!(alter(&mut raw, &[("cleanup.policy", append, Some("delete"))], true).0, 0);
    assert_eq!(describe(&mut raw, 2, "t")["cleanup.policy"].0, "compact");
    let (code, message) =
        alter(&mut raw, &[("retention.ms", set, Some("1000")), ("segment.bytes", set, Some("5"))], false);
    assert!(code == INVALID_CONFIG && message.contains("1048576"), "{message}");
    assert_eq!(describe(&mut raw, 2, "t")["retention.ms"].0, "86400000", "all changes hold, or none");
    for (changes, expected) in [
        (vec![("retention.days", set, Some("1"))], INVALID_CONFIG),
        (vec![("retention.ms", append, Some("1"))], INVALID_CONFIG),
        (vec![("retention.ms", set, None)], INVALID_REQUEST),
        (vec![("retention.ms", set, Some("1")), ("retention.ms", delete, None)], INVALID_REQUEST),
        (vec![("retention.ms", 9, Some("1"))], INVALID_REQUEST),
        (vec![("min.compaction.lag.ms", set, Some("9")), ("max.compaction.lag.ms", set, Some("8"))], INVALID_CONFIG),
        (vec![("segment.ms", delete, None), ("retention.ms", set, Some("-1"))], 0),
    ] {
        let (code, message) = alter(&mut raw, &changes, false);
        assert_eq!(code, expected, "{changes:?}: {message}");
    }
    let told = describe(&mut raw, 2, "t");
    assert_eq!((told["segment.ms"].1, told["retention.ms"].0.as_str()), (4, "-1"));
    broker.stop().await.unwrap();
}

fn list_offsets(raw: &mut Raw, topic: &str, times: &[i64], version: i16) -> Vec<(i16, i64, i64)> {
    let ask = |time: &i64| ListOffsetsPartition::default().with_timestamp(*time).with_current_leader_epoch(-1);
    let topic =
        ListOffsetsTopic::default().with_name(TopicName(text(topic))).with_partitions(times.iter().map(ask).collect());
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = raw.ask(&request, version).topics.remove(0).partitions;
    answer.into_iter().map(|found| (found.error_code, found.offset, found.timestamp)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_listed_by_time_and_name_and_records_deleted_as_in_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create(&broker, "created", &[]).await.unwrap();
    create(&broker, "stamped", &[("message.timestamp.type", "LogAppendTime")]).await.unwrap();
    create(&broker, "compacted", &[("cleanup.policy", "compact")]).await.unwrap();
    let producer: FutureProducer =
        client(&broker).set("compression.type", "gzip").set("linger.ms", "200").create().unwrap();
    // Out of order, in one compressed batch.
    for topic in ["created", "stamped"] {
        let send = |time: i64| {
            producer.send_result(FutureRecord::to(topic).partition(0).key("k").payload("x").timestamp(time)).unwrap()
        };
        let deliveries: Vec<_> = [1_000, 5_000, 3_000, 5_000].into_iter().map(send).collect();
        for delivery in deliveries {
            delivery.await.unwrap().unwrap();
        }
    }
    let mut raw = Raw::connect(&broker);
    let mut ask = |topic: &str, time: i64, version: i16| list_offsets(&mut raw, topic, &[time], version)[0];
    for (time, expected) in [
        (0, (0, 0, 1_000)),
        (1_001, (0, 1, 5_000)),
        (5_001, (0, -1, -1)),
        (-1, (0, 4, -1)),
        (-2, (0, 0, -1)),
        (-3, (0, 1, 5_000)),
        (-4, (0, 0, -1)),
        (-5, (0, -1, -1)),
        (-9, (UNSUPPORTED_VERSION, -1, -1)),
    ] {
        assert_eq!(ask("created", time, 9), expected, "{time}");
    }
    for (time, version) in [(-3, 6), (-4, 7), (-5, 8)] {
        assert_eq!(ask("created", time, version).0, UNSUPPORTED_VERSION);
    }
    assert_eq!(ask("compacted", -3, 9), (0, -1, -1));
    let (_, offset, stamp) = ask("stamped", 1_000_000, 9);
    assert!(offset == 0 && stamp > 1_700_000_000_000);
    assert_eq!(ask("stamped", -3, 9), (0, 0, stamp));
    assert_eq!(list_offsets(&mut raw, "created", &[-1, -2], 9), [(INVALID_REQUEST, -1, -1)]);

    let mut delete = |topic: &str, offset: i64| {
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]);
        let answer = raw.ask(&DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000), 2);
        (answer.topics[0].partitions[0].error_code, answer.topics[0].partitions[0].low_watermark)
    };
    assert_eq!(delete("created", 2), (0, 2));
    assert_eq!(delete("created", 1), (0, 2));
    assert_eq!(delete("created", 5).0, 1);
    assert_eq!(delete("created", -2).0, 1);
    assert_eq!(delete("compacted", 0).0, POLICY_VIOLATION);
    assert_eq!(delete("stamped", -1), (0, 4));
    assert_eq!(list_offsets(&mut raw, "created", &[0], 9)[0], (0, 2, 3_000));
    assert_eq!(list_offsets(&mut raw, "created", &[-3], 9)[0], (0, 3, 5_000));

    for (epoch, expected) in [(0, (0, 4)), (5, (-1, -1)), (-1, (-1, -1))] {
        let partition = OffsetForLeaderPartition::default().with_leader_epoch(epoch).with_current_leader_epoch(-1);
        let topic =
            OffsetForLeaderTopic::default().with_topic(TopicName(text("created"))).with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let found = raw.ask(&request, 4).topics.remove(0).partitions.remove(0);
        assert_eq!((found.leader_epoch, found.end_offset), expected);
    }
    broker.stop().await.unwrap();
}
