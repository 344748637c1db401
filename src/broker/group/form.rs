//! What of a group is remembered: its durable form, and the group that comes back from it.

use std::time::{Duration, Instant};

use super::codec::{GroupRecord, MemberRecord};
use super::member::Member;
use super::state::Group;
use super::terms::Phase;

impl Group {
    /// As it is at this very moment.
    pub(super) fn record(&self) -> GroupRecord {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |member: &Member| MemberRecord {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: millis(member.rebalance_timeout),
            session_timeout_ms: millis(member.session_timeout),
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        };
        GroupRecord {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_ms,
            members: self.members.values().map(member).collect(),
        }
    }

    /// A group as it was remembered; the sessions of its members start at `now`. Of the protocols that a member supports
    /// only the chosen one is known, until it joins again.
    pub(super) fn restored(record: GroupRecord, now: Instant) -> Group {
        let mut group = Group::new();
        group.is_recorded = true;
        for member in record.members {
            if let Some(instance) = &member.instance_id {
                group.instances.insert(instance.clone(), member.id.clone());
            }
            let mut restored = Member {
                id: member.id.clone(),
                instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                session_timeout: duration(member.session_timeout_ms),
                rebalance_timeout: duration(member.rebalance_timeout_ms),
                protocols: record.protocol.iter().map(|name| (name.clone(), member.subscription.clone())).collect(),
                assignment: member.assignment,
                deadline: now,
                joining: None,
                syncing: None,
                commits: 0,
                sync_pending: false,
            };
            restored.touch(now);
            group.members.insert(member.id, restored);
        }
        group.phase = if group.members.is_empty() { Phase::Empty } else { Phase::Stable };
        group.state_since_ms = record.state_since_ms;
        group.generation = record.generation;
        group.protocol_type = record.protocol_type;
        group.protocol = record.protocol;
        group.leader = record.leader;
        group
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn duration(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
