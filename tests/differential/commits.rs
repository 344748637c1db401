//! OffsetCommit, OffsetFetch, OffsetDelete, DescribeGroups, ListGroups, DeleteGroups.

use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest,
};

use super::group::{commit, committed, describe, id, join, leave};
use super::scenario::{Scenario, scenario};
use super::session::{Session, text, topic_name};

pub const OFFSETS: &[Scenario] = &[
    scenario("OffsetCommit and OffsetFetch from outside of a group in each version", |s| {
        let (topic, group) = (s.topic("t", 2), s.name("g"));
        s.each(|version| commit(&group, &topic, &[(0, 10 + i64::from(version)), (1, 5)]));
        s.each(|version| committed(version, &group, Some((&topic, &[0, 1]))));
        s.ask(describe(&group));
    }),
    scenario("OffsetFetch of all that is committed", |s| {
        let (one, two, group) = (s.topic("one", 2), s.topic("two", 1), s.name("g"));
        s.ask(commit(&group, &one, &[(1, 7)]));
        s.ask(commit(&group, &two, &[(0, 8)]));
        for version in 2..=*s.versions::<OffsetFetchRequest>().end() {
            s.ask_at(version, committed(version, &group, None));
        }
    }),
    scenario("OffsetFetch of a group that there is not", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("none"));
        s.each(|version| committed(version, &group, Some((&topic, &[0, 7]))));
        for version in 2..=*s.versions::<OffsetFetchRequest>().end() {
            s.ask_at(version, committed(version, &group, None));
        }
    }),
    scenario("OffsetFetch of an empty group id", |s| {
        let topic = s.topic("t", 1);
        s.each(|version| committed(version, "", Some((&topic, &[0]))));
    }),
    scenario("OffsetFetch of what was not committed and of what there is not", |s| {
        let (topic, group, none) = (s.topic("t", 2), s.name("g"), s.name("none"));
        s.ask(commit(&group, &topic, &[(0, 3)]));
        s.each(|version| committed(version, &group, Some((&topic, &[1, 9, -1]))));
        s.each(|version| committed(version, &group, Some((&none, &[0]))));
        s.ask_at(7, committed(7, &group, Some((&topic, &[]))));
    }),
    scenario("OffsetFetch of what is stable", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        s.ask(commit(&group, &topic, &[(0, 3)]));
        for version in 7..=*s.versions::<OffsetFetchRequest>().end() {
            s.ask_at(version, committed(version, &group, Some((&topic, &[0]))).with_require_stable(true));
        }
    }),
    scenario("OffsetFetch of several groups, one of them unknown and one twice", |s| {
        let (topic, group, none) = (s.topic("t", 1), s.name("g"), s.name("none"));
        s.ask(commit(&group, &topic, &[(0, 3)]));
        let mut request = committed(8, &group, Some((&topic, &[0])));
        request.groups.extend(committed(8, &none, None).groups);
        s.ask_at(8, request.clone());
        request.groups.extend(committed(8, &group, None).groups);
        s.ask_at(8, request);
        s.ask_at(8, OffsetFetchRequest::default());
    }),
    scenario("OffsetFetch as a member of the new kind in a classic group", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        let (member, generation) = s.stable_member(&group);
        let mut request = committed(9, &group, Some((&topic, &[0])));
        for (member, epoch) in [(&*member, generation), (&*member, generation + 1), ("nobody", 1)] {
            request.groups[0].member_id = Some(text(member));
            request.groups[0].member_epoch = epoch;
            s.ask_at(9, request.clone());
        }
    }),
    scenario("OffsetCommit of odd offsets and epochs", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        for offset in [0, -1, -2, i64::MAX, i64::MIN] {
            s.ask(commit(&group, &topic, &[(0, offset)]));
            s.ask(committed(9, &group, Some((&topic, &[0]))));
        }
        for epoch in [0, 7, -2] {
            let mut request = commit(&group, &topic, &[(0, 3)]);
            request.topics[0].partitions[0].committed_leader_epoch = epoch;
            s.ask(request);
            s.ask(committed(9, &group, Some((&topic, &[0]))));
        }
    }),
    scenario("OffsetCommit with metadata", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        for words in [None, Some(String::new()), Some("x".repeat(4096)), Some("x".repeat(4097)), Some("ä".repeat(2049))]
        {
            let mut request = commit(&group, &topic, &[(0, 3)]);
            request.topics[0].partitions[0].committed_metadata = words.as_deref().map(text);
            s.ask(request);
        }
        let mut request = commit(&group, &topic, &[(0, 3)]);
        request.topics[0].partitions[0].committed_metadata = None;
        s.ask(request);
        s.ask(committed(9, &group, Some((&topic, &[0]))));
    }),
    scenario("OffsetCommit of what there is not", |s| {
        let (topic, group, none) = (s.topic("t", 1), s.name("g"), s.name("none"));
        s.each(|_| commit(&group, &none, &[(0, 1)]));
        s.ask(commit(&group, &topic, &[(1, 1)]));
        s.ask(commit(&group, &topic, &[(-1, 1)]));
        s.ask(commit(&group, "a b", &[(0, 1)]));
        s.ask(commit(&group, &topic, &[]));
        s.ask(OffsetCommitRequest::default().with_group_id(id(&group)).with_generation_id_or_member_epoch(-1));
        s.ask(commit(&group, &topic, &[(0, 1), (5, 2)]));
        s.ask(committed(9, &group, None));
    }),
    scenario("OffsetCommit with an empty group id", |s| {
        let topic = s.topic("t", 1);
        s.each(|_| commit("", &topic, &[(0, 1)]));
    }),
    scenario("OffsetCommit of members and generations that there are not", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        let as_member = |member: &str, generation: i32| {
            commit(&group, &topic, &[(0, 1)])
                .with_member_id(text(member))
                .with_generation_id_or_member_epoch(generation)
        };
        s.each(|_| as_member("nobody", 1));
        s.ask(as_member("", 0));
        s.ask(as_member("nobody", -1));
        s.ask(as_member("nobody", -2));
        let (member, generation) = s.stable_member(&group);
        s.ask(as_member(&member, generation));
        s.ask(as_member(&member, generation + 1));
        s.ask(as_member(&member, generation - 1));
        s.ask(as_member(&member, -1));
        s.ask(as_member("nobody", generation));
        s.ask(as_member("", generation));
        s.ask(as_member("", -1));
        s.ask(as_member(&member, generation).with_group_instance_id(Some(text("nobody"))));
        s.ask(leave(5, &group, &member));
        s.ask(as_member(&member, generation));
        s.ask(as_member("", -1));
        s.ask(committed(9, &group, None));
    }),
    scenario("OffsetCommit while the assignment is awaited and while the group rebalances", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        let joined = s.member(&group);
        let commit = commit(&group, &topic, &[(0, 1)])
            .with_member_id(joined.member_id.clone())
            .with_generation_id_or_member_epoch(joined.generation_id);
        s.ask(commit.clone());
        let sync = super::group::sync(5, &group, joined.generation_id, &joined.member_id, &[]);
        s.ask(sync);
        let second = s.connection(1).ask(join(9, &group, "")).member_id;
        let waiting = s.send(join(9, &group, &second));
        s.connection(0).until("the group rebalances", |s| s.ask(describe(&group)).groups[0].members.len() == 2);
        s.ask(commit);
        s.ask(leave(5, &group, &joined.member_id));
        s.receive(waiting);
    }),
    scenario("OffsetCommit names one partition twice", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        s.ask(commit(&group, &topic, &[(0, 1), (0, 2)]));
        s.ask(committed(9, &group, None));
    }),
    scenario("OffsetCommit with a time to keep them", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        for version in 2..=4 {
            s.ask_at(version, commit(&group, &topic, &[(0, 1)]).with_retention_time_ms(3_600_000));
        }
        s.ask(committed(9, &group, None));
    }),
    scenario("offsets of a topic that is deleted", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        s.ask(commit(&group, &topic, &[(0, 1)]));
        s.quietly(|s| {
            let names = vec![topic_name(&topic)];
            s.ask_at(
                5,
                kafka_protocol::messages::DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(9000),
            )
        });
        s.until("they are gone", |s| s.ask(committed(9, &group, None)).groups[0].topics.is_empty());
        s.ask(committed(9, &group, Some((&topic, &[0]))));
    }),
    scenario("OffsetDelete of an empty group", |s| {
        let (topic, group) = (s.topic("t", 2), s.name("g"));
        s.ask(commit(&group, &topic, &[(0, 1), (1, 2)]));
        s.ask(delete_offsets(&group, &topic, &[0]));
        s.ask(committed(9, &group, Some((&topic, &[0, 1]))));
        s.ask(delete_offsets(&group, &topic, &[0, 7]));
        let none = s.name("none");
        s.ask(delete_offsets(&group, &none, &[0]));
        s.ask(OffsetDeleteRequest::default().with_group_id(id(&group)));
    }),
    scenario("OffsetDelete of a group that there is not", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("none"));
        s.ask(delete_offsets(&group, &topic, &[0]));
        s.ask(delete_offsets("", &topic, &[0]));
    }),
    scenario("OffsetDelete of a topic that members read and of one that they do not", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        let (member, generation) = s.stable_member(&group);
        let commit = commit(&group, &topic, &[(0, 1)]);
        s.ask(commit.with_member_id(text(&member)).with_generation_id_or_member_epoch(generation));
        s.ask(delete_offsets(&group, "subscribed", &[0]));
        s.ask(delete_offsets(&group, &topic, &[0]));
        s.ask(committed(9, &group, None));
    }),
];

