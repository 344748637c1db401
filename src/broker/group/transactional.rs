//! Offsets that count once the transaction of a producer is committed. Until then nobody is told of them, and who asks
//! for stable offsets waits.
//!
//! They lie in the log as a transactional batch of that producer, and the marker that the coordinator of transactions has
//! written behind them decides: a crash loses none and doubles none, and compaction sees what we see.
//!
//! Source: KIP-98, KIP-447.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use super::commits::{STOPS, TOO_MANY};
use super::committer::{Committer, Waiting};
use super::coordinator::Coordinator;
use super::offsets::{CommittedOffset, OffsetKey};
use super::registry::{Entry, Inner};
use super::state::Group;
use super::store::{Producer, StoreError};
use super::terms::{GroupError, Phase};
use crate::broker::log::{AppendError, Appended, EndTransaction, Marker};

impl Coordinator {
    /// Commits offsets of a group within a producer's transaction: they count once it is committed, and hold back those
    /// who fetch stable offsets until it has ended. Resolves when they are durable.
    ///
    /// # Errors
    /// `Concurrent` while an earlier transaction of the producer is being ended, `Member` when whoever commits is no longer
    /// of the group's present generation.
    pub(crate) async fn stage_offsets(
        &self,
        group_id: &str,
        by: Committer,
        producer: Producer,
        mut offsets: Vec<(OffsetKey, CommittedOffset)>,
    ) -> Result<(), StoreError> {
        let entry = self.get_or_make_room(group_id).await.map_err(|_| TOO_MANY)?;
        let inner = self.0.clone();
        let task = tokio::spawn(async move {
            let _waiting = Waiting::begin(&inner, &entry, &by);
            let _shared = entry.writing.read().await;
            by.check_transactional(&mut entry.lock())?;
            offsets.retain(|(key, _)| by.is_there(key));
            if offsets.is_empty() {
                return Ok(());
            }
            let (producer_id, _) = producer;
            inner.check_room(&entry, Some(producer_id), &offsets)?;
            inner.store.make().await?;
            let staged = {
                // A marker is queued under this lock, too: nothing is staged behind one that is not carried out yet.
                let ending = inner.ending();
                if ending.contains(&producer_id) {
                    return Err(StoreError::Concurrent);
                }
                inner.open_transactions().entry(producer_id).or_default().insert(entry.id.clone());
                inner.store.queue_staged(producer, &entry.id, &offsets)?
            };
            inner.store.durable(&staged).await?;
            let first = staged.base_offset;
            {
                let group = &mut entry.lock();
                for (log_offset, (key, committed)) in (first..).zip(offsets) {
                    group.offsets.stage(producer_id, key, committed, log_offset);
                }
            }
            inner.weigh(&entry);
            Ok(())
        });
        task.await.unwrap_or(Err(STOPS))
    }

    /// Ends a producer's transaction: queues the marker behind all that was queued before, at once, and never without what
    /// it is to lie `behind`. What is returned resolves when the marker is durable, and what was staged counts, or is gone;
    /// it may fail with the errors of the log's `durable`. To end what is not open does no harm.
    ///
    /// # Errors
    /// Those of the log's `write_marker`, and `Storage` while an earlier end of this producer's transactions is carried
    /// out. Nothing was queued then; it may be tried again.
    pub(crate) fn end_transaction(
        &self,
        end: EndTransaction,
        behind: Option<&Appended>,
    ) -> Result<impl Future<Output = Result<(), AppendError>> + Send + 'static, AppendError> {
        let inner = self.0.clone();
        let queued = {
            // One after another: which marker ends what was staged must be beyond doubt.
            let mut ending = inner.ending();
            if ending.contains(&end.producer_id) {
                return Err(under_way(end.producer_id));
            }
            let queued = inner.store.queue_marker(end, behind)?;
            ending.insert(end.producer_id);
            queued
        };
        let task = tokio::spawn(async move {
            let ended = match &queued {
                Some(marker) => inner.carry_out(end, marker).await,
                None => Ok(()),
            };
            inner.ending().remove(&end.producer_id);
            ended
        });
        Ok(async move { task.await.unwrap_or_else(|_| Err(AppendError::Storage("the broker stops".to_owned()))) })
    }

    /// Whether an open transaction may still change what is committed there.
    #[cfg(test)]
    pub(crate) fn has_pending(&self, group_id: &str, key: &OffsetKey) -> bool {
        self.describe(group_id, |group| group.offsets.has_pending(key)).unwrap_or(false)
    }

    /// The producers whose open transactions have staged offsets.
    #[cfg(test)]
    pub(crate) fn producers_in_transactions(&self) -> Vec<i64> {
        self.0.open_transactions().keys().copied().collect()
    }
}

impl Inner {
    /// What was staged before a marker counts, or is gone, once the marker is durable.
    async fn carry_out(&self, end: EndTransaction, queued: &Appended) -> Result<(), AppendError> {
        self.store.durable(queued).await?;
        let EndTransaction { producer_id, marker, .. } = end;
        let groups = self.open_transactions().get(&producer_id).cloned().unwrap_or_default();
        for id in groups {
            let Some(entry) = self.entry_or_close(producer_id, &id) else { continue };
            // What was queued before the marker has been applied then.
            let _ordered = entry.writing.write().await;
            entry.lock().offsets.end(producer_id, marker == Marker::Commit);
            self.close_transaction(producer_id, &id);
            self.weigh(&entry);
        }
        Ok(())
    }

    fn ending(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group, or none when it was deleted with all that it had.
    fn entry_or_close(&self, producer_id: i64, id: &str) -> Option<Arc<Entry>> {
        // Held meanwhile: a group that is made anew may stage something at once.
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let found = entries.get(id).cloned();
        if found.is_none() {
            self.close_transaction(producer_id, id);
        }
        found
    }

    /// A group has nothing left of a producer's transaction.
    fn close_transaction(&self, producer_id: i64, group_id: &str) {
        let mut open = self.open_transactions();
        if let Some(groups) = open.get_mut(&producer_id) {
            groups.remove(group_id);
            if groups.is_empty() {
                open.remove(&producer_id);
            }
        }
    }
}

fn under_way(producer_id: i64) -> AppendError {
    AppendError::Storage(format!("an earlier transaction of producer {producer_id} is being ended; try again"))
}

impl Group {
    /// Whether the committed offset may be another one soon.
    pub(crate) fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        // As a rule nothing is staged at all.
        self.offsets.is_in_transaction() && self.offsets.has_pending(&(topic.to_owned(), partition))
    }

    pub(super) fn check_transactional_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), GroupError> {
        if self.phase == Phase::Dead {
            return Err(GroupError::NotAvailable);
        }
        if generation < 0 && (self.phase == Phase::Empty || (member_id.is_empty() && instance_id.is_none())) {
            return Ok(());
        }
        self.check_member(member_id, instance_id, generation)?;
        self.touch(member_id, now);
        Ok(())
    }
}
