//! OffsetCommit (8), versions 2-9. v2-4 may say for how long offsets are kept; v6 leader epoch; v7 static members.
//! Answered when durable.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::errors::KafkaError;
use crate::broker::group::{CommittedOffset, Committer, GroupError, StoreError};
use crate::broker::node::Node;

/// Kafka's `offset.metadata.max.bytes`, which counts UTF-16 units.
pub(super) const METADATA_UNITS_MAX: usize = 4096;

/// Commits offsets, each partition for itself.
pub(crate) async fn handle(node: &Node, request: OffsetCommitRequest, version: i16) -> OffsetCommitResponse {
    let by = Committer::new(
        &request.member_id,
        request.group_instance_id.as_deref(),
        request.generation_id_or_member_epoch,
        node.is_there(),
    );
    let allowed = node.groups.check_commit(&request.group_id, &by);
    let refused = allowed.err().map(|error| match error {
        // The number of this error is known to clients from version 9 on.
        GroupError::NotFound if version < 9 => GroupError::IllegalGeneration.code(),
        error => error.code(),
    });
    let commit_timestamp_ms = node.now_ms();
    let retention_ms = Some(request.retention_time_ms).filter(|retention_ms| *retention_ms >= 0);
    let expire_timestamp_ms = retention_ms.map(|retention_ms| commit_timestamp_ms.saturating_add(retention_ms));
    // Of a partition that is named twice, the last mention counts.
    let mut offsets = BTreeMap::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = node.catalog.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let exists = known.as_ref().is_some_and(|topic| topic.partition(asked.partition_index).is_some());
            let metadata = asked.committed_metadata.as_deref().unwrap_or_default().to_owned();
            let error = if let Some(code) = refused {
                code
            } else if !exists {
                ResponseError::UnknownTopicOrPartition.code()
            } else if metadata.encode_utf16().count() > METADATA_UNITS_MAX {
                ResponseError::OffsetMetadataTooLarge.code()
            } else {
                let (offset, leader_epoch) = (asked.committed_offset, asked.committed_leader_epoch);
                let committed =
                    CommittedOffset { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms };
                offsets.insert((topic.name.to_string(), asked.partition_index), committed);
                0
            };
            partitions.push((asked.partition_index, error));
        }
        // A topic without partitions asks for nothing.
        if !partitions.is_empty() {
            topics.push((topic.name, partitions));
        }
    }
    let failed = match offsets.is_empty() {
        true => None,
        false => node.groups.commit(&request.group_id, by, offsets.into_iter().collect()).await.err(),
    };
    if let Some(error) = failed.as_ref().filter(|error| !matches!(error, StoreError::Member(_))) {
        tracing::error!(group = request.group_id.as_str(), "offsets are not committed: {error}");
    }
    let failed = failed.map_or(0, |error| error.code());
    let partition = |(index, error): (i32, i16)| {
        let code = if error == 0 { failed } else { error };
        OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
    };
    let topic = |(name, partitions): (_, Vec<(i32, i16)>)| {
        OffsetCommitResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions.into_iter().map(partition).collect())
    };
    OffsetCommitResponse::default().with_topics(topics.into_iter().map(topic).collect())
}
