//! OffsetDelete (47), version 0.
//!
//! Deviation: refused as a whole while the group has members; Kafka refuses only topics that they subscribe to.

use std::collections::BTreeSet;

use kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestPartition;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse, TopicName};

use super::asked::once;
use super::errors::KafkaError;
use crate::broker::group::{GroupError, OffsetKey};
use crate::broker::node::Node;

/// Forgets committed offsets.
pub(crate) async fn handle(node: &Node, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let failed = |error: GroupError| OffsetDeleteResponse::default().with_error_code(error.code());
    match node.groups.describe(&request.group_id, |group| group.members.is_empty()) {
        None => return failed(GroupError::NotFound),
        Some(false) => return failed(GroupError::NotEmpty),
        Some(true) => {}
    }
    let asked = request.topics.into_iter().map(|topic| (topic.name, topic.partitions));
    let topics = once(asked, |partition| partition.partition_index);
    let keys = |(name, partitions): &(TopicName, Vec<OffsetDeleteRequestPartition>)| {
        let name = name.to_string();
        partitions.iter().map(|partition| (name.clone(), partition.partition_index)).collect::<Vec<_>>()
    };
    let chosen: BTreeSet<OffsetKey> = topics.iter().flat_map(keys).collect();
    let gone = node.groups.forget_offsets(Some(request.group_id.to_string()), move |key| chosen.contains(key)).await;
    let code = gone.as_ref().err().map_or(0, KafkaError::code);
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partition = |asked: OffsetDeleteRequestPartition| {
            OffsetDeleteResponsePartition::default().with_partition_index(asked.partition_index).with_error_code(code)
        };
        let partitions = partitions.into_iter().map(partition).collect();
        OffsetDeleteResponseTopic::default().with_name(name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
