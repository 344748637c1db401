//! Fetch (1), versions 4-17. v12 flexible; v13 topics by id (KIP-516); v15 and later only add what brokers send.
//!
//! A fetch with too little to return waits until a high watermark moves, `max_wait_ms` at most. Whole batches, the
//! first of which contains the offset; at least one batch, however small the limits. Fetch sessions (KIP-227) are
//! declined by session id 0, which every client must accept. A reader of committed records (isolation level 1) gets
//! what lies below the last stable offset, waits for that to move, and hears which transactions in it were aborted.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::ProducerId;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, PartitionData};
use tokio::time::Instant;

use super::aside;
use super::errors::KafkaError;
use super::fetch_encoder::{Fetched, FetchedTopic, encode};
use super::isolation;
use crate::broker::answer::Part;
use crate::broker::budget::Share;
use crate::broker::frame::{FrameError, Head};
use crate::broker::log::{Arrivals, Batches, Found, Isolation, Listening, Partition, ReadError};
use crate::broker::node::{LEADER_EPOCH, Node};

/// Bytes of records in one answer, whatever the client would take.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of these, so many may be copied; more stay in their files until they are sent.
const COPIED_BYTES_MAX: usize = 1024 * 1024;
/// The longest that a fetch may wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Where one partition of the request is found.
struct Target {
    request: FetchPartition,
    partition: Result<Partition, ResponseError>,
}

/// All that a request asks for.
type Targets = Vec<(FetchTopic, Vec<Target>)>;

/// What an answer may hold.
#[derive(Clone, Copy)]
struct Limits {
    bytes_max: usize,
    copied_bytes_max: usize,
    isolation: Isolation,
}

/// Records, or the wait for them; with the share of memory that their copies hold until they are sent.
pub(crate) async fn handle(node: &Node, head: &Head, request: FetchRequest) -> Result<(Vec<Part>, Share), FrameError> {
    if request.session_id != 0 {
        let parts = encode(head, ResponseError::FetchSessionIdNotFound.code(), &[])?;
        return Ok((parts, node.answers.take(0)));
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(RESPONSE_BYTES_MAX);
    let isolation = isolation(request.isolation_level);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max);
    let targets: Targets = request.topics.into_iter().map(|topic| find(node, topic, head.version)).collect();
    let nothing_asked = targets.iter().all(|(_, targets)| targets.is_empty());
    let targets = Arc::new(targets);
    let arrivals = Arrivals::new();
    let mut listening: Option<Vec<Listening>> = None;
    loop {
        let came = arrivals.bytes();
        let mut share = node.answers.take(bytes_max.min(COPIED_BYTES_MAX));
        let limits = Limits { bytes_max, copied_bytes_max: share.bytes(), isolation };
        let answer = if may_wait_for_disk(&targets) {
            let targets = targets.clone();
            aside(move || read_all(&targets, limits)).await
        } else {
            read_all(&targets, limits)
        };
        let enough = answer.bytes >= bytes_min || answer.failed || nothing_asked;
        if enough || Instant::now() >= deadline {
            share.settle(answer.copied_bytes);
            return Ok((encode(head, 0, &answer.topics)?, share));
        }
        // Who waits holds nothing meanwhile.
        let missing = bytes_min - answer.bytes;
        drop((answer, share));
        if listening.is_none() {
            let partitions = targets.iter().flat_map(|(_, targets)| targets).flat_map(|target| &target.partition);
            listening = Some(partitions.filter_map(|partition| partition.listen(&arrivals)).collect());
            // What came before is read, not heard.
            continue;
        }
        // In time or not, what is there is the answer.
        let _ = tokio::time::timeout_at(deadline, arrivals.reach(came + missing as u64)).await;
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
fn may_wait_for_disk(targets: &Targets) -> bool {
    let may_wait = |target: &Target| {
        target.partition.as_ref().is_ok_and(|partition| partition.may_wait_for_disk(target.request.fetch_offset))
    };
    targets.iter().flat_map(|(_, targets)| targets).any(may_wait)
}

struct Answer {
    topics: Vec<FetchedTopic>,
    bytes: usize,
    copied_bytes: usize,
    failed: bool,
}

fn read_all(targets: &Targets, limits: Limits) -> Answer {
    let mut answer = Answer { topics: Vec::with_capacity(targets.len()), bytes: 0, copied_bytes: 0, failed: false };
    for (topic, targets) in targets {
        let mut partitions = Vec::with_capacity(targets.len());
        for target in targets {
            let left = Limits {
                bytes_max: limits.bytes_max.saturating_sub(answer.bytes),
                copied_bytes_max: limits.copied_bytes_max.saturating_sub(answer.copied_bytes),
                ..limits
            };
            let fetched = read_one(target, left, answer.bytes == 0);
            answer.failed |= fetched.data.error_code != 0;
            answer.bytes += fetched.batches.len();
            if let Batches::Copied(copied) = &fetched.batches {
                answer.copied_bytes += copied.len();
            }
            partitions.push(fetched);
        }
        answer.topics.push(FetchedTopic { name: topic.topic.clone(), id: topic.topic_id, partitions });
    }
    answer
}

fn read_one(target: &Target, left: Limits, at_least_one: bool) -> Fetched {
    let data = PartitionData::default()
        .with_partition_index(target.request.partition)
        .with_aborted_transactions(Some(Vec::new()));
    let failed = |data: PartitionData, code: i16| {
        let data =
            data.with_error_code(code).with_high_watermark(-1).with_last_stable_offset(-1).with_log_start_offset(-1);
        // Empty, not null: librdkafka takes null for a message set of -1 bytes.
        Fetched { data, batches: Batches::none() }
    };
    let partition = match &target.partition {
        Ok(partition) => partition,
        Err(error) => return failed(data, error.code()),
    };
    let bytes_max = usize::try_from(target.request.partition_max_bytes).unwrap_or(0).min(left.bytes_max);
    let offset = target.request.fetch_offset;
    let found = partition
        .find(offset, bytes_max, at_least_one, left.copied_bytes_max, left.isolation)
        .and_then(|found| Ok((aborted(partition, offset, &found, left.isolation)?, found)));
    match found {
        Ok((aborted, found)) => Fetched {
            data: data
                .with_high_watermark(found.high_watermark)
                .with_last_stable_offset(found.last_stable_offset)
                .with_log_start_offset(found.log_start_offset)
                .with_aborted_transactions(Some(aborted)),
            batches: found.batches,
        },
        Err(error) => failed(data, error.code()),
    }
}

/// Which of the transactions in it a reader of committed records must skip.
fn aborted(
    partition: &Partition,
    offset: i64,
    found: &Found,
    isolation: Isolation,
) -> Result<Vec<AbortedTransaction>, ReadError> {
    if isolation == Isolation::Uncommitted {
        return Ok(Vec::new());
    }
    let aborted = partition.aborted_transactions(offset, found.end_offset)?.into_iter().map(|aborted| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(aborted.producer_id))
            .with_first_offset(aborted.first_offset)
    });
    Ok(aborted.collect())
}
