//! The state machine with a clock of the test's own, and its durable form.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot::error::TryRecvError;

use super::super::codec;
use super::super::join::{JoinRequest, Joined};
use super::super::state::Group;
use super::super::terms::{GroupError, Phase, Step, SyncRequest, Synced};

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

pub(super) fn request(member_id: &str, instance_id: Option<&str>) -> JoinRequest {
    JoinRequest {
        member_id: member_id.to_owned(),
        instance_id: instance_id.map(str::to_owned),
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"r"))],
        id_first: false,
        can_skip_assignment: false,
    }
}

type Pending<T> = tokio::sync::oneshot::Receiver<Result<T, GroupError>>;

fn parked<T: std::fmt::Debug>(step: Step<T>) -> Pending<T> {
    match step {
        Step::Wait(receiver) => receiver,
        Step::Done(result) => panic!("answered at once: {result:?}"),
    }
}

fn done<T: std::fmt::Debug>(step: Step<T>) -> Result<T, GroupError> {
    match step {
        Step::Done(result) => result,
        Step::Wait(_) => panic!("parked"),
    }
}

fn join(group: &mut Group, member_id: &str, instance_id: Option<&str>, now: Instant) -> Pending<Joined> {
    parked(group.join(request(member_id, instance_id), now))
}

fn sync(group: &mut Group, joined: &Joined, now: Instant) -> Step<Synced> {
    let assignments = joined.members.iter().map(|(id, ..)| (id.clone(), Bytes::from(format!("to {id}")))).collect();
    let request = SyncRequest {
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments,
    };
    group.sync(request, now)
}

/// A stable group of these instances (None: dynamic).
fn stable(instances: &[Option<&str>], now: Instant) -> (Group, Vec<Joined>) {
    let mut group = Group::new();
    let mut joined: Vec<Joined> = Vec::new();
    for instance in instances {
        let newcomer = join(&mut group, "", *instance, now);
        let others: Vec<_> = joined.iter().map(|one| join(&mut group, &one.member_id, None, now)).collect();
        joined = others.into_iter().chain([newcomer]).map(|mut each| each.try_recv().unwrap().unwrap()).collect();
    }
    let waiting: Vec<_> = joined.iter().map(|one| parked(sync(&mut group, one, now))).collect();
    let generation = group.saving.unwrap();
    group.saved(generation, true, now);
    for (mut one, joined) in waiting.into_iter().zip(&joined) {
        assert_eq!(one.try_recv().unwrap().unwrap().assignment, format!("to {}", joined.member_id));
    }
    assert_eq!(group.phase, Phase::Stable);
    (group, joined)
}

/// What a returning member is told once its new id was written, or could not be.
fn answer(group: &mut Group, waiting: &mut Pending<Joined>, durable: bool) -> Result<Joined, GroupError> {
    std::mem::take(&mut group.returning).into_iter().for_each(|member| member.answer(durable));
    waiting.try_recv().unwrap()
}

#[test]
fn nobody_gets_an_assignment_before_it_is_durable() {
    let now = Instant::now();
    let mut group = Group::new();
    let joined = join(&mut group, "", None, now).try_recv().unwrap().unwrap();
    let mut waiting = parked(sync(&mut group, &joined, now));
    assert_eq!(waiting.try_recv(), Err(TryRecvError::Empty));
    group.saved(1, false, now);
    assert_eq!(waiting.try_recv().unwrap(), Err(GroupError::NotAvailable));
    assert_eq!(group.phase, Phase::PreparingRebalance);
}

#[test]
fn a_new_dynamic_member_is_told_its_id_first() {
    let now = Instant::now();
    let mut group = Group::new();
    let first = JoinRequest { id_first: true, ..request("", None) };
    let Err(GroupError::MemberIdRequired(id)) = done(group.join(first, now)) else { panic!("not told") };
    assert_eq!(group.phase, Phase::Empty);
    assert!(join(&mut group, &id, None, now).try_recv().unwrap().is_ok());
    assert_eq!(done(group.join(request("invented", None), now)), Err(GroupError::UnknownMember));
}

