//! All groups: finds the one that is meant, guards it, and carries requests to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::Notify;

use super::codec;
use super::join::{JoinRequest, Joined};
use super::registry::{
    Entry, GROUP_PREFIX, Inner, OFFSET_PREFIX, OffsetKey, SEPARATOR, keep_time, new_entry, offset_key, offset_key_parts,
};
use super::state::Group;
use super::store::{CommittedOffset, StateStore, StoreError};
use super::terms::{GroupError, Step, SyncRequest, Synced};

const GROUPS_MAX: usize = 10_000;
const GROUP_ID_BYTES_MAX: usize = 255;

/// A line of ListGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupOverview {
    pub(crate) id: String,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
}

/// The coordinator of all groups. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Coordinator(Arc<Inner>);

impl Coordinator {
    /// Reads groups and offsets, and starts the timer task.
    pub(crate) fn open(store: Arc<dyn StateStore>) -> Coordinator {
        let now = Instant::now();
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for (key, value) in store.entries(GROUP_PREFIX.as_bytes()) {
            let id = String::from_utf8_lossy(&key[GROUP_PREFIX.len().min(key.len())..]).into_owned();
            match codec::decode(value, now) {
                Some(group) => _ = groups.insert(id, group),
                None => tracing::error!(group = id, "the stored group cannot be read; its members must join again"),
            }
        }
        for (key, value) in store.entries(OFFSET_PREFIX.as_bytes()) {
            let text = String::from_utf8_lossy(&key).into_owned();
            let read = offset_key_parts(&text).zip(codec::decode_offset(value));
            let Some(((id, topic, partition), committed)) = read else {
                tracing::error!(key = text, "a committed offset cannot be read; it counts as not committed");
                continue;
            };
            groups.entry(id).or_insert_with(Group::new).offsets.insert((topic, partition), committed);
        }
        let entries = groups.into_iter().map(|(id, group)| (id.clone(), Arc::new(new_entry(id, group)))).collect();
        let inner = Arc::new(Inner {
            store,
            bytes: AtomicUsize::new(0),
            entries: RwLock::new(entries),
            deadlines_changed: Notify::new(),
            stopped: Notify::new(),
        });
        inner.all().iter().for_each(|entry| inner.weigh(entry));
        tokio::spawn(keep_time(inner.clone()));
        Coordinator(inner)
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
        self.known_member(group_id)?.lock().heartbeat(member_id, instance_id, generation, Instant::now())
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

    /// Whether this member may commit offsets.
    pub(crate) fn check_commit(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let entry = match self.find(group_id) {
            Some(entry) => entry,
            // From outside of any group: the offsets will make it.
            None if generation < 0 => return check_id(group_id),
            None => return Err(GroupError::NotFound),
        };
        entry.lock().check_commit(member_id, instance_id, generation, Instant::now())
    }

    /// Makes offsets durable, then visible.
    pub(crate) async fn commit(
        &self,
        group_id: &str,
        offsets: Vec<(OffsetKey, CommittedOffset)>,
    ) -> Result<(), StoreError> {
        let Ok(entry) = self.get_or_make_room(group_id).await else {
            return Err(StoreError("the number of groups is at its limit".to_owned()));
        };
        let inner = self.0.clone();
        // To its end, also when the client goes away: memory and disk must agree.
        let task = tokio::spawn(async move {
            let _ordered = entry.writing.lock().await;
            inner.check_room(&entry, &offsets)?;
            let change = |(key, committed): &(OffsetKey, CommittedOffset)| {
                (offset_key(&entry.id, key), Some(codec::encode_offset(committed)))
            };
            inner.store.put(offsets.iter().map(change).collect()).await?;
            entry.lock().offsets.extend(offsets);
            inner.weigh(&entry);
            Ok(())
        });
        task.await.unwrap_or_else(|_| Err(StoreError("the broker stops".to_owned())))
    }

    /// Forgets offsets: of one group, or of all.
    pub(crate) async fn forget_offsets(
        &self,
        group_id: Option<String>,
        which: impl Fn(&OffsetKey) -> bool + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let coordinator = self.clone();
        // To its end, for the same reason.
        let task = tokio::spawn(async move {
            let chosen = |entry: &Arc<Entry>| group_id.as_ref().is_none_or(|id| *id == entry.id);
            for entry in coordinator.entries().into_iter().filter(chosen) {
                let _ordered = entry.writing.lock().await;
                let gone: BTreeSet<OffsetKey> = entry.lock().offsets.keys().filter(|key| which(key)).cloned().collect();
                if !gone.is_empty() {
                    let changes = gone.iter().map(|key| (offset_key(&entry.id, key), None)).collect();
                    coordinator.0.store.put(changes).await?;
                    entry.lock().offsets.retain(|key, _| !gone.contains(key));
                    coordinator.0.weigh(&entry);
                }
            }
            Ok(())
        });
        task.await.unwrap_or_else(|_| Err(StoreError("the broker stops".to_owned())))
    }

    /// All groups.
    pub(crate) fn list(&self) -> Vec<GroupOverview> {
        let overview = |entry: Arc<Entry>| {
            let group = entry.lock();
            let protocol_type = group.protocol_type.clone().unwrap_or_default();
            GroupOverview { id: entry.id.clone(), protocol_type, state: group.phase.name() }
        };
        self.entries().into_iter().map(overview).collect()
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

    /// Forgets the groups that nobody would miss: names cost nothing, and their number is bounded.
    pub(crate) async fn forget_empty(&self) {
        let inner = self.0.clone();
        // To its end: a group must not stay dead and present.
        let task = tokio::spawn(async move { inner.forget_empty().await });
        let _ = task.await;
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.all()
    }

    fn find(&self, group_id: &str) -> Option<Arc<Entry>> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner).get(group_id).cloned()
    }

    fn known_member(&self, group_id: &str) -> Result<Arc<Entry>, GroupError> {
        check_id(group_id)?;
        self.find(group_id).ok_or(GroupError::UnknownMember)
    }

    /// The group of that id. When there are too many, those that nobody would miss make room.
    async fn get_or_make_room(&self, group_id: &str) -> Result<Arc<Entry>, GroupError> {
        match self.get_or_create(group_id) {
            Err(GroupError::Full) => {
                self.forget_empty().await;
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
        let entry = Arc::new(new_entry(group_id.to_owned(), Group::new()));
        entries.insert(group_id.to_owned(), entry.clone());
        Ok(entry)
    }

    fn change<T>(&self, entry: &Arc<Entry>, change: impl FnOnce(&mut Group) -> T) -> T {
        let result = change(&mut entry.lock());
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

fn check_id(group_id: &str) -> Result<(), GroupError> {
    let allowed = (1..=GROUP_ID_BYTES_MAX).contains(&group_id.len()) && !group_id.contains(SEPARATOR);
    if allowed { Ok(()) } else { Err(GroupError::InvalidGroup) }
}
