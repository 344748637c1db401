//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, MetadataRequest,
};

use super::scenario::{Scenario, scenario};
use super::session::{Session, text};
use super::wire::frame;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub const SCENARIOS: &[Scenario] = &[
    scenario("DescribeConfigs of a topic's whole table", |s| {
        let topic = s.topic("t", 1);
        s.ask(describe(TOPIC, &topic, &[]));
    }),
    scenario("DescribeConfigs of some configs in each version", |s| {
        let topic = s.topic_with("t", 1, &[("cleanup.policy", "compact"), ("max.message.bytes", "2000")]);
        s.each(|_| describe(TOPIC, &topic, &["cleanup.policy", "max.message.bytes", "delete.retention.ms"]));
    }),
    scenario("DescribeConfigs with synonyms", |s| {
        let topic = s.topic_with("t", 1, &[("max.message.bytes", "2000")]);
        let request = describe(TOPIC, &topic, &["max.message.bytes", "delete.retention.ms", "cleanup.policy"]);
        s.ask(request.with_include_synonyms(true));
    }),
    scenario("DescribeConfigs of a name that there is not", |s| {
        let topic = s.topic("t", 1);
        s.ask(describe(TOPIC, &topic, &["no.such.config"]));
        let mut none = describe(TOPIC, &topic, &["x"]);
        none.resources[0].configuration_keys = Some(Vec::new());
        s.ask(none);
    }),
    scenario("DescribeConfigs of a topic that there is not", |s| {
        let name = s.name("none");
        s.each(|_| describe(TOPIC, &name, &[]));
        s.ask(describe(TOPIC, "", &[]));
        s.ask(describe(TOPIC, "a b", &[]));
    }),
    scenario("DescribeConfigs of brokers that there are not", |s| {
        for name in ["17", "x", "-1"] {
            s.ask(describe(BROKER, name, &[]));
        }
    }),
    scenario("DescribeConfigs of kinds that there are not", |s| {
        for kind in [0, 1, 3, 64, 99, -1] {
            s.ask(describe(kind, "x", &[]));
        }
    }),
    scenario("DescribeConfigs of what a broker tells", |s| {
        let node = s.quietly(|s| s.ask(MetadataRequest::default().with_topics(Some(Vec::new())))).brokers[0].node_id.0;
        let names = [
            "num.partitions",
            "default.replication.factor",
            "auto.create.topics.enable",
            "delete.topic.enable",
            "group.initial.rebalance.delay.ms",
            "group.min.session.timeout.ms",
            "group.max.session.timeout.ms",
            "message.max.bytes",
            "log.retention.ms",
            "log.cleanup.policy",
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "socket.request.max.bytes",
            "connections.max.idle.ms",
        ];
        let configs = s.quietly(|s| s.ask(describe(BROKER, &node.to_string(), &names))).results.remove(0).configs;
        configs.iter().for_each(|config| tell_value(s, config));
    }),
    scenario("DescribeConfigs of one topic twice", |s| {
        let topic = s.topic("t", 1);
        let mut request = describe(TOPIC, &topic, &["retention.ms"]);
        request.resources.push(request.resources[0].clone());
        s.ask(request);
    }),
    scenario("IncrementalAlterConfigs sets and unsets in each version", |s| {
        let topic = s.topic("t", 1);
        for version in s.versions::<IncrementalAlterConfigsRequest>() {
            let limit = (5000 + i32::from(version)).to_string();
            s.ask_at(version, incrementally(&topic, &[("max.message.bytes", SET, Some(&limit))]));
            has(s, &topic, "max.message.bytes", &limit);
            s.ask_at(version, incrementally(&topic, &[("max.message.bytes", DELETE, None)]));
            has(s, &topic, "max.message.bytes", "1048588");
        }
        s.ask(describe(TOPIC, &topic, &["max.message.bytes"]));
    }),
    scenario("IncrementalAlterConfigs appends to a list and subtracts from it", |s| {
        let topic = s.topic("t", 1);
        s.ask(incrementally(&topic, &[("cleanup.policy", APPEND, Some("compact"))]));
        s.until("it is compacted", |s| value(s, &topic, "cleanup.policy").contains("compact"));
        s.ask(describe(TOPIC, &topic, &["cleanup.policy"]));
        s.ask(incrementally(&topic, &[("cleanup.policy", APPEND, Some("compact"))]));
        s.ask(describe(TOPIC, &topic, &["cleanup.policy"]));
        s.ask(incrementally(&topic, &[("cleanup.policy", SUBTRACT, Some("delete"))]));
        s.until("nothing else", |s| value(s, &topic, "cleanup.policy") == "compact");
        s.ask(describe(TOPIC, &topic, &["cleanup.policy"]));
    }),
    scenario("IncrementalAlterConfigs appends to what is no list", |s| {
        let topic = s.topic("t", 1);
        s.ask(incrementally(&topic, &[("retention.ms", APPEND, Some("1"))]));
        s.ask(incrementally(&topic, &[("retention.ms", SUBTRACT, Some("1"))]));
    }),
    scenario("IncrementalAlterConfigs with an operation that there is not", |s| {
        let topic = s.topic("t", 1);
        s.ask(incrementally(&topic, &[("retention.ms", 9, Some("1"))]));
        s.ask(incrementally(&topic, &[("retention.ms", -1, Some("1"))]));
    }),
    scenario("IncrementalAlterConfigs without a value", |s| {
        let topic = s.topic("t", 1);
        for operation in [SET, APPEND, SUBTRACT] {
            s.ask(incrementally(&topic, &[("cleanup.policy", operation, None)]));
        }
    }),
    scenario("IncrementalAlterConfigs of a config that there is not", |s| {
        let topic = s.topic("t", 1);
        s.ask(incrementally(&topic, &[("no.such.config", SET, Some("1"))]));
        s.ask(incrementally(&topic, &[("no.such.config", DELETE, None)]));
        s.ask(incrementally(&topic, &[("", SET, Some("1"))]));
    }),
    scenario("IncrementalAlterConfigs out of range", |s| {
        let topic = s.topic("t", 1);
        for (name, value) in OUT_OF_RANGE {
            s.ask(incrementally(&topic, &[(name, SET, Some(value))]));
        }
    }),
    scenario("IncrementalAlterConfigs of one config twice", |s| {
        let topic = s.topic("t", 1);
        s.ask(incrementally(&topic, &[("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))]));
    }),
    scenario("IncrementalAlterConfigs of a good and a bad config changes neither", |s| {
        let topic = s.topic("t", 1);
        s.ask(incrementally(&topic, &[("retention.ms", SET, Some("777")), ("segment.ms", SET, Some("x"))]));
        s.ask(describe(TOPIC, &topic, &["retention.ms"]));
    }),
    scenario("IncrementalAlterConfigs that only validates", |s| {
        let topic = s.topic("t", 1);
        s.ask(incrementally(&topic, &[("retention.ms", SET, Some("777"))]).with_validate_only(true));
        s.ask(incrementally(&topic, &[("retention.ms", SET, Some("x"))]).with_validate_only(true));
        s.ask(describe(TOPIC, &topic, &["retention.ms"]));
    }),
    scenario("IncrementalAlterConfigs of a topic that there is not", |s| {
        let name = s.name("none");
        s.ask(incrementally(&name, &[("retention.ms", SET, Some("1"))]));
        s.ask(incrementally("", &[("retention.ms", SET, Some("1"))]));
        s.ask(incrementally("a b", &[("retention.ms", SET, Some("1"))]));
    }),
    scenario("IncrementalAlterConfigs of nothing", |s| {
        let topic = s.topic("t", 1);
        s.ask(incrementally(&topic, &[]));
        s.ask(IncrementalAlterConfigsRequest::default());
    }),
    scenario("IncrementalAlterConfigs of one topic twice", |s| {
        let topic = s.topic("t", 1);
        let mut request = incrementally(&topic, &[("retention.ms", SET, Some("1"))]);
        request.resources.push(request.resources[0].clone());
        s.ask(request);
    }),
    scenario("IncrementalAlterConfigs of kinds that there are not", |s| {
        for kind in [0, 1, 99] {
            let mut request = incrementally("x", &[("retention.ms", SET, Some("1"))]);
            request.resources[0].resource_type = kind;
            s.ask(request);
        }
    }),
    scenario("IncrementalAlterConfigs of brokers that there are not", |s| {
        for name in ["17", "x"] {
            let mut request = incrementally(name, &[("log.cleaner.threads", SET, Some("1"))]);
            request.resources[0].resource_type = BROKER;
            s.ask(request.with_validate_only(true));
        }
    }),
    scenario("AlterConfigs replaces all in each version", |s| {
        let topic = s.topic_with("t", 1, &[("retention.ms", "1000")]);
        for version in s.versions::<AlterConfigsRequest>() {
            let limit = (6000 + i32::from(version)).to_string();
            s.ask_at(version, alter(&topic, &[("max.message.bytes", Some(&limit))]));
            has(s, &topic, "max.message.bytes", &limit);
            s.ask(describe(TOPIC, &topic, &["max.message.bytes", "retention.ms"]));
        }
        s.ask(alter(&topic, &[]));
        has(s, &topic, "max.message.bytes", "1048588");
    }),
    scenario("AlterConfigs out of range", |s| {
        let topic = s.topic("t", 1);
        for (name, value) in OUT_OF_RANGE {
            s.ask(alter(&topic, &[(name, Some(value))]));
        }
    }),
    scenario("AlterConfigs without a value or with an unknown name", |s| {
        let topic = s.topic("t", 1);
        s.ask(alter(&topic, &[("retention.ms", None)]));
        s.ask(alter(&topic, &[("no.such.config", Some("1"))]));
        s.ask(alter(&topic, &[("retention.ms", Some("1")), ("retention.ms", Some("2"))]));
        s.ask(alter(&topic, &[("retention.ms", Some("1"))]).with_validate_only(true));
    }),
    scenario("AlterConfigs of one topic twice", |s| {
        let topic = s.topic("t", 1);
        let mut request = alter(&topic, &[("retention.ms", Some("1"))]);
        request.resources.push(request.resources[0].clone());
        s.throw("AlterConfigs v2", &frame(&request, 2, 1));
    }),
    scenario("AlterConfigs of a topic that there is not", |s| {
        let name = s.name("none");
        s.ask(alter("", &[("retention.ms", Some("1"))]));
        s.ask(alter("a b", &[("retention.ms", Some("1"))]));
        s.ask(alter(&name, &[("retention.ms", Some("1"))]));
    }),
];

const OUT_OF_RANGE: [(&str, &str); 12] = [
    ("retention.ms", "soon"),
    ("retention.ms", "-2"),
    ("retention.bytes", ""),
    ("segment.bytes", "-1"),
    ("segment.ms", "0"),
    ("cleanup.policy", "forget"),
    ("cleanup.policy", ""),
    ("max.message.bytes", "99999999999"),
    ("min.cleanable.dirty.ratio", "NaN"),
    ("min.cleanable.dirty.ratio", "2"),
    ("message.timestamp.type", "createtime"),
    ("unclean.leader.election.enable", "maybe"),
];

fn describe(kind: i8, name: &str, keys: &[&str]) -> DescribeConfigsRequest {
    let keys = (!keys.is_empty()).then(|| keys.iter().map(|key| text(key)).collect());
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys);
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

fn incrementally(topic: &str, changes: &[(&str, i8, Option<&str>)]) -> IncrementalAlterConfigsRequest {
    changing(TOPIC, topic, changes)
}

/// Changes of one resource: name, operation, value.
pub fn changing(kind: i8, resource: &str, changes: &[(&str, i8, Option<&str>)]) -> IncrementalAlterConfigsRequest {
    let config = |(name, operation, value): &(&str, i8, Option<&str>)| {
        incremental::AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    };
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(changes.iter().map(config).collect());
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn alter(topic: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsRequest {
    let config = |(name, value): &(&str, Option<&str>)| {
        AlterableConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configs(configs.iter().map(config).collect());
    AlterConfigsRequest::default().with_resources(vec![resource])
}

fn value(s: &mut Session, topic: &str, name: &str) -> String {
    let mut answer = s.quietly(|s| s.ask(describe(TOPIC, topic, &[name])));
    let config = answer.results[0].configs.pop();
    config.and_then(|config| config.value).map(|value| value.to_string()).unwrap_or_default()
}

/// Waits until a config has a value.
fn has(s: &mut Session, topic: &str, name: &str, wanted: &str) {
    s.until("the config has its value", |s| value(s, topic, name) == wanted);
}

fn tell_value(s: &mut Session, config: &DescribeConfigsResourceResult) {
    s.fact(&config.name, &format!("{:?}, type {}", config.value.as_deref(), config.config_type));
}
