//! OffsetDelete (47), version 0.
//!
//! Deviation: refused as a whole while the group has members; Kafka refuses only topics that they subscribe to.

use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::errors::KafkaError;
use crate::broker::group::GroupError;
use crate::broker::node::Node;

/// Forgets committed offsets.
pub(crate) async fn handle(node: &Node, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let failed = |error: GroupError| OffsetDeleteResponse::default().with_error_code(error.code());
    match node.groups.describe(&request.group_id, |group| group.members.is_empty()) {
        None => return failed(GroupError::NotFound),
        Some(false) => return failed(GroupError::NotEmpty),
        Some(true) => {}
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let indexes: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        let gone = node
            .groups
            .forget_offsets(Some(&request.group_id), |(name, index)| {
                name == topic.name.as_str() && indexes.contains(index)
            })
            .await;
        let code = gone.as_ref().err().map_or(0, KafkaError::code);
        let partition =
            |index: &i32| OffsetDeleteResponsePartition::default().with_partition_index(*index).with_error_code(code);
        let partitions = indexes.iter().map(partition).collect();
        topics.push(OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    OffsetDeleteResponse::default().with_topics(topics)
}
