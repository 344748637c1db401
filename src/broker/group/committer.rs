//! Who commits offsets. Looked at twice: when the request comes, and again when its turn to write has come, since a
//! rebalance may lie in between.

use std::sync::Arc;
use std::time::Instant;

use super::coordinator::{Coordinator, check_id};
use super::offsets::OffsetKey;
use super::registry::{Entry, Inner};
use super::state::Group;
use super::terms::GroupError;

/// A member of a group, or somebody from outside of any, and which partitions there are.
pub(crate) struct Committer {
    member_id: String,
    instance_id: Option<String>,
    /// Below 0: from outside of any group.
    generation: i32,
    is_there: Box<dyn Fn(&OffsetKey) -> bool + Send + Sync>,
}

impl Committer {
    /// `is_there` is asked when the commit is written: a topic may have been deleted since it came.
    pub(crate) fn new(
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        is_there: impl Fn(&OffsetKey) -> bool + Send + Sync + 'static,
    ) -> Committer {
        Committer {
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
            generation,
            is_there: Box::new(is_there),
        }
    }

    /// From outside of any group, to any partition.
    #[cfg(test)]
    pub(crate) fn outside() -> Committer {
        Committer::new("", None, -1, |_| true)
    }

    pub(super) fn check(&self, group: &mut Group) -> Result<(), GroupError> {
        group.check_commit(&self.member_id, self.instance_id.as_deref(), self.generation, Instant::now())
    }

    pub(super) fn check_transactional(&self, group: &mut Group) -> Result<(), GroupError> {
        group.check_transactional_commit(&self.member_id, self.instance_id.as_deref(), self.generation, Instant::now())
    }

    /// Whether there is something to commit for. What was deleted meanwhile takes its offsets with it.
    pub(super) fn is_there(&self, key: &OffsetKey) -> bool {
        (self.is_there)(key)
    }
}

/// A commit that waits for its turn or for the disk.
pub(super) struct Waiting {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    member_id: String,
}

impl Waiting {
    pub(super) fn begin(inner: &Arc<Inner>, entry: &Arc<Entry>, by: &Committer) -> Waiting {
        if let Some(member) = entry.lock().members.get_mut(&by.member_id) {
            member.commits += 1;
        }
        Waiting { inner: inner.clone(), entry: entry.clone(), member_id: by.member_id.clone() }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(member) = self.entry.lock().members.get_mut(&self.member_id) {
            // Another one of that id may have taken its place meanwhile.
            member.commits = member.commits.saturating_sub(1);
            member.touch(Instant::now());
            self.inner.deadlines_changed.notify_one();
        }
    }
}

impl Coordinator {
    /// Whether offsets may be committed.
    pub(crate) fn check_commit(&self, group_id: &str, by: &Committer) -> Result<(), GroupError> {
        match self.find(group_id) {
            Some(entry) => by.check(&mut entry.lock()),
            // From outside of any group: the offsets will make it.
            None if by.generation < 0 => check_id(group_id),
            None => Err(GroupError::NotFound),
        }
    }

    /// Whether offsets may be committed within a transaction (KIP-447). Older clients do not say who they are.
    pub(crate) fn check_transactional_commit(&self, group_id: &str, by: &Committer) -> Result<(), GroupError> {
        match self.find(group_id) {
            Some(entry) => by.check_transactional(&mut entry.lock()),
            None if by.generation < 0 => check_id(group_id),
            None => Err(GroupError::IllegalGeneration),
        }
    }
}
