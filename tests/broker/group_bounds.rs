//! What clients may leave behind in groups: bounded metadata, and no names for ever.

use crate::support::{Raw, create_topic, start};
use bytes::Bytes;
use finstream::broker::Broker;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiVersionsRequest, GroupId, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

const INVALID_REQUEST: i16 = 42;
const GROUP_MAX_SIZE_REACHED: i16 = 81;
const MIB: usize = 1 << 20;

fn id(name: &str) -> GroupId {
    GroupId(StrBytes::from_string(name.to_owned()))
}

fn greeted(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker);
    raw.ask(&ApiVersionsRequest::default(), 3);
    raw
}

/// Joins as the only member, which is answered at once.
fn join(raw: &mut Raw, group: &str, metadata_bytes: usize) -> JoinGroupResponse {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(Bytes::from(vec![b'm'; metadata_bytes]));
    let request = JoinGroupRequest::default()
        .with_group_id(id(group))
        .with_session_timeout_ms(1_800_000)
        .with_rebalance_timeout_ms(1_800_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    raw.ask(&request, 3)
}

fn sync(raw: &mut Raw, group: &str, joined: &JoinGroupResponse, assignment_bytes: usize) -> i16 {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from(vec![b'a'; assignment_bytes]));
    let request = SyncGroupRequest::default()
        .with_group_id(id(group))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment]);
    raw.ask(&request, 2).error_code
}

fn leave(raw: &mut Raw, group: &str, joined: &JoinGroupResponse) {
    let request = LeaveGroupRequest::default().with_group_id(id(group)).with_member_id(joined.member_id.clone());
    assert_eq!(raw.ask(&request, 2).error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_assignments_over_a_mebibyte_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut raw = greeted(&broker);
    assert_eq!(join(&mut raw, "large", 7 * MIB).error_code, INVALID_REQUEST);
    let joined = join(&mut raw, "small", 1000);
    assert_eq!(joined.error_code, 0);
    assert_eq!(sync(&mut raw, "small", &joined, 2 * MIB), INVALID_REQUEST);
    assert_eq!(sync(&mut raw, "small", &joined, 1000), 0);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_groups_together_hold_no_more_than_they_may_and_give_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut raw = greeted(&broker);
    let mut members = Vec::new();
    let code = loop {
        let name = format!("group-{}", members.len());
        let joined = join(&mut raw, &name, 1_000_000);
        match joined.error_code {
            0 => members.push((name, joined)),
            code => break code,
        }
        assert!(members.len() < 200, "nothing is refused");
    };
    assert_eq!(code, GROUP_MAX_SIZE_REACHED);
    for (name, joined) in &members[..2] {
        leave(&mut raw, name, joined);
    }
    assert_eq!(join(&mut raw, "next", 1_000_000).error_code, 0);
    broker.stop().await.unwrap();
}

fn commit(raw: &mut Raw, group: &str) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("t")))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    raw.ask(&request, 7).topics[0].partitions[0].error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_names_that_nobody_uses_do_not_block_new_ones_and_offsets_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 1).await;
    let mut raw = greeted(&broker);
    assert_eq!(commit(&mut raw, "kept"), 0);
    let alive = join(&mut raw, "alive", 10);
    for number in 0..10_050 {
        let name = format!("random-{number}");
        let joined = join(&mut raw, &name, 10);
        assert_eq!(joined.error_code, 0, "{name}");
        leave(&mut raw, &name, &joined);
    }
    assert_eq!(sync(&mut raw, "alive", &alive, 10), 0);
    let listed = raw.ask(&ListGroupsRequest::default(), 4).groups;
    assert!(listed.len() < 10_000);
    assert!(listed.iter().any(|group| group.group_id == id("alive")));
    broker.stop().await.unwrap();
    let broker = start(dir.path()).await;
    let fetched = greeted(&broker).ask(&OffsetFetchRequest::default().with_group_id(id("kept")).with_topics(None), 5);
    assert_eq!(fetched.topics[0].partitions[0].committed_offset, 7);
    broker.stop().await.unwrap();
}
