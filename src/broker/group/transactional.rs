//! Offsets that count once the transaction of a producer is committed. Until then nobody is told of them, and who asks
//! for stable offsets waits.
//!
//! They are durable beside the committed ones, so that a crash before the end of the transaction loses none, and become
//! committed or go in one write, so that a crash doubles none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::bounds::offset_bytes;
use super::codec;
use super::coordinator::{Coordinator, check_id};
use super::registry::{Entry, OffsetKey, SEPARATOR, offset_key};
use super::state::Group;
use super::store::{CommittedOffset, StateStore, StoreError};
use super::terms::{GroupError, Phase};

const PREFIX: &str = "staged/";

/// Offsets of one group that wait for the ends of transactions, by partition and by producer.
pub(crate) type Staged = BTreeMap<OffsetKey, BTreeMap<i64, CommittedOffset>>;

/// The groups in which each producer has something staged.
pub(super) type StagedBy = BTreeMap<i64, BTreeSet<String>>;

/// A change of the store.
type Change = (Bytes, Option<Bytes>);

/// A staged offset as it is stored.
struct Stored {
    producer_id: i64,
    group_id: String,
    key: OffsetKey,
    committed: CommittedOffset,
}

/// Who stages: a producer's id and epoch.
pub(crate) type Producer = (i64, i16);

impl Coordinator {
    /// Whether this member may commit offsets within a transaction (KIP-447). Older clients do not say who they are.
    pub(crate) fn check_transactional_commit(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        match self.find(group_id) {
            Some(entry) => entry.lock().check_transactional_commit(member_id, instance_id, generation, Instant::now()),
            None if generation < 0 => check_id(group_id),
            None => Err(GroupError::IllegalGeneration),
        }
    }

