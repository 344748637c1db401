//! Fetch (1), versions 4-17. v12 flexible; v13 topics by id (KIP-516); v15 and later only add what brokers send.
//!
//! A fetch with too little to return waits until a high watermark moves, `max_wait_ms` at most. Whole batches, the
//! first of which contains the offset; at least one batch, however small the limits. Fetch sessions (KIP-227) are
//! declined by session id 0, which every client must accept. A reader of committed records (isolation level 1) gets
//! what lies below the last stable offset, waits for that to move, and hears which transactions in it were aborted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId};
use tokio::sync::watch;
use tokio::time::Instant;

use super::aside;
use super::errors::KafkaError;
use super::isolation;
use crate::broker::budget::Share;
use crate::broker::log::{Isolation, Partition, Read, ReadError};
use crate::broker::node::{LEADER_EPOCH, Node};

/// Bytes of records in one answer, whatever the client would take.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest that a fetch may wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Where one partition of the request is found.
struct Target {
    request: FetchPartition,
    partition: Result<Partition, ResponseError>,
}

/// Records, or the wait for them; with the share of memory that they hold until they are sent.
pub(crate) async fn handle(node: &Node, request: FetchRequest, version: i16) -> (FetchResponse, Share) {
    if request.session_id != 0 {
        let refused = FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
        return (refused, node.answers.take(0));
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(RESPONSE_BYTES_MAX);
    let isolation = isolation(request.isolation_level);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max);
    let topics: Arc<Vec<(FetchTopic, Vec<Target>)>> =
        Arc::new(request.topics.into_iter().map(|topic| find(node, topic, version)).collect());
    // Watch before reading, or a move in between would go unseen.
    let mut watches: Vec<watch::Receiver<i64>> = topics
        .iter()
        .flat_map(|(_, targets)| targets)
        .filter_map(|target| target.partition.as_ref().ok())
        .map(|partition| match isolation {
            Isolation::Uncommitted => partition.watch_high_watermark(),
            Isolation::Committed => partition.watch_last_stable_offset(),
        })
        .collect();
    loop {
        for watch in &mut watches {
            watch.borrow_and_update();
        }
        let mut share = node.answers.take(bytes_max);
        let answer = if may_wait_for_the_disk(&topics) {
            let (topics, bytes_max) = (topics.clone(), share.bytes());
            aside(move || read_all(&topics, bytes_max, isolation)).await
        } else {
            read_all(&topics, share.bytes(), isolation)
        };
        // With little left, little is enough; but something.
        let enough = answer.bytes >= bytes_min.min(share.bytes().max(1)) || answer.failed || watches.is_empty();
        if enough || Instant::now() >= deadline {
            share.settle(answer.bytes);
            return (FetchResponse::default().with_responses(answer.topics), share);
        }
        // Who waits holds nothing meanwhile.
        drop((answer, share));
        let moved = select_all(watches.iter_mut().map(|watch| Box::pin(watch.changed())));
        let gone = match tokio::time::timeout_at(deadline, moved).await {
            Ok((Err(_), index, _)) => Some(index),
            Ok((Ok(()), ..)) | Err(_) => None,
        };
        if let Some(index) = gone {
            // Deleted or poisoned: reading says which; watching it again would spin.
            watches.swap_remove(index);
        }
    }
}

fn find(node: &Node, mut topic: FetchTopic, version: i16) -> (FetchTopic, Vec<Target>) {
    let (known, missing) = if version >= 13 {
        (node.catalog.topic_by_id(topic.topic_id), ResponseError::UnknownTopicId)
    } else {
        (node.catalog.topic(&topic.topic), ResponseError::UnknownTopicOrPartition)
    };
    let target = |request: FetchPartition| {
        let partition = match &known {
            None => Err(missing),
            Some(_) if request.current_leader_epoch > LEADER_EPOCH => Err(ResponseError::UnknownLeaderEpoch),
            Some(topic) => topic.partition(request.partition).cloned().ok_or(ResponseError::UnknownTopicOrPartition),
        };
        Target { request, partition }
    };
    let targets = std::mem::take(&mut topic.partitions).into_iter().map(target).collect();
    (topic, targets)
}

/// Whoever is behind reads what the page cache may have let go; the tail was written just now.
fn may_wait_for_the_disk(topics: &[(FetchTopic, Vec<Target>)]) -> bool {
    let behind = |target: &Target| {
        target.partition.as_ref().is_ok_and(|partition| partition.is_behind_tail(target.request.fetch_offset))
    };
    topics.iter().flat_map(|(_, targets)| targets).any(behind)
}

struct Answer {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    failed: bool,
}

fn read_all(topics: &[(FetchTopic, Vec<Target>)], bytes_max: usize, isolation: Isolation) -> Answer {
    let mut answer = Answer { topics: Vec::with_capacity(topics.len()), bytes: 0, failed: false };
    for (topic, targets) in topics {
        let mut partitions = Vec::with_capacity(targets.len());
        for target in targets {
            let data = read_one(target, bytes_max.saturating_sub(answer.bytes), answer.bytes == 0, isolation);
            answer.failed |= data.error_code != 0;
            answer.bytes += data.records.as_ref().map_or(0, Bytes::len);
            partitions.push(data);
        }
        answer.topics.push(
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions),
        );
    }
    answer
}

fn read_one(target: &Target, bytes_left: usize, at_least_one: bool, isolation: Isolation) -> PartitionData {
    // Empty, not null: librdkafka takes null for a message set of -1 bytes.
    let data = PartitionData::default()
        .with_partition_index(target.request.partition)
        .with_aborted_transactions(Some(Vec::new()))
        .with_records(Some(Bytes::new()));
    let failed = |data: PartitionData, code: i16| {
        data.with_error_code(code).with_high_watermark(-1).with_last_stable_offset(-1).with_log_start_offset(-1)
    };
    let partition = match &target.partition {
        Ok(partition) => partition,
        Err(error) => return failed(data, error.code()),
    };
    let bytes_max = usize::try_from(target.request.partition_max_bytes).unwrap_or(0).min(bytes_left);
    let offset = target.request.fetch_offset;
    let read = partition
        .read_isolated(offset, bytes_max, at_least_one, isolation)
        .and_then(|read| Ok((aborted(partition, offset, &read, isolation)?, read)));
    match read {
        Ok((aborted, read)) => data
            .with_high_watermark(read.high_watermark)
            .with_last_stable_offset(read.last_stable_offset)
            .with_log_start_offset(read.log_start_offset)
            .with_aborted_transactions(Some(aborted))
            .with_records(Some(read.batches)),
        Err(error) => failed(data, error.code()),
    }
}

/// Which of the transactions in it a reader of committed records must skip.
fn aborted(
    partition: &Partition,
    offset: i64,
    read: &Read,
    isolation: Isolation,
) -> Result<Vec<AbortedTransaction>, ReadError> {
    let (Isolation::Committed, Some(end)) = (isolation, read.end_offset()) else { return Ok(Vec::new()) };
    let aborted = partition.aborted_transactions(offset, end)?.into_iter().map(|aborted| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(aborted.producer_id))
            .with_first_offset(aborted.first_offset)
    });
    Ok(aborted.collect())
}
