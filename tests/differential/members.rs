//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup: dynamic members, and every refusal.

use kafka_protocol::messages::{HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest};

use super::group::{describe, heartbeat, join, leave, leave_many, offering, sync};
use super::scenario::{Scenario, scenario};
use super::session::{Session, text};

pub const JOINING: &[Scenario] = &[
    scenario("a member joins, gets its assignment, lives and leaves in each version", |s| {
        for version in s.versions::<JoinGroupRequest>() {
            let group = s.name(&format!("v{version}"));
            let mut joined = s.ask_at(version, join(version, &group, ""));
            if joined.error_code == 79 {
                joined = s.ask_at(version, join(version, &group, &joined.member_id));
            }
            let (member, generation) = (joined.member_id.to_string(), joined.generation_id);
            let sync_version = version.min(*s.versions::<SyncGroupRequest>().end());
            s.ask_at(sync_version, sync(sync_version, &group, generation, &member, &[&member]));
            let beat_version = version.min(*s.versions::<HeartbeatRequest>().end());
            s.ask_at(beat_version, heartbeat(&group, generation, &member));
            s.ask(describe(&group));
            let leave_version = version.min(*s.versions::<LeaveGroupRequest>().end());
            s.ask_at(leave_version, leave(leave_version, &group, &member));
            s.ask(describe(&group));
        }
    }),
    scenario("JoinGroup with an empty group id", |s| s.each(|version| join(version, "", ""))),
    scenario("JoinGroup as a member that nobody knows", |s| {
        let group = s.name("none");
        s.each(|version| join(version, &group, "nobody"));
        let group = s.name("there");
        s.member(&group);
        s.ask(join(9, &group, "nobody"));
    }),
    scenario("JoinGroup with session timeouts that cannot be", |s| {
        let group = s.name("g");
        for timeout_ms in [-1, 0, 1_800_001, i32::MAX] {
            s.ask(join(9, &group, "").with_session_timeout_ms(timeout_ms));
        }
    }),
    scenario("JoinGroup with the shortest session timeout of Apache Kafka and less", |s| {
        for timeout_ms in [6000, 5999] {
            let group = s.name(&format!("{timeout_ms}"));
            s.ask_at(3, join(3, &group, "").with_session_timeout_ms(timeout_ms));
        }
    }),
    scenario("JoinGroup without protocols", |s| {
        let group = s.name("g");
        s.ask(offering(join(9, &group, ""), &[]));
        s.ask_at(3, offering(join(3, &group, ""), &[]));
        s.ask_at(3, join(3, &group, "").with_protocol_type(text("")));
    }),
    scenario("JoinGroup with another type of protocol than the group's", |s| {
        let group = s.name("g");
        s.stable_member(&group);
        s.connection(1).ask(join(9, &group, "").with_protocol_type(text("connect")));
        s.connection(1).ask_at(3, join(3, &group, "").with_protocol_type(text("connect")));
    }),
    scenario("JoinGroup with protocols that nobody else has", |s| {
        let group = s.name("g");
        s.stable_member(&group);
        s.connection(1).ask(offering(join(9, &group, ""), &["other"]));
        s.connection(1).ask_at(3, offering(join(3, &group, ""), &["other"]));
        s.ask(describe(&group));
    }),
    scenario("JoinGroup again with the same id and nothing new", |s| {
        let group = s.name("g");
        let (member, generation) = s.stable_member(&group);
        s.ask(join(9, &group, &member));
        s.ask(heartbeat(&group, generation, &member));
        s.ask(heartbeat(&group, generation + 1, &member));
        s.ask(sync(5, &group, generation + 1, &member, &[&member]));
    }),
    scenario("the leader joins again with a new protocol", |s| {
        let group = s.name("g");
        let (member, _) = s.stable_member(&group);
        s.ask(offering(join(9, &group, &member), &["roundrobin", "range"]));
    }),
    scenario("the only member joins again with other protocols only", |s| {
        let group = s.name("g");
        let (member, _) = s.stable_member(&group);
        s.ask(offering(join(9, &group, &member), &["roundrobin"]));
        s.ask(describe(&group));
    }),
    scenario("two members share a group", |s| two_members(s, 9)),
    scenario("two members of an old version share a group", |s| two_members(s, 3)).masking(&["members"]),
    scenario("the protocol is the one that both can do", |s| {
        let group = s.name("g");
        let first = s.ask_at(9, join(9, &group, "")).member_id.to_string();
        s.ask_at(9, offering(join(9, &group, &first), &["sticky", "range"]));
        s.ask_at(4, sync(4, &group, 1, &first, &[&first]));
        let second = s.connection(1).ask_at(9, join(9, &group, "")).member_id.to_string();
        let waiting = s.connection(1).send_at(9, offering(join(9, &group, &second), &["range", "other"]));
        s.connection(0).until("the group rebalances", |s| s.ask(heartbeat(&group, 1, &first)).error_code == 27);
        s.ask_at(9, offering(join(9, &group, &first), &["sticky", "range"]));
        s.receive(waiting);
    }),
    scenario("a member that was told its id and does not come back is not waited for", |s| {
        let group = s.name("g");
        s.ask_at(9, join(9, &group, ""));
        s.connection(1);
        s.member(&group);
        s.ask(describe(&group));
    }),
];