    /// Makes offsets durable that count once this producer's transaction is committed.
    pub(crate) async fn stage_offsets(
        &self,
        group_id: &str,
        producer: Producer,
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
                (staged_key(producer.0, &entry.id, key), Some(encode(producer.1, committed)))
            };
            inner.store.put(offsets.iter().map(change).collect()).await?;
            {
                let mut group = entry.lock();
                for (key, committed) in offsets {
                    group.staged.entry(key).or_default().insert(producer.0, committed);
                }
            }
            inner.weigh(&entry);
            let mut staged_by = inner.staged_by.lock().unwrap_or_else(PoisonError::into_inner);
            staged_by.entry(producer.0).or_default().insert(entry.id.clone());
            Ok(())
        });
        task.await.unwrap_or_else(|_| Err(StoreError("the broker stops".to_owned())))
    }

    /// Ends a producer's transaction: what it has staged is committed, or forgotten. To end what is not there does no
    /// harm. Resolves when it is durable.
    pub(crate) async fn end_transaction(&self, producer_id: i64, is_committed: bool) -> Result<(), StoreError> {
        let coordinator = self.clone();
        let task = tokio::spawn(async move { coordinator.end_staged(producer_id, is_committed).await });
        task.await.unwrap_or_else(|_| Err(StoreError("the broker stops".to_owned())))
    }

    async fn end_staged(&self, producer_id: i64, is_committed: bool) -> Result<(), StoreError> {
        let inner = &self.0;
        let groups = {
            let staged_by = inner.staged_by.lock().unwrap_or_else(PoisonError::into_inner);
            staged_by.get(&producer_id).cloned().unwrap_or_default()
        };
        // In order of name: whoever else holds several holds them so, too.
        let entries: Vec<Arc<Entry>> = groups.iter().filter_map(|id| self.find(id)).collect();
        let mut ordered = Vec::with_capacity(entries.len());
        for entry in &entries {
            ordered.push(entry.writing.lock().await);
        }
        let mut changes: Vec<Change> = Vec::new();
        for entry in &entries {
            for (key, committed) in entry.lock().staged_of(producer_id) {
                changes.push((staged_key(producer_id, &entry.id, key), None));
                if is_committed {
                    changes.push((offset_key(&entry.id, key), Some(codec::encode_offset(committed))));
                }
            }
        }
        if !changes.is_empty() {
            inner.store.put(changes).await?;
        }
        for entry in &entries {
            entry.lock().end_staged(producer_id, is_committed);
            inner.weigh(entry);
        }
        inner.staged_by.lock().unwrap_or_else(PoisonError::into_inner).remove(&producer_id);
        Ok(())
    }

    /// The producers that have something staged.
    pub(crate) fn producers_in_transactions(&self) -> Vec<i64> {
        self.0.staged_by.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl Group {
    /// Whether the committed offset may be another one soon.
    pub(crate) fn is_unstable(&self, key: &OffsetKey) -> bool {
        self.staged.contains_key(key)
    }

    fn check_transactional_commit(
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

    fn staged_of(&self, producer_id: i64) -> impl Iterator<Item = (&OffsetKey, &CommittedOffset)> {
        self.staged.iter().filter_map(move |(key, by)| Some((key, by.get(&producer_id)?)))
    }

    fn end_staged(&mut self, producer_id: i64, is_committed: bool) {
        for (key, by) in &mut self.staged {
            if let Some(committed) = by.remove(&producer_id).filter(|_| is_committed) {
                self.offsets.insert(key.clone(), committed);
            }
        }
        self.staged.retain(|_, by| !by.is_empty());
    }

    /// What is staged, in memory.
    pub(super) fn staged_bytes(&self) -> usize {
        let bytes = |(key, by): (&OffsetKey, &BTreeMap<i64, CommittedOffset>)| -> usize {
            by.values().map(|committed| offset_bytes(key, committed)).sum()
        };
        self.staged.iter().map(bytes).sum()
    }

    /// The keys under which its staged offsets are stored.
    pub(super) fn staged_keys(&self, group_id: &str) -> Vec<Bytes> {
        let keys = |(key, by): (&OffsetKey, &BTreeMap<i64, CommittedOffset>)| {
            by.keys().map(|producer_id| staged_key(*producer_id, group_id, key)).collect::<Vec<_>>()
        };
        self.staged.iter().flat_map(keys).collect()
    }
}

/// Puts what is stored into the groups that it belongs to.
pub(super) fn load(store: &dyn StateStore, groups: &mut BTreeMap<String, Group>) -> StagedBy {
    let mut staged_by = StagedBy::new();
    for (key, value) in store.entries(PREFIX.as_bytes()) {
        let text = String::from_utf8_lossy(&key).into_owned();
        let Some(Stored { producer_id, group_id, key, committed }) = decode(&text, value) else {
            tracing::error!(key = text, "an offset of a transaction cannot be read; it counts as not committed");
            continue;
        };
        let group = groups.entry(group_id.clone()).or_insert_with(Group::new);
        group.staged.entry(key).or_default().insert(producer_id, committed);
        staged_by.entry(producer_id).or_default().insert(group_id);
    }
    staged_by
}

fn staged_key(producer_id: i64, group_id: &str, (topic, partition): &OffsetKey) -> Bytes {
    Bytes::from(format!("{PREFIX}{producer_id}{SEPARATOR}{group_id}{SEPARATOR}{topic}{SEPARATOR}{partition}"))
}

fn encode(producer_epoch: i16, committed: &CommittedOffset) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(producer_epoch);
    out.put(codec::encode_offset(committed));
    out.freeze()
}

fn decode(key: &str, mut value: Bytes) -> Option<Stored> {
    let mut parts = key.strip_prefix(PREFIX)?.split(SEPARATOR);
    let producer_id = parts.next()?.parse().ok()?;
    let (group_id, topic, partition) = (parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?);
    value.try_get_i16().ok()?;
    let committed = codec::decode_offset(value)?;
    Some(Stored { producer_id, group_id, key: (topic, partition.parse().ok()?), committed })
}
