//! All groups: finds the one that is meant, guards it, and carries requests to it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::expiry;
use super::join::{JoinRequest, Joined};
use super::loading::Replay;
use super::migration;
use super::registry::{Entry, Inner, keep_time, new_entry};
use super::state::Group;
use super::store::Store;
use super::terms::{GroupError, Step, SyncRequest, Synced};
use crate::broker::internal_topic::{InternalTopic, LoadError};
use crate::broker::log::Log;
use crate::clock::SharedClock;

const GROUPS_MAX: usize = 10_000;
const GROUP_ID_BYTES_MAX: usize = 255;

/// A line of ListGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupOverview {
    pub(crate) id: String,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
}

/// Why groups cannot be put together again.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// What was remembered cannot be read.
    #[error(transparent)]
    Load(LoadError),
    /// The earlier form cannot be taken along.
    #[error("groups of an earlier version cannot be moved to __consumer_offsets: {0}")]
    Migrate(String),
}

/// The coordinator of all groups. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Coordinator(pub(super) Arc<Inner>);

impl Coordinator {
    /// Reads groups and offsets from their topic, into which those of the log's state are moved first, and starts the
    /// timer task. `initial_delay`: Kafka's `group.initial.rebalance.delay.ms`.
    pub(crate) async fn open(
        log: &Log,
        topic: InternalTopic,
        initial_delay: Duration,
        clock: SharedClock,
    ) -> Result<Coordinator, GroupsError> {
        let store = Arc::new(Store::new(topic, clock));
        migration::migrate(log, &store).await.map_err(|error| GroupsError::Migrate(error.to_string()))?;
        let reading = store.clone();
        let replayed = tokio::task::spawn_blocking(move || {
            let mut replay = Replay::default();
            reading.read_all(|entry| replay.take(entry)).map(|()| replay)
        });
        let replay = match replayed.await {
            Ok(replay) => replay.map_err(GroupsError::Load)?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let (groups, open) = replay.into_groups(Instant::now());
        let entries = groups.into_iter().map(|(id, group)| (id.clone(), Arc::new(new_entry(id, group)))).collect();
        let inner = Arc::new(Inner::new(store, initial_delay, entries, open));
        inner.all().iter().for_each(|entry| inner.weigh(entry));
        tokio::spawn(keep_time(inner.clone()));
        Ok(Coordinator(inner))
    }

    /// How long a group without members waits for more of them than the first.
    pub(crate) fn initial_delay(&self) -> Duration {
        self.0.initial_delay
    }

    /// Ends the timer task.
    pub(crate) fn stop(&self) {
        self.0.stopped.notify_one();
    }

    /// Joins; resolves when the group's next generation begins, or at once.
    pub(crate) async fn join(&self, group_id: &str, request: JoinRequest) -> Result<Joined, GroupError> {
        let request = request.admit(self.0.bytes.load(Ordering::Acquire))?;
        let entry = match request.member_id.is_empty() {
            true => self.get_or_make_room(group_id).await?,
            false => self.known_member(group_id)?,
        };
        let step = self.change(&entry, |group| group.join(request, Instant::now()));
        resolve(step).await
    }

    /// Asks for the assignment; resolves when the leader's is durable.
    pub(crate) async fn sync(&self, group_id: &str, request: SyncRequest) -> Result<Synced, GroupError> {
        let entry = self.known_member(group_id)?;
        let request = request.admit(self.0.bytes.load(Ordering::Acquire))?;
        let step = self.change(&entry, |group| group.sync(request, Instant::now()));
        resolve(step).await
    }

    /// A sign of life.
    pub(crate) fn heartbeat(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        // Deadlines only move away: the timer task need not know.
        let entry = self.known_member(group_id)?;
        entry.lock().heartbeat(member_id, instance_id, generation, Instant::now())
    }

    /// Takes members out, named by id, instance or both; returns the id of each.
    pub(crate) fn leave(&self, group_id: &str, members: &[(&str, Option<&str>)]) -> Vec<Result<String, GroupError>> {
        let entry = match self.known_member(group_id) {
            Ok(entry) => entry,
            Err(error) => return members.iter().map(|_| Err(error.clone())).collect(),
        };
        let now = Instant::now();
        let leave = |group: &mut Group| {
            members.iter().map(|(member_id, instance_id)| group.leave(member_id, *instance_id, now)).collect()
        };
        self.change(&entry, leave)
    }

    /// All groups.
    pub(crate) fn list(&self) -> Vec<GroupOverview> {
        let overview = |entry: Arc<Entry>| {
            let group = entry.lock();
            let protocol_type = group.protocol_type.clone().unwrap_or_default();
            GroupOverview { id: entry.id.clone(), protocol_type, state: group.phase.name() }
        };
        self.0.all().into_iter().map(overview).collect()
    }

    /// Looks at a group.
    pub(crate) fn describe<T>(&self, group_id: &str, look: impl FnOnce(&Group) -> T) -> Option<T> {
        self.find(group_id).map(|entry| look(&entry.lock()))
    }

    /// Deletes an empty group with its offsets.
    pub(crate) async fn delete(&self, group_id: &str) -> Result<(), GroupError> {
        let entry = self.find(group_id).ok_or(GroupError::NotFound)?;
        let inner = self.0.clone();
        // To its end: a group must not stay dead and present.
        let task = tokio::spawn(async move { inner.delete(&entry).await });
        task.await.unwrap_or(Err(GroupError::NotAvailable))
    }

    /// Forgets the groups that nobody would miss: names cost nothing, and their number is bounded. Those that were left
    /// without a commit are shown as empty for a while, as in Kafka.
    pub(crate) async fn forget_empty(&self) {
        self.forget_empty_for(expiry::CHECK_INTERVAL_MS).await;
    }

    async fn forget_empty_for(&self, empty_ms_min: i64) {
        let inner = self.0.clone();
        // To its end: a group must not stay dead and present.
        let task = tokio::spawn(async move { inner.forget_empty(empty_ms_min).await });
        let _ = task.await;
    }

    pub(super) fn find(&self, group_id: &str) -> Option<Arc<Entry>> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner).get(group_id).cloned()
    }

    fn known_member(&self, group_id: &str) -> Result<Arc<Entry>, GroupError> {
        check_id(group_id)?;
        self.find(group_id).ok_or(GroupError::UnknownMember)
    }

    /// The group of that id. When there are too many, those that nobody would miss make room.
    pub(super) async fn get_or_make_room(&self, group_id: &str) -> Result<Arc<Entry>, GroupError> {
        match self.get_or_create(group_id) {
            Err(GroupError::Full) => {
                self.forget_empty_for(0).await;
                self.get_or_create(group_id)
            }
            found => found,
        }
    }

    fn get_or_create(&self, group_id: &str) -> Result<Arc<Entry>, GroupError> {
        check_id(group_id)?;
        let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(group_id) {
            return Ok(entry.clone());
        }
        if entries.len() >= GROUPS_MAX {
            return Err(GroupError::Full);
        }
        let mut group = Group::new();
        group.state_since_ms = Some(self.0.store.now_ms());
        let entry = Arc::new(new_entry(group_id.to_owned(), group));
        entries.insert(group_id.to_owned(), entry.clone());
        Ok(entry)
    }

    fn change<T>(&self, entry: &Arc<Entry>, change: impl FnOnce(&mut Group) -> T) -> T {
        let result = change(&mut self.0.lock(entry));
        self.0.weigh(entry);
        self.0.save(entry);
        self.0.deadlines_changed.notify_one();
        result
    }
}

async fn resolve<T>(step: Step<T>) -> Result<T, GroupError> {
    match step {
        Step::Done(result) => result,
        // A parked answer is dropped only with its member, which was answered, or with the group.
        Step::Wait(receiver) => receiver.await.unwrap_or(Err(GroupError::NotAvailable)),
    }
}

pub(super) fn check_id(group_id: &str) -> Result<(), GroupError> {
    let allowed = (1..=GROUP_ID_BYTES_MAX).contains(&group_id.len());
    if allowed { Ok(()) } else { Err(GroupError::InvalidGroup) }
}
