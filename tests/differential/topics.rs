//! Metadata, CreateTopics, DeleteTopics, CreatePartitions: every way to ask and to be refused.

use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    MetadataRequest,
};
use uuid::Uuid;

use super::requests::{TIMEOUT_MS, create, metadata, metadata_by_id, new_topic, with_config};
use super::scenario::{Scenario, scenario};
use super::session::{Session, topic_name};

const UNKNOWN_ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

pub const METADATA: &[Scenario] = &[
    scenario("Metadata of a topic in each version", |s| {
        let topic = s.topic("t", 2);
        s.each(|_| metadata(&[&topic]));
    }),
    scenario("Metadata of a topic that there is not", |s| {
        let name = s.name("nowhere");
        s.each(|version| no_creation(version, metadata(&[&name])));
    }),
    scenario("Metadata of names that none can have", |s| {
        for name in ["", ".", "..", "a b", "a/b", "ä", "a:b", &"x".repeat(249), &"x".repeat(250)] {
            s.ask(no_creation(12, metadata(&[name])));
        }
    }),
    scenario("Metadata by id in each version", |s| {
        let topic = s.topic("t", 1);
        let id = s.await_topic(&topic, 1);
        for version in 12..=*s.versions::<MetadataRequest>().end() {
            s.ask_at(version, metadata_by_id(&[id]));
        }
    }),
    scenario("Metadata by an id before that is allowed", |s| {
        let topic = s.topic("t", 1);
        let id = s.await_topic(&topic, 1);
        for version in 10..12 {
            let asked = MetadataRequestTopic::default().with_name(Some(topic_name(""))).with_topic_id(id);
            s.ask_at(version, MetadataRequest::default().with_topics(Some(vec![asked])));
        }
    }),
    scenario("Metadata by an id that there is not", |s| {
        s.ask_at(12, metadata_by_id(&[UNKNOWN_ID]));
        s.ask(metadata_by_id(&[UNKNOWN_ID]));
    }),
    scenario("Metadata by an id of zeros", |s| {
        s.ask_at(12, metadata_by_id(&[Uuid::nil()]));
    }),
    scenario("Metadata by a name and an id at once", |s| {
        let topic = s.topic("t", 1);
        let asked = MetadataRequestTopic::default().with_name(Some(topic_name(&topic))).with_topic_id(UNKNOWN_ID);
        s.ask_at(12, MetadataRequest::default().with_topics(Some(vec![asked])));
    }),
    scenario("Metadata of several topics, one of them unknown, one twice", |s| {
        let (one, two) = (s.topic("one", 1), s.topic("two", 3));
        s.ask(no_creation(12, metadata(&[&two, &s.name("none"), &one, &two])));
    }),
    scenario("Metadata of nothing", |s| {
        for version in 1..=*s.versions::<MetadataRequest>().end() {
            s.ask_at(version, metadata(&[]));
        }
    }),
    scenario("Metadata with permitted operations", |s| {
        let topic = s.topic("t", 1);
        for version in 8..=*s.versions::<MetadataRequest>().end() {
            let request = metadata(&[&topic]).with_include_topic_authorized_operations(true);
            let request =
                if version <= 10 { request.with_include_cluster_authorized_operations(true) } else { request };
            s.ask_at(version, request);
        }
    }),
    scenario("Metadata of all topics holds each that there is", |s| {
        let topic = s.topic("t", 1);
        for (version, request) in [(0, metadata(&[])), (1, MetadataRequest::default().with_topics(None))] {
            let found = s.quietly(|s| s.ask_at(version, request.clone()));
            let count =
                found.topics.iter().filter(|each| each.name.as_ref().is_some_and(|name| **name == *topic)).count();
            s.fact(&format!("all in version {version}"), &count.to_string());
        }
    }),
    scenario("a cluster has one id and one node in every answer", |s| {
        s.ask(metadata(&[]));
        s.ask(DescribeClusterRequest::default());
    }),
];

