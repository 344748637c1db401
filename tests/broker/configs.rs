//! Broker configs that are changed at run time (KIP-226), as clients see them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::sandbox::Sandbox;
use crate::support::{Raw, admin, client, consumer, create_topic, start};
use finstream::broker::Broker;
use kafka_protocol::messages::alter_configs_request as alter;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, FetchRequest, IncrementalAlterConfigsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigSource, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const MESSAGE_TOO_LARGE: RDKafkaErrorCode = RDKafkaErrorCode::MessageSizeTooLarge;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
/// Of a batch, before its offset in the log: where its attributes' lower byte is.
const ATTRIBUTES: usize = 22;
const LZ4: u8 = 3;

type Admin = AdminClient<DefaultClientContext>;

/// What rdkafka sets on broker 0; it replaces what was set there before.
async fn set(admin: &Admin, configs: &[(&str, &str)]) {
    let config = AlterConfig::new(ResourceSpecifier::Broker(0));
    let config = configs.iter().fold(config, |config, (name, value)| config.set(name, value));
    let altered = admin.alter_configs(&[config], &AdminOptions::new()).await.unwrap();
    assert_eq!(altered, [Ok(OwnedResourceSpecifier::Broker(0))]);
}

async fn entry(admin: &Admin, resource: ResourceSpecifier<'_>, name: &str) -> ConfigEntry {
    let described = admin.describe_configs(&[resource], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    described.entries.into_iter().find(|entry| entry.name == name).unwrap()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Changes single configs, each with an operation; returns the error's number.
fn change(address: SocketAddr, kind: i8, name: &str, changes: &[(&str, i8, &str)], validate_only: bool) -> i16 {
    let config = |(name, operation, value): &(&str, i8, &str)| {
        let value = (*operation != DELETE).then(|| text(value));
        AlterableConfig::default().with_name(text(name)).with_config_operation(*operation).with_value(value)
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(changes.iter().map(config).collect());
    let request =
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only);
    Raw::connect_to(address).ask(&request, 1).responses[0].error_code
}

fn described(address: SocketAddr, kind: i8, name: &str) -> Vec<DescribeConfigsResourceResult> {
    let resource = DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource.with_configuration_keys(None)])
        .with_include_synonyms(true);
    Raw::connect_to(address).ask(&request, 4).results.remove(0).configs
}

/// Value and source of a config, wherever it is set: the first holds.
fn settings(address: SocketAddr, kind: i8, name: &str, config: &str) -> Vec<(String, i8)> {
    let config = described(address, kind, name).into_iter().find(|found| *found.name == *config).unwrap();
    let synonyms: Vec<_> =
        config.synonyms.iter().map(|at| (at.value.as_deref().unwrap().to_owned(), at.source)).collect();
    assert_eq!(synonyms.first(), Some(&(config.value.as_deref().unwrap().to_owned(), config.config_source)));
    synonyms
}

async fn sent(producer: &FutureProducer, topic: &str, bytes: usize) -> Result<i64, RDKafkaErrorCode> {
    let payload = vec![b'x'; bytes];
    let record = FutureRecord::<(), _>::to(topic).partition(0).payload(&payload);
    let delivery = producer.send(record, Duration::from_secs(20)).await;
    delivery.map(|delivery| delivery.offset).map_err(|(error, _)| error.rdkafka_error_code().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_on_the_broker_is_shown_holds_for_all_topics_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "before", 1).await;
    let admin_client = admin(&broker);
    let flush = entry(&admin_client, ResourceSpecifier::Broker(0), "log.flush.interval.messages").await;
    assert_eq!((flush.source, flush.is_read_only), (ConfigSource::Default, false));
    let wanted = [("log.flush.interval.messages", "1234"), ("message.max.bytes", "2000"), ("compression.type", "lz4")];
    set(&admin_client, &wanted).await;
    create_topic(&broker, "after", 1).await;
    let producer_of = |broker: &Broker| client(broker).set("linger.ms", "1").create::<FutureProducer>().unwrap();
    let mut broker = broker;
    for life in 0..2 {
        let (admin, producer) = (admin(&broker), producer_of(&broker));
        for (name, value) in wanted {
            let shown = ConfigEntry {
                name: name.to_owned(),
                value: Some(value.to_owned()),
                source: ConfigSource::DynamicBroker,
                is_read_only: false,
                is_default: false,
                is_sensitive: false,
            };
            assert_eq!(entry(&admin, ResourceSpecifier::Broker(0), name).await, shown);
        }
        for topic in ["before", "after"] {
            let shown = entry(&admin, ResourceSpecifier::Topic(topic), "max.message.bytes").await;
            assert_eq!((shown.value.as_deref(), shown.source), (Some("2000"), ConfigSource::DynamicBroker));
            assert_eq!(sent(&producer, topic, 1000).await, Ok(life), "{topic}");
            assert_eq!(sent(&producer, topic, 3000).await, Err(MESSAGE_TOO_LARGE), "{topic}");
            assert_eq!(codec(&broker, topic, life), LZ4, "{topic}");
        }
        broker.stop().await.unwrap();
        broker = start(dir.path()).await;
    }
    // All that is not mentioned is unset.
    set(&admin(&broker), &[]).await;
    assert_eq!(sent(&producer_of(&broker), "before", 3000).await, Ok(2));
    broker.stop().await.unwrap();
}

