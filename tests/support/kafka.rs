//! What tests ask of any broker by its address.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};

const ANSWER_MAX: Duration = Duration::from_secs(30);

pub fn create_topics(address: &str, topics: &[NewTopic<'_>]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address).create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let results = runtime.block_on(admin.create_topics(topics, &AdminOptions::new())).unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// How many messages a consumer's group has not committed, before these ends of partitions.
pub fn messages_behind(of_group: &BaseConsumer, ends: &BTreeMap<(String, i32), i64>) -> i64 {
    let mut asked = TopicPartitionList::new();
    for (topic, partition) in ends.keys() {
        asked.add_partition(topic, *partition);
    }
    let committed = of_group.committed_offsets(asked, ANSWER_MAX).unwrap();
    let behind = |((topic, partition), end): (&(String, i32), &i64)| {
        let found = committed.find_partition(topic, *partition).unwrap();
        end - found.offset().to_raw().unwrap().max(0)
    };
    ends.iter().map(behind).sum()
}
