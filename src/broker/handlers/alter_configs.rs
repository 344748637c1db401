//! AlterConfigs (33), versions 0-2: replaces all configs of a topic. The broker's own are set by flags.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::describe_configs::RESOURCE_TOPIC;
use super::errors::KafkaError;
use super::text;
use crate::broker::node::Node;
use crate::broker::topic_config::{Overrides, validate};

/// Replaces configs, each resource for itself.
pub(crate) async fn handle(node: &Node, request: AlterConfigsRequest) -> AlterConfigsResponse {
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
    AlterConfigsResponse::default().with_responses(responses)
}

async fn alter(node: &Node, resource: AlterConfigsResource, validate_only: bool) -> Result<(), (i16, String)> {
    let mut overrides = Overrides::new();
    for config in resource.configs {
        let value =
            validate(&config.name, config.value.as_deref()).map_err(|error| (error.code(), error.to_string()))?;
        overrides.insert(config.name.to_string(), value);
    }
    let change = move |present: &mut Overrides| *present = overrides;
    apply(node, resource.resource_type, &resource.resource_name, change, validate_only).await
}

/// Changes a topic's overrides, or only says whether it could.
pub(super) async fn apply(
    node: &Node,
    resource_type: i8,
    name: &str,
    change: impl FnOnce(&mut Overrides) + Send + 'static,
    validate_only: bool,
) -> Result<(), (i16, String)> {
    if resource_type != RESOURCE_TOPIC {
        return Err((ResponseError::InvalidRequest.code(), "only configs of topics can be changed here".to_owned()));
    }
    if validate_only {
        let missing = || (ResponseError::UnknownTopicOrPartition.code(), format!("there is no topic {name}"));
        return node.catalog.topic(name).map(|_| ()).ok_or_else(missing);
    }
    node.catalog.alter(name.to_owned(), change).await.map_err(|error| (error.code(), error.to_string()))
}
