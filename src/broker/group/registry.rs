//! The groups that there are: each with its guard, its writes in order, its weight and its deadlines.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::bounds::OFFSETS_BYTES_MAX;
use super::codec::Key;
use super::loading::OpenTransactions;
use super::offsets::{CommittedOffset, OffsetKey};
use super::state::Group;
use super::store::{Store, StoreError};
use super::terms::{GroupError, Phase};

/// A group with the lock that orders its writes.
pub(super) struct Entry {
    pub(super) id: String,
    group: Mutex<Group>,
    /// Held alone while this group's state is written, so that the later form is written later. Commits share it: they are
    /// put in order by their place in the log, and many wait for one sync.
    pub(super) writing: tokio::sync::RwLock<()>,
    /// What it counts for in the sum of all groups.
    pub(super) bytes: AtomicUsize,
}

impl Entry {
    pub(super) fn lock(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Inner {
    pub(super) store: Arc<Store>,
    /// How long a group without members waits for more of them than the first.
    pub(super) initial_delay: Duration,
    /// What all groups hold.
    pub(super) bytes: AtomicUsize,
    pub(super) entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// Where a producer's marker has something to end; taken out of a group under its `writing` lock.
    open: Mutex<OpenTransactions>,
    /// Producers whose marker is on its way.
    pub(super) ending: Mutex<HashSet<i64>>,
    /// Wall clock when offsets are looked at next.
    pub(super) next_expiry_ms: AtomicI64,
    pub(super) deadlines_changed: Notify,
    pub(super) stopped: Notify,
}

impl Inner {
    pub(super) fn new(
        store: Arc<Store>,
        initial_delay: Duration,
        entries: BTreeMap<String, Arc<Entry>>,
        open: OpenTransactions,
    ) -> Inner {
        Inner {
            store,
            initial_delay,
            bytes: AtomicUsize::new(0),
            entries: RwLock::new(entries),
            open: Mutex::new(open),
            ending: Mutex::default(),
            next_expiry_ms: AtomicI64::new(0),
            deadlines_changed: Notify::new(),
            stopped: Notify::new(),
        }
    }

    /// A group, for a change that happens now.
    pub(super) fn lock<'a>(&self, entry: &'a Entry) -> MutexGuard<'a, Group> {
        let mut group = entry.lock();
        group.wall_ms = self.store.now_ms();
        group.initial_delay = self.initial_delay;
        group
    }

