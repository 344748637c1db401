//! CreateTopics (19), versions 2-7. v4: -1 is the broker's default; v5 answers with what was created; v7 topic ids.
//!
//! One node: the replication factor is 1 or -1, and a replica assignment may name node 0 only. The configs of many
//! topics at once are told of the first ones, as far as an answer of some size goes. Internal topics are not created for
//! clients: the broker makes them as it needs them.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use uuid::Uuid;

use super::asked::AnswerRoom;
use super::errors::KafkaError;
use super::text;
use crate::broker::internal_topic::is_internal;
use crate::broker::node::{NODE_ID, Node};
use crate::broker::topic_config::Config;

/// What a config takes in an answer, about.
const CONFIG_BYTES: usize = 256;

struct Created {
    id: Uuid,
    partitions: i32,
    configs: Vec<Config>,
}

/// Creates topics, each for itself.
pub(crate) async fn handle(node: &Node, request: CreateTopicsRequest, version: i16) -> CreateTopicsResponse {
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &request.topics {
        *names.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut room = AnswerRoom::new(node.limits.waiting_answer_bytes_max);
    let mut results = Vec::with_capacity(names.len());
    for topic in request.topics {
        let name = topic.name.clone();
        match names.insert(name.to_string(), 0) {
            // The second mention of a name that stands there more than once.
            Some(0) => continue,
            Some(1) => {}
            _ => {
                results.push(failed(CreatableTopicResult::default().with_name(name), twice()));
                continue;
            }
        }
        let result = CreatableTopicResult::default().with_name(name);
        results.push(match create(node, topic, request.validate_only).await {
            Err(error) => failed(result, error),
            Ok(created) => {
                let result =
                    result.with_topic_id(created.id).with_num_partitions(created.partitions).with_replication_factor(1);
                // The field is not there before version 5, and must then be empty.
                let tells = version >= 5 && room.take(created.configs.len() * CONFIG_BYTES);
                let told = if tells { created.configs.iter().map(tell).collect() } else { Vec::new() };
                result.with_configs(Some(told))
            }
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

fn twice() -> (i16, String) {
    (ResponseError::InvalidRequest.code(), "the request names this topic more than once".to_owned())
}

fn failed(result: CreatableTopicResult, (code, message): (i16, String)) -> CreatableTopicResult {
    result.with_error_code(code).with_error_message(Some(text(message))).with_configs(Some(Vec::new()))
}

fn tell(config: &Config) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(text(config.name))
        .with_value(Some(text(config.holds.value.clone())))
        .with_config_source(config.holds.source as i8)
}

async fn create(node: &Node, topic: CreatableTopic, validate_only: bool) -> Result<Created, (i16, String)> {
    let told = |error: ResponseError, message: &str| (error.code(), message.to_owned());
    if is_internal(&topic.name) {
        return Err(told(ResponseError::TopicAlreadyExists, "the broker makes its own topics itself"));
    }
    if !matches!(topic.replication_factor, -1 | 1) {
        let message = "there is one node: the replication factor must be 1 (or -1, the default)";
        return Err(told(ResponseError::InvalidReplicationFactor, message));
    }
    let partitions = if topic.assignments.is_empty() {
        if topic.num_partitions == -1 { node.catalog.default_partitions() } else { topic.num_partitions }
    } else {
        let mut indexes: Vec<i32> = topic.assignments.iter().map(|replica| replica.partition_index).collect();
        indexes.sort_unstable();
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let message = "with a replica assignment, partitions and replication factor must be -1";
            return Err(told(ResponseError::InvalidRequest, message));
        }
        let alone = topic.assignments.iter().all(|replica| matches!(&replica.broker_ids[..], [id] if id.0 == NODE_ID));
        if !alone || !indexes.iter().copied().eq(0..indexes.len() as i32) {
            let message = "a replica assignment must name partitions from 0 on, each on node 0 only";
            return Err(told(ResponseError::InvalidReplicaAssignment, message));
        }
        indexes.len() as i32
    };
    if let Some(config) = topic.configs.iter().find(|config| config.value.is_none()) {
        return Err(told(ResponseError::InvalidConfig, &format!("config {} has no value", &*config.name)));
    }
    let settings = topic.configs.iter().map(|config| (&*config.name, config.value.as_deref().unwrap_or_default()));
    let overrides = node.catalog.overrides(settings).map_err(|error| (error.code(), error.to_string()))?;
    let configs = node.catalog.configs(&topic.name, &overrides);
    let id = node
        .catalog
        .create(topic.name.to_string(), partitions, overrides, validate_only)
        .await
        .map_err(|error| (error.code(), error.to_string()))?;
    Ok(Created { id, partitions, configs })
}
