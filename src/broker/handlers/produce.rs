//! Produce (0), versions 3-12; 0-2 are advertised and refused (KAFKA-18659). v8 errors of single records; v9 flexible; v10
//! leader hints, unused.
//!
//! Appends happen here, in the order of requests; the answer waits for durability beside the next request, so that
//! pipelined requests share a sync. acks=1 waits like acks=all: one node's leader has written when it has synced.
//! When the disk is behind, the request waits here, and with it this client's later ones: order is kept.
//! Within a transaction a partition takes what the coordinator knows to be part of it (KIP-890's verification). v11: an
//! error of its own when it is not. Deviation: nobody writes to internal topics, administrators neither.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName, TransactionalId};
use tokio::time::Instant;

use super::errors::KafkaError;
use super::{text, unfolding};
use crate::broker::answer::Answer;
use crate::broker::dispatch::encode;
use crate::broker::frame::{FrameError, Head};
use crate::broker::internal_topic::is_internal;
use crate::broker::log::{AppendError, Appended, Partition, codecs};
use crate::broker::node::{LEADER_EPOCH, Node};
use crate::broker::txn::{Entered, ProducerIdEpoch, TxnError};

/// The first version whose clients know zstd (KIP-110).
const ZSTD_FROM: i16 = 7;
/// Where a batch names its codec, in the lowest three bits; and zstd's number.
const CODEC_AT: usize = 22;
const ZSTD: u8 = 4;

const WAIT_MAX: Duration = Duration::from_secs(30);
/// Clients of this version know TRANSACTION_ABORTABLE.
const ABORTABLE_SINCE: i16 = 11;
/// Between two tries while the disk is behind.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// What waits for the disk may keep so many times its own bytes. Ordinary batches fill most of what they came in.
const PINNED_RATIO_MAX: usize = 8;
/// What became of one batch, as it waits and in the answer, about.
const OUTCOME_BYTES: usize = 256;

struct Refused {
    code: i16,
    message: String,
    /// The records of the batch for which it was refused, where others may be sent again without them (KIP-467).
    records: Vec<i32>,
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        let (code, message) = (error.code(), error.to_string());
        let records = if let AppendError::KeylessRecords(records) = error { records } else { Vec::new() };
        Refused { code, message, records }
    }
}

type Outcome = Result<(Partition, Appended), Refused>;

/// Where records go.
struct Target<'a> {
    partition: &'a Partition,
    topic: &'a TopicName,
    index: i32,
    /// Whose transaction they belong to.
    transactional_id: Option<&'a TransactionalId>,
    /// Of the request.
    version: i16,
}

/// Why one append was refused.
enum Why {
    Log(AppendError),
    Transaction(TxnError),
}

impl From<AppendError> for Why {
    fn from(error: AppendError) -> Self {
        Why::Log(error)
    }
}

/// Appends, and answers when what was appended is durable.
///
/// `pins`: memory that the records keep for as long as they wait, and that nothing else counts.
pub(crate) async fn handle(
    node: &Arc<Node>,
    head: Head,
    request: ProduceRequest,
    pins: usize,
) -> Result<Answer, FrameError> {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + timeout;
    let refusal = (!(-1..=1).contains(&request.acks)).then_some(ResponseError::InvalidRequiredAcks);
    let transactional_id = request.transactional_id.as_ref();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let mut bytes = 0;
    for topic in request.topic_data {
        let known = node.catalog.topic(&topic.name);
        let refusal = refusal.or(is_internal(&topic.name).then_some(ResponseError::InvalidTopicException));
        let mut outcomes = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let partition = known.as_ref().and_then(|topic| Some((topic.partition(data.index)?, topic.codec())));
            let outcome = match (refusal, partition) {
                (Some(error), _) => Err(refused(error)),
                (None, None) => Err(refused(ResponseError::UnknownTopicOrPartition)),
                (None, Some(_)) if head.version < ZSTD_FROM && data.records.as_deref().is_some_and(is_zstd) => {
                    Err(refused(ResponseError::UnsupportedCompressionType))
                }
                (None, Some((partition, codec))) => {
                    let records = kept(data.records.unwrap_or_default(), pins);
                    match in_codec(node, partition, records, codec).await {
                        Ok(records) => {
                            let (topic, index, version) = (&topic.name, data.index, head.version);
                            let target = Target { partition, topic, index, transactional_id, version };
                            append(node, target, records, deadline).await
                        }
                        Err(error) => Err(error.into()),
                    }
                }
            };
            outcomes.push((data.index, outcome));
        }
        bytes += topic.name.len() + outcomes.len() * OUTCOME_BYTES;
        // A copy: an answer that waits does not hold the frame that the name came in.
        topics.push((TopicName(text(topic.name.as_str())), outcomes));
    }
    if request.acks == 0 {
        // Nobody reads an error; a closed connection is the only way to say that something went wrong.
        let failed = topics.iter().flat_map(|(_, outcomes)| outcomes).find_map(|(_, outcome)| outcome.as_ref().err());
        return match failed {
            Some(refused) => Err(FrameError::Unacknowledged(refused.message.clone())),
            None => Ok(Answer::Nothing),
        };
    }
    let answer = async move {
        let mut responses = Vec::with_capacity(topics.len());
        for (name, outcomes) in topics {
            let mut partitions = Vec::with_capacity(outcomes.len());
            for (index, outcome) in outcomes {
                partitions.push(settle(index, outcome, deadline).await);
            }
            responses.push(TopicProduceResponse::default().with_name(name).with_partition_responses(partitions));
        }
        encode(&head, &ProduceResponse::default().with_responses(responses))
    };
    Ok(Answer::Later(Box::pin(answer), bytes))
}

