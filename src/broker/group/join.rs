//! The way into a group: new members, returning ones, and static ones that come back under a new id.
//!
//! Source: KIP-394 (member id first), KIP-345 (static members), KIP-814 (skipped assignment).

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::member::{Member, Returning};
use super::state::Group;
use super::terms::{GroupError, Phase, Step};

/// Members of one group, at most.
const MEMBERS_MAX: usize = 1000;
const SESSION_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(1800);

/// A request to join.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    /// Empty: a new member.
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// A new dynamic member is told its id and must come back with it.
    pub(crate) id_first: bool,
    /// A static leader that returns may be told not to assign again.
    pub(crate) can_skip_assignment: bool,
}

/// What a member learns when it has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) member_id: String,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    /// Id, instance id, metadata; only the leader gets them.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
    pub(crate) skip_assignment: bool,
}

impl Group {
    /// Lets a member in, or back in.
    pub(crate) fn join(&mut self, request: JoinRequest, now: Instant) -> Step<Joined> {
        if !(SESSION_TIMEOUT_MIN..=SESSION_TIMEOUT_MAX).contains(&request.session_timeout) {
            return Step::Done(Err(GroupError::InvalidSessionTimeout));
        }
        if self.phase == Phase::Dead {
            return Step::Done(Err(GroupError::NotAvailable));
        }
        if !self.accepts(&request) {
            return Step::Done(Err(GroupError::InconsistentProtocol));
        }
        let is_counted = self.members.contains_key(&request.member_id)
            || self.pending.contains_key(&request.member_id)
            || request.instance_id.as_ref().is_some_and(|instance| self.instances.contains_key(instance));
        if !is_counted && self.members.len() + self.pending.len() >= MEMBERS_MAX {
            return Step::Done(Err(GroupError::Full));
        }
        if request.member_id.is_empty() { self.join_new(request, now) } else { self.join_known(request, now) }
    }

    /// The protocol type must be the group's, and at least one protocol everyone's.
    fn accepts(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        // What a member said before counts until it has left, also of the one that joins again.
        let common = |name: &String| self.members.values().all(|member| member.supports(name));
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && request.protocols.iter().any(|(name, _)| common(name))
    }

    fn join_new(&mut self, request: JoinRequest, now: Instant) -> Step<Joined> {
        let prefix = request.instance_id.as_deref().unwrap_or(&request.client_id);
        let member_id = format!("{prefix}-{}", Uuid::from_u128(rand::random()));
        if let Some(instance) = &request.instance_id {
            if let Some(old) = self.instances.get(instance).cloned() {
                return self.replace_static(old, member_id, request, now);
            }
        } else if request.id_first {
            self.pending.insert(member_id.clone(), now + request.session_timeout);
            return Step::Done(Err(GroupError::MemberIdRequired(member_id)));
        }
        self.add_and_rebalance(member_id, request, now)
    }

    fn join_known(&mut self, request: JoinRequest, now: Instant) -> Step<Joined> {
        let member_id = request.member_id.clone();
        if self.pending.remove(&member_id).is_some() {
            return self.add_and_rebalance(member_id, request, now);
        }
        if let Err(error) = self.check_identity(&member_id, request.instance_id.as_deref()) {
            return Step::Done(Err(error));
        }
        let unchanged = self.members.get(&member_id).is_some_and(|member| member.protocols == request.protocols);
        let leads = self.leader.as_deref() == Some(&member_id);
        match self.phase {
            Phase::PreparingRebalance => self.update_and_rebalance(&member_id, request, now),
            // It did not get the answer to its join; nothing has changed since.
            Phase::CompletingRebalance if unchanged => Step::Done(Ok(self.joined(&member_id))),
            Phase::Stable if unchanged && !leads => {
                if let Some(member) = self.members.get_mut(&member_id) {
                    member.touch(now);
                }
                Step::Done(Ok(self.joined(&member_id)))
            }
            Phase::CompletingRebalance | Phase::Stable => self.update_and_rebalance(&member_id, request, now),
            Phase::Empty | Phase::Dead => Step::Done(Err(GroupError::UnknownMember)),
        }
    }

