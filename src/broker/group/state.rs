//! A group's state machine, as in Apache Kafka's classic group coordinator.
//!
//! ```text
//! Empty -> PreparingRebalance -> CompletingRebalance -> Stable
//!   ^            ^    |  ^                |               |
//!   +------------|----+  +----------------+---------------+      Dead: deleted, from Empty only
//! ```
//! Pure: the present is handed in, answers that must wait are parked in their members, what must become durable is left
//! in `unsaved`.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::codec::GroupRecord;
use super::member::{Member, Returning};
use super::offsets::Offsets;
use super::terms::{GroupError, Phase, Step, SyncRequest, Synced};

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) phase: Phase,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<String>,
    pub(crate) members: BTreeMap<String, Member>,
    /// Static members: instance id -> member id.
    pub(crate) instances: HashMap<String, String>,
    /// Ids handed out whose owners have not come back, and when they are forgotten.
    pub(crate) pending: BTreeMap<String, Instant>,
    pub(crate) offsets: Offsets,
    /// Wall clock of the change that is made now; whoever changes the group says so.
    pub(crate) wall_ms: i64,
    /// Wall clock since when the group is in its phase; none from before that was remembered.
    pub(crate) state_since_ms: Option<i64>,
    /// How long a group without members waits for more of them than the first.
    pub(crate) initial_delay: Duration,
    /// While it does.
    gathering: Option<Gathering>,
    /// When those that have not joined again, or not asked for their assignment, are put out.
    rebalance_deadline: Option<Instant>,
    /// The durable form, when it has changed and is not written yet.
    pub(crate) unsaved: Option<GroupRecord>,
    /// Whether the log may know of the group by itself, and not only by its offsets.
    pub(super) is_recorded: bool,
    /// The generation whose assignment is being written; its members are answered when it is durable.
    pub(crate) saving: Option<i32>,
    /// Static members that came back, until the form that knows their new ids is durable.
    pub(crate) returning: Vec<Returning>,
}

/// Members come one behind the other when an application starts: each that comes prolongs the wait once.
#[derive(Debug)]
struct Gathering {
    /// No longer than their rebalance timeout.
    until_at_most: Instant,
    has_new: bool,
}

impl Group {
    /// A group without members.
    pub(crate) fn new() -> Self {
        Group {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: HashMap::new(),
            pending: BTreeMap::new(),
            offsets: Offsets::default(),
            wall_ms: 0,
            state_since_ms: None,
            initial_delay: Duration::ZERO,
            gathering: None,
            rebalance_deadline: None,
            unsaved: None,
            is_recorded: false,
            saving: None,
            returning: Vec::new(),
        }
    }

