//! ListOffsets (2), versions 1-9. v2 isolation level: to a reader of committed records the log ends at the last stable
//! offset; v7 the offset of the largest timestamp (-3, KIP-734); v8 and v9 tiered storage (-4 is the log's start, -5
//! nothing, as there is none). Other negative times, and these before their version, are refused; so is, once, a partition
//! that is named twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use kafka_protocol::protocol::StrBytes;

use super::aside;
use super::errors::KafkaError;
use super::isolation;
use crate::broker::log::{Isolation, Partition, ReadError};
use crate::broker::node::{LEADER_EPOCH, Node};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Offsets by time or by name.
pub(crate) async fn handle(node: &Arc<Node>, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    let by_time =
        |asked: &ListOffsetsPartition| !matches!(asked.timestamp, LATEST | EARLIEST | EARLIEST_LOCAL | LATEST_TIERED);
    if request.topics.iter().flat_map(|topic| &topic.partitions).any(by_time) {
        // Looks into files, of all segments if need be.
        let node = node.clone();
        return aside(move || all(&node, request, version)).await;
    }
    all(node, request, version)
}

fn all(node: &Node, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    let isolation = isolation(request.isolation_level);
    let mut mentions: HashMap<(StrBytes, i32), usize> = HashMap::new();
    for topic in &request.topics {
        for asked in &topic.partitions {
            *mentions.entry((topic.name.0.clone(), asked.partition_index)).or_default() += 1;
        }
    }
    let topics = request.topics.into_iter().map(|topic| {
        let known = node.catalog.topic(&topic.name);
        let mut refused = HashSet::new();
        let partitions = topic.partitions.into_iter().filter_map(|asked| {
            let found = known.as_ref().and_then(|topic| topic.partition(asked.partition_index));
            let is_twice = mentions.get(&(topic.name.0.clone(), asked.partition_index)).is_some_and(|count| *count > 1);
            if !is_twice {
                return Some(answer(&asked, found, version, isolation));
            }
            refused.insert(asked.partition_index).then(|| refuse(&asked, ResponseError::InvalidRequest))
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn answer(
    asked: &ListOffsetsPartition,
    partition: Option<&Partition>,
    version: i16,
    isolation: Isolation,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    let Some(partition) = partition else { return refuse(asked, ResponseError::UnknownTopicOrPartition) };
    if asked.current_leader_epoch > LEADER_EPOCH {
        return refuse(asked, ResponseError::UnknownLeaderEpoch);
    }
    if version < first_version(asked.timestamp) {
        return refuse(asked, ResponseError::UnsupportedVersion);
    }
    match offset(partition, asked.timestamp, isolation) {
        Ok(Some((offset, timestamp))) => {
            // The field exists from version 4 on; before that it must be unset.
            let leader_epoch = if version >= 4 { LEADER_EPOCH } else { -1 };
            response.with_offset(offset).with_timestamp(timestamp).with_leader_epoch(leader_epoch)
        }
        Ok(None) => response.with_offset(-1).with_timestamp(-1),
        Err(error) => refuse(asked, error.kafka()),
    }
}

fn refuse(asked: &ListOffsetsPartition, error: ResponseError) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_error_code(error.code())
        .with_offset(-1)
        .with_timestamp(-1)
}

/// In which version a question can be asked first; in none of ours, if it is none.
fn first_version(timestamp: i64) -> i16 {
    match timestamp {
        0.. | LATEST | EARLIEST => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        _ => i16::MAX,
    }
}

fn offset(partition: &Partition, timestamp: i64, isolation: Isolation) -> Result<Option<(i64, i64)>, ReadError> {
    let end = match isolation {
        Isolation::Uncommitted => partition.high_watermark(),
        Isolation::Committed => partition.last_stable_offset(),
    };
    let found = match timestamp {
        LATEST => return Ok(Some((end, -1))),
        EARLIEST | EARLIEST_LOCAL => return Ok(Some((partition.log_start_offset(), -1))),
        MAX_TIMESTAMP => partition.offset_of_max_timestamp(),
        LATEST_TIERED => Ok(None),
        time => partition.offset_for_timestamp(time),
    };
    let may_be_read = |(offset, _): &(i64, i64)| isolation == Isolation::Uncommitted || *offset < end;
    Ok(found?.filter(may_be_read))
}
