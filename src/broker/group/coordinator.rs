//! All groups: finds the one that is meant, guards it, keeps its timers, and writes what it leaves to be written.
//!
//! One task sleeps until the earliest deadline of all groups; with no groups it sleeps for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::codec;
use super::join::{JoinRequest, Joined};
use super::state::{Group, GroupError, Phase, Step, SyncRequest, Synced};
use super::store::{CommittedOffset, StateStore, StoreError};

const GROUPS_MAX: usize = 10_000;
const GROUP_ID_BYTES_MAX: usize = 255;
const GROUP_PREFIX: &str = "group/";
const OFFSET_PREFIX: &str = "offset/";
/// Between the parts of an offset's key; topic names cannot hold it, and group ids that do are refused.
const SEPARATOR: char = '\0';

/// Topic and partition.
pub(crate) type OffsetKey = (String, i32);

/// A group with the lock that orders its writes.
struct Entry {
    id: String,
    group: Mutex<Group>,
    /// Held while this group's state is written, so that the later form is written later.
    writing: tokio::sync::Mutex<()>,
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Inner {
    store: Arc<dyn StateStore>,
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    deadlines_changed: Notify,
    stopped: Notify,
}

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
            entries: RwLock::new(entries),
            deadlines_changed: Notify::new(),
            stopped: Notify::new(),
        });
        tokio::spawn(keep_time(inner.clone()));
        Coordinator(inner)
    }

    /// Ends the timer task.
    pub(crate) fn stop(&self) {
        self.0.stopped.notify_one();
    }

    /// Joins; resolves when the group's next generation begins, or at once.
    pub(crate) async fn join(&self, group_id: &str, request: JoinRequest) -> Result<Joined, GroupError> {
        let entry =
            if request.member_id.is_empty() { self.get_or_create(group_id)? } else { self.known_member(group_id)? };
        let step = self.change(&entry, |group| group.join(request, Instant::now()));
        resolve(step).await
    }

    /// Asks for the assignment; resolves when the leader's is durable.
    pub(crate) async fn sync(&self, group_id: &str, request: SyncRequest) -> Result<Synced, GroupError> {
        let entry = self.known_member(group_id)?;
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

    /// Takes one member out; returns its id.
    pub(crate) fn leave(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<String, GroupError> {
        let entry = self.known_member(group_id)?;
        self.change(&entry, |group| group.leave(member_id, instance_id, Instant::now()))
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
            None if generation < 0 => self.get_or_create(group_id)?,
            None => return Err(GroupError::IllegalGeneration),
        };
        entry.lock().check_commit(member_id, instance_id, generation, Instant::now())
    }

    /// Makes offsets durable, then visible.
    pub(crate) async fn commit(
        &self,
        group_id: &str,
        offsets: Vec<(OffsetKey, CommittedOffset)>,
    ) -> Result<(), StoreError> {
        let Ok(entry) = self.get_or_create(group_id) else {
            return Err(StoreError("the number of groups is at its limit".to_owned()));
        };
        let store = self.0.store.clone();
        // To its end, also when the client goes away: memory and disk must agree.
        let task = tokio::spawn(async move {
            let _ordered = entry.writing.lock().await;
            let change = |(key, committed): &(OffsetKey, CommittedOffset)| {
                (offset_key(&entry.id, key), Some(codec::encode_offset(committed)))
            };
            store.put(offsets.iter().map(change).collect()).await?;
            entry.lock().offsets.extend(offsets);
            Ok(())
        });
        task.await.unwrap_or_else(|_| Err(StoreError("the broker stops".to_owned())))
    }

    /// The committed offsets of a group; none for a group that does not exist.
    pub(crate) fn offsets(&self, group_id: &str) -> BTreeMap<OffsetKey, CommittedOffset> {
        self.find(group_id).map(|entry| entry.lock().offsets.clone()).unwrap_or_default()
    }

    /// Forgets offsets: of one group, or of all.
    pub(crate) async fn forget_offsets(
        &self,
        group_id: Option<&str>,
        which: impl Fn(&OffsetKey) -> bool + Send + Sync,
    ) -> Result<(), StoreError> {
        for entry in self.entries().into_iter().filter(|entry| group_id.is_none_or(|id| id == entry.id)) {
            let _ordered = entry.writing.lock().await;
            let gone: BTreeSet<OffsetKey> = entry.lock().offsets.keys().filter(|key| which(key)).cloned().collect();
            if !gone.is_empty() {
                self.0.store.put(gone.iter().map(|key| (offset_key(&entry.id, key), None)).collect()).await?;
                entry.lock().offsets.retain(|key, _| !gone.contains(key));
            }
        }
        Ok(())
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
        check_id(group_id)?;
        let entry = self.find(group_id).ok_or(GroupError::NotFound)?;
        let _ordered = entry.writing.lock().await;
        let mut changes = vec![(group_key(group_id), None)];
        {
            let mut group = entry.lock();
            match group.phase {
                Phase::Empty => group.phase = Phase::Dead,
                Phase::Dead => return Err(GroupError::NotFound),
                _ => return Err(GroupError::NotEmpty),
            }
            changes.extend(group.offsets.keys().map(|key| (offset_key(group_id, key), None)));
        }
        if let Err(error) = self.0.store.put(changes).await {
            tracing::error!(group = group_id, "the group is not deleted: {error}");
            entry.lock().phase = Phase::Empty;
            return Err(GroupError::NotAvailable);
        }
        self.0.entries.write().unwrap_or_else(PoisonError::into_inner).remove(group_id);
        Ok(())
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn find(&self, group_id: &str) -> Option<Arc<Entry>> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner).get(group_id).cloned()
    }

    fn known_member(&self, group_id: &str) -> Result<Arc<Entry>, GroupError> {
        check_id(group_id)?;
        self.find(group_id).ok_or(GroupError::UnknownMember)
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
        self.0.save(entry);
        self.0.deadlines_changed.notify_one();
        result
    }
}

