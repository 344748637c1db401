//! What `finstream reset` needs to know of the log: which partitions still are what was applied, and where they begin.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::client::probe_config;
use super::record::Record;
use super::{ConsumerError, setup};
use crate::clock::Micros;
use crate::config::KafkaSettings;
use crate::shutdown::Shutdown;
use crate::sink::{Fingerprint, LogRange, PartitionProgress};

/// One record, or one question about a range.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// One poll of it.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// A partition of the log beside what PostgreSQL has applied of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInLog {
    /// Its number.
    pub partition: i32,
    /// What the log holds.
    pub log: LogRange,
    /// Set where the record that was applied last is still there, unchanged: the next offset, and that record.
    pub applied: Option<(i64, Fingerprint)>,
}

/// The topic as it is in the log now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInLog {
    /// Of the cluster that was asked.
    pub cluster_id: String,
    /// In the order of their numbers.
    pub partitions: Vec<PartitionInLog>,
}

/// Compares the log with what was applied; none when it is time to stop.
///
/// # Errors
/// The broker does not answer.
pub async fn look_at_topic(
    kafka: &KafkaSettings,
    topic: &str,
    progress: Vec<PartitionProgress>,
    shutdown: &Shutdown,
) -> Result<Option<TopicInLog>, ConsumerError> {
    let Some(found) = setup::find_topic(kafka, topic, shutdown).await? else { return Ok(None) };
    let (config, name) = (probe_config(kafka), topic.to_owned());
    let compare = move || -> Result<Vec<PartitionInLog>, ConsumerError> {
        let failed = |error| ConsumerError::Kafka { what: format!("reading topic {name}"), error };
        let consumer: BaseConsumer = config.clone().set("group.id", "finstream-reset").create().map_err(failed)?;
        let mut partitions = Vec::new();
        for (partition, _) in found.log_starts {
            let (start, end) = consumer.fetch_watermarks(&name, partition, READ_TIMEOUT).map_err(failed)?;
            let known = progress.iter().find(|known| known.partition == partition);
            let applied = match known.and_then(|known| Some((known.next_offset, known.fingerprint.as_ref()?))) {
                Some((next_offset, expected)) if start < next_offset && next_offset <= end => {
                    fingerprint_at(&consumer, &name, partition, next_offset - 1)?
                        .filter(|found| found.as_slice() == expected.as_slice())
                        .map(|found| (next_offset, found))
                }
                _ => None,
            };
            partitions.push(PartitionInLog { partition, log: LogRange { start, end }, applied });
        }
        Ok(partitions)
    };
    let partitions = tokio::task::spawn_blocking(compare).await.map_err(|_| ConsumerError::Panicked)??;
    Ok(Some(TopicInLog { cluster_id: found.cluster_id, partitions }))
}

/// The fingerprint of one record; none where there is no record at that offset.
fn fingerprint_at(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Option<Fingerprint>, ConsumerError> {
    let failed = |error| ConsumerError::Kafka { what: format!("reading {topic} partition {partition}"), error };
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
    consumer.assign(&list).map_err(failed)?;
    let asked = Instant::now();
    while asked.elapsed() < READ_TIMEOUT {
        match consumer.poll(POLL_TIMEOUT) {
            Some(Ok(message)) => {
                let found = message.offset() == offset;
                return Ok(found.then(|| Record::read(&message, Micros(0)).fingerprint()));
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) => return Err(failed(error)),
            None => {}
        }
    }
    Ok(None)
}
