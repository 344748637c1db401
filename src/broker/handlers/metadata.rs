//! Metadata (3), versions 0-13. v1: null asks for all topics; v10: topic ids (KIP-516).
//!
//! Deviation: topics are never created by asking for them, whatever the request allows.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use uuid::Uuid;

use super::{CLUSTER_OPERATIONS, OPERATIONS_UNKNOWN, TOPIC_OPERATIONS, text};
use crate::broker::catalog::{Topic, valid_name};
use crate::broker::node::{LEADER_EPOCH, NODE_ID, Node};

/// Brokers and topics.
pub(crate) fn handle(node: &Node, request: MetadataRequest, version: i16) -> MetadataResponse {
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { OPERATIONS_UNKNOWN };
    let all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let topics = if all {
        node.catalog.topics().iter().map(|topic| present(topic, operations)).collect()
    } else {
        // Asked for twice, by name or by id, answered once: an answer must not outgrow its question a thousand times.
        let mut asked = BTreeSet::new();
        let wanted = request.topics.unwrap_or_default();
        wanted
            .into_iter()
            .map(|topic| match topic.name {
                Some(name) if topic.topic_id.is_nil() => (Some(name), Uuid::nil()),
                // An id says more than a name.
                _ => (None, topic.topic_id),
            })
            .filter(|topic| asked.insert(topic.clone()))
            .map(|topic| match topic {
                (Some(name), _) => match node.catalog.topic(&name) {
                    Some(topic) => present(&topic, operations),
                    None if valid_name(&name) => absent(Some(name), ResponseError::UnknownTopicOrPartition),
                    None => absent(Some(name), ResponseError::InvalidTopicException),
                },
                (None, id) => match node.catalog.topic_by_id(id) {
                    Some(topic) => present(&topic, operations),
                    // Before version 12 a name cannot be null in the answer.
                    None => {
                        let name = (version < 12).then(TopicName::default);
                        absent(name, ResponseError::UnknownTopicId).with_topic_id(id)
                    }
                },
            })
            .collect()
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(text(node.host.clone()))
        .with_port(i32::from(node.port));
    let cluster_operations =
        if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { OPERATIONS_UNKNOWN };
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(node.cluster_id.clone())))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics)
        .with_cluster_authorized_operations(cluster_operations)
}

fn present(topic: &Topic, operations: i32) -> MetadataResponseTopic {
    let partition = |index: usize| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_partitions((0..topic.partitions.len()).map(partition).collect())
        .with_topic_authorized_operations(operations)
}

fn absent(name: Option<TopicName>, error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_name(name).with_error_code(error.code())
}