impl Inner {
    /// Writes what a group left to be written, in a task of its own.
    fn save(self: &Arc<Self>, entry: &Arc<Entry>) {
        if entry.lock().unsaved.is_none() {
            return;
        }
        let (inner, entry) = (self.clone(), entry.clone());
        tokio::spawn(async move {
            {
                let _ordered = entry.writing.lock().await;
                let (unsaved, saving) = {
                    let mut group = entry.lock();
                    (group.unsaved.take(), group.saving)
                };
                // Another task took a later form along.
                let Some(form) = unsaved else { return };
                let written = inner.store.put(vec![(group_key(&entry.id), Some(form))]).await;
                if let Err(error) = &written {
                    tracing::error!(group = entry.id, "{error}");
                }
                if let Some(generation) = saving {
                    entry.lock().saved(generation, written.is_ok(), Instant::now());
                }
            }
            inner.deadlines_changed.notify_one();
            inner.save(&entry);
        });
    }
}

fn new_entry(id: String, group: Group) -> Entry {
    Entry { id, group: Mutex::new(group), writing: tokio::sync::Mutex::new(()) }
}

async fn resolve<T>(step: Step<T>) -> Result<T, GroupError> {
    match step {
        Step::Done(result) => result,
        // A parked answer is dropped only with its member, which was answered, or with the group.
        Step::Wait(receiver) => receiver.await.unwrap_or(Err(GroupError::NotAvailable)),
    }
}

async fn keep_time(inner: Arc<Inner>) {
    loop {
        let entries: Vec<_> = inner.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for entry in entries {
            let deadline = {
                let mut group = entry.lock();
                if group.next_deadline().is_some_and(|deadline| deadline <= now) {
                    group.expire(now);
                }
                group.next_deadline()
            };
            inner.save(&entry);
            next = next.into_iter().chain(deadline).min();
        }
        let until = next.map(|deadline| tokio::time::Instant::from_std(deadline.max(now + Duration::from_millis(1))));
        let sleep = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = inner.deadlines_changed.notified() => {}
            () = inner.stopped.notified() => return,
        }
    }
}

fn check_id(group_id: &str) -> Result<(), GroupError> {
    let allowed = (1..=GROUP_ID_BYTES_MAX).contains(&group_id.len()) && !group_id.contains(SEPARATOR);
    if allowed { Ok(()) } else { Err(GroupError::InvalidGroup) }
}

fn group_key(group_id: &str) -> Bytes {
    Bytes::from(format!("{GROUP_PREFIX}{group_id}"))
}

fn offset_key(group_id: &str, (topic, partition): &OffsetKey) -> Bytes {
    Bytes::from(format!("{OFFSET_PREFIX}{group_id}{SEPARATOR}{topic}{SEPARATOR}{partition}"))
}

fn offset_key_parts(key: &str) -> Option<(String, String, i32)> {
    let mut parts = key.strip_prefix(OFFSET_PREFIX)?.split(SEPARATOR);
    let (group, topic, partition) = (parts.next()?, parts.next()?, parts.next()?);
    Some((group.to_owned(), topic.to_owned(), partition.parse().ok()?))
}