#[test]
fn a_member_that_does_not_come_back_in_time_is_left_behind() {
    let now = Instant::now();
    let (mut group, joined) = stable(&[None, None], now);
    let mut newcomer = join(&mut group, "", None, now);
    let mut first = join(&mut group, &joined[0].member_id, None, now);
    // The second keeps its session alive, and never joins again.
    let mut at = now;
    while at < now + REBALANCE - SESSION {
        at += SESSION / 2;
        let beat = group.heartbeat(&joined[1].member_id, None, joined[1].generation, at);
        assert_eq!(beat, Err(GroupError::RebalanceInProgress));
        group.expire(at);
    }
    assert_eq!(newcomer.try_recv(), Err(TryRecvError::Empty));
    group.expire(now + REBALANCE);
    assert_eq!(newcomer.try_recv().unwrap().unwrap().generation, joined[0].generation + 1);
    assert!(first.try_recv().unwrap().is_ok());
    assert!(!group.members.contains_key(&joined[1].member_id));
}

#[test]
fn an_assignment_that_comes_while_the_one_before_is_written_is_handed_out_too() {
    let now = Instant::now();
    let mut group = Group::new();
    let first = join(&mut group, "", None, now).try_recv().unwrap().unwrap();
    let mut overtaken = parked(sync(&mut group, &first, now));
    // Its write is under way when another member comes.
    assert!(group.unsaved.take().is_some());
    let mut newcomer = join(&mut group, "", None, now);
    assert_eq!(overtaken.try_recv().unwrap(), Err(GroupError::RebalanceInProgress));
    let leader = join(&mut group, &first.member_id, None, now).try_recv().unwrap().unwrap();
    let follower = newcomer.try_recv().unwrap().unwrap();
    let mut waiting = [&leader, &follower].map(|joined| parked(sync(&mut group, joined, now)));
    group.saved(first.generation, true, now);
    assert_eq!(waiting[0].try_recv(), Err(TryRecvError::Empty), "its own assignment is not durable yet");
    assert!(group.unsaved.take().is_some());
    group.saved(leader.generation, true, now);
    for (waiting, joined) in waiting.iter_mut().zip([&leader, &follower]) {
        assert_eq!(waiting.try_recv().unwrap().unwrap().assignment, format!("to {}", joined.member_id));
    }
}

#[test]
fn a_member_that_never_asks_for_its_assignment_is_put_out_though_it_shows_signs_of_life() {
    let now = Instant::now();
    let (mut group, joined) = stable(&[None], now);
    let mut silent = join(&mut group, "", Some("a"), now);
    let leader = join(&mut group, &joined[0].member_id, None, now).try_recv().unwrap().unwrap();
    let silent = silent.try_recv().unwrap().unwrap();
    let mut waiting = parked(sync(&mut group, &leader, now));
    group.saved(leader.generation, true, now);
    assert!(waiting.try_recv().unwrap().is_ok());
    let over = now + REBALANCE;
    for member in [&leader, &silent] {
        group.heartbeat(&member.member_id, None, leader.generation, over - SESSION / 2).unwrap();
    }
    assert_eq!(group.next_deadline(), Some(over));
    group.expire(over);
    assert_eq!(group.phase, Phase::PreparingRebalance);
    assert!(group.members.contains_key(&leader.member_id) && !group.members.contains_key(&silent.member_id));
}

#[test]
fn a_member_that_asks_late_but_in_time_stays() {
    let now = Instant::now();
    let (mut group, joined) = stable(&[None], now);
    let mut late = join(&mut group, "", None, now);
    let leader = join(&mut group, &joined[0].member_id, None, now).try_recv().unwrap().unwrap();
    let late = late.try_recv().unwrap().unwrap();
    let _waiting = parked(sync(&mut group, &leader, now));
    group.saved(leader.generation, true, now);
    let shortly_before = now + REBALANCE - Duration::from_millis(1);
    group.heartbeat(&leader.member_id, None, leader.generation, shortly_before).unwrap();
    let assignment = done(sync(&mut group, &late, shortly_before)).unwrap().assignment;
    assert_eq!(assignment, format!("to {}", late.member_id));
    group.expire(now + REBALANCE);
    assert_eq!((group.phase, group.members.len()), (Phase::Stable, 2));
}