    /// The assignment of the present generation; the leader brings it along.
    pub(crate) fn sync(&mut self, request: SyncRequest, now: Instant) -> Step<Synced> {
        if let Err(error) = self.check_member(&request.member_id, request.instance_id.as_deref(), request.generation) {
            return Step::Done(Err(error));
        }
        let differs = |asked: &Option<String>, ours: &Option<String>| asked.is_some() && asked != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Step::Done(Err(GroupError::InconsistentProtocol));
        }
        match self.phase {
            Phase::Empty | Phase::Dead => Step::Done(Err(GroupError::UnknownMember)),
            Phase::PreparingRebalance => Step::Done(Err(GroupError::RebalanceInProgress)),
            Phase::Stable => {
                if let Some(member) = self.members.get_mut(&request.member_id) {
                    member.touch(now);
                    member.sync_pending = false;
                }
                self.wait_for_late_ones();
                Step::Done(Ok(self.synced(&request.member_id)))
            }
            Phase::CompletingRebalance => {
                let (sender, receiver) = oneshot::channel();
                if let Some(member) = self.members.get_mut(&request.member_id) {
                    member.touch(now);
                    member.sync_pending = false;
                    member.syncing = Some(sender);
                }
                // The assignment of an earlier generation may still be on its way to the disk: this one comes behind it.
                let is_saving = self.saving == Some(self.generation);
                if self.leader.as_ref() == Some(&request.member_id) && !is_saving {
                    let mut assignments: HashMap<String, Bytes> = request.assignments.into_iter().collect();
                    for member in self.members.values_mut() {
                        member.assignment = assignments.remove(&member.id).unwrap_or_default();
                    }
                    self.saving = Some(self.generation);
                    self.remember();
                }
                Step::Wait(receiver)
            }
        }
    }

    /// The assignment of a generation is durable, or could not be made so.
    pub(crate) fn saved(&mut self, generation: i32, durable: bool, now: Instant) {
        if self.saving != Some(generation) {
            // A later one waits to be written.
            return;
        }
        self.saving = None;
        if self.phase != Phase::CompletingRebalance || self.generation != generation {
            return;
        }
        if !durable {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
                member.refuse(&GroupError::NotAvailable);
            }
            self.rebalance(now);
            return;
        }
        self.enter(Phase::Stable);
        let waiting: Vec<String> =
            self.members.values().filter(|member| member.syncing.is_some()).map(|member| member.id.clone()).collect();
        for id in waiting {
            let synced = self.synced(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.touch(now);
                if let Some(parked) = member.syncing.take() {
                    let _ = parked.send(Ok(synced));
                }
            }
        }
        self.wait_for_late_ones();
    }

    /// Members of a stable group that have not asked for their assignment have until the deadline; then it is over.
    fn wait_for_late_ones(&mut self) {
        if !self.members.values().any(|member| member.sync_pending) {
            self.rebalance_deadline = None;
        }
    }

    /// A sign of life.
    pub(crate) fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), GroupError> {
        self.check_member(member_id, instance_id, generation)?;
        match self.phase {
            Phase::Empty | Phase::Dead => Err(GroupError::UnknownMember),
            Phase::Stable | Phase::CompletingRebalance => {
                self.touch(member_id, now);
                Ok(())
            }
            Phase::PreparingRebalance => {
                self.touch(member_id, now);
                Err(GroupError::RebalanceInProgress)
            }
        }
    }

    /// A member leaves by itself, or is removed by an administrator. An instance id alone is enough.
    pub(crate) fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        now: Instant,
    ) -> Result<String, GroupError> {
        if self.phase == Phase::Dead {
            return Err(GroupError::NotAvailable);
        }
        if self.pending.remove(member_id).is_some() {
            self.try_complete_join(now);
            return Ok(member_id.to_owned());
        }
        let leaving = match instance_id {
            Some(instance) if member_id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)?
            }
            _ => {
                self.check_identity(member_id, instance_id)?;
                member_id.to_owned()
            }
        };
        self.remove(&leaving, now);
        Ok(leaving)
    }

    /// Whether this member of this generation may commit offsets. `generation` < 0: from outside of any group.
    pub(crate) fn check_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), GroupError> {
        if self.phase == Phase::Dead {
            return Err(GroupError::NotAvailable);
        }
        if generation < 0 && self.phase == Phase::Empty {
            return Ok(());
        }
        self.check_member(member_id, instance_id, generation)?;
        if self.phase == Phase::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.touch(member_id, now);
        Ok(())
    }

    /// Carries out what time has brought: members and pending ids that ran out, rebalances that waited long enough.
    pub(crate) fn expire(&mut self, now: Instant) {
        let pending = self.pending.len();
        self.pending.retain(|_, deadline| *deadline > now);
        if self.pending.len() < pending {
            self.try_complete_join(now);
        }
        let silent: Vec<String> = self
            .members
            .values()
            .filter(|member| !member.waits() && member.deadline <= now)
            .map(|member| member.id.clone())
            .collect();
        for id in silent {
            self.remove(&id, now);
        }
        if self.rebalance_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.phase {
            Phase::PreparingRebalance => self.gather_on_or_complete(now),
            Phase::CompletingRebalance | Phase::Stable => {
                self.rebalance_deadline = None;
                let late: Vec<String> = self
                    .members
                    .values()
                    .filter(|member| member.sync_pending)
                    .map(|member| member.id.clone())
                    .collect();
                for id in late {
                    self.remove(&id, now);
                }
            }
            Phase::Empty | Phase::Dead => self.rebalance_deadline = None,
        }
    }

    /// When `expire` has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let sessions = self.members.values().filter(|member| !member.waits()).map(|member| member.deadline);
        sessions.chain(self.pending.values().copied()).chain(self.rebalance_deadline).min()
    }

    /// Asks everyone to join again.
    pub(crate) fn rebalance(&mut self, now: Instant) {
        if self.phase != Phase::PreparingRebalance {
            for member in self.members.values_mut() {
                if let Some(parked) = member.syncing.take() {
                    // It kept silent because it waited here: its session starts anew.
                    member.touch(now);
                    let _ = parked.send(Err(GroupError::RebalanceInProgress));
                }
                member.sync_pending = false;
            }
            if self.phase == Phase::Empty && !self.initial_delay.is_zero() {
                self.gathering = Some(Gathering { until_at_most: now + self.rebalance_timeout(), has_new: false });
                self.rebalance_deadline = Some(now + self.initial_delay);
            } else {
                self.rebalance_deadline = Some(now + self.rebalance_timeout());
            }
            self.enter(Phase::PreparingRebalance);
        }
        self.try_complete_join(now);
    }

    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    fn try_complete_join(&mut self, now: Instant) {
        let all = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if self.phase == Phase::PreparingRebalance && self.gathering.is_none() && all {
            self.complete_join(now);
        }
    }

    /// A member came while a group that never had one waited for more of them.
    pub(super) fn count_for_gathering(&mut self) {
        if let Some(gathering) = self.gathering.as_mut().filter(|_| self.generation == 0) {
            gathering.has_new = true;
        }
    }

    fn gather_on_or_complete(&mut self, now: Instant) {
        match &mut self.gathering {
            Some(gathering) if gathering.has_new && now < gathering.until_at_most => {
                gathering.has_new = false;
                self.rebalance_deadline = Some((now + self.initial_delay).min(gathering.until_at_most));
            }
            _ => self.complete_join(now),
        }
    }

    /// The next generation begins with those who are here; absent static members keep their place.
    fn complete_join(&mut self, now: Instant) {
        self.gathering = None;
        let absent = |member: &Member| member.joining.is_none() && member.instance_id.is_none();
        self.members.retain(|_, member| !absent(member));
        let present = self.members.values().find(|member| member.joining.is_some()).map(|member| member.id.clone());
        if present.is_none() && !self.members.is_empty() {
            // Only static members that are away: wait on, until they return or their sessions end.
            self.rebalance_deadline = Some(now + self.rebalance_timeout().max(Duration::from_millis(100)));
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let leads = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(leads) {
            self.leader = present;
        }
        if self.members.is_empty() {
            self.enter(Phase::Empty);
            self.protocol = None;
            self.rebalance_deadline = None;
            self.remember();
            return;
        }
        self.protocol = self.select_protocol();
        self.enter(Phase::CompletingRebalance);
        self.rebalance_deadline = Some(now + self.rebalance_timeout());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.sync_pending = true;
                if let Some(parked) = member.joining.take() {
                    member.touch(now);
                    let _ = parked.send(Ok(joined));
                }
            }
        }
    }

    /// The protocol that all support and most prefer.
    pub(crate) fn select_protocol(&self) -> Option<String> {
        let common = |name: &str| self.members.values().all(|member| member.supports(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(name, _)| name.to_owned())
    }

    fn remove(&mut self, id: &str, now: Instant) {
        let Some(mut member) = self.members.remove(id) else { return };
        member.refuse(&GroupError::UnknownMember);
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        match self.phase {
            Phase::Stable | Phase::CompletingRebalance => self.rebalance(now),
            Phase::PreparingRebalance => self.try_complete_join(now),
            Phase::Empty | Phase::Dead => {}
        }
    }

    pub(super) fn touch(&mut self, member_id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.touch(now);
        }
    }

    fn synced(&self, member_id: &str) -> Synced {
        let assignment = self.members.get(member_id).map(|member| member.assignment.clone()).unwrap_or_default();
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    /// Member and instance id must belong together.
    pub(crate) fn check_identity(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance_id {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(holder) if holder != member_id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        self.check_identity(member_id, instance_id)?;
        if generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    /// Leaves the durable form of this very moment to be written.
    pub(crate) fn remember(&mut self) {
        self.unsaved = Some(self.record());
        self.is_recorded = true;
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.state_since_ms = Some(self.wall_ms);
    }
}