pub const LIVING: &[Scenario] = &[
    scenario("SyncGroup that is refused", |s| {
        let group = s.name("g");
        s.each(|version| sync(version, &group, 1, "nobody", &[]));
        s.ask(sync(5, "", 1, "nobody", &[]));
        let (member, generation) = s.stable_member(&group);
        s.ask(sync(5, &group, generation, "nobody", &[]));
        s.ask(sync(5, &group, generation + 1, &member, &[]));
        s.ask(sync(5, &group, -1, &member, &[]));
        s.ask(sync(5, &group, generation, &member, &[]).with_protocol_name(Some(text("other"))));
        s.ask(sync(5, &group, generation, &member, &[]).with_protocol_type(Some(text("connect"))));
        s.ask(sync(5, &group, generation, &member, &[]).with_protocol_type(None).with_protocol_name(None));
        s.ask(sync(5, &group, generation, &member, &[]));
    }),
    scenario("SyncGroup of a leader that assigns nothing and of one that assigns strangers", |s| {
        for (name, assigned) in [("nothing", &[][..]), ("strangers", &["nobody"][..])] {
            let group = s.name(name);
            let joined = s.member(&group);
            s.ask(sync(5, &group, joined.generation_id, &joined.member_id, assigned));
            s.ask(describe(&group));
        }
    }),
    scenario("Heartbeat that is refused", |s| {
        let group = s.name("g");
        s.each(|_| heartbeat(&group, 1, "nobody"));
        s.ask(heartbeat("", 1, "nobody"));
        let (member, generation) = s.stable_member(&group);
        s.ask(heartbeat(&group, generation, "nobody"));
        s.ask(heartbeat(&group, generation, ""));
        s.ask(heartbeat(&group, generation + 1, &member));
        s.ask(heartbeat(&group, -1, &member));
        s.ask(heartbeat(&group, generation, &member).with_group_instance_id(Some(text("nobody"))));
        s.ask(heartbeat(&group, generation, &member));
    }),
    scenario("Heartbeat while the assignment is awaited", |s| {
        let group = s.name("g");
        let joined = s.member(&group);
        s.ask(heartbeat(&group, joined.generation_id, &joined.member_id));
        s.ask(describe(&group));
    }),
    scenario("LeaveGroup that is refused", |s| {
        let group = s.name("g");
        s.each(|version| leave(version, &group, "nobody"));
        s.each(|version| leave(version, "", "nobody"));
        s.stable_member(&group);
        s.each(|version| leave(version, &group, "nobody"));
        s.ask(leave_many(&group, &[]));
    }),
    scenario("LeaveGroup of several, one of them unknown", |s| {
        let group = s.name("g");
        let (member, _) = s.stable_member(&group);
        s.ask(leave_many(&group, &[("nobody", None), (&member, None), (&member, None), ("", Some("nobody"))]));
        s.ask(describe(&group));
    }),
    scenario("a member that only has an id leaves", |s| {
        let group = s.name("g");
        let member = s.ask(join(9, &group, "")).member_id.to_string();
        s.ask(leave(5, &group, &member));
        s.ask(join(9, &group, &member));
        s.ask(describe(&group));
    }),
    scenario("after a member has left", |s| {
        let group = s.name("g");
        let (member, generation) = s.stable_member(&group);
        s.ask(leave(5, &group, &member));
        s.ask(heartbeat(&group, generation, &member));
        s.ask(sync(5, &group, generation, &member, &[]));
        s.ask(join(9, &group, &member));
        s.ask(leave(5, &group, &member));
    }),
    scenario("a member that keeps silent is put out", |s| {
        let group = s.name("g");
        let first = s.ask_at(3, join(3, &group, "").with_session_timeout_ms(6000).with_rebalance_timeout_ms(6000));
        let member = first.member_id.to_string();
        s.ask_at(3, sync(3, &group, first.generation_id, &member, &[&member]));
        s.until("it is put out", |s| s.ask(describe(&group)).groups[0].members.is_empty());
        s.ask(describe(&group));
        s.ask(heartbeat(&group, first.generation_id, &member));
    }),
    scenario("a member that does not join again is left behind", |s| {
        let group = s.name("g");
        let joining = |member: &str| join(3, &group, member).with_rebalance_timeout_ms(1000);
        let first = s.ask_at(3, joining(""));
        let first_id = first.member_id.to_string();
        s.ask_at(3, sync(3, &group, first.generation_id, &first_id, &[&first_id]));
        let second = s.connection(1).ask_at(3, joining(""));
        s.ask_at(3, sync(3, &group, second.generation_id, &second.member_id, &[&second.member_id]));
        s.connection(0).ask(heartbeat(&group, first.generation_id, &first_id));
        s.ask(describe(&group));
    }),
    scenario("a leader that brings no assignment is put out", |s| {
        let group = s.name("g");
        let joined = s.ask_at(3, join(3, &group, "").with_rebalance_timeout_ms(1000));
        s.until("it is put out", |s| s.ask(describe(&group)).groups[0].members.is_empty());
        s.ask(heartbeat(&group, joined.generation_id, &joined.member_id));
        s.ask(describe(&group));
    }),
];

