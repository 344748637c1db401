//! Metadata (3), versions 0-13. v1: null asks for all topics; v4: a client may forbid that asking creates; v10: topic ids
//! (KIP-516).
//!
//! A topic that is asked for by name and not there is created, where broker and request allow it. Deviation: the answer
//! has it at once; Apache Kafka says UNKNOWN_TOPIC_OR_PARTITION meanwhile, and the client asks again.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use uuid::Uuid;

use super::{CLUSTER_OPERATIONS, OPERATIONS_UNKNOWN, TOPIC_OPERATIONS, text};
use crate::broker::catalog::{CatalogError, Topic, valid_name};
use crate::broker::internal_topic::is_internal;
use crate::broker::node::{LEADER_EPOCH, NODE_ID, Node};
use crate::broker::topic_config::Overrides;

/// Topics that one request may create; those beyond are created when they are asked for again.
const CREATED_MAX: usize = 1000;

/// Brokers and topics.
pub(crate) async fn handle(node: &Node, request: MetadataRequest, version: i16) -> MetadataResponse {
    if node.catalog.creates_when_asked() && request.allow_auto_topic_creation {
        create_missing(node, &request).await;
    }
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

/// What cannot be created is unknown in the answer, as it was.
async fn create_missing(node: &Node, request: &MetadataRequest) {
    let names = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
    let missing = names.filter(|name| node.catalog.topic(name).is_none() && valid_name(name) && !is_internal(name));
    for name in missing.take(CREATED_MAX) {
        let partitions = node.catalog.default_partitions();
        match node.catalog.create(name.to_string(), partitions, Overrides::new(), false).await {
            // Another client was faster, or the request names it twice.
            Ok(_) | Err(CatalogError::Exists(_)) => {}
            Err(error @ CatalogError::Collides(..)) => tracing::debug!("not created by being asked for: {error}"),
            Err(error) => {
                tracing::debug!("topic {} was asked for and cannot be created: {error}", name.as_str());
                // What the next ones would meet as well.
                return;
            }
        }
    }
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
        .with_is_internal(is_internal(&topic.name))
        .with_partitions((0..topic.partitions.len()).map(partition).collect())
        .with_topic_authorized_operations(operations)
}

fn absent(name: Option<TopicName>, error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_name(name).with_error_code(error.code())
}
