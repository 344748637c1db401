//! IncrementalAlterConfigs (44), versions 0-1: sets and unsets single configs of a topic or of the broker (KIP-339).
//!
//! Append and subtract work on lists. All changes of a resource hold, or none.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::alter_configs::{apply, mentioned_twice, named_once, named_twice};
use super::text;
use crate::broker::node::Node;
use crate::broker::topic_config::Operation;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Changes configs, each resource for itself.
pub(crate) async fn handle(node: &Node, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let named = request.resources.iter().map(|resource| (resource.resource_type, resource.resource_name.clone()));
    let twice = named_twice(named);
    for resource in request.resources {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let is_twice = twice.contains(&(resource.resource_type, resource.resource_name.clone()));
        let altered =
            if is_twice { Err(mentioned_twice()) } else { alter(node, resource, request.validate_only).await };
        responses.push(match altered {
            Ok(()) => response,
            Err((code, message)) => response.with_error_code(code).with_error_message(Some(text(message))),
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(node: &Node, resource: AlterConfigsResource, validate_only: bool) -> Result<(), (i16, String)> {
    let changes = named_once(resource.configs.into_iter().map(change))?;
    apply(node, resource.resource_type, &resource.resource_name, false, changes, validate_only).await
}

fn change(config: AlterableConfig) -> Result<(StrBytes, Option<Operation>), (i16, String)> {
    let value = config.value.map(|value| value.to_string());
    let operation = match config.config_operation {
        SET => value.map(Operation::Set),
        DELETE => Some(Operation::Delete),
        APPEND => value.map(Operation::Append),
        SUBTRACT => value.map(Operation::Subtract),
        other => {
            return Err((ResponseError::InvalidRequest.code(), format!("there is no config operation {other}")));
        }
    };
    Ok((config.name, operation))
}
