//! Fetch (1), versions 4-17. v12 flexible; v13 topics by id (KIP-516); v15 and later only add what brokers send.
//!
//! A fetch with too little to return waits until a high watermark moves, `max_wait_ms` at most. Whole batches, the
//! first of which contains the offset; at least one batch, however small the limits. v7: sessions (KIP-227), in which a
//! client names what changes and hears what changed; see `fetch_session`. A reader of committed records (isolation level 1) gets
//! what lies below the last stable offset, waits for that to move, and hears which transactions in it were aborted.
//! A partition that is named twice counts once, with what was said last: the sessions' map of partitions does the same.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{AbortedTransaction, PartitionData};
use kafka_protocol::messages::{FetchRequest, ProducerId, TopicName};
use tokio::time::Instant;
use uuid::Uuid;

use super::errors::KafkaError;
use super::fetch_encoder::{Fetched, FetchedTopic, encode};
use super::fetch_session::{self, Asked};
use super::{aside, isolation};
use crate::broker::answer::Part;
use crate::broker::budget::Share;
use crate::broker::fetch_sessions::{NO_SESSION, SessionError, Wanted};
use crate::broker::frame::{FrameError, Head};
use crate::broker::log::{Arrivals, Batches, Found, Isolation, Listening, Partition, ReadError};
use crate::broker::node::{LEADER_EPOCH, Node};

/// Bytes of records in one answer, whatever the client would take.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of these, so many may be copied; more stay in their files until they are sent.
const COPIED_BYTES_MAX: usize = 1024 * 1024;
/// The longest that a fetch may wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// More partitions than this are looked up away from the threads that serve connections, whether they are cached or not.
const LOOKED_UP_HERE_MAX: usize = 256;

/// What is wanted of one partition, and where it is found.
pub(super) struct Target {
    pub index: i32,
    pub wanted: Wanted,
    partition: Result<Partition, ResponseError>,
}

/// Name and id as the request has them, with a copy of the name: a request that waits does not hold its frame.
pub(super) struct Topic {
    pub name: TopicName,
    pub id: Uuid,
    pub targets: Vec<Target>,
}

/// All that a request asks for, each partition once.
pub(super) type Targets = Vec<Topic>;

/// What an answer may hold.
#[derive(Clone, Copy)]
struct Limits {
    bytes_max: usize,
    copied_bytes_max: usize,
    isolation: Isolation,
}

/// Records, or the wait for them; with the share of memory that their copies hold until they are sent.
pub(crate) async fn handle(
    node: &Arc<Node>,
    head: &Head,
    mut request: FetchRequest,
) -> Result<(Vec<Part>, Share), FrameError> {
    let refused = |error: SessionError, session_id: i32| {
        Ok((encode(head, (error.code(), session_id), &[])?, node.answers.take(0)))
    };
    let (asked, session) = match fetch_session::open(node, &mut request, head.version) {
        Ok(opened) => opened,
        Err(error) => return refused(error, NO_SESSION),
    };
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(RESPONSE_BYTES_MAX);
    let isolation = isolation(request.isolation_level);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max);
    let version = head.version;
    // Its strings hold its frame, and whoever waits holds nothing.
    drop(request);
    let is_long = asked.len() > LOOKED_UP_HERE_MAX;
    let targets = if is_long {
        let node = node.clone();
        aside(move || find_all(&node, asked, version)).await
    } else {
        find_all(node, asked, version)
    };
    let nothing_asked = targets.iter().all(|topic| topic.targets.is_empty());
    let targets = Arc::new(targets);
    let arrivals = Arrivals::new();
    let mut listening: Option<Vec<Listening>> = None;
    loop {
        let came = arrivals.bytes();
        let mut share = node.answers.take(bytes_max.min(COPIED_BYTES_MAX));
        let limits = Limits { bytes_max, copied_bytes_max: share.bytes(), isolation };
        let answer = if is_long || may_wait_for_disk(&targets) {
            let targets = targets.clone();
            aside(move || read_all(&targets, limits)).await
        } else {
            read_all(&targets, limits)
        };
        let enough = answer.bytes >= bytes_min || answer.failed || nothing_asked;
        if enough || Instant::now() >= deadline {
            let mut topics = answer.topics;
            let session_id = match fetch_session::close(node, &session, &targets, &mut topics, version) {
                Ok(session_id) => session_id,
                Err(error) => return refused(error, session.id()),
            };
            share.settle(answer.copied_bytes);
            return Ok((encode(head, (0, session_id), &topics)?, share));
        }
        // Who waits holds nothing meanwhile.
        let missing = bytes_min - answer.bytes;
        drop((answer, share));
        if listening.is_none() {
            let partitions = targets.iter().flat_map(|topic| &topic.targets).flat_map(|target| &target.partition);
            listening =
                Some(partitions.filter_map(|partition| partition.listen_isolated(&arrivals, isolation)).collect());
            // What came before is read, not heard.
            continue;
        }
        // In time or not, what is there is the answer.
        let _ = tokio::time::timeout_at(deadline, arrivals.reach(came + missing as u64)).await;
    }
}

fn find_all(node: &Node, asked: Asked, version: i16) -> Targets {
    asked.into_topics().map(|((name, id), partitions)| find(node, name, id, partitions, version)).collect()
}

fn find(node: &Node, name: TopicName, id: Uuid, partitions: Vec<(i32, Wanted)>, version: i16) -> Topic {
    let (known, missing) = if version >= 13 {
        (node.catalog.topic_by_id(id), ResponseError::UnknownTopicId)
    } else {
        (node.catalog.topic(&name), ResponseError::UnknownTopicOrPartition)
    };
    let target = |(index, wanted): (i32, Wanted)| {
        let partition = match &known {
            None => Err(missing),
            Some(_) if wanted.leader_epoch > LEADER_EPOCH => Err(ResponseError::UnknownLeaderEpoch),
            // Read from a leader that there was not.
            Some(_) if wanted.last_fetched_epoch > LEADER_EPOCH => Err(ResponseError::OffsetOutOfRange),
            Some(topic) => topic.partition(index).cloned().ok_or(ResponseError::UnknownTopicOrPartition),
        };
        Target { index, wanted, partition }
    };
    Topic { name, id, targets: partitions.into_iter().map(target).collect() }
}

/// Whoever is behind reads what the page cache may have let go; the tail was written just now.
fn may_wait_for_disk(targets: &Targets) -> bool {
    let may_wait = |target: &Target| {
        target.partition.as_ref().is_ok_and(|partition| partition.may_wait_for_disk(target.wanted.offset))
    };
    targets.iter().flat_map(|topic| &topic.targets).any(may_wait)
}

struct Answer {
    topics: Vec<FetchedTopic>,
    bytes: usize,
    copied_bytes: usize,
    failed: bool,
}

fn read_all(targets: &Targets, limits: Limits) -> Answer {
    let mut answer = Answer { topics: Vec::with_capacity(targets.len()), bytes: 0, copied_bytes: 0, failed: false };
    for topic in targets {
        let mut partitions = Vec::with_capacity(topic.targets.len());
        for target in &topic.targets {
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
        answer.topics.push(FetchedTopic { name: topic.name.clone(), id: topic.id, partitions });
    }
    answer
}

fn read_one(target: &Target, left: Limits, at_least_one: bool) -> Fetched {
    let data = PartitionData::default().with_partition_index(target.index).with_aborted_transactions(Some(Vec::new()));
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
    let bytes_max = usize::try_from(target.wanted.bytes_max).unwrap_or(0).min(left.bytes_max);
    let offset = target.wanted.offset;
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
