//! Static members (KIP-345): they come back, are fenced, and leave by their instance.

use super::group::{commit, describe, heartbeat, join_as, leave_many, sync};
use super::scenario::{Scenario, scenario};
use super::session::{Session, text};

pub const SCENARIOS: &[Scenario] = &[
    scenario("a static member joins without being asked to come back", |s| {
        for version in 5..=9 {
            let group = s.name(&format!("v{version}"));
            let request = super::group::join(version, &group, "").with_group_instance_id(Some(text("one")));
            s.ask_at(version, request);
            s.ask(describe(&group));
        }
    }),
    scenario("a static member comes back with a new id and keeps its place", |s| {
        let (topic, group) = (s.topic("t", 1), s.name("g"));
        let (old, generation) = stable(s, &group, "one");
        let joined = s.connection(1).ask(join_as(&group, "", "one"));
        s.fact("another member id", &(*joined.member_id != *old).to_string());
        s.ask(heartbeat(&group, joined.generation_id, &joined.member_id).with_group_instance_id(Some(text("one"))));
        s.ask(describe(&group));
        s.connection(0).ask(heartbeat(&group, generation, &old).with_group_instance_id(Some(text("one"))));
        s.ask(heartbeat(&group, generation, &old));
        s.ask(sync(5, &group, generation, &old, &[]).with_group_instance_id(Some(text("one"))));
        s.ask(join_as(&group, &old, "one"));
        s.ask(
            commit(&group, &topic, &[(0, 1)])
                .with_member_id(text(&old))
                .with_generation_id_or_member_epoch(generation)
                .with_group_instance_id(Some(text("one"))),
        );
        s.ask(leave_many(&group, &[(&old, Some("one"))]));
    }),
    scenario("a static member comes back in an old version", |s| {
        let group = s.name("g");
        stable(s, &group, "one");
        let back = super::group::join(5, &group, "").with_group_instance_id(Some(text("one")));
        s.connection(1).ask_at(5, back);
        s.ask(describe(&group));
    }),
    scenario("a static member comes back with other protocols", |s| {
        let group = s.name("g");
        stable(s, &group, "one");
        let back = super::group::offering(join_as(&group, "", "one"), &["roundrobin", "range"]);
        s.connection(1).ask(back);
        s.ask(describe(&group));
    }),
    scenario("a static member comes back with a protocol that changes the choice", |s| {
        let group = s.name("g");
        stable(s, &group, "one");
        s.connection(1).ask(super::group::offering(join_as(&group, "", "one"), &["roundrobin"]));
        s.ask(describe(&group));
    }),
    scenario("a static member with an id that is not its own", |s| {
        let group = s.name("g");
        let (member, generation) = stable(s, &group, "one");
        s.ask(join_as(&group, "nobody", "one"));
        s.ask(join_as(&group, &member, "two"));
        s.ask(join_as(&group, "nobody", "two"));
        s.ask(heartbeat(&group, generation, "nobody").with_group_instance_id(Some(text("one"))));
        s.ask(heartbeat(&group, generation, &member).with_group_instance_id(Some(text("two"))));
    }),
    scenario("a static member leaves by its instance", |s| {
        let group = s.name("g");
        stable(s, &group, "one");
        s.ask(leave_many(&group, &[("", Some("nobody"))]));
        s.ask(leave_many(&group, &[("nobody", Some("one"))]));
        s.ask(leave_many(&group, &[("", Some("one"))]));
        s.ask(describe(&group));
    }),
    scenario("a static member leaves by its id", |s| {
        let group = s.name("g");
        let (member, _) = stable(s, &group, "one");
        s.ask(leave_many(&group, &[(&member, None)]));
        s.ask(describe(&group));
    }),
    scenario("a static member joins again under its id", |s| {
        let group = s.name("g");
        let (member, _) = stable(s, &group, "one");
        s.ask(join_as(&group, &member, "one"));
        s.ask(describe(&group));
    }),
    scenario("two static members of a group", |s| {
        let group = s.name("g");
        let (first, generation) = stable(s, &group, "one");
        let waiting = s.connection(1).send(join_as(&group, "", "two"));
        s.connection(0)
            .until("the group rebalances", |s| s.ask(heartbeat(&group, generation, &first)).error_code == 27);
        s.ask(join_as(&group, &first, "one"));
        let second = s.receive(waiting).member_id.to_string();
        let waiting = s.connection(1).send(sync(5, &group, generation + 1, &second, &[]));
        s.connection(0).ask(sync(5, &group, generation + 1, &first, &[&first, &second]));
        s.receive(waiting);
        s.ask(describe(&group));
        s.connection(2).ask(join_as(&group, "", "two"));
        s.connection(2).ask(join_as(&group, "", "one"));
        s.ask(describe(&group));
    }),
];

fn stable(s: &mut Session, group: &str, instance: &str) -> (String, i32) {
    let joined = s.ask(join_as(group, "", instance));
    let (member, generation) = (joined.member_id.to_string(), joined.generation_id);
    s.ask(sync(5, group, generation, &member, &[&member]).with_group_instance_id(Some(text(instance))));
    (member, generation)
}