pub const GROUPS: &[Scenario] = &[
    scenario("DescribeGroups in each version", |s| {
        let group = s.name("g");
        s.stable_member(&group);
        s.each(|_| describe(&group));
        for version in 3..=*s.versions::<DescribeGroupsRequest>().end() {
            s.ask_at(version, describe(&group).with_include_authorized_operations(true));
        }
    }),
    scenario("DescribeGroups of a group that there is not", |s| {
        let group = s.name("none");
        s.each(|_| describe(&group));
        s.each(|_| describe(""));
    }),
    scenario("DescribeGroups of several and of none", |s| {
        let (one, two) = (s.name("one"), s.name("two"));
        s.stable_member(&one);
        let none = s.name("none");
        s.ask(DescribeGroupsRequest::default().with_groups(vec![id(&two), id(&one), id(&none)]));
        s.ask(DescribeGroupsRequest::default());
        s.ask(DescribeGroupsRequest::default().with_groups(vec![id(&one), id(&one)]));
    }),
    scenario("ListGroups in each version", |s| {
        let (group, topic, simple) = (s.name("g"), s.topic("t", 1), s.name("simple"));
        s.stable_member(&group);
        s.ask(commit(&simple, &topic, &[(0, 1)]));
        for version in s.versions::<ListGroupsRequest>() {
            listed(s, version, ListGroupsRequest::default());
        }
    }),
    scenario("ListGroups by state and by type", |s| {
        let group = s.name("g");
        s.stable_member(&group);
        for states in [&["Stable"][..], &["stable"], &["Empty"], &["Empty", "Stable"], &["no such state"]] {
            let states = states.iter().map(|state| text(state)).collect();
            listed(s, 4, ListGroupsRequest::default().with_states_filter(states));
        }
        for types in [&["classic"][..], &["Classic"], &["consumer"], &["no such type"]] {
            let types = types.iter().map(|kind| text(kind)).collect();
            listed(s, 5, ListGroupsRequest::default().with_types_filter(types));
        }
    }),
    scenario("DeleteGroups in each version", |s| {
        let topic = s.topic("t", 1);
        for version in s.versions::<DeleteGroupsRequest>() {
            let group = s.name(&format!("v{version}"));
            s.ask(commit(&group, &topic, &[(0, 1)]));
            s.ask_at(version, DeleteGroupsRequest::default().with_groups_names(vec![id(&group)]));
            s.ask(committed(9, &group, None));
            s.ask(describe(&group));
        }
    }),
    scenario("DeleteGroups of one with members, of none and of nobody", |s| {
        let (group, none) = (s.name("g"), s.name("none"));
        let (member, _) = s.stable_member(&group);
        let delete = |names: &[&str]| {
            DeleteGroupsRequest::default().with_groups_names(names.iter().map(|name| id(name)).collect())
        };
        s.ask(delete(&[&group]));
        s.ask(delete(&[&none, ""]));
        s.ask(delete(&[]));
        s.ask(leave(5, &group, &member));
        s.ask(delete(&[&group]));
        s.ask(delete(&[&group]));
    }),
    scenario("DeleteGroups names one twice", |s| {
        let (group, topic) = (s.name("g"), s.topic("t", 1));
        s.ask(commit(&group, &topic, &[(0, 1)]));
        s.ask(DeleteGroupsRequest::default().with_groups_names(vec![id(&group), id(&group)]));
    }),
    scenario("a group that was deleted can be joined", |s| {
        let group = s.name("g");
        let (member, _) = s.stable_member(&group);
        s.ask(leave(5, &group, &member));
        s.ask(DeleteGroupsRequest::default().with_groups_names(vec![id(&group)]));
        s.ask(join(9, &group, &member));
        let first = s.ask(join(9, &group, "")).member_id;
        s.ask(join(9, &group, &first));
    }),
];

fn delete_offsets(group: &str, topic: &str, partitions: &[i32]) -> OffsetDeleteRequest {
    let partition = |index: &i32| OffsetDeleteRequestPartition::default().with_partition_index(*index);
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.iter().map(partition).collect());
    OffsetDeleteRequest::default().with_group_id(id(group)).with_topics(vec![topic])
}

/// Only the scenario's own groups: others run beside it.
fn listed(s: &mut Session, version: i16, request: ListGroupsRequest) {
    let mut answer = s.quietly(|s| s.ask_at(version, request));
    let prefix = s.name("");
    answer.groups.retain(|group| group.group_id.starts_with(&*prefix));
    s.note(&format!("ListGroups v{version}"), &answer);
}