#[test]
fn whoever_is_counted_already_is_let_into_a_full_group() {
    let now = Instant::now();
    let mut group = Group::new();
    let mut ids = Vec::new();
    let refused = loop {
        match done(group.join(JoinRequest { id_first: true, ..request("", None) }, now)) {
            Err(GroupError::MemberIdRequired(id)) => ids.push(id),
            other => break other,
        }
    };
    assert_eq!(refused, Err(GroupError::Full));
    let _waiting: Vec<_> = ids.iter().map(|id| join(&mut group, id, None, now)).collect();
    assert_eq!(group.members.len(), ids.len());
}

#[test]
fn a_session_that_ends_starts_a_rebalance() {
    let now = Instant::now();
    let (mut group, joined) = stable(&[None, None], now);
    let later = now + SESSION - Duration::from_secs(1);
    group.heartbeat(&joined[0].member_id, None, group.generation, later).unwrap();
    assert_eq!(group.next_deadline(), Some(now + SESSION));
    group.expire(now + SESSION);
    assert_eq!(group.members.len(), 1);
    assert_eq!(group.phase, Phase::PreparingRebalance);
    assert_eq!(group.leader.as_ref(), Some(&joined[0].member_id));
}

#[test]
fn a_session_does_not_end_while_a_commit_of_its_member_waits_here() {
    let now = Instant::now();
    let (mut group, joined) = stable(&[None, Some("a")], now);
    for member in &joined {
        group.members.get_mut(&member.member_id).unwrap().commits = 1;
    }
    assert_eq!(group.next_deadline(), None);
    group.expire(now + 2 * SESSION);
    assert_eq!((group.phase, group.members.len()), (Phase::Stable, 2));
    // Who comes back under a new id has none.
    let mut waiting = join(&mut group, "", Some("a"), now + 2 * SESSION);
    let back = answer(&mut group, &mut waiting, true).unwrap();
    group.expire(now + 3 * SESSION);
    assert!(!group.members.contains_key(&back.member_id));
}

#[test]
fn a_returning_static_member_keeps_generation_and_assignment_and_fences_its_old_self() {
    let now = Instant::now();
    let (mut group, joined) = stable(&[Some("a")], now);
    let (old, generation) = (joined[0].member_id.clone(), group.generation);
    let mut waiting = join(&mut group, "", Some("a"), now);
    assert_eq!(waiting.try_recv(), Err(TryRecvError::Empty), "the new id is not durable yet");
    assert!(group.unsaved.take().is_some());
    let back = answer(&mut group, &mut waiting, true).unwrap();
    assert_ne!(back.member_id, old);
    assert_eq!((back.generation, group.phase), (generation, Phase::Stable));
    // An old client must not believe that it leads.
    assert_eq!((back.leader, back.members.len()), (old.clone(), 0));
    assert_eq!(group.heartbeat(&old, Some("a"), generation, now), Err(GroupError::FencedInstance));
    assert_eq!(group.leave(&old, Some("a"), now), Err(GroupError::FencedInstance));
    assert_eq!(group.members[&back.member_id].assignment, format!("to {old}"));
    // A client that can be told so, is told to skip the assignment.
    let newer = JoinRequest { can_skip_assignment: true, ..request("", Some("a")) };
    let mut waiting = parked(group.join(newer, now));
    let again = answer(&mut group, &mut waiting, true).unwrap();
    assert!(again.skip_assignment && again.leader == again.member_id && again.members.len() == 1);
    // An administrator can take it out by its instance id.
    assert_eq!(group.leave("", Some("a"), now), Ok(again.member_id));
    assert_eq!(group.phase, Phase::Empty);
}

#[test]
fn a_returning_static_member_whose_new_id_cannot_be_made_durable_is_told_to_come_again() {
    let now = Instant::now();
    let (mut group, _) = stable(&[Some("a")], now);
    let mut waiting = join(&mut group, "", Some("a"), now);
    assert_eq!(answer(&mut group, &mut waiting, false), Err(GroupError::NotAvailable));
}

