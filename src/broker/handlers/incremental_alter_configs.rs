//! IncrementalAlterConfigs (44), versions 0-1: sets and unsets single configs of a topic (KIP-339).
//!
//! Append and subtract work on lists; the only list here is `cleanup.policy`.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::alter_configs::apply;
use super::errors::KafkaError;
use super::text;
use crate::broker::node::Node;
use crate::broker::topic_config::{Overrides, validate};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
const LIST: &str = "cleanup.policy";

/// Changes configs, each resource for itself.
pub(crate) async fn handle(node: &Node, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match alter(node, resource, request.validate_only).await {
            Ok(()) => response,
            Err((code, message)) => response.with_error_code(code).with_error_message(Some(text(message))),
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(node: &Node, resource: AlterConfigsResource, validate_only: bool) -> Result<(), (i16, String)> {
    let present = node.catalog.topic(&resource.resource_name).map(|topic| topic.overrides.clone()).unwrap_or_default();
    let mut changes = Vec::with_capacity(resource.configs.len());
    for config in resource.configs {
        changes.push(change(&config, &present)?);
    }
    let change = move |overrides: &mut Overrides| {
        for (name, value) in changes {
            match value {
                Some(value) => _ = overrides.insert(name, value),
                None => _ = overrides.remove(&name),
            }
        }
    };
    apply(node, resource.resource_type, &resource.resource_name, change, validate_only).await
}

fn change(config: &AlterableConfig, present: &Overrides) -> Result<(String, Option<String>), (i16, String)> {
    let name = config.name.to_string();
    let value = match config.config_operation {
        SET => config.value.as_deref().map(str::to_owned),
        DELETE => return Ok((name, None)),
        APPEND | SUBTRACT if name == LIST => {
            let mut words: Vec<&str> = present.get(LIST).map_or("delete", String::as_str).split(',').collect();
            let given = config.value.as_deref().unwrap_or_default();
            words.retain(|word| *word != given);
            if config.config_operation == APPEND {
                words.push(given);
            }
            Some(words.join(","))
        }
        APPEND | SUBTRACT => {
            return Err((ResponseError::InvalidConfig.code(), format!("{name} is no list")));
        }
        other => {
            return Err((ResponseError::InvalidRequest.code(), format!("there is no config operation {other}")));
        }
    };
    match validate(&name, value.as_deref()) {
        Ok(value) => Ok((name, Some(value))),
        Err(error) => Err((error.code(), error.to_string())),
    }
}
