//! A group's requests as scenarios need them again and again.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestTopic, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};

use super::session::{Session, text, topic_name};

pub const SESSION_MS: i32 = 30_000;

pub fn id(group: &str) -> GroupId {
    GroupId(text(group))
}

/// As a consumer that offers "range".
pub fn join(version: i16, group: &str, member: &str) -> JoinGroupRequest {
    let request = JoinGroupRequest::default()
        .with_group_id(id(group))
        .with_session_timeout_ms(SESSION_MS)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"));
    let request = offering(request, &["range"]);
    if version >= 1 { request.with_rebalance_timeout_ms(SESSION_MS) } else { request }
}

/// The same as a static member.
pub fn join_as(group: &str, member: &str, instance: &str) -> JoinGroupRequest {
    join(9, group, member).with_group_instance_id(Some(text(instance)))
}

/// The protocols that a member can do, best first.
pub fn offering(request: JoinGroupRequest, names: &[&str]) -> JoinGroupRequest {
    let protocol =
        |name: &&str| JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(subscription());
    request.with_protocols(names.iter().map(protocol).collect())
}

/// What a consumer of the topic `subscribed` says of itself (ConsumerProtocolSubscription, version 0).
fn subscription() -> Bytes {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 10];
    bytes.extend(b"subscribed");
    bytes.extend([0xff, 0xff, 0xff, 0xff]);
    bytes.into()
}

pub fn sync(version: i16, group: &str, generation: i32, member: &str, assigned: &[&str]) -> SyncGroupRequest {
    let assignment = |member: &&str| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member))
            .with_assignment(Bytes::from_static(b"what it gets"))
    };
    let request = SyncGroupRequest::default()
        .with_group_id(id(group))
        .with_generation_id(generation)
        .with_member_id(text(member))
        .with_assignments(assigned.iter().map(assignment).collect());
    match version {
        5.. => request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range"))),
        _ => request,
    }
}

pub fn heartbeat(group: &str, generation: i32, member: &str) -> HeartbeatRequest {
    HeartbeatRequest::default().with_group_id(id(group)).with_generation_id(generation).with_member_id(text(member))
}

pub fn leave(version: i16, group: &str, member: &str) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(id(group));
    match version {
        3.. => request.with_members(vec![MemberIdentity::default().with_member_id(text(member))]),
        _ => request.with_member_id(text(member)),
    }
}

/// Members by id and instance.
pub fn leave_many(group: &str, members: &[(&str, Option<&str>)]) -> LeaveGroupRequest {
    let member = |(member, instance): &(&str, Option<&str>)| {
        MemberIdentity::default().with_member_id(text(member)).with_group_instance_id(instance.map(text))
    };
    LeaveGroupRequest::default().with_group_id(id(group)).with_members(members.iter().map(member).collect())
}

pub fn describe(group: &str) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(vec![id(group)])
}

/// From outside of any generation, unless told otherwise.
pub fn commit(group: &str, topic: &str, offsets: &[(i32, i64)]) -> OffsetCommitRequest {
    let partition = |(index, offset): &(i32, i64)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*index)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text("words")))
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(offsets.iter().map(partition).collect());
    OffsetCommitRequest::default()
        .with_group_id(id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

/// What is committed for some partitions, or for all that there are.
pub fn committed(version: i16, group: &str, asked: Option<(&str, &[i32])>) -> OffsetFetchRequest {
    let group_id = id(group);
    if version < 8 {
        let topics = asked.map(|(topic, partitions)| {
            let topic = OffsetFetchRequestTopic::default().with_name(topic_name(topic));
            vec![topic.with_partition_indexes(partitions.to_vec())]
        });
        return OffsetFetchRequest::default().with_group_id(group_id).with_topics(topics);
    }
    let topics = asked.map(|(topic, partitions)| {
        let topic = OffsetFetchRequestTopics::default().with_name(topic_name(topic));
        vec![topic.with_partition_indexes(partitions.to_vec())]
    });
    let group = OffsetFetchRequestGroup::default().with_group_id(group_id).with_topics(topics);
    let group = if version >= 9 { group.with_member_epoch(-1) } else { group };
    OffsetFetchRequest::default().with_groups(vec![group])
}

impl Session<'_> {
    /// Joins as a new member, the only one so far, without comparing; returns what it was told.
    pub fn member(&mut self, group: &str) -> JoinGroupResponse {
        self.quietly(|s| {
            let first = s.ask_at(9, join(9, group, ""));
            s.ask_at(9, join(9, group, &first.member_id))
        })
    }

    /// The same, with an assignment: the group is stable.
    pub fn stable_member(&mut self, group: &str) -> (String, i32) {
        let joined = self.member(group);
        let (member, generation) = (joined.member_id.to_string(), joined.generation_id);
        let synced = self.quietly(|s| s.ask_at(5, sync(5, group, generation, &member, &[&member])));
        assert_eq!((joined.error_code, synced.error_code), (0, 0));
        (member, generation)
    }
}
