//! The log, read once, partition by partition, by a plain consumer without a group's offsets.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};
use uuid::Uuid;

use super::AuditError;
use crate::config::KafkaSettings;
use crate::transaction::{HEADER_RUN, HEADER_SEQUENCE, MessageId, RunId};

/// Longest waits: for metadata and watermarks, and for the next record of a range that is known to be there.
const PATIENCE: Duration = Duration::from_secs(10);
const RECORD_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Offsets of a partition that the log held when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogRange {
    pub partition: i32,
    pub start: i64,
    pub end: i64,
}

/// Reads one topic: what is committed, if there are transactions.
pub(super) struct LogReader {
    consumer: BaseConsumer,
    topic: String,
}

impl LogReader {
    pub(super) fn open(kafka: &KafkaSettings, topic: String) -> Result<LogReader, AuditError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &kafka.brokers)
            // librdkafka wants one for assigned partitions too; nothing is ever committed to it.
            .set("group.id", "finstream-verify")
            .set("client.id", "finstream-verify")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            // A range that is not there is an answer, not a reason to start elsewhere.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.queue.backoff.ms", "5")
            // The fetch that finds one partition's end must not hold up the next partition.
            .set("fetch.wait.max.ms", "10")
            .set("reconnect.backoff.max.ms", "500");
        for (name, value) in &kafka.properties {
            config.set(name, value);
        }
        let consumer = config.create().map_err(said)?;
        Ok(LogReader { consumer, topic })
    }

    /// The cluster's id, where it has one.
    pub(super) fn cluster_id(&self) -> Option<String> {
        self.consumer.client().fetch_cluster_id(PATIENCE)
    }

    /// The partitions with what they hold now; none when there is no such topic.
    pub(super) fn ranges(&self) -> Result<Vec<LogRange>, AuditError> {
        // All topics: asking for one by name could create it.
        let metadata = self.consumer.fetch_metadata(None, PATIENCE).map_err(said)?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == self.topic) else {
            return Ok(Vec::new());
        };
        let mut ranges = Vec::new();
        for partition in topic.partitions().iter().map(|partition| partition.id()) {
            let (start, end) = self.consumer.fetch_watermarks(&self.topic, partition, PATIENCE).map_err(said)?;
            ranges.push(LogRange { partition, start, end });
        }
        ranges.sort_by_key(|range| range.partition);
        Ok(ranges)
    }

    /// Hands out every record of `range` that the log has.
    pub(super) fn read(
        &self,
        range: LogRange,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        if range.start >= range.end {
            return Ok(());
        }
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.topic, range.partition, Offset::Offset(range.start)).map_err(said)?;
        self.consumer.assign(&assignment).map_err(said)?;
        // The clock is looked at while nothing comes only, not for each record.
        let mut silent_since = None;
        let mut offset = range.start;
        let mut last_error = None;
        loop {
            // Without a deadline librdkafka looks at no clock; most records are there already.
            match self.consumer.poll(Duration::ZERO).or_else(|| self.consumer.poll(POLL)) {
                Some(Ok(message)) => {
                    silent_since = None;
                    offset = message.offset() + 1;
                    if message.offset() >= range.end {
                        break;
                    }
                    each(&message)?;
                    if offset >= range.end {
                        break;
                    }
                    continue;
                }
                // Only control records, or nothing, up to the end.
                Some(Err(KafkaError::PartitionEOF(partition))) if partition == range.partition => break,
                Some(Err(KafkaError::MessageConsumption(
                    code @ (RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::AutoOffsetReset),
                ))) => {
                    return Err(AuditError::Damaged {
                        topic: self.topic.clone(),
                        partition: range.partition,
                        offset,
                        code,
                    });
                }
                Some(Err(error)) => last_error = Some(error),
                None => {}
            }
            if silent_since.get_or_insert_with(Instant::now).elapsed() > RECORD_PATIENCE {
                let reason = last_error.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                return Err(AuditError::Kafka(format!("partition {} of {}: {reason}", range.partition, self.topic)));
            }
        }
        self.consumer.unassign().map_err(said)
    }
}

/// Who a record says it is; None when the headers are absent or not well formed.
pub(super) fn identity(message: &BorrowedMessage<'_>) -> Option<MessageId> {
    let (mut run, mut sequence) = (None, None);
    for header in message.headers()?.iter() {
        let Some(value) = header.value else { continue };
        match header.key {
            HEADER_RUN => run = Uuid::try_parse_ascii(value).ok().map(RunId),
            HEADER_SEQUENCE => {
                let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
                sequence = parsed.filter(|sequence| *sequence >= 0);
            }
            _ => {}
        }
    }
    run.zip(sequence).map(|(run, sequence)| MessageId { run, sequence })
}

fn said(error: KafkaError) -> AuditError {
    AuditError::Kafka(error.to_string())
}
