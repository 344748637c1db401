//! Produce (0), versions 3-12; 0-2 are advertised and refused (KAFKA-18659). v9 flexible; v10 leader hints, unused.
//!
//! Appends happen here, in the order of requests; the answer waits for durability beside the next request, so that
//! pipelined requests share a sync. acks=1 waits like acks=all: one node's leader has written when it has synced.
//! When the disk is behind, the request waits here, and with it this client's later ones: order is kept.
//! Deviation: transactional writes are refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use tokio::time::Instant;

use super::errors::KafkaError;
use super::{text, unfolding};
use crate::broker::answer::Answer;
use crate::broker::dispatch::encode;
use crate::broker::frame::{FrameError, Head};
use crate::broker::log::{AppendError, Appended, Partition, is_compressed};
use crate::broker::node::{LEADER_EPOCH, Node};

/// The first version whose clients know zstd (KIP-110).
const ZSTD_FROM: i16 = 7;
/// Where a batch names its codec, in the lowest three bits; and zstd's number.
const CODEC_AT: usize = 22;
const ZSTD: u8 = 4;

const WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two tries while the disk is behind.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// What waits for the disk may keep so many times its own bytes. Ordinary batches fill most of what they came in.
const PINNED_RATIO_MAX: usize = 8;
/// What became of one batch, as it waits and in the answer, about.
const OUTCOME_BYTES: usize = 256;

struct Refused {
    code: i16,
    message: String,
}

impl<E: KafkaError + std::fmt::Display> From<E> for Refused {
    fn from(error: E) -> Self {
        Refused { code: error.code(), message: error.to_string() }
    }
}

type Outcome = Result<(Partition, Appended), Refused>;

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
    let refusal = refusal(&request);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let mut bytes = 0;
    for topic in request.topic_data {
        let known = node.catalog.topic(&topic.name);
        let mut outcomes = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let partition = known.as_ref().and_then(|topic| topic.partition(data.index));
            let outcome = match (refusal, partition) {
                (Some(error), _) => Err(refused(error)),
                (None, None) => Err(refused(ResponseError::UnknownTopicOrPartition)),
                (None, Some(_)) if head.version < ZSTD_FROM && data.records.as_deref().is_some_and(is_zstd) => {
                    Err(refused(ResponseError::UnsupportedCompressionType))
                }
                (None, Some(partition)) => {
                    append(node, partition, kept(data.records.unwrap_or_default(), pins), deadline).await
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

/// Why all of a request is refused.
fn refusal(request: &ProduceRequest) -> Option<ResponseError> {
    if !(-1..=1).contains(&request.acks) {
        return Some(ResponseError::InvalidRequiredAcks);
    }
    request.transactional_id.as_ref().map(|_| ResponseError::InvalidTxnState)
}

fn is_zstd(records: &[u8]) -> bool {
    records.get(CODEC_AT).is_some_and(|attributes| attributes & 7 == ZSTD)
}

fn refused(error: ResponseError) -> Refused {
    Refused { code: error.code(), message: error.to_string() }
}

async fn append(node: &Node, partition: &Partition, records: Bytes, deadline: Instant) -> Outcome {
    // Unfolding takes its time: not on a thread that serves connections.
    let is_folded = is_compressed(&records);
    loop {
        let now_ms = node.now_ms();
        let appended = if is_folded {
            let (log, partition, records) = (node.log.clone(), partition.clone(), records.clone());
            unfolding(move || log.append(&partition, records, LEADER_EPOCH, now_ms)).await
        } else {
            node.log.append(partition, records.clone(), LEADER_EPOCH, now_ms)
        };
        match appended {
            Ok(appended) => return Ok((partition.clone(), appended)),
            Err(AppendError::Busy { .. }) if Instant::now() < deadline => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
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
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1),
    }
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