pub const CREATE: &[Scenario] = &[
    scenario("CreateTopics in each version", |s| {
        for version in s.versions::<CreateTopicsRequest>() {
            let name = s.name(&format!("v{version}"));
            created(s, version, new_topic(&name, 2, 1));
        }
    })
    .masking(&["configs"]),
    scenario("CreateTopics with the broker's defaults", |s| {
        for version in 4..=*s.versions::<CreateTopicsRequest>().end() {
            let name = s.name(&format!("v{version}"));
            s.ask_at(version, create(vec![new_topic(&name, -1, -1)]));
            s.await_topic(&name, 6);
            s.ask(metadata(&[&name]));
        }
    })
    .masking(&["configs"]),
    scenario("CreateTopics of a topic that is there", |s| {
        let topic = s.topic("t", 1);
        s.each(|_| create(vec![new_topic(&topic, 1, 1)]));
    }),
    scenario("CreateTopics with names that none can have", |s| {
        for name in ["", ".", "..", "a b", "a/b", "ä", "a:b", &"x".repeat(250)] {
            s.ask(create(vec![new_topic(name, 1, 1)]));
        }
    }),
    scenario("CreateTopics with the longest name", |s| {
        let name = format!("{}{}", s.name(""), "x".repeat(249));
        let id = s.ask(create(vec![new_topic(&name[..249], 1, 1)])).topics[0].error_code;
        s.fact("the longest name", &id.to_string());
    })
    .masking(&["configs"]),
    scenario("CreateTopics with a name that differs by dots and underscores only", |s| {
        let topic = s.topic("a.b", 1);
        s.ask(create(vec![new_topic(&topic.replace('.', "_"), 1, 1)]));
    }),
    scenario("CreateTopics with numbers of partitions that cannot be", |s| {
        for partitions in [0, -2, i32::MIN] {
            let name = s.name("t");
            s.ask(create(vec![new_topic(&name, partitions, 1)]));
        }
    }),
    scenario("CreateTopics with replication factors that cannot be", |s| {
        for factor in [0, -2, 2, 3, i16::MAX] {
            let name = s.name("t");
            s.ask(create(vec![new_topic(&name, 1, factor)]));
        }
    }),
    scenario("CreateTopics names one topic twice", |s| {
        let name = s.name("t");
        let other = s.name("other");
        s.ask(create(vec![new_topic(&name, 1, 1), new_topic(&other, 1, 1), new_topic(&name, 1, 1)]));
    })
    .masking(&["configs"]),
    scenario("CreateTopics of nothing", |s| {
        s.ask(create(vec![]));
    }),
    scenario("CreateTopics that only validates", |s| {
        let name = s.name("t");
        s.each(|_| create(vec![new_topic(&name, 3, 1)]).with_validate_only(true));
        s.ask(create(vec![new_topic(&name, 0, 1)]).with_validate_only(true));
        let topic = s.topic("there", 1);
        s.ask(create(vec![new_topic(&topic, 1, 1)]).with_validate_only(true));
        s.ask(no_creation(12, metadata(&[&name])));
    })
    .masking(&["configs"]),
    scenario("CreateTopics with a config that there is not", |s| {
        let name = s.name("t");
        s.ask(create(vec![with_config(new_topic(&name, 1, 1), "no.such.config", Some("1"))]));
    }),
    scenario("CreateTopics with configs out of range", |s| {
        let impossible = [
            ("retention.ms", "soon"),
            ("retention.ms", "-2"),
            ("cleanup.policy", "forget"),
            ("compression.type", "rar"),
            ("max.message.bytes", "-1"),
            ("min.insync.replicas", "0"),
            ("message.timestamp.type", "Never"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("segment.bytes", "13"),
            ("preallocate", "perhaps"),
        ];
        for (config, value) in impossible {
            let name = s.name("t");
            s.ask(create(vec![with_config(new_topic(&name, 1, 1), config, Some(value))]));
        }
    }),
    scenario("CreateTopics with lags that contradict each other", |s| {
        let topic = with_config(new_topic(&s.name("t"), 1, 1), "min.compaction.lag.ms", Some("100"));
        s.ask(create(vec![with_config(topic, "max.compaction.lag.ms", Some("10"))]));
    }),
    scenario("CreateTopics with a config without a value", |s| {
        let name = s.name("t");
        s.ask(create(vec![with_config(new_topic(&name, 1, 1), "retention.ms", None)]));
    }),
    scenario("CreateTopics with a config named twice", |s| {
        let topic = with_config(new_topic(&s.name("t"), 1, 1), "retention.ms", Some("1000"));
        s.ask(create(vec![with_config(topic, "retention.ms", Some("2000"))]));
    })
    .masking(&["configs"]),
    scenario("CreateTopics with assignments that are right", |s| {
        let node = node(s);
        let name = s.name("t");
        s.ask(create(vec![new_topic(&name, -1, -1).with_assignments(assigned(&[(0, &[node]), (1, &[node])]))]));
        s.await_topic(&name, 2);
    })
    .masking(&["configs"]),
    scenario("CreateTopics with assignments that are wrong", |s| {
        let node = node(s);
        let wrong: [(Assigned, i32, i16); 6] = [
            (&[(0, &[node + 17])], -1, -1),
            (&[(0, &[node, node])], -1, -1),
            (&[(0, &[])], -1, -1),
            (&[(1, &[node])], -1, -1),
            (&[(0, &[node]), (0, &[node])], -1, -1),
            (&[(0, &[node])], 1, 1),
        ];
        for (assignments, partitions, factor) in wrong {
            let name = s.name("t");
            s.ask(create(vec![new_topic(&name, partitions, factor).with_assignments(assigned(assignments))]));
        }
    }),
    scenario("CreateTopics of some that can be and some that cannot", |s| {
        let names = ["good", "bad"].map(|name| s.name(name));
        s.ask(create(vec![new_topic(&names[1], 0, 1), new_topic(&names[0], 1, 1)]));
    })
    .masking(&["configs"]),
    scenario("CreateTopics tells the configs that were set", |s| {
        let topic = with_config(new_topic(&s.name("t"), 1, 1), "retention.ms", Some("86400000"));
        let topic = with_config(topic, "cleanup.policy", Some("compact,delete"));
        let told = s.quietly(|s| s.ask(create(vec![topic]))).topics.remove(0).configs.unwrap_or_default();
        for config in told.iter().filter(|config| matches!(&*config.name, "retention.ms" | "cleanup.policy")) {
            s.fact(&config.name, &format!("{:?} from {}", config.value.as_deref(), config.config_source));
        }
    }),
];

pub const CHANGE: &[Scenario] = &[
    scenario("DeleteTopics in each version", |s| {
        for version in s.versions::<DeleteTopicsRequest>() {
            let topic = s.topic(&format!("v{version}"), 1);
            s.ask_at(version, delete(version, &topic));
            s.await_no_topic(&topic);
        }
    }),
    scenario("DeleteTopics of a topic that there is not", |s| {
        let name = s.name("none");
        s.each(|version| delete(version, &name));
    }),
    scenario("DeleteTopics of names that none can have", |s| {
        for name in ["", "a b", ".."] {
            s.ask_at(5, delete(5, name));
        }
    }),
    scenario("DeleteTopics by id", |s| {
        let topic = s.topic("t", 1);
        let id = s.await_topic(&topic, 1);
        let by_id = |id| DeleteTopicState::default().with_name(None).with_topic_id(id);
        s.ask_at(6, deletions(vec![by_id(id)]));
        s.await_no_topic(&topic);
        s.ask_at(6, deletions(vec![by_id(id)]));
        s.ask_at(6, deletions(vec![by_id(UNKNOWN_ID)]));
    }),
    scenario("DeleteTopics by neither or by both", |s| {
        let topic = s.topic("t", 1);
        let id = s.await_topic(&topic, 1);
        s.ask_at(6, deletions(vec![DeleteTopicState::default().with_name(None)]));
        s.ask_at(6, deletions(vec![DeleteTopicState::default().with_name(Some(topic_name(&topic))).with_topic_id(id)]));
    }),
    scenario("DeleteTopics names one topic twice", |s| {
        let topic = s.topic("t", 1);
        let name = topic_name(&topic);
        let request = DeleteTopicsRequest::default().with_timeout_ms(TIMEOUT_MS);
        s.ask_at(5, request.with_topic_names(vec![name.clone(), name]));
        s.ask(no_creation(12, metadata(&[&topic])));
    }),
    scenario("DeleteTopics by id and by name of one topic", |s| {
        let topic = s.topic("t", 1);
        let id = s.await_topic(&topic, 1);
        s.ask_at(
            6,
            deletions(vec![
                DeleteTopicState::default().with_name(None).with_topic_id(id),
                DeleteTopicState::default().with_name(Some(topic_name(&topic))),
            ]),
        );
    }),
    scenario("a topic that is deleted and made again has another id", |s| {
        let topic = s.topic("t", 1);
        let first = s.await_topic(&topic, 1);
        s.ask_at(5, delete(5, &topic));
        s.await_no_topic(&topic);
        let again = s.topic("t", 1);
        let second = s.await_topic(&again, 1);
        s.fact("the ids differ", &(first != second).to_string());
    }),
    scenario("CreatePartitions in each version", |s| {
        for version in s.versions::<CreatePartitionsRequest>() {
            let topic = s.topic(&format!("v{version}"), 1);
            s.ask_at(version, partitions(&topic, 3));
            s.await_topic(&topic, 3);
        }
    }),
    scenario("CreatePartitions to fewer, to as many and to none", |s| {
        let topic = s.topic("t", 3);
        for count in [2, 3, 0, -1] {
            s.ask(partitions(&topic, count));
        }
    }),
    scenario("CreatePartitions of a topic that there is not", |s| {
        let name = s.name("none");
        s.ask(partitions(&name, 3));
        s.ask(partitions("a b", 3));
        s.ask(partitions("", 3));
    }),
    scenario("CreatePartitions that only validates", |s| {
        let topic = s.topic("t", 1);
        s.ask(partitions(&topic, 3).with_validate_only(true));
        s.ask(partitions(&topic, 1).with_validate_only(true));
        s.ask(metadata(&[&topic]));
    }),
    scenario("CreatePartitions with assignments", |s| {
        let node = node(s);
        let topic = s.topic("t", 1);
        let lists: [&[&[i32]]; 5] = [&[&[node]], &[&[node], &[node], &[node]], &[&[node + 9]], &[&[]], &[]];
        for lists in lists {
            let assigned = |ids: &&[i32]| {
                CreatePartitionsAssignment::default().with_broker_ids(ids.iter().map(|id| BrokerId(*id)).collect())
            };
            let mut request = partitions(&topic, 3).with_validate_only(true);
            request.topics[0].assignments = Some(lists.iter().map(assigned).collect());
            s.ask(request);
        }
        let mut request = partitions(&topic, 2);
        request.topics[0].assignments =
            Some(vec![CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(node)])]);
        s.ask(request);
        s.await_topic(&topic, 2);
    }),
    scenario("CreatePartitions names one topic twice", |s| {
        let topic = s.topic("t", 1);
        let mut request = partitions(&topic, 2);
        request.topics.push(request.topics[0].clone().with_count(3));
        s.ask(request);
    }),
];

