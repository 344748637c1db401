//! What changes committed offsets: commits, deletion, time. Each durable first, then visible.
//!
//! What concerns one group is written under its `writing` lock: commits side by side, all else alone. Each runs to its
//! end, also when the client goes away: memory and log must agree.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::codec::Key;
use super::committer::{Committer, Waiting};
use super::coordinator::Coordinator;
use super::expiry;
use super::offsets::{CommittedOffset, OffsetKey};
use super::registry::{Entry, Inner};
use super::store::StoreError;
use super::terms::Phase;

pub(super) const STOPS: StoreError = StoreError::Refused("the broker stops");
pub(super) const TOO_MANY: StoreError = StoreError::Refused("the number of groups is at its limit");

impl Coordinator {
    /// Commits offsets of a group: all of them, or none.
    ///
    /// # Errors
    /// `Member` when whoever commits is no longer of the group's present generation.
    pub(crate) async fn commit(
        &self,
        group_id: &str,
        by: Committer,
        mut offsets: Vec<(OffsetKey, CommittedOffset)>,
    ) -> Result<(), StoreError> {
        let entry = self.get_or_make_room(group_id).await.map_err(|_| TOO_MANY)?;
        let inner = self.0.clone();
        let task = tokio::spawn(async move {
            let _waiting = Waiting::begin(&inner, &entry, &by);
            let _shared = entry.writing.read().await;
            // Looked at again: who gets its partitions next does not before this lock was held alone.
            by.check(&mut entry.lock())?;
            offsets.retain(|(key, _)| by.is_there(key));
            if offsets.is_empty() {
                return Ok(());
            }
            inner.check_room(&entry, None, &offsets)?;
            let first = inner.store.put_offsets(&entry.id, &offsets).await?;
            {
                let group = &mut entry.lock();
                for (log_offset, (key, committed)) in (first..).zip(offsets) {
                    group.offsets.commit(key, committed, log_offset);
                }
            }
            inner.weigh(&entry);
            Ok(())
        });
        task.await.unwrap_or(Err(STOPS))
    }

    /// Forgets offsets, committed or pending: of one group, or of all.
    pub(crate) async fn forget_offsets(
        &self,
        group_id: Option<String>,
        which: impl Fn(&OffsetKey) -> bool + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let inner = self.0.clone();
        let task = tokio::spawn(async move {
            let chosen = |entry: &Arc<Entry>| group_id.as_ref().is_none_or(|id| *id == entry.id);
            for entry in inner.all().into_iter().filter(chosen) {
                inner.forget(&entry, |entry| entry.lock().offsets.keys(&which)).await?;
            }
            Ok(())
        });
        task.await.unwrap_or(Err(STOPS))
    }

    /// Forgets the offsets whose time is over, if it is time to look for them.
    pub(crate) async fn expire_offsets(&self) {
        let inner = self.0.clone();
        let task = tokio::spawn(async move { inner.expire_offsets().await });
        // Only a broker that stops keeps it from being done.
        let _ = task.await;
    }
}

impl Inner {
    async fn forget(&self, entry: &Entry, which: impl Fn(&Entry) -> BTreeSet<OffsetKey>) -> Result<(), StoreError> {
        let _ordered = entry.writing.write().await;
        // A deleted group's keys may be another's by now.
        let is_deleted = entry.lock().phase == Phase::Dead;
        let gone = which(entry);
        if gone.is_empty() || is_deleted {
            return Ok(());
        }
        let tombstone = |key: &OffsetKey| Key::Offset { group: entry.id.clone(), key: key.clone() };
        self.store.forget(&gone.iter().map(tombstone).collect::<Vec<_>>()).await?;
        {
            let offsets = &mut entry.lock().offsets;
            gone.iter().for_each(|key| offsets.forget(key));
        }
        self.weigh(entry);
        Ok(())
    }

    async fn expire_offsets(&self) {
        let now_ms = self.store.now_ms();
        let next_ms = self.next_expiry_ms.load(Ordering::Acquire);
        // Also when the clock was set back by more than that.
        if (next_ms - expiry::CHECK_INTERVAL_MS..next_ms).contains(&now_ms) {
            return;
        }
        self.next_expiry_ms.store(now_ms.saturating_add(expiry::CHECK_INTERVAL_MS), Ordering::Release);
        for entry in self.all() {
            let expired = |entry: &Entry| entry.lock().expired_offsets(now_ms).into_iter().collect::<BTreeSet<_>>();
            if expired(&entry).is_empty() {
                continue;
            }
            match self.forget(&entry, expired).await {
                Ok(()) => tracing::info!(group = entry.id, "offsets that nobody has needed for long are forgotten"),
                Err(error) => {
                    tracing::warn!(group = entry.id, "offsets that nobody has needed for long are kept: {error}")
                }
            }
        }
    }
}
