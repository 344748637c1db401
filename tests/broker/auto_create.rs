//! Topics that exist because a client asked for them.

use crate::support::{Raw, create_topic, producer, send, settings};
use finstream::broker::Broker;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_TOPIC: i16 = 17;

async fn start(creates: bool) -> (tempfile::TempDir, Broker) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.auto_create_topics = creates;
    let broker = Broker::start(settings).await.unwrap();
    (dir, broker)
}

/// Error code and number of partitions of each topic.
fn ask(broker: &Broker, names: &[&str], allows: bool, version: i16) -> Vec<(i16, usize)> {
    let topic = |name: &&str| {
        MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string((*name).to_owned()))))
    };
    let topics = names.iter().map(topic).collect();
    let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(allows);
    let response = Raw::connect(broker).ask(&request, version);
    response.topics.iter().map(|topic| (topic.error_code, topic.partitions.len())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_writes_to_a_topic_that_nobody_created() {
    let (_dir, broker) = start(true).await;
    assert_eq!(send(&producer(&broker), "new", 2, "first").await, 0);
    assert_eq!(ask(&broker, &["new"], false, 9), [(0, 3)], "with the default number of partitions");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_that_creates_a_topic_has_it_and_so_does_the_next_start() {
    let (dir, broker) = start(true).await;
    assert_eq!(ask(&broker, &["a", "b", "a"], true, 12), [(0, 3), (0, 3)]);
    // Before version 4 a client cannot forbid it.
    assert_eq!(ask(&broker, &["old"], true, 1), [(0, 3)]);
    broker.stop().await.unwrap();
    let broker = Broker::start(settings(dir.path())).await.unwrap();
    assert_eq!(ask(&broker, &["a", "b", "old"], true, 9), [(0, 3), (0, 3), (0, 3)]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_client_nor_a_broker_that_forbids_it_creates_topics() {
    let (_dir, broker) = start(true).await;
    assert_eq!(ask(&broker, &["new"], false, 9), [(UNKNOWN_TOPIC_OR_PARTITION, 0)]);
    broker.stop().await.unwrap();
    let (_dir, broker) = start(false).await;
    assert_eq!(ask(&broker, &["new"], true, 9), [(UNKNOWN_TOPIC_OR_PARTITION, 0)]);
    assert_eq!(ask(&broker, &["new"], false, 9), [(UNKNOWN_TOPIC_OR_PARTITION, 0)]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_are_refused_and_the_others_are_created() {
    let (_dir, broker) = start(true).await;
    create_topic(&broker, "a.b", 1).await;
    let asked = ["a b", "a_b", "__consumer_offsets", "__transaction_state", "good"];
    let unknown = (UNKNOWN_TOPIC_OR_PARTITION, 0);
    assert_eq!(ask(&broker, &asked, true, 9), [(INVALID_TOPIC, 0), unknown, unknown, unknown, (0, 3)]);
    broker.stop().await.unwrap();
}
