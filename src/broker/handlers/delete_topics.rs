//! DeleteTopics (20), versions 1-6. v6: by id as well as by name (KIP-516). Committed offsets of the topic go with it.
//! A topic that a request names twice, in whatever way, stays.
//! Deviation: internal topics cannot be deleted; in Kafka it is its tool that refuses.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};

use uuid::Uuid;

use super::errors::KafkaError;
use super::text;
use crate::broker::internal_topic::is_internal;
use crate::broker::node::Node;

/// Deletes topics, each for itself.
pub(crate) async fn handle(node: &Node, request: DeleteTopicsRequest, version: i16) -> DeleteTopicsResponse {
    let by_name = |name: TopicName| DeleteTopicState::default().with_name(Some(name));
    let wanted: Vec<_> =
        if version >= 6 { request.topics } else { request.topic_names.into_iter().map(by_name).collect() };
    // What is found now is what a name and an id are compared by, whatever happens meanwhile.
    let wanted: Vec<_> = wanted.into_iter().map(|topic| (key(node, &topic), topic)).collect();
    let mut mentions: BTreeMap<Key, usize> = BTreeMap::new();
    for (key, _) in &wanted {
        *mentions.entry(key.clone()).or_default() += 1;
    }
    let mut responses = Vec::with_capacity(wanted.len());
    for (key, topic) in wanted {
        match mentions.insert(key.clone(), 0) {
            // The second mention of a topic that stands there more than once.
            Some(0) => {}
            Some(1) if topic.name.is_some() == topic.topic_id.is_nil() => responses.push(delete(node, topic).await),
            _ => responses.push(refused(key, topic)),
        }
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

/// What tells topics apart, however they are named: a name, or an id that none has.
type Key = Result<String, Uuid>;

fn key(node: &Node, wanted: &DeleteTopicState) -> Key {
    match &wanted.name {
        Some(name) => Ok(name.to_string()),
        None => match node.catalog.topic_by_id(wanted.topic_id) {
            Some(topic) => Ok(topic.name.clone()),
            None => Err(wanted.topic_id),
        },
    }
}

fn refused(key: Key, wanted: DeleteTopicState) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_name(key.ok().map(|name| TopicName(text(name))))
        .with_topic_id(wanted.topic_id)
        .with_error_code(ResponseError::InvalidRequest.code())
        .with_error_message(Some(text("a topic is named once, by its name or by its id")))
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
