//! Topics that want another codec than their producers (`compression.type`).

use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Raw, admin, batch, client, consumer, start};
use bytes::Bytes;
use finstream::broker::Broker;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{FetchRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// By number in a batch's attributes.
const CODECS: [&str; 5] = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
const CORRUPT_MESSAGE: i16 = 2;
/// Offset of the attributes' lower byte, in which the codec is, in a batch.
const ATTRIBUTES: usize = 22;

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

async fn create(broker: &Broker, topic: &str, compression: &str) {
    let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("compression.type", compression);
    let results = admin(broker).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    results.into_iter().for_each(|result| drop(result.unwrap()));
}

fn produce(broker: &Broker, topic: &str, records: Bytes) -> (i16, i64) {
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let data = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![data]);
    let answer = Raw::connect(broker).ask(&request, 9);
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

fn fetch(broker: &Broker, topic: &str) -> Bytes {
    let partition = FetchPartition::default().with_partition(0).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_max_bytes(1 << 20).with_session_epoch(-1).with_topics(vec![topic]);
    Raw::connect(broker).ask(&request, 12).responses[0].partitions[0].records.clone().unwrap()
}

/// Keys and values of partition 0, read by a client that compares checksums.
fn read(broker: &Broker, topic: &str, count: usize) -> Vec<(String, String)> {
    let consumer = consumer(broker, topic, &[("check.crcs", "true")]);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let began = Instant::now();
    let mut read = Vec::new();
    while read.len() < count {
        assert!(began.elapsed() < PATIENCE, "only {} of {count} messages came", read.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
        read.push((text(message.key()), text(message.payload())));
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_of_a_producer_is_stored_as_every_codec_of_a_topic() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    for (number, wanted) in (0u8..).zip(CODECS) {
        for sent in CODECS {
            let topic = format!("{sent}-as-{wanted}");
            create(&broker, &topic, wanted).await;
            let codec = if sent == "uncompressed" { "none" } else { sent };
            let mut config = client(&broker);
            config.set("compression.type", codec).set("enable.idempotence", "true").set("linger.ms", "50");
            let producer: FutureProducer = config.create().unwrap();
            let value = "v".repeat(300);
            let keys: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
            let sending = keys
                .iter()
                .map(|key| producer.send(FutureRecord::to(&topic).partition(0).key(key).payload(&value), PATIENCE));
            for (offset, sent) in (0..).zip(futures_util::future::join_all(sending).await) {
                assert_eq!(sent.unwrap().offset, offset, "{topic}");
            }
            let stored = fetch(&broker, &topic);
            assert_eq!(stored[ATTRIBUTES] & 7, number, "{topic}");
            let expected: Vec<_> = keys.iter().map(|key| (key.clone(), value.clone())).collect();
            assert_eq!(read(&broker, &topic, keys.len()), expected, "{topic}");
        }
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_came_damaged_gets_no_new_crc() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create(&broker, "t", "zstd").await;
    let whole = batch(b"value");
    let mut damaged = whole.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(produce(&broker, "t", damaged.into()).0, CORRUPT_MESSAGE);
    assert_eq!(produce(&broker, "t", whole), (0, 0));
    assert_eq!(read(&broker, "t", 1)[0].1, "value");
    broker.stop().await.unwrap();
}
