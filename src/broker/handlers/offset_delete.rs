//! OffsetDelete (47), version 0 (KIP-496). Topics that a group's members subscribe to keep their offsets; a group of
//! others than consumers, whose subscriptions nobody can read, keeps all of them while it has members.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::asked::once;
use super::errors::KafkaError;
use crate::broker::group::{GroupError, OffsetKey};
use crate::broker::node::Node;

/// Forgets committed offsets.
pub(crate) async fn handle(node: &Node, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let failed = |error: GroupError| OffsetDeleteResponse::default().with_error_code(error.code());
    if request.group_id.is_empty() {
        return failed(GroupError::InvalidGroup);
    }
    let allowed = node.groups.describe(&request.group_id, |group| group.members.is_empty() || group.is_of_consumers());
    match allowed {
        None => return failed(GroupError::NotFound),
        Some(false) => return failed(GroupError::NotEmpty),
        Some(true) => {}
    }
    let asked = request.topics.into_iter().map(|topic| (topic.name, topic.partitions));
    let topics = once(asked, |partition| partition.partition_index);
    let mut chosen: BTreeSet<OffsetKey> = BTreeSet::new();
    let mut refused: BTreeMap<OffsetKey, ResponseError> = BTreeMap::new();
    for (name, partitions) in &topics {
        let known = node.catalog.topic(name);
        let is_read = node.groups.describe(&request.group_id, |group| group.is_subscribed_to(name)) == Some(true);
        for partition in partitions {
            let key = (name.to_string(), partition.partition_index);
            let exists = known.as_ref().is_some_and(|topic| topic.partition(partition.partition_index).is_some());
            if !exists {
                refused.insert(key, ResponseError::UnknownTopicOrPartition);
            } else if is_read {
                refused.insert(key, ResponseError::GroupSubscribedToTopic);
            } else {
                chosen.insert(key);
            }
        }
    }
    let gone = node.groups.forget_offsets(Some(request.group_id.to_string()), move |key| chosen.contains(key)).await;
    let gone = gone.as_ref().err().map_or(0, KafkaError::code);
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|asked| {
            let index = asked.partition_index;
            let code = refused.get(&(name.to_string(), index)).map_or(gone, ResponseError::code);
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
