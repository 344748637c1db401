//! Consumer groups through rdkafka: sharing, rebalances, static members, what a restart keeps.

use std::time::{Duration, Instant};

use crate::support::{
    PATIENCE, Raw, assignment, consumer, create_topic, producer, send, settings, settle, start, take,
};
use finstream::broker::Broker;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, ListGroupsRequest,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

fn group_id(name: &str) -> GroupId {
    GroupId(StrBytes::from_string(name.to_owned()))
}

fn subscribed(broker: &Broker, more: &[(&str, &str)]) -> BaseConsumer {
    let consumer = consumer(broker, "g", more);
    consumer.subscribe(&["t"]).unwrap();
    consumer
}

/// Generation and state, as DescribeGroups and a heartbeat's refusal tell them.
fn state(broker: &Broker) -> (String, usize) {
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id("g")]);
    let group = Raw::connect(broker).ask(&request, 5).groups[0].clone();
    (group.group_state.to_string(), group.members.len())
}

async fn two_members_share(strategy: &'static str) {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 4).await;
    let first = subscribed(&broker, &[("partition.assignment.strategy", strategy)]);
    settle(&[&first], |assignments| assignments[0] == [0, 1, 2, 3]);
    let second = subscribed(&broker, &[("partition.assignment.strategy", strategy)]);
    let shared = settle(&[&first, &second], |assignments| assignments.iter().all(|one| one.len() == 2));
    let mut all: Vec<i32> = shared.concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert_eq!(state(&broker), ("Stable".to_owned(), 2));
    // The one that leaves gives its partitions back at once, not when its session ends.
    let left = Instant::now();
    second.unsubscribe();
    settle(&[&first, &second], |assignments| assignments[0].len() == 4);
    assert!(left.elapsed() < Duration::from_secs(4), "the rest took over after {:?}", left.elapsed());
    drop((first, second));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_partitions_and_take_over_from_each_other() {
    two_members_share("range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cooperative_members_share_too() {
    two_members_share("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_restarts_without_a_rebalance() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 4).await;
    let one = |id: &str| subscribed(&broker, &[("group.instance.id", id), ("session.timeout.ms", "10000")]);
    let (first, second) = (one("a"), one("b"));
    let before = settle(&[&first, &second], |assignments| assignments.iter().all(|one| one.len() == 2));
    // A static member that only closes keeps its place.
    drop(second);
    let again = one("b");
    let after = settle(&[&first, &again], |assignments| assignments[1].len() == 2);
    assert_eq!(after, before);
    assert_eq!(state(&broker), ("Stable".to_owned(), 2));
    drop((first, again));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 1).await;
    let producer = producer(&broker);
    for number in 0..10 {
        send(&producer, "t", 0, &number.to_string()).await;
    }
    let reader = subscribed(&broker, &[]);
    assert_eq!(take(&reader, 10).len(), 10);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(4)).unwrap();
    reader.commit(&list, CommitMode::Sync).unwrap();
    reader.unsubscribe();
    settle(&[&reader], |assignments| assignments[0].is_empty());
    drop((reader, producer));
    broker.stop().await.unwrap();

    let broker = start(dir.path()).await;
    let reader = subscribed(&broker, &[]);
    assert_eq!(take(&reader, 6), ["4", "5", "6", "7", "8", "9"]);
    drop(reader);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_are_read_from_their_topic_as_tools_that_tell_the_lag_do() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 1).await;
    let committer = consumer(&broker, "g", &[]);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(4)).unwrap();
    committer.commit(&list, CommitMode::Sync).unwrap();
    let tool = consumer(&broker, "tool", &[]);
    let mut groups = TopicPartitionList::new();
    groups.add_partition_offset("__consumer_offsets", 0, Offset::Beginning).unwrap();
    tool.assign(&groups).unwrap();
    let started = Instant::now();
    // OffsetCommitKey 1: group, topic, partition; OffsetCommitValue 3: offset first.
    let key = [&[0, 1, 0, 1][..], b"g", &[0, 1], b"t", &[0, 0, 0, 0]].concat();
    loop {
        assert!(started.elapsed() < PATIENCE, "the commit does not come");
        let Some(message) = tool.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        if message.key() == Some(&key[..]) {
            assert_eq!(message.payload().unwrap()[..10], [0, 3, 0, 0, 0, 0, 0, 0, 0, 4]);
            break;
        }
    }
    drop((committer, tool));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_go_on_after_a_restart_without_a_rebalance() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 2).await;
    let reader = subscribed(&broker, &[("group.instance.id", "a"), ("reconnect.backoff.max.ms", "200")]);
    settle(&[&reader], |assignments| assignments[0].len() == 2);
    let address = broker.address();
    broker.stop().await.unwrap();
    let mut settings = settings(dir.path());
    settings.listen = address;
    let broker = Broker::start(settings).await.unwrap();
    assert_eq!(state(&broker), ("Stable".to_owned(), 1));
    send(&producer(&broker), "t", 1, "after").await;
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < PATIENCE);
        if let Some(Ok(_)) = reader.poll(Duration::from_millis(100)) {
            break;
        }
        assert_eq!(assignment(&reader), [0, 1], "the member kept its partitions all the time");
    }
    drop(reader);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_falls_silent_is_put_out() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut raw = Raw::connect(&broker);
    let protocol = kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"));
    let join = JoinGroupRequest::default()
        .with_group_id(group_id("g"))
        .with_session_timeout_ms(300)
        .with_rebalance_timeout_ms(300)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let told = raw.ask(&join, 4);
    assert_eq!(told.error_code, 79, "a new member is told its id first");
    let joined = raw.ask(&join.with_member_id(told.member_id.clone()), 4);
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(joined.leader, joined.member_id);
    let beat = HeartbeatRequest::default()
        .with_group_id(group_id("g"))
        .with_member_id(joined.member_id.clone())
        .with_generation_id(1);
    assert_eq!(raw.ask(&beat, 3).error_code, 0);
    assert_eq!(raw.ask(&beat.clone().with_generation_id(2), 3).error_code, 22);
    // Waiting for the event: the group is asked until it has put the silent member out.
    let started = Instant::now();
    while state(&broker) != ("Empty".to_owned(), 0) {
        assert!(started.elapsed() < PATIENCE, "{:?}", state(&broker));
    }
    assert!(started.elapsed() > Duration::from_millis(150), "put out after {:?}", started.elapsed());
    assert_eq!(raw.ask(&beat, 3).error_code, 25);
    let listed = raw.ask(&ListGroupsRequest::default(), 4);
    assert_eq!(listed.groups.iter().map(|group| group.group_id.to_string()).collect::<Vec<_>>(), ["g"]);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group_id("g"), group_id("none")]);
    let codes: Vec<i16> = raw.ask(&delete, 2).results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, 69]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_member_with_the_same_instance_id_fences_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 2).await;
    let first = subscribed(&broker, &[("group.instance.id", "a")]);
    settle(&[&first], |assignments| assignments[0].len() == 2);
    let second = subscribed(&broker, &[("group.instance.id", "a")]);
    settle(&[&second], |assignments| assignments[0].len() == 2);
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < PATIENCE, "the first member never learns that it is fenced");
        if let Some(Err(error)) = first.poll(Duration::from_millis(100)) {
            assert!(error.to_string().contains("Fatal") || error.to_string().contains("fenced"), "{error}");
            break;
        }
    }
    drop((first, second));
    broker.stop().await.unwrap();
}
