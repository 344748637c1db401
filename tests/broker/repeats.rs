//! Requests of a few bytes that name the same thing again and again, or many things of which much can be said: each
//! thing is answered once, and an answer stays within bounds.

use crate::support::{Raw, create_topic, start, start_with};
use finstream::broker::{Broker, Limits};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteRecordsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

const TIMES: usize = 1000;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;

fn group(name: &str) -> GroupId {
    GroupId(StrBytes::from_string(name.to_owned()))
}

fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn greeted(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker);
    raw.ask(&ApiVersionsRequest::default(), 3);
    raw
}

/// Commits an offset to each of the partitions of "t", with so many bytes of metadata.
fn commit(raw: &mut Raw, name: &str, partitions: i32, metadata_bytes: usize) {
    let partition = |index| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(100 + i64::from(index))
            .with_committed_metadata(Some(StrBytes::from_string("m".repeat(metadata_bytes))))
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic("t"))
        .with_partitions((0..partitions).map(partition).collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(group(name))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    assert!(raw.ask(&request, 7).topics[0].partitions.iter().all(|partition| partition.error_code == 0));
}

fn all_of(name: &str) -> OffsetFetchRequestGroup {
    OffsetFetchRequestGroup::default().with_group_id(group(name)).with_topics(None)
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_partitions_named_a_thousand_times_have_their_offsets_fetched_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 10).await;
    let mut raw = greeted(&broker);
    commit(&mut raw, "g", 10, 4000);
    let answer = raw.ask(&OffsetFetchRequest::default().with_groups(vec![all_of("g"); TIMES]), 8);
    assert_eq!(answer.groups.len(), 1);
    assert_eq!(answer.groups[0].topics[0].partitions.len(), 10);

    let indexes = [7, 3, 7, 3, 99].repeat(TIMES);
    let asked = OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(indexes.clone());
    let other = OffsetFetchRequestTopics::default().with_name(topic("other")).with_partition_indexes(vec![0]);
    let asked = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(Some(vec![
        asked.clone(),
        other,
        asked,
    ]));
    let answer = raw.ask(&OffsetFetchRequest::default().with_groups(vec![asked]), 9);
    let [first, second] = answer.groups[0].topics.as_slice() else { panic!("two topics: {answer:?}") };
    let found: Vec<_> = first.partitions.iter().map(|found| (found.partition_index, found.committed_offset)).collect();
    assert_eq!(found, [(7, 107), (3, 103), (99, -1)]);
    assert_eq!((&second.name, second.partitions[0].committed_offset), (&topic("other"), -1));

    let asked = OffsetFetchRequestTopic::default().with_name(topic("t")).with_partition_indexes(indexes);
    let request = OffsetFetchRequest::default().with_group_id(group("g")).with_topics(Some(vec![asked]));
    let answer = raw.ask(&request, 7);
    assert_eq!(answer.topics[0].partitions.len(), 3);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_many_groups_come_as_far_as_an_answer_goes_and_whoever_asks_again_gets_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_with(dir.path(), Limits { waiting_answer_bytes_max: 100_000, ..Limits::default() }).await;
    create_topic(&broker, "t", 20).await;
    let mut raw = greeted(&broker);
    // The last one is larger than a whole answer.
    let names = ["a", "b", "c", "d"];
    for (name, metadata_bytes) in names.into_iter().zip([2000, 2000, 2000, 4000]) {
        commit(&mut raw, name, 20, metadata_bytes);
    }
    let mut missing: Vec<String> = names.map(str::to_owned).to_vec();
    for answered in [2, 1, 1] {
        let asked = missing.iter().map(|name| all_of(name)).collect();
        let answer = raw.ask(&OffsetFetchRequest::default().with_groups(asked), 8);
        assert_eq!(answer.groups.len(), missing.len());
        missing.clear();
        let mut whole = 0;
        for group in answer.groups {
            match group.error_code {
                0 => whole += usize::from(group.topics[0].partitions.len() == 20),
                code => {
                    assert_eq!((code, group.topics.len()), (COORDINATOR_LOAD_IN_PROGRESS, 0));
                    missing.push(group.group_id.to_string());
                }
            }
        }
        assert_eq!(whole, answered, "{missing:?} are missing");
    }
    assert!(missing.is_empty());
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_beside_a_thousand_ids_is_not_described_and_one_id_beside_a_thousand_names_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 100).await;
    let mut raw = greeted(&broker);
    let asked = |id| MetadataRequestTopic::default().with_name(Some(topic("t"))).with_topic_id(Uuid::from_u128(id));
    let request = MetadataRequest::default().with_topics(Some((1..=TIMES as u128).map(asked).collect()));
    let answer = raw.ask(&request, 12);
    assert_eq!(answer.topics.len(), TIMES);
    assert!(answer.topics.iter().all(|topic| topic.partitions.is_empty()), "an id says more than a name");
    let by_name =
        MetadataRequest::default().with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic("t")))]));
    let id = raw.ask(&by_name, 12).topics[0].topic_id;
    let asked =
        |number| MetadataRequestTopic::default().with_name(Some(topic(&format!("t{number}")))).with_topic_id(id);
    let request = MetadataRequest::default().with_topics(Some((0..TIMES).map(asked).collect()));
    let answer = raw.ask(&request, 12);
    assert_eq!((answer.topics.len(), answer.topics[0].partitions.len()), (1, 100));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators_records_to_delete_and_offsets_to_delete_are_each_answered_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 3).await;
    let mut raw = greeted(&broker);
    let keys = vec![["a", "b"].map(StrBytes::from_static_str); TIMES].concat();
    let answer = raw.ask(&FindCoordinatorRequest::default().with_coordinator_keys(keys), 4);
    assert_eq!(answer.coordinators.len(), 2);

    let partitions = [0, 1].map(|index| DeleteRecordsPartition::default().with_partition_index(index).with_offset(0));
    let asked = DeleteRecordsTopic::default().with_name(topic("t")).with_partitions(vec![partitions; TIMES].concat());
    let answer = raw.ask(&DeleteRecordsRequest::default().with_topics(vec![asked.clone(), asked]), 2);
    assert_eq!((answer.topics.len(), answer.topics[0].partitions.len()), (1, 2));

    commit(&mut raw, "g", 3, 1);
    let partitions = [0, 2].map(|index| OffsetDeleteRequestPartition::default().with_partition_index(index));
    let asked =
        OffsetDeleteRequestTopic::default().with_name(topic("t")).with_partitions(vec![partitions; TIMES].concat());
    let request = OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![asked.clone(), asked]);
    let answer = raw.ask(&request, 0);
    assert_eq!((answer.topics.len(), answer.topics[0].partitions.len()), (1, 2));
    let left = raw.ask(&OffsetFetchRequest::default().with_group_id(group("g")).with_topics(None), 7);
    assert_eq!(left.topics[0].partitions.iter().map(|left| left.partition_index).collect::<Vec<_>>(), [1]);

    let states = |word| vec![StrBytes::from_static_str(word); TIMES];
    assert_eq!(raw.ask(&ListGroupsRequest::default().with_states_filter(states("eMPTY")), 4).groups.len(), 1);
    assert_eq!(raw.ask(&ListGroupsRequest::default().with_states_filter(states("Stable")), 4).groups.len(), 0);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn configs_of_thousands_of_topics_that_could_be_made_are_told_of_the_first_ones_only() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_with(dir.path(), Limits { waiting_answer_bytes_max: 100_000, ..Limits::default() }).await;
    let mut raw = greeted(&broker);
    let named = |number| {
        CreatableTopic::default()
            .with_name(topic(&format!("t{number}")))
            .with_num_partitions(1)
            .with_replication_factor(1)
    };
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(20_000)
        .with_validate_only(true)
        .with_topics((0..TIMES).map(named).collect());
    let answer = raw.ask(&request, 5);
    assert_eq!(answer.topics.iter().filter(|topic| topic.error_code == 0).count(), TIMES);
    let told = answer.topics.iter().filter(|topic| topic.configs.as_ref().is_some_and(|configs| !configs.is_empty()));
    assert!((1..50).contains(&told.count()));
    broker.stop().await.unwrap();
}