    fn add_and_rebalance(&mut self, member_id: String, request: JoinRequest, now: Instant) -> Step<Joined> {
        let (sender, receiver) = oneshot::channel();
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if let Some(instance) = &request.instance_id {
            self.instances.insert(instance.clone(), member_id.clone());
        }
        let mut member = Member {
            id: member_id.clone(),
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            protocols: request.protocols,
            assignment: Bytes::new(),
            deadline: now,
            joining: Some(sender),
            syncing: None,
            commits: 0,
            sync_pending: false,
        };
        member.touch(now);
        if self.leader.is_none() {
            self.leader = Some(member_id.clone());
        }
        self.members.insert(member_id, member);
        self.count_for_gathering();
        self.rebalance(now);
        Step::Wait(receiver)
    }

    fn update_and_rebalance(&mut self, member_id: &str, request: JoinRequest, now: Instant) -> Step<Joined> {
        let (sender, receiver) = oneshot::channel();
        if let Some(member) = self.members.get_mut(member_id) {
            // An older request of the same member is answered first: it was lost, or it is a retry.
            member.refuse(&GroupError::RebalanceInProgress);
            member.protocols = request.protocols;
            member.session_timeout = request.session_timeout;
            member.rebalance_timeout = request.rebalance_timeout;
            member.joining = Some(sender);
            member.touch(now);
        }
        self.rebalance(now);
        Step::Wait(receiver)
    }

    /// A static member that comes back takes the place of its old self, which is fenced.
    fn replace_static(&mut self, old: String, new: String, request: JoinRequest, now: Instant) -> Step<Joined> {
        let led = self.leader.clone().unwrap_or_default();
        let Some(mut member) = self.members.remove(&old) else {
            // Unreachable while `instances` mirrors `members`; a new member is the safe answer.
            return self.add_and_rebalance(new, request, now);
        };
        member.refuse(&GroupError::FencedInstance);
        // They were its old self's.
        member.commits = 0;
        member.id.clone_from(&new);
        member.client_id = request.client_id;
        member.client_host = request.client_host;
        member.session_timeout = request.session_timeout;
        member.rebalance_timeout = request.rebalance_timeout;
        member.protocols = request.protocols;
        member.touch(now);
        if let Some(instance) = member.instance_id.clone() {
            self.instances.insert(instance, new.clone());
        }
        if led == old {
            self.leader = Some(new.clone());
        }
        self.members.insert(new.clone(), member);
        if self.phase != Phase::Stable || self.select_protocol() != self.protocol {
            let (sender, receiver) = oneshot::channel();
            if let Some(member) = self.members.get_mut(&new) {
                member.joining = Some(sender);
            }
            self.rebalance(now);
            return Step::Wait(receiver);
        }
        self.remember();
        let mut joined = self.joined(&new);
        if request.can_skip_assignment {
            joined.skip_assignment = self.leader.as_ref() == Some(&new);
        } else {
            // An old client must not believe that it leads: a stable group would not hand out what it assigns.
            joined.leader = led;
            joined.members.clear();
        }
        // A broker that dies now and knows only its old id would fence it for good.
        let (parked, receiver) = oneshot::channel();
        self.returning.push(Returning { parked, joined });
        Step::Wait(receiver)
    }

    /// What a member of the present generation is told.
    pub(crate) fn joined(&self, member_id: &str) -> Joined {
        let leads = self.leader.as_deref() == Some(member_id);
        let protocol = self.protocol.clone().unwrap_or_default();
        let told = |member: &Member| (member.id.clone(), member.instance_id.clone(), member.metadata(&protocol));
        Joined {
            member_id: member_id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            members: if leads { self.members.values().map(told).collect() } else { Vec::new() },
            skip_assignment: false,
        }
    }
}