#[test]
fn commits_are_for_members_of_the_present_generation_or_for_empty_groups() {
    let now = Instant::now();
    assert_eq!(Group::new().check_commit("", None, -1, now), Ok(()));
    let (mut group, joined) = stable(&[None], now);
    let (id, generation) = (joined[0].member_id.clone(), group.generation);
    assert_eq!(group.check_commit(&id, None, generation, now), Ok(()));
    assert_eq!(group.check_commit(&id, None, generation - 1, now), Err(GroupError::IllegalGeneration));
    assert_eq!(group.check_commit("", None, -1, now), Err(GroupError::UnknownMember));
}

#[test]
fn a_member_without_a_common_protocol_is_refused() {
    let now = Instant::now();
    let (mut group, _) = stable(&[None], now);
    let other = JoinRequest { protocols: vec![("sticky".to_owned(), Bytes::new())], ..request("", None) };
    assert_eq!(done(group.join(other, now)), Err(GroupError::InconsistentProtocol));
    let kind = JoinRequest { protocol_type: "connect".to_owned(), ..request("", None) };
    assert_eq!(done(group.join(kind, now)), Err(GroupError::InconsistentProtocol));
    assert_eq!(group.phase, Phase::Stable);
}

#[test]
fn what_is_remembered_of_a_group_brings_it_back() {
    let now = Instant::now();
    let (mut group, joined) = stable(&[Some("a"), None], now);
    let record = group.record();
    let bytes = codec::group_value(&record).unwrap();
    let back = Group::restored(codec::read_group_value(bytes).unwrap(), now);
    assert_eq!((back.phase, back.generation, &back.leader), (Phase::Stable, group.generation, &group.leader));
    assert_eq!((&back.protocol_type, &back.protocol), (&group.protocol_type, &group.protocol));
    assert_eq!(back.instances, group.instances);
    for (id, member) in &group.members {
        let restored = &back.members[id];
        assert_eq!((&restored.assignment, &restored.protocols), (&member.assignment, &member.protocols));
        assert_eq!(restored.deadline, now + SESSION);
        assert_eq!(restored.rebalance_timeout, REBALANCE);
    }
    // When the last one has gone, that time is remembered.
    group.wall_ms = 17;
    for member in joined {
        group.leave(&member.member_id, None, now).unwrap();
    }
    let unsaved = group.unsaved.take().unwrap();
    assert_eq!((unsaved.state_since_ms, unsaved.members.len()), (Some(17), 0));
    assert_eq!(Group::restored(unsaved, now).phase, Phase::Empty);
}

#[test]
fn a_new_group_waits_for_more_members_as_long_as_they_come() {
    const DELAY: Duration = Duration::from_secs(3);
    let now = Instant::now();
    let mut group = Group::new();
    group.initial_delay = DELAY;
    let mut first = join(&mut group, "", None, now);
    let mut second = join(&mut group, "", None, now + DELAY / 2);
    // The second prolongs the wait, once.
    group.expire(now + DELAY);
    assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(group.next_deadline(), Some(now + 2 * DELAY));
    group.expire(now + 2 * DELAY);
    assert_eq!(first.try_recv().unwrap().unwrap().members.len(), 2);
    assert_eq!(second.try_recv().unwrap().unwrap().generation, 1);
}

#[test]
fn nobody_waits_for_more_members_beyond_the_rebalance_timeout() {
    const DELAY: Duration = Duration::from_secs(40);
    let now = Instant::now();
    let mut group = Group::new();
    group.initial_delay = DELAY;
    let mut first = join(&mut group, "", None, now);
    let _second = join(&mut group, "", None, now);
    group.expire(now + DELAY);
    assert_eq!(group.next_deadline(), Some(now + REBALANCE));
    let _third = join(&mut group, "", None, now + DELAY);
    group.expire(now + REBALANCE);
    assert_eq!(first.try_recv().unwrap().unwrap().members.len(), 3);
}
