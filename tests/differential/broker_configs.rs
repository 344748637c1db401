//! Broker configs that are changed at run time. They hold for all topics, so these scenarios run after all others, and
//! each takes back what it has set. The brokers have different numbers, so it is told here what their answers say.

use kafka_protocol::messages::DescribeConfigsRequest;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{AlterConfigsRequest, MetadataRequest};

use super::configs::changing;
use super::scenario::{Scenario, scenario};
use super::session::{Session, text};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Name, operation, value.
type Change<'a> = (&'a str, i8, Option<&'a str>);

pub const SCENARIOS: &[Scenario] = &[
    scenario("Brokers' configs that can be changed at run time", |s| {
        let broker = node(s);
        for name in [
            "log.retention.ms",
            "log.segment.bytes",
            "log.roll.ms",
            "log.cleanup.policy",
            "log.flush.interval.messages",
            "log.flush.interval.ms",
            "log.message.timestamp.type",
            "log.local.retention.ms",
            "log.cleaner.min.compaction.lag.ms",
            "log.segment.delete.delay.ms",
            "message.max.bytes",
            "compression.type",
            "compression.zstd.level",
            "min.insync.replicas",
            "unclean.leader.election.enable",
            "remote.log.storage.system.enable",
            "num.partitions",
            "auto.create.topics.enable",
            "offsets.topic.replication.factor",
        ] {
            let found = described(s, BROKER, &broker, name);
            s.fact(
                name,
                &found.map_or("absent".to_owned(), |(_, is_read_only, _)| format!("read only: {is_read_only}")),
            );
        }
    }),
    scenario("IncrementalAlterConfigs of a broker and of all of them", |s| {
        let broker = node(s);
        let topic = s.topic_with("t", 1, &[("flush.messages", "4")]);
        let other = s.topic("u", 1);
        let name = "log.flush.interval.messages";
        change(s, "", &[(name, SET, Some("3000"))]);
        change(s, &broker, &[(name, SET, Some("2000"))]);
        has(s, &broker, name, "2000");
        has(s, "", name, "3000");
        for (kind, resource, name) in [
            (TOPIC, &*topic, "flush.messages"),
            (TOPIC, &*other, "flush.messages"),
            (BROKER, &*broker, name),
            (BROKER, "", name),
            (BROKER, "", "message.max.bytes"),
        ] {
            tell(s, kind, resource, name);
        }
        change(s, &broker, &[(name, DELETE, None)]);
        has(s, &broker, name, "3000");
        tell(s, TOPIC, &other, "flush.messages");
        change(s, "", &[(name, DELETE, None)]);
        has(s, &broker, name, "9223372036854775807");
        tell(s, TOPIC, &other, "flush.messages");
        tell(s, BROKER, "", name);
    }),
    scenario("IncrementalAlterConfigs appends to a broker's list", |s| {
        let broker = node(s);
        let name = "log.cleanup.policy";
        change(s, &broker, &[(name, APPEND, Some("compact"))]);
        has(s, &broker, name, "delete,compact");
        change(s, &broker, &[(name, SUBTRACT, Some("compact"))]);
        has(s, &broker, name, "delete");
        tell(s, BROKER, &broker, name);
        change(s, &broker, &[(name, DELETE, None)]);
        change(s, &broker, &[("log.retention.ms", APPEND, Some("1"))]);
    }),
    scenario("AlterConfigs of a broker replaces all", |s| {
        let broker = node(s);
        replace(s, &broker, &[("message.max.bytes", "3000"), ("log.flush.interval.ms", "7")], false);
        has(s, &broker, "log.flush.interval.ms", "7");
        replace(s, &broker, &[("message.max.bytes", "2000")], false);
        has(s, &broker, "message.max.bytes", "2000");
        tell(s, BROKER, &broker, "log.flush.interval.ms");
        tell(s, BROKER, &broker, "message.max.bytes");
        replace(s, &broker, &[("message.max.bytes", "4000")], true);
        replace(s, &broker, &[], false);
        has(s, &broker, "message.max.bytes", "1048588");
    }),
    scenario("Brokers' configs that are refused", |s| {
        let broker = node(s);
        for name in [&*broker, ""] {
            for (config, value) in REFUSED {
                change(s, name, &[(config, SET, Some(value)), ("message.max.bytes", SET, Some("2000"))]);
                replace(s, name, &[(config, value)], false);
            }
            change(s, name, &[("num.partitions", DELETE, None)]);
            change(s, name, &[("message.max.bytes", SET, None)]);
            change(s, name, &[("message.max.bytes", SET, Some("1")), ("message.max.bytes", DELETE, None)]);
        }
        tell(s, BROKER, &broker, "message.max.bytes");
    }),
    scenario("Brokers' configs that are not known", |s| {
        let broker = node(s);
        change(s, &broker, &[("no.such.config", SET, Some("1"))]);
        change(s, &broker, &[("no.such.config", DELETE, None)]);
    }),
    scenario("Brokers' retention below none at all", |s| {
        let broker = node(s);
        change(s, &broker, &[("log.retention.ms", SET, Some("-2"))]);
        change(s, &broker, &[("log.retention.ms", DELETE, None)]);
    }),
];

const REFUSED: [(&str, &str); 6] = [
    ("num.partitions", "2"),
    ("broker.id", "7"),
    ("log.retention.ms", "soon"),
    ("log.cleanup.policy", "forget"),
    ("compression.type", "lzo"),
    ("log.message.timestamp.type", "createtime"),
];

/// The only broker's number.
fn node(s: &mut Session) -> String {
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    s.quietly(|s| s.ask(request)).brokers[0].node_id.0.to_string()
}

fn change(s: &mut Session, broker: &str, changes: &[Change<'_>]) {
    let request = changing(BROKER, broker, changes);
    let code = s.quietly(|s| s.ask(request)).responses[0].error_code;
    told(s, broker, &format!("{changes:?}"), code);
}

fn replace(s: &mut Session, broker: &str, configs: &[(&str, &str)], validate_only: bool) {
    let config =
        |(name, value): &(&str, &str)| AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(broker))
        .with_configs(configs.iter().map(config).collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only);
    let code = s.quietly(|s| s.ask(request)).responses[0].error_code;
    told(s, broker, &format!("all to {configs:?}, {validate_only}"), code);
}

fn told(s: &mut Session, broker: &str, what: &str, code: i16) {
    let who = if broker.is_empty() { "all brokers" } else { "the broker" };
    let step = s.step(&format!("{who}: {what}"));
    s.fact(&step, &format!("error {code}"));
}

/// Value, whether it is read only, and where it could come from.
type Described = (String, bool, Vec<(String, i8)>);

fn described(s: &mut Session, kind: i8, resource: &str, name: &str) -> Option<Described> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configuration_keys(Some(vec![text(name)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
    let config = s.quietly(|s| s.ask(request)).results[0].configs.pop()?;
    let synonyms = config.synonyms.iter().map(|at| (format!("{}={:?}", &*at.name, at.value.as_deref()), at.source));
    Some((config.value.as_deref().unwrap_or("null").to_owned(), config.read_only, synonyms.collect()))
}

fn tell(s: &mut Session, kind: i8, resource: &str, name: &str) {
    let found = described(s, kind, resource, name);
    let step = s.step("DescribeConfigs");
    s.fact(&format!("{step} {name}"), &format!("{found:?}"));
}

/// Waits until a config has a value.
fn has(s: &mut Session, broker: &str, name: &str, wanted: &str) {
    s.until("the config has its value", |s| {
        described(s, BROKER, broker, name).is_some_and(|(value, ..)| value == wanted)
    });
}
