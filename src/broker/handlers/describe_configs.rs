//! DescribeConfigs (32), versions 1-4. Topics, and of the broker what clients look for.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::create_topics::{SOURCE_DEFAULT, SOURCE_TOPIC};
use super::text;
use crate::broker::node::{NODE_ID, Node};
use crate::broker::topic_config::Config;

pub(super) const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;
/// `STATIC_BROKER_CONFIG`.
const SOURCE_BROKER: i8 = 4;
const TYPE_TEXT: i8 = 2;

/// Configs of topics and of this broker.
pub(crate) fn handle(node: &Node, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let synonyms = request.include_synonyms;
    let mut asked = std::collections::BTreeSet::new();
    let results = request
        .resources
        .into_iter()
        .filter(|resource| asked.insert((resource.resource_type, resource.resource_name.clone())))
        .map(|resource| describe(node, resource, synonyms));
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(node: &Node, resource: DescribeConfigsResource, synonyms: bool) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone());
    let failed = |error: ResponseError, message: &str| {
        result.clone().with_error_code(error.code()).with_error_message(Some(text(message)))
    };
    let mut configs: Vec<DescribeConfigsResourceResult> = match resource.resource_type {
        RESOURCE_TOPIC => match node.catalog.topic(&resource.resource_name) {
            Some(topic) => node.catalog.configs(&topic.overrides).iter().map(|config| tell(config, synonyms)).collect(),
            None => return failed(ResponseError::UnknownTopicOrPartition, "there is no such topic"),
        },
        RESOURCE_BROKER if *resource.resource_name == *NODE_ID.to_string() => broker_configs(node),
        RESOURCE_BROKER => return failed(ResponseError::InvalidRequest, "the only broker is 0"),
        _ => return failed(ResponseError::InvalidRequest, "only topics and the broker have configs here"),
    };
    if let Some(keys) = resource.configuration_keys {
        configs.retain(|config| keys.contains(&config.name));
    }
    result.with_configs(configs)
}

fn tell(config: &Config, synonyms: bool) -> DescribeConfigsResourceResult {
    let synonym = |value: &str, source| {
        DescribeConfigsSynonym::default().with_name(text(config.name)).with_value(Some(text(value))).with_source(source)
    };
    let mut known = Vec::new();
    if synonyms {
        if !config.is_default {
            known.push(synonym(&config.value, SOURCE_TOPIC));
        }
        known.push(synonym(&config.default, SOURCE_DEFAULT));
    }
    DescribeConfigsResourceResult::default()
        .with_name(text(config.name))
        .with_value(Some(text(config.value.clone())))
        .with_config_source(if config.is_default { SOURCE_DEFAULT } else { SOURCE_TOPIC })
        .with_config_type(config.config_type as i8)
        .with_synonyms(known)
}

fn broker_configs(node: &Node) -> Vec<DescribeConfigsResourceResult> {
    let rows = [
        ("auto.create.topics.enable", "false".to_owned()),
        ("default.replication.factor", "1".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("num.partitions", node.catalog.default_partitions().to_string()),
    ];
    let row = |(name, value): (&str, String)| {
        DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_read_only(true)
            .with_config_source(SOURCE_BROKER)
            .with_config_type(TYPE_TEXT)
    };
    rows.into_iter().map(row).collect()
}
