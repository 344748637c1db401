//! Do the topic of totals and the tables agree?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use super::world::{Lane, PARTITIONS};

const READ_MAX: Duration = Duration::from_secs(30);
/// What the newest value of each key must say.
const VERSIONS: &str = "
select 'user/' || user_id || '/' || currency as key, sum(version)::text as version from user_aggregates
group by user_id, currency
union all
select 'symbol/' || symbol, sum(version)::text from symbol_aggregates group by symbol";

/// Compares the versions of users' and symbols' totals.
pub fn compare(lane: &Lane) -> Result<(), String> {
    let stored: BTreeMap<String, String> = lane
        .rows(VERSIONS)
        .iter()
        .filter_map(|row| row.split_once(' ').map(|(key, version)| (key.to_owned(), version.to_owned())))
        .collect();
    let published = newest_versions(lane)?;
    if stored == published { Ok(()) } else { Err(format!("PostgreSQL has {stored:?}\nthe topic has {published:?}")) }
}

fn newest_versions(lane: &Lane) -> Result<BTreeMap<String, String>, String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &lane.brokers)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .map_err(|error| error.to_string())?;
    let topic = format!("{}.aggregates", lane.name);
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(&topic, partition, Offset::Beginning).map_err(|error| error.to_string())?;
    }
    consumer.assign(&list).map_err(|error| error.to_string())?;
    let (mut versions, mut ended, began) = (BTreeMap::new(), 0, Instant::now());
    while ended < PARTITIONS {
        if began.elapsed() > READ_MAX {
            return Err(format!("{topic} could not be read to its end"));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
                let value: Value = serde_json::from_slice(record.payload().unwrap_or_default())
                    .map_err(|error| format!("{key}: {error}"))?;
                if key.starts_with("user/") || key.starts_with("symbol/") {
                    versions.insert(key, value["version"].to_string());
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => return Err(error.to_string()),
            None => {}
        }
    }
    Ok(versions)
}
