//! OffsetDelete (47), version 0 (KIP-496). Topics that a group's members subscribe to keep their offsets; a group of
//! others than consumers, whose subscriptions nobody can read, keeps all of them while it has members.

use std::collections::{BTreeSet, HashSet};

use kafka_protocol::ResponseError;
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
    let allowed = node.groups.describe(&request.group_id, |group| group.members.is_empty() || group.is_of_consumers());
    match allowed {
        None => return failed(GroupError::NotFound),
        Some(false) => return failed(GroupError::NotEmpty),
        Some(true) => {}
    }
    let asked = request.topics.into_iter().map(|topic| (topic.name, topic.partitions));
    let topics = once(asked, |partition| partition.partition_index);
    let is_read = |name: &TopicName| node.groups.describe(&request.group_id, |group| group.is_subscribed_to(name));
    let read: HashSet<TopicName> =
        topics.iter().map(|(name, _)| name).filter(|name| is_read(name) == Some(true)).cloned().collect();
    let keys = |(name, partitions): &(TopicName, Vec<OffsetDeleteRequestPartition>)| {
        let name = name.to_string();
        partitions.iter().map(|partition| (name.clone(), partition.partition_index)).collect::<Vec<_>>()
    };
    let chosen: BTreeSet<OffsetKey> = topics.iter().filter(|(name, _)| !read.contains(name)).flat_map(keys).collect();
    let gone = node.groups.forget_offsets(Some(request.group_id.to_string()), move |key| chosen.contains(key)).await;
    let gone = gone.as_ref().err().map_or(0, KafkaError::code);
    let topics = topics.into_iter().map(|(name, partitions)| {
        let code = if read.contains(&name) { ResponseError::GroupSubscribedToTopic.code() } else { gone };
        let partition = |asked: OffsetDeleteRequestPartition| {
            OffsetDeleteResponsePartition::default().with_partition_index(asked.partition_index).with_error_code(code)
        };
        let partitions = partitions.into_iter().map(partition).collect();
        OffsetDeleteResponseTopic::default().with_name(name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