    pub(super) fn open_transactions(&self) -> MutexGuard<'_, OpenTransactions> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn delete(&self, entry: &Entry) -> Result<(), GroupError> {
        let group_id = entry.id.as_str();
        let _ordered = entry.writing.write().await;
        let gone;
        {
            let mut group = entry.lock();
            match group.phase {
                Phase::Empty => group.phase = Phase::Dead,
                Phase::Dead => return Err(GroupError::NotFound),
                _ => return Err(GroupError::NotEmpty),
            }
            gone = group.offsets.keys(|_| true);
        }
        let offset = |key| Key::Offset { group: group_id.to_owned(), key };
        // The group last: after a crash in between it is still there, to be deleted again.
        let keys = gone.into_iter().map(offset).chain([Key::Group(group_id.to_owned())]);
        if let Err(error) = self.store.forget(&keys.collect::<Vec<_>>()).await {
            tracing::error!(group = group_id, "the group is not deleted: {error}");
            entry.lock().phase = Phase::Empty;
            return Err(GroupError::NotAvailable);
        }
        self.remove(entry);
        Ok(())
    }

    pub(super) async fn forget_empty(&self, empty_ms_min: i64) {
        let now_ms = self.store.now_ms();
        let entries = self.all();
        let mut forgotten = Vec::new();
        for entry in &entries {
            // Who writes it just now has use for it.
            let Ok(ordered) = entry.writing.try_write() else { continue };
            let mut group = entry.lock();
            if group.is_forgettable(now_ms, empty_ms_min) {
                group.phase = Phase::Dead;
                forgotten.push((entry, group.is_recorded, ordered));
            }
        }
        if forgotten.is_empty() {
            return;
        }
        let recorded = forgotten.iter().filter(|(_, is_recorded, _)| *is_recorded);
        let keys: Vec<Key> = recorded.map(|(entry, ..)| Key::Group(entry.id.clone())).collect();
        let written = self.store.forget(&keys).await;
        for (entry, _, _ordered) in forgotten {
            match &written {
                Ok(()) => self.remove(entry),
                Err(_) => entry.lock().phase = Phase::Empty,
            }
        }
        if let Err(error) = written {
            tracing::warn!("groups without members and offsets are kept: {error}");
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn remove(&self, entry: &Entry) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(&entry.id);
        self.bytes.fetch_sub(entry.bytes.swap(0, Ordering::AcqRel), Ordering::AcqRel);
    }

    /// Takes what a group holds now into the sum.
    pub(super) fn weigh(&self, entry: &Entry) {
        // Under its lock, so that the latest look is the one that counts.
        let group = entry.lock();
        let now = group.bytes();
        let before = entry.bytes.swap(now, Ordering::AcqRel);
        self.bytes.fetch_add(now, Ordering::AcqRel);
        self.bytes.fetch_sub(before, Ordering::AcqRel);
    }

    /// Whether offsets may be added, to those of a producer's transaction or to the committed ones; those that only move
    /// are always welcome.
    pub(super) fn check_room(
        &self,
        entry: &Entry,
        staged_by: Option<i64>,
        offsets: &[(OffsetKey, CommittedOffset)],
    ) -> Result<(), StoreError> {
        let group = entry.lock();
        if group.phase == Phase::Dead {
            return Err(StoreError::Refused("the group was deleted meanwhile"));
        }
        let added = group.offsets.bytes_added(staged_by, offsets);
        if added > 0 && self.bytes.load(Ordering::Acquire) + added > OFFSETS_BYTES_MAX {
            return Err(StoreError::Refused("the groups hold as much as they may; delete some"));
        }
        Ok(())
    }

    /// Writes what a group left to be written, in a task of its own.
    pub(super) fn save(self: &Arc<Self>, entry: &Arc<Entry>) {
        if entry.lock().unsaved.is_none() {
            return;
        }
        let (inner, entry) = (self.clone(), entry.clone());
        tokio::spawn(async move {
            {
                let _ordered = entry.writing.write().await;
                let (unsaved, saving, returning) = {
                    let mut group = entry.lock();
                    (group.unsaved.take(), group.saving, std::mem::take(&mut group.returning))
                };
                // Another task took a later form along.
                let Some(record) = unsaved else { return };
                let written = inner.store.put_group(&entry.id, &record).await;
                if let Err(error) = &written {
                    tracing::error!(group = entry.id, "{error}");
                }
                returning.into_iter().for_each(|member| member.answer(written.is_ok()));
                if let Some(generation) = saving {
                    inner.lock(&entry).saved(generation, written.is_ok(), Instant::now());
                    inner.weigh(&entry);
                }
            }
            inner.deadlines_changed.notify_one();
            inner.save(&entry);
        });
    }
}

pub(super) fn new_entry(id: String, group: Group) -> Entry {
    Entry { id, group: Mutex::new(group), writing: tokio::sync::RwLock::new(()), bytes: AtomicUsize::new(0) }
}

/// Sleeps until the earliest deadline of all groups; with no groups for good.
pub(super) async fn keep_time(inner: Arc<Inner>) {
    loop {
        let entries = inner.all();
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for entry in entries {
            let deadline = {
                let mut group = inner.lock(&entry);
                let expired = group.next_deadline().is_some_and(|deadline| deadline <= now);
                if expired {
                    group.expire(now);
                }
                let deadline = group.next_deadline();
                drop(group);
                if expired {
                    inner.weigh(&entry);
                }
                deadline
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
