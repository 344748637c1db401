//! DeleteTopics (20), versions 1-6. v6: by id as well as by name (KIP-516). Committed offsets of the topic go with it.
//! Deviation: internal topics cannot be deleted; in Kafka it is its tool that refuses.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};

use super::errors::KafkaError;
use super::text;
use crate::broker::internal_topic::is_internal;
use crate::broker::node::Node;

/// Deletes topics, each for itself.
pub(crate) async fn handle(node: &Node, request: DeleteTopicsRequest, version: i16) -> DeleteTopicsResponse {
    let by_name = |name: TopicName| DeleteTopicState::default().with_name(Some(name));
    let wanted: Vec<_> =
        if version >= 6 { request.topics } else { request.topic_names.into_iter().map(by_name).collect() };
    let mut responses = Vec::with_capacity(wanted.len());
    for topic in wanted {
        responses.push(delete(node, topic).await);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete(node: &Node, wanted: DeleteTopicState) -> DeletableTopicResult {
    let result = DeletableTopicResult::default().with_topic_id(wanted.topic_id).with_name(wanted.name.clone());
    let name = match &wanted.name {
        Some(name) => name.to_string(),
        None => match node.catalog.topic_by_id(wanted.topic_id) {
            Some(topic) => topic.name.clone(),
            None => return result.with_error_code(ResponseError::UnknownTopicId.code()),
        },
    };
    if is_internal(&name) {
        let message = format!("{name} is the broker's own");
        let code = ResponseError::InvalidTopicException.code();
        return result.with_error_code(code).with_error_message(Some(text(message)));
    }
    match node.catalog.delete(name.clone()).await {
        Ok(id) => {
            let gone = name.clone();
            if let Err(error) = node.groups.forget_offsets(None, move |(topic, _)| *topic == gone).await {
                tracing::error!(topic = name, "the topic is deleted, offsets committed for it remain: {error}");
            }
            result.with_topic_id(id).with_name(Some(TopicName(text(name))))
        }
        Err(error) => result.with_error_code(error.code()).with_error_message(Some(text(error.to_string()))),
    }
}