/// The second makes the first join again; the leader's assignment reaches both.
fn two_members(s: &mut Session, version: i16) {
    let group = s.name("g");
    let told = |s: &mut Session, connection: usize| match version {
        4.. => s.connection(connection).ask_at(version, join(version, &group, "")).member_id.to_string(),
        _ => String::new(),
    };
    let first = told(s, 0);
    let joined = s.ask_at(version, join(version, &group, &first));
    let first = joined.member_id.to_string();
    s.ask_at(3, sync(3, &group, joined.generation_id, &first, &[&first]));
    let second = told(s, 1);
    let waiting = s.connection(1).send_at(version, join(version, &group, &second));
    s.connection(0).until("the group rebalances", |s| s.ask(heartbeat(&group, 1, &first)).error_code == 27);
    s.ask(heartbeat(&group, 1, &first));
    s.ask(sync(5, &group, 1, &first, &[]));
    s.ask(describe(&group));
    s.ask_at(version, join(version, &group, &first));
    let second = s.receive(waiting).member_id.to_string();
    let waiting = s.connection(1).send_at(3, sync(3, &group, 2, &second, &[]));
    s.connection(0).ask_at(3, sync(3, &group, 2, &first, &[&first, &second]));
    s.receive(waiting);
    s.ask(describe(&group));
    s.ask(heartbeat(&group, 2, &second));
    s.ask(leave(5, &group, &first));
    s.ask(heartbeat(&group, 2, &second));
    s.ask(describe(&group));
}
