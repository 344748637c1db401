//! What `finstream reset`, and the cure that a stopped consumer prints, need to know of the log: up to where each
//! partition still holds what was applied, and where it begins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use sqlx::PgConnection;

use super::client::probe_config;
use super::record::Record;
use super::{ConsumerError, setup};
use crate::clock::Micros;
use crate::config::KafkaSettings;
use crate::shutdown::Shutdown;
use crate::sink::{Fingerprint, Known, LogRange, PartitionProgress, is_counted, progress, skipped_from};
use crate::transaction::Transaction;

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
    /// The offset behind the last record that the log holds as it was applied, and that record: PostgreSQL's
    /// `next_offset` where nothing is wrong, less where the log was cut short, none where it is another log.
    pub counted: Option<(i64, Fingerprint)>,
}

impl PartitionInLog {
    /// The first offset that is not in the totals.
    pub fn go_on_at(&self) -> i64 {
        self.counted.map_or(self.log.start, |(next_offset, _)| next_offset)
    }
}

/// The topic as it is in the log now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInLog {
    /// Of the cluster that was asked.
    pub cluster_id: String,
    /// In the order of their numbers.
    pub partitions: Vec<PartitionInLog>,
    /// How far PostgreSQL was when the two were compared.
    pub applied: Vec<PartitionProgress>,
}

/// Compares the log with what was applied in the life `topic_ref`; none when it is time to stop.
///
/// # Errors
/// The broker or PostgreSQL does not answer.
pub async fn look_at_topic(
    kafka: &KafkaSettings,
    connection: &mut PgConnection,
    topic: &str,
    topic_ref: i32,
    shutdown: &Shutdown,
) -> Result<Option<TopicInLog>, ConsumerError> {
    let Some(found) = setup::find_topic(kafka, topic, shutdown).await? else { return Ok(None) };
    let applied = progress(connection, topic_ref).await?;
    let probe = Probe::new(kafka, topic)?;
    let mut partitions = Vec::with_capacity(found.log_starts.len());
    for (partition, _) in found.log_starts {
        let log = probe.range(partition).await?;
        let counted = match applied.iter().find(|known| known.partition == partition) {
            Some(known) => probe.counted(connection, topic_ref, known, log).await?,
            None => None,
        };
        partitions.push(PartitionInLog { partition, log, counted });
    }
    Ok(Some(TopicInLog { cluster_id: found.cluster_id, partitions, applied }))
}

/// Reads single records; its calls block, so each runs on a thread for that.
struct Probe {
    consumer: Arc<BaseConsumer>,
    topic: String,
}

/// A record that was asked for.
struct Found {
    known: Known,
    fingerprint: Fingerprint,
}

impl Probe {
    fn new(kafka: &KafkaSettings, topic: &str) -> Result<Probe, ConsumerError> {
        let consumer = probe_config(kafka)
            .set("group.id", "finstream-reset")
            // A fetch that waits at the end of one place would hold up the next one.
            .set("fetch.wait.max.ms", "10")
            .create();
        let consumer = consumer.map_err(|error| failed(topic, error))?;
        Ok(Probe { consumer: Arc::new(consumer), topic: topic.to_owned() })
    }

    async fn range(&self, partition: i32) -> Result<LogRange, ConsumerError> {
        let ask = move |consumer: &BaseConsumer, topic: &str| consumer.fetch_watermarks(topic, partition, READ_TIMEOUT);
        let (start, end) = self.on_a_thread(ask).await?;
        Ok(LogRange { start, end })
    }

    /// Up to where the log holds what was applied. Records are compared at the same offsets, so where one is another,
    /// all that follow are: a binary search finds the place.
    async fn counted(
        &self,
        connection: &mut PgConnection,
        topic_ref: i32,
        applied: &PartitionProgress,
        log: LogRange,
    ) -> Result<Option<(i64, Fingerprint)>, ConsumerError> {
        let (mut low, mut high) = (log.start, log.end.min(applied.next_offset));
        let mut last = None;
        if applied.fingerprint.is_none()
            && log.start < applied.next_offset
            && high == applied.next_offset
            && let Some(skipped) = self.skipped(connection, topic_ref, applied, log).await?
        {
            return Ok(skipped);
        }
        // What was applied last comes first: mostly it is there.
        let mut middle = high - 1;
        while low < high {
            match self.record_at(applied.partition, middle).await? {
                Some(found) if found.known.offset < high => {
                    let offset = found.known.offset;
                    let is_last_applied = offset + 1 == applied.next_offset;
                    let is_same = match &applied.fingerprint {
                        Some(expected) if is_last_applied => found.fingerprint.as_slice() == expected.as_slice(),
                        _ => is_counted(connection, &self.topic, &found.known).await?,
                    };
                    if is_same {
                        low = offset + 1;
                        last = Some((low, found.fingerprint));
                    } else {
                        high = middle;
                    }
                }
                _ => high = middle,
            }
            middle = low + (high - low) / 2;
        }
        Ok(last)
    }

    /// After a skip nothing is known of the skipped records: the one before the range decides. None: there was no skip.
    async fn skipped(
        &self,
        connection: &mut PgConnection,
        topic_ref: i32,
        applied: &PartitionProgress,
        log: LogRange,
    ) -> Result<Option<Option<(i64, Fingerprint)>>, ConsumerError> {
        let (partition, next_offset) = (applied.partition, applied.next_offset);
        let Some(from) = skipped_from(connection, topic_ref, partition, next_offset).await? else { return Ok(None) };
        let before = if from > log.start { self.record_at(partition, from - 1).await? } else { None };
        let is_same = match before.filter(|found| found.known.offset < from) {
            Some(found) => is_counted(connection, &self.topic, &found.known).await?,
            // There is nothing to compare.
            None => true,
        };
        let last_skipped = if is_same { self.record_at(partition, next_offset - 1).await? } else { None };
        Ok(last_skipped.map(|found| Some((next_offset, found.fingerprint))))
    }

    /// The record at `offset`, or the first one behind it; none where the partition ends before.
    async fn record_at(&self, partition: i32, offset: i64) -> Result<Option<Found>, ConsumerError> {
        let read = move |consumer: &BaseConsumer, topic: &str| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
            consumer.assign(&list)?;
            let asked = Instant::now();
            while asked.elapsed() < READ_TIMEOUT {
                match consumer.poll(POLL_TIMEOUT) {
                    Some(Ok(message)) => {
                        let record = Record::read(&message, Micros(0));
                        let fingerprint = record.fingerprint();
                        let known = Known {
                            partition,
                            offset: message.offset(),
                            identity: record.message.identity,
                            transaction_id: message
                                .payload()
                                .and_then(|payload| Transaction::decode(payload).ok())
                                .map(|transaction| transaction.transaction_id.to_string()),
                            payload: message.payload().map(<[u8]>::to_vec),
                        };
                        return Ok(Some(Found { known, fingerprint }));
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                    Some(Err(error)) => return Err(error),
                    None => {}
                }
            }
            // Silence says nothing about what is there.
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
        };
        self.on_a_thread(read).await
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BaseConsumer, &str) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, ConsumerError> {
        let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
        let done = tokio::task::spawn_blocking(move || work(&consumer, &topic)).await;
        done.map_err(|_| ConsumerError::Panicked)?.map_err(|error| failed(&self.topic, error))
    }
}

fn failed(topic: &str, error: KafkaError) -> ConsumerError {
    ConsumerError::Kafka { what: format!("reading topic {topic}"), error }
}
