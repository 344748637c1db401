//! AlterConfigs (33), versions 0-2: replaces all configs of a topic, or all that were set on the broker at run time.
//!
//! Of the broker's, those can be changed from which topics take their defaults (KIP-226); others are set by flags.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::describe_configs::{RESOURCE_BROKER, RESOURCE_TOPIC};
use super::errors::KafkaError;
use super::text;
use crate::broker::catalog::valid_name;
use crate::broker::node::{NODE_ID, Node};
use crate::broker::topic_config::{Defaults, Level, Operation, Overrides};

/// Replaces configs, each resource for itself.
pub(crate) async fn handle(node: &Node, request: AlterConfigsRequest) -> AlterConfigsResponse {
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
    AlterConfigsResponse::default().with_responses(responses)
}

async fn alter(node: &Node, resource: AlterConfigsResource, validate_only: bool) -> Result<(), (i16, String)> {
    let changes = resource.configs.into_iter().map(|config| Ok((config.name, config.value.map(|value| set(&value)))));
    let changes = named_once(changes)?;
    apply(node, resource.resource_type, &resource.resource_name, true, changes, validate_only).await
}

/// What a value sets.
pub(super) fn set(value: &str) -> Operation {
    Operation::Set(value.to_owned())
}

type Refusal = (i16, String);

/// Kind and name.
type Resource = (i8, StrBytes);

/// Resources that stand there more than once: which of the changes would hold is anybody's guess.
pub(super) fn named_twice(resources: impl Iterator<Item = Resource>) -> BTreeSet<Resource> {
    let mut seen = BTreeSet::new();
    resources.filter(|resource| !seen.insert(resource.clone())).collect()
}

/// Why none of its changes is made.
pub(super) fn mentioned_twice() -> Refusal {
    (ResponseError::InvalidRequest.code(), "the request names this resource more than once".to_owned())
}

/// The changes of one resource, each with an operation, and none twice.
pub(super) fn named_once(
    changes: impl Iterator<Item = Result<(StrBytes, Option<Operation>), Refusal>>,
) -> Result<Vec<(String, Operation)>, Refusal> {
    let invalid = |message: String| (ResponseError::InvalidRequest.code(), message);
    let mut named = BTreeMap::new();
    for change in changes {
        let (name, operation) = change?;
        let operation = operation.ok_or_else(|| invalid(format!("config {} has no value", &*name)))?;
        if named.insert(name.to_string(), operation).is_some() {
            return Err(invalid(format!("the request changes {} more than once", &*name)));
        }
    }
    Ok(named.into_iter().collect())
}

/// Changes what is set on a topic or on the broker, all or none, or only says whether it could; `anew` begins without any.
pub(super) async fn apply(
    node: &Node,
    resource_type: i8,
    name: &str,
    anew: bool,
    changes: Vec<(String, Operation)>,
    validate_only: bool,
) -> Result<(), Refusal> {
    let invalid = |message: &str| Err((ResponseError::InvalidRequest.code(), message.to_owned()));
    let altered = match resource_type {
        RESOURCE_BROKER => {
            let level = match name {
                "" => Level::Cluster,
                name if *name == *NODE_ID.to_string() => Level::Broker,
                _ => return invalid("the only broker is 0; the empty name stands for all"),
            };
            node.catalog.alter_broker(level, anew, changes, validate_only).await
        }
        RESOURCE_TOPIC if name.is_empty() => return invalid("a topic's name is not empty"),
        RESOURCE_TOPIC if !valid_name(name) => {
            let message = format!("no topic can have the name {name:?}");
            return Err((ResponseError::InvalidTopicException.code(), message));
        }
        RESOURCE_TOPIC => {
            let change = move |defaults: &Defaults, overrides: &mut Overrides| {
                if anew {
                    overrides.clear();
                }
                changes.into_iter().try_for_each(|(name, operation)| defaults.apply(overrides, &name, operation))
            };
            node.catalog.alter(name.to_owned(), validate_only, change).await
        }
        _ => return invalid("only configs of topics and of the broker can be changed here"),
    };
    altered.map_err(|error| (error.code(), error.to_string()))
}