fn no_creation(version: i16, request: MetadataRequest) -> MetadataRequest {
    if version >= 4 { request.with_allow_auto_topic_creation(false) } else { request }
}

fn created(s: &mut Session, version: i16, topic: CreatableTopic) {
    let (name, partitions) = (topic.name.to_string(), topic.num_partitions);
    s.ask_at(version, create(vec![topic]));
    s.await_topic(&name, partitions);
    s.ask(metadata(&[&name]));
}

/// Partitions with their replicas.
type Assigned<'a> = &'a [(i32, &'a [i32])];

fn assigned(partitions: Assigned) -> Vec<CreatableReplicaAssignment> {
    let one = |(index, ids): &(i32, &[i32])| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*index)
            .with_broker_ids(ids.iter().map(|id| BrokerId(*id)).collect())
    };
    partitions.iter().map(one).collect()
}

/// The only broker's number.
fn node(s: &mut Session) -> i32 {
    s.quietly(|s| s.ask(metadata(&[]))).brokers[0].node_id.0
}

fn delete(version: i16, name: &str) -> DeleteTopicsRequest {
    match version {
        6.. => deletions(vec![DeleteTopicState::default().with_name(Some(topic_name(name)))]),
        _ => DeleteTopicsRequest::default().with_topic_names(vec![topic_name(name)]).with_timeout_ms(TIMEOUT_MS),
    }
}

fn deletions(topics: Vec<DeleteTopicState>) -> DeleteTopicsRequest {
    DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(TIMEOUT_MS)
}

fn partitions(name: &str, count: i32) -> CreatePartitionsRequest {
    let topic = CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(None);
    CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS)
}
