//! DescribeConfigs (32), versions 1-4. v3 adds documentation (KIP-226). Topics, and the broker's own.
//!
//! Of the broker's, those are not read only from which topics take their defaults. What the empty name stands for, all
//! brokers, has only what was set at run time.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::text;
use crate::broker::catalog::valid_name;
use crate::broker::node::{NODE_ID, Node};
use crate::broker::topic_config::{Config, ConfigSource, ConfigType, Setting};

pub(super) const RESOURCE_TOPIC: i8 = 2;
pub(super) const RESOURCE_BROKER: i8 = 4;

/// What of a config is told.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

/// Configs of topics and of this broker.
pub(crate) fn handle(node: &Node, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let wanted = Wanted { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let mut asked = std::collections::BTreeSet::new();
    let results = request
        .resources
        .into_iter()
        .filter(|resource| asked.insert((resource.resource_type, resource.resource_name.clone())))
        .map(|resource| describe(node, resource, wanted));
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(node: &Node, resource: DescribeConfigsResource, wanted: Wanted) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone());
    let failed = |error: ResponseError, message: &str| {
        result.clone().with_error_code(error.code()).with_error_message(Some(text(message)))
    };
    let mut configs = match resource.resource_type {
        RESOURCE_TOPIC => match node.catalog.topic(&resource.resource_name) {
            Some(topic) => node.catalog.configs(&topic.name, &topic.overrides),
            None if !valid_name(&resource.resource_name) => {
                return failed(ResponseError::InvalidTopicException, "no topic can have this name");
            }
            None => return failed(ResponseError::UnknownTopicOrPartition, "there is no such topic"),
        },
        RESOURCE_BROKER if *resource.resource_name == *NODE_ID.to_string() => broker_configs(node),
        RESOURCE_BROKER if resource.resource_name.is_empty() => node.catalog.cluster_configs(),
        RESOURCE_BROKER => return failed(ResponseError::InvalidRequest, "the only broker is 0"),
        _ => return failed(ResponseError::InvalidRequest, "only topics and the broker have configs here"),
    };
    // An empty list asks for all, as null does.
    if let Some(keys) = resource.configuration_keys.filter(|keys| !keys.is_empty()) {
        configs.retain(|config| keys.iter().any(|key| **key == *config.name));
    }
    result.with_configs(configs.iter().map(|config| tell(config, wanted)).collect())
}

fn tell(config: &Config, wanted: Wanted) -> DescribeConfigsResourceResult {
    let synonyms = std::iter::once(&config.holds).chain(&config.beneath).filter(|_| wanted.synonyms).map(synonym);
    DescribeConfigsResourceResult::default()
        .with_name(text(config.name))
        .with_value(Some(text(config.holds.value.clone())))
        .with_read_only(config.is_read_only)
        .with_config_source(config.holds.source as i8)
        .with_config_type(config.config_type as i8)
        .with_synonyms(synonyms.collect())
        .with_documentation(wanted.documentation.then(|| text(config.documentation)))
}

fn synonym(setting: &Setting) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(text(setting.name))
        .with_value(Some(text(setting.value.clone())))
        .with_source(setting.source as i8)
}

/// The broker's own, in order of name: what topics take their defaults from, and what tools look for.
fn broker_configs(node: &Node) -> Vec<Config> {
    use ConfigType::{Boolean, Int, List, Long, Short, Text};
    let number = |number: usize| number.to_string();
    let listener = format!("PLAINTEXT://{}:{}", node.host, node.port);
    let pause_ms = node.limits.housekeeping_pause.as_millis().to_string();
    let delay_ms = node.groups.initial_delay().as_millis().to_string();
    let creates = node.catalog.creates_when_asked();
    let idle_ms = node.limits.idle_timeout.as_millis().to_string();
    let own: [(&'static str, String, ConfigType, &'static str); 20] = [
        ("advertised.listeners", listener, Text, "Where clients are told to connect to."),
        ("auto.create.topics.enable", creates.to_string(), Boolean, "Whether asking for a topic makes it."),
        ("broker.id", NODE_ID.to_string(), Int, "The number of the only node."),
        ("connections.max.idle.ms", idle_ms, Long, "A connection without requests is closed after this."),
        ("default.replication.factor", "1".into(), Int, "There is one node."),
        ("delete.topic.enable", "true".into(), Boolean, "Topics can be deleted."),
        ("group.initial.rebalance.delay.ms", delay_ms, Int, "How long a new group waits for more members."),
        ("group.max.session.timeout.ms", "1800000".into(), Int, "The longest session timeout of a group's member."),
        ("group.min.session.timeout.ms", "100".into(), Int, "The shortest session timeout of a group's member."),
        ("log.cleaner.enable", "true".into(), Boolean, "Compacted topics are compacted."),
        ("log.retention.check.interval.ms", pause_ms, Long, "Between two looks for what to cut or to compact."),
        ("max.connections", number(node.limits.connections_max), Int, "Open connections; further ones are closed."),
        ("node.id", NODE_ID.to_string(), Int, "The number of the only node."),
        ("num.partitions", node.catalog.default_partitions().to_string(), Int, "What -1 partitions stand for."),
        ("offsets.topic.replication.factor", "1".into(), Short, "There is one node."),
        ("process.roles", "broker,controller".into(), List, "One node does all."),
        ("queued.max.request.bytes", number(node.limits.all_requests_bytes_max), Long, "Large requests in memory."),
        ("socket.request.max.bytes", number(node.limits.frame_bytes_max), Int, "The largest request."),
        ("transaction.state.log.min.isr", "1".into(), Int, "There is one node."),
        ("transaction.state.log.replication.factor", "1".into(), Short, "There is one node."),
    ];
    let own = own.into_iter().map(|(name, value, config_type, documentation)| Config {
        name,
        holds: Setting { name, value, source: ConfigSource::StaticBroker },
        beneath: Vec::new(),
        config_type,
        documentation,
        is_read_only: true,
    });
    let mut all: Vec<Config> = own.chain(node.catalog.broker_configs()).collect();
    all.sort_by_key(|config| config.name);
    all
}