/// The number of the codec of the batch at an offset.
fn codec(broker: &Broker, topic: &str, offset: i64) -> u8 {
    let partition =
        FetchPartition::default().with_partition(0).with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_max_bytes(1 << 20).with_session_epoch(-1).with_topics(vec![topic]);
    let records = Raw::connect(broker).ask(&request, 12).responses[0].partitions[0].records.clone().unwrap();
    records[ATTRIBUTES] & 7
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topics_own_stands_above_the_brokers_above_all_brokers_above_the_flag_and_each_can_be_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let at = broker.address();
    create_topic(&broker, "t", 1).await;
    let shown = || settings(at, TOPIC, "t", "retention.ms");
    let flag = [("86400000".to_owned(), 4)];
    assert_eq!(shown(), flag);
    let name = "log.retention.ms";
    assert_eq!(change(at, BROKER, "", &[(name, SET, "3000")], false), 0);
    assert_eq!(change(at, BROKER, "0", &[(name, SET, "2000")], false), 0);
    assert_eq!(change(at, TOPIC, "t", &[("retention.ms", SET, "1000")], false), 0);
    let all = [("1000".to_owned(), 1), ("2000".to_owned(), 2), ("3000".to_owned(), 3), flag[0].clone()];
    assert_eq!(shown(), all);
    assert_eq!(settings(at, BROKER, "0", name), all[1..]);
    assert_eq!(settings(at, BROKER, "", name), all[2..3]);
    assert_eq!(described(at, BROKER, "").len(), 1);
    assert_eq!(change(at, TOPIC, "t", &[("retention.ms", DELETE, "")], true), 0);
    assert_eq!(shown(), all, "that was only validated");
    assert_eq!(change(at, TOPIC, "t", &[("retention.ms", DELETE, "")], false), 0);
    assert_eq!(shown(), all[1..]);
    assert_eq!(change(at, BROKER, "0", &[(name, DELETE, "")], false), 0);
    assert_eq!(shown(), all[2..]);
    assert_eq!(change(at, BROKER, "", &[(name, DELETE, ""), ("num.partitions", DELETE, "")], false), 0);
    assert_eq!(shown(), flag);
    assert_eq!(described(at, BROKER, ""), []);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_flag_sets_and_values_that_are_not_kept_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let at = broker.address();
    let good = ("message.max.bytes", SET, "2000");
    for bad in ["num.partitions", "max.connections", "retention.ms", "remote.log.storage.system.enable", "no.such"] {
        for name in ["0", ""] {
            assert_eq!(change(at, BROKER, name, &[good, (bad, SET, "1")], false), INVALID_REQUEST, "{bad}");
        }
    }
    let refused =
        [("log.retention.ms", SET, "soon"), ("min.insync.replicas", SET, "2"), ("log.cleanup.policy", SET, "x")];
    for bad in refused {
        assert_eq!(change(at, BROKER, "0", &[good, bad], false), INVALID_REQUEST, "{bad:?}");
    }
    assert_eq!(change(at, BROKER, "0", &[good, ("log.retention.ms", APPEND, "1")], false), INVALID_CONFIG);
    assert_eq!(change(at, BROKER, "1", &[good], false), INVALID_REQUEST);
    assert_eq!(change(at, BROKER, "0", &[good], true), 0);
    assert_eq!(settings(at, BROKER, "0", "message.max.bytes"), [("1048588".to_owned(), 5)]);
    // rdkafka does not tell of a resource that was refused.
    let setting = alter::AlterableConfig::default().with_name(text("num.partitions")).with_value(Some(text("4")));
    let resource = alter::AlterConfigsResource::default().with_resource_type(BROKER).with_resource_name(text("0"));
    let request = AlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![setting])]);
    let answer = Raw::connect(&broker).ask(&request, 2).responses.remove(0);
    let message = "Cannot update these configs dynamically: Set(num.partitions)";
    assert_eq!((answer.error_code, answer.error_message.as_deref()), (INVALID_REQUEST, Some(message)));
    let fixed = entry(&admin(&broker), ResourceSpecifier::Broker(0), "num.partitions").await;
    assert_eq!((fixed.value.as_deref(), fixed.is_read_only), (Some("3"), true));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_commit_whatever_is_set_for_all_topics() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 1).await;
    // No record of a producer is young enough for that.
    let strict = [("message.max.bytes", "0"), ("log.message.timestamp.before.max.ms", "0")];
    set(&admin(&broker), &strict).await;
    let consumer = consumer(&broker, "g", &[]);
    for offset in 1..20 {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("t", 0, Offset::Offset(offset)).unwrap();
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
    }
    let shown = settings(broker.address(), TOPIC, "__consumer_offsets", "message.timestamp.before.max.ms");
    assert_eq!(shown, [(i64::MAX.to_string(), 5)]);
    broker.stop().await.unwrap();
}

#[test]
fn what_was_set_survives_a_kill() {
    let sandbox = Sandbox::new();
    let mut broker = sandbox.start(&["--role", "broker"]);
    let at = |broker: &mut crate::sandbox::Running| -> SocketAddr {
        broker.wait_ready()["kafka"].as_str().unwrap().parse().unwrap()
    };
    let address = at(&mut broker);
    assert_eq!(change(address, BROKER, "0", &[("log.segment.bytes", SET, "2097152")], false), 0);
    assert_eq!(change(address, BROKER, "", &[("log.roll.ms", SET, "777")], false), 0);
    broker.kill();
    let mut broker = sandbox.start(&["--role", "broker"]);
    let address = at(&mut broker);
    assert_eq!(settings(address, BROKER, "0", "log.segment.bytes")[0], ("2097152".to_owned(), 2));
    assert_eq!(settings(address, BROKER, "", "log.roll.ms"), [("777".to_owned(), 3)]);
    broker.wait_for("log.roll.ms=777");
    broker.stop();
}