/// Records as they may wait: few in a large buffer are copied, so that they do not keep all of it.
fn kept(records: Bytes, pins: usize) -> Bytes {
    if records.len() < pins / PINNED_RATIO_MAX { Bytes::copy_from_slice(&records) } else { records }
}

fn is_zstd(records: &[u8]) -> bool {
    records.get(CODEC_AT).is_some_and(|attributes| attributes & 7 == ZSTD)
}

fn refused(error: ResponseError) -> Refused {
    Refused { code: error.code(), message: error.to_string(), records: Vec::new() }
}

/// The records in the codec that the topic wants; none: in theirs.
async fn in_codec(
    node: &Node,
    partition: &Partition,
    records: Bytes,
    codec: Option<i16>,
) -> Result<Bytes, AppendError> {
    // As a rule it is the producer's as well, and what is wrong with the batches the append finds.
    let Some(codec) = codec.filter(|wanted| codecs(&records).any(|codec| codec != *wanted)) else { return Ok(records) };
    let (partition, now_ms) = (partition.clone(), node.now_ms());
    unfolding(move || partition.recompressed(&records, codec, now_ms)).await
}

async fn append(node: &Arc<Node>, target: Target<'_>, records: Bytes, deadline: Instant) -> Outcome {
    let partition = target.partition;
    // Unfolding takes its time: not on a thread that serves connections.
    let is_folded = codecs(&records).any(|codec| codec != 0);
    loop {
        let now_ms = node.now_ms();
        let appended = if is_folded {
            let (node, partition, records) = (node.clone(), partition.clone(), records.clone());
            match target.transactional_id {
                None => unfolding(move || plainly(&node, &partition, records, now_ms)).await,
                Some(id) => {
                    let (id, topic, index) = (id.clone(), target.topic.clone(), target.index);
                    unfolding(move || within(&node, &id, &partition, (&topic, index), records, now_ms)).await
                }
            }
        } else {
            match target.transactional_id {
                None => plainly(node, partition, records.clone(), now_ms),
                Some(id) => within(node, id, partition, (target.topic, target.index), records.clone(), now_ms),
            }
        };
        match appended {
            Ok(appended) => return Ok((partition.clone(), appended)),
            Err(Why::Log(AppendError::Busy { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Err(Why::Log(error)) => return Err(error.into()),
            Err(Why::Transaction(error)) => return Err(outside(error, target.version)),
        }
    }
}

fn plainly(node: &Node, partition: &Partition, records: Bytes, now_ms: i64) -> Result<Appended, Why> {
    node.log.append(partition, records, LEADER_EPOCH, now_ms).map_err(Why::Log)
}

/// Appends what the coordinator knows to be part of a transaction, which cannot end meanwhile.
fn within(
    node: &Node,
    id: &TransactionalId,
    partition: &Partition,
    (topic, index): (&TopicName, i32),
    records: Bytes,
    now_ms: i64,
) -> Result<Appended, Why> {
    let enter = |producers: &[(i64, i16)]| -> Result<Option<Entered<'_>>, Why> {
        if producers.is_empty() {
            // Plain batches of a producer that has a transactional id.
            return Ok(None);
        }
        let producers: Vec<_> = producers.iter().map(|&(id, epoch)| ProducerIdEpoch { id, epoch }).collect();
        node.transactions.enter(id, &producers, topic, index).map(Some).map_err(Why::Transaction)
    };
    partition.append_in_transaction(records, LEADER_EPOCH, now_ms, enter)
}

/// As Kafka's partitions tell producers, which expect other errors than from a coordinator.
fn outside(error: TxnError, version: i16) -> Refused {
    let message = error.to_string();
    let kafka = match error {
        TxnError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        // Retriable, and it says that nothing was appended.
        TxnError::Concurrent => ResponseError::NotEnoughReplicas,
        TxnError::NotInTransaction if version < ABORTABLE_SINCE => ResponseError::InvalidTxnState,
        error => error.kafka(),
    };
    Refused { code: kafka.code(), message, records: Vec::new() }
}

/// Waits until an append is durable, and says what became of it.
async fn settle(index: i32, outcome: Outcome, deadline: Instant) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    let durable = match outcome {
        Err(refused) => Err(refused),
        Ok((partition, appended)) => match tokio::time::timeout_at(deadline, partition.durable(&appended)).await {
            Ok(Ok(())) => Ok(appended),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(refused(ResponseError::RequestTimedOut)),
        },
    };
    match durable {
        Ok(appended) => response
            .with_base_offset(appended.base_offset)
            .with_log_append_time_ms(appended.log_append_time_ms)
            .with_log_start_offset(appended.log_start_offset),
        Err(refused) => response
            .with_error_code(refused.code)
            .with_error_message(Some(text(refused.message)))
            .with_record_errors(refused.records.into_iter().map(record_error).collect())
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1),
    }
}

fn record_error(index: i32) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage::default().with_batch_index(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_that_would_keep_many_times_their_size_are_copied() {
        let buffer = Bytes::from(vec![7; 64 * 1024]);
        let is_copied = |bytes: usize| {
            let records = buffer.slice(100..100 + bytes);
            let kept = kept(records.clone(), buffer.len());
            assert_eq!(kept, records);
            kept.as_ptr() != records.as_ptr()
        };
        assert!(is_copied(70) && is_copied(8_000));
        assert!(!is_copied(8_192) && !is_copied(60_000));
        let (few, room_is_held) = (buffer.slice(..70), 0);
        assert_eq!(kept(few.clone(), room_is_held).as_ptr(), few.as_ptr());
    }
}
