//! The topics: made at the beginning, and read from the first message to the last in the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::checker::Record;
use super::message::{Identity, PARTITIONS_PER_TOPIC, Place, TOPICS, topic};
use super::readers::group_name;
use super::support::kafka;

/// Longest time without any progress.
const STALLED_MAX: Duration = Duration::from_secs(120);
const ANSWER_MAX: Duration = Duration::from_secs(30);

fn consumer(address: &str, group: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", group).set("enable.auto.commit", "false");
    config.set("check.crcs", "true").create().unwrap()
}

/// Nothing is ever retired; segments roll by size, and in one topic by time, too.
pub fn create_topics(address: &str) {
    let names: Vec<String> = (0..TOPICS).map(topic).collect();
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .zip(0..)
        .map(|(name, number)| {
            let topic = NewTopic::new(name, PARTITIONS_PER_TOPIC as i32, TopicReplication::Fixed(1))
                .set("segment.bytes", "1048576")
                .set("retention.ms", "-1")
                .set("retention.bytes", "-1");
            match number {
                1 => topic.set("segment.ms", "30000"),
                2 => topic.set("message.timestamp.type", "LogAppendTime"),
                _ => topic,
            }
        })
        .collect();
    kafka::create_topics(address, &topics);
}

/// The offset behind the last message of each partition.
fn ends(reader: &BaseConsumer) -> BTreeMap<Place, i64> {
    let end = |place: Place| {
        let (low, high) = reader.fetch_watermarks(&place.topic(), place.partition(), ANSWER_MAX).unwrap();
        assert_eq!(low, 0, "{place}: nothing is ever retired");
        (place, high)
    };
    Place::all().map(end).collect()
}

/// Waits until each group has committed the end of all its partitions, which it does after it has read them.
pub fn wait_until_committed(address: &str, mut meanwhile: impl FnMut()) {
    let ends = ends(&consumer(address, "none"));
    let groups: Vec<_> =
        (0..TOPICS).map(|group| (consumer(address, &group_name(group)), of_group(group, &ends))).collect();
    let (mut behind, mut progressed) = (i64::MAX, Instant::now());
    loop {
        meanwhile();
        let now: i64 = groups.iter().map(|(group, ends)| kafka::messages_behind(group, ends)).sum();
        if now == 0 {
            return;
        }
        if now < behind {
            (behind, progressed) = (now, Instant::now());
        }
        assert!(progressed.elapsed() < STALLED_MAX, "the groups stay {behind} messages behind the end");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

fn of_group(number: u32, ends: &BTreeMap<Place, i64>) -> BTreeMap<(String, i32), i64> {
    let its = ends.iter().filter(|(place, _)| place.0 / PARTITIONS_PER_TOPIC == number);
    its.map(|(place, end)| ((place.topic(), place.partition()), *end)).collect()
}

/// Every record of every partition.
pub fn read_all(address: &str) -> BTreeMap<Place, Vec<Record>> {
    let reader = consumer(address, "the-last-reader");
    let ends = ends(&reader);
    let mut list = TopicPartitionList::new();
    for place in Place::all() {
        list.add_partition_offset(&place.topic(), place.partition(), Offset::Beginning).unwrap();
    }
    reader.assign(&list).unwrap();
    let mut log: BTreeMap<Place, Vec<Record>> = Place::all().map(|place| (place, Vec::new())).collect();
    let mut left: usize = ends.values().filter(|end| **end > 0).count();
    let mut progressed = Instant::now();
    while left > 0 {
        assert!(progressed.elapsed() < STALLED_MAX, "{left} partitions cannot be read to their ends");
        let Some(message) = reader.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let place = Place::of(message.topic(), message.partition()).unwrap();
        let identity = message.payload().and_then(Identity::of);
        log.get_mut(&place).unwrap().push(Record { offset: message.offset() as u64, identity });
        left -= usize::from(message.offset() + 1 == ends[&place]);
        progressed = Instant::now();
    }
    log
}
