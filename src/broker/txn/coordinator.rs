//! Carries requests about transactional ids to their state machine, and writes what comes of them before anyone is told.
//!
//! One lock guards all ids, for moments only: under it a change is decided and queued for the log, so that the order of
//! decisions is the order of records. While it is on its way to the disk the id takes no other change.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::codec;
use super::ids::Ids;
use super::metadata::{
    End, Ending, Init, Metadata, Partitions, ProducerIdEpoch, TransactionState, TxnError, check_timeout,
};
use crate::broker::catalog::Catalog;
use crate::broker::group::{self, CommittedOffset, Committer, OffsetKey, StoreError};
use crate::broker::internal_topic::{CONSUMER_OFFSETS, InternalTopic};
use crate::broker::log::{AppendError, Appended};
use crate::broker::producer_ids::ProducerIds;
use crate::clock::SharedClock;

/// Kafka's format would take 32,767; so all of them fit into an answer.
const ID_BYTES_MAX: usize = 1_024;
/// The partition of [`CONSUMER_OFFSETS`] that holds every group.
pub(super) const GROUPS_PARTITION: i32 = 0;

pub(super) struct Inner {
    pub topic: Arc<InternalTopic>,
    pub catalog: Catalog,
    pub groups: group::Coordinator,
    pub producer_ids: Arc<ProducerIds>,
    pub clock: SharedClock,
    pub ids: Mutex<Ids>,
    /// When the timers look next; who finds something earlier wakes them.
    pub next_look_ms: AtomicI64,
    pub deadlines_changed: Notify,
    pub stopped: Notify,
}

/// The coordinator of all transactions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Coordinator(pub(super) Arc<Inner>);

/// A change on its way to the disk, which goes on whether anyone waits for it or not.
pub(super) struct Writing(pub JoinHandle<Result<(), TxnError>>);

impl Writing {
    /// # Errors
    /// `NotAvailable` when it could not be written: nothing has changed then.
    async fn done(self) -> Result<(), TxnError> {
        // A task that was cancelled: the broker stops.
        self.0.await.unwrap_or(Err(TxnError::NotAvailable))
    }
}

/// Nobody can end the transaction while this is held. Not to be held across an await.
pub(crate) struct Entered<'a>(#[allow(dead_code, reason = "held for its lock")] MutexGuard<'a, Ids>);

/// What is to be waited for before InitProducerId is answered.
enum Beginning {
    NeedsNewId,
    Write(Writing, ProducerIdEpoch),
    Fence(Writing),
}

impl Coordinator {
    /// Ends the timer task.
    pub(crate) fn stop(&self) {
        self.0.stopped.notify_one();
    }

    /// InitProducerId: who the producer is from now on. Whoever held the id before is fenced.
    ///
    /// # Errors
    /// `Concurrent` while the transaction of the one before is aborted; `ProducerFenced` for a producer that calls
    /// itself `expected` and has been followed by another one; `Full`.
    pub(crate) async fn init(
        &self,
        id: &str,
        expected: Option<ProducerIdEpoch>,
        timeout_ms: i32,
    ) -> Result<ProducerIdEpoch, TxnError> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(TxnError::InvalidRequest);
        }
        check_timeout(timeout_ms)?;
        self.0.topic.make().await.map_err(|error| {
            tracing::error!("the topic of transactions cannot be made: {error}");
            TxnError::NotAvailable
        })?;
        let mut new_id = None;
        loop {
            match self.0.init(id, expected, timeout_ms, new_id) {
                Ok(Beginning::NeedsNewId) => {
                    new_id = Some(self.0.producer_ids.next().await.map_err(|error| unavailable(id, &error))?);
                }
                Ok(Beginning::Write(writing, producer)) => return writing.done().await.map(|()| producer),
                Ok(Beginning::Fence(writing)) => return writing.done().await.and(Err(TxnError::Concurrent)),
                Err(TxnError::Full) if self.0.make_room().await => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// AddPartitionsToTxn: the transaction, begun by this if need be, touches these as well.
    ///
    /// # Errors
    /// As Kafka's, see [`Metadata::add_partitions`].
    pub(crate) async fn add_partitions(
        &self,
        id: &str,
        producer: ProducerIdEpoch,
        more: &Partitions,
    ) -> Result<(), TxnError> {
        check_id(id)?;
        let writing = {
            let mut ids = self.0.lock();
            match ids.settled(id)?.add_partitions(producer, more, self.0.now_ms())? {
                None => return Ok(()),
                Some(next) => self.0.write(&mut ids, id, next)?,
            }
        };
        writing.done().await
    }

    /// AddOffsetsToTxn: the transaction will commit offsets of groups.
    ///
    /// # Errors
    /// As of [`Coordinator::add_partitions`].
    pub(crate) async fn add_offsets(&self, id: &str, producer: ProducerIdEpoch) -> Result<(), TxnError> {
        let offsets = Partitions::from([(CONSUMER_OFFSETS.to_owned(), [GROUPS_PARTITION].into())]);
        self.add_partitions(id, producer, &offsets).await
    }

    /// Whether the producer may commit offsets within its transaction now.
    ///
    /// # Errors
    /// As of [`Coordinator::enter`].
    pub(crate) fn check_offsets(&self, id: &str, producer: ProducerIdEpoch) -> Result<(), TxnError> {
        self.enter(id, &[producer], CONSUMER_OFFSETS, GROUPS_PARTITION).map(drop)
    }

    /// TxnOffsetCommit: offsets that count once the transaction is committed. Resolves when they are durable.
    ///
    /// # Errors
    /// As of [`Coordinator::check_offsets`]; `Member` when a rebalance came before them; `OffsetsTooLarge`; `NotAvailable`
    /// when they cannot be written.
    pub(crate) async fn commit_offsets(
        &self,
        id: &str,
        producer: ProducerIdEpoch,
        group_id: &str,
        by: Committer,
        offsets: Vec<(OffsetKey, CommittedOffset)>,
    ) -> Result<(), TxnError> {
        {
            let mut ids = self.0.lock();
            ids.settled(id)?.verify(producer, CONSUMER_OFFSETS, GROUPS_PARTITION)?;
            // The transaction must not end before they are part of it.
            ids.begin(id, TransactionState::Ongoing);
        }
        let (inner, id, group_id) = (self.0.clone(), id.to_owned(), group_id.to_owned());
        let task = tokio::spawn(async move {
            let staged = inner.groups.stage_offsets(&group_id, by, (producer.id, producer.epoch), offsets).await;
            inner.lock().end(&id);
            staged.map_err(|error| match error {
                StoreError::Append(AppendError::TooLarge { .. }) => TxnError::OffsetsTooLarge,
                StoreError::Append(AppendError::InvalidProducerEpoch { .. }) => TxnError::ProducerFenced,
                StoreError::Member(error) => TxnError::Member(error),
                error => unavailable(&id, &error),
            })
        });
        Writing(task).done().await
    }

    /// EndTxn. Resolves when readers of committed records see the end, or when the end is decided and carried out later.
    ///
    /// # Errors
    /// As Kafka's, see [`Metadata::end`].
    pub(crate) async fn end(&self, id: &str, producer: ProducerIdEpoch, end: End) -> Result<(), TxnError> {
        check_id(id)?;
        let writing = {
            let mut ids = self.0.lock();
            // In Kafka's order: who was fenced hears so at once.
            ids.get(id).ok_or(TxnError::InvalidProducerIdMapping)?.check_producer(producer)?;
            match ids.settled(id)?.end(producer, end, self.0.now_ms())? {
                Ending::Done => return Ok(()),
                Ending::Prepare(prepared) => self.0.end(&mut ids, id, prepared)?,
            }
        };
        writing.done().await
    }

    /// Whether these producers may write to that partition within their transaction (KIP-890's verification). It cannot
    /// end as long as the answer is held.
    ///
    /// # Errors
    /// `InvalidProducerIdMapping`, `ProducerFenced`, `Concurrent`, or `NotInTransaction`.
    pub(crate) fn enter(
        &self,
        id: &str,
        producers: &[ProducerIdEpoch],
        topic: &str,
        partition: i32,
    ) -> Result<Entered<'_>, TxnError> {
        let ids = self.0.lock();
        for producer in producers {
            let known = ids.get(id).ok_or(TxnError::InvalidProducerIdMapping)?;
            known.check_producer(*producer)?;
            if ids.changing(id).is_some_and(|to| to != TransactionState::Ongoing) {
                return Err(TxnError::Concurrent);
            }
            known.verify(*producer, topic, partition)?;
        }
        Ok(Entered(ids))
    }

    /// What is known of an id.
    pub(crate) fn describe(&self, id: &str) -> Option<Metadata> {
        self.0.lock().get(id).cloned()
    }

    /// What `look` makes of each id, in no order.
    pub(crate) fn list<T>(&self, look: impl FnMut((&str, &Metadata)) -> Option<T>) -> Vec<T> {
        self.0.lock().all().filter_map(look).collect()
    }
}

impl Inner {
    pub fn lock(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now().as_millis()
    }

    fn init(
        self: &Arc<Self>,
        id: &str,
        expected: Option<ProducerIdEpoch>,
        timeout_ms: i32,
        new_id: Option<i64>,
    ) -> Result<Beginning, TxnError> {
        let mut ids = self.lock();
        let now_ms = self.now_ms();
        let step = match ids.settled(id) {
            Ok(known) => known.init(expected, timeout_ms, new_id, now_ms)?,
            Err(TxnError::InvalidProducerIdMapping) => {
                let Some(producer_id) = new_id else { return Ok(Beginning::NeedsNewId) };
                let unborn = Metadata::new(producer_id, timeout_ms, now_ms);
                ids.check_room(id, &unborn)?;
                let step = unborn.init(expected, timeout_ms, None, now_ms)?;
                ids.insert(id.to_owned(), unborn);
                step
            }
            Err(error) => return Err(error),
        };
        match step {
            Init::NeedsNewId => Ok(Beginning::NeedsNewId),
            Init::Fence(fenced) => self.end(&mut ids, id, fenced).map(Beginning::Fence),
            Init::Ready(next) => {
                let producer = next.producer;
                let writing = self.write(&mut ids, id, next).inspect_err(|_| ids.end(id))?;
                Ok(Beginning::Write(writing, producer))
            }
        }
    }

    /// Queues the next form of an id, and makes it the present one when it is durable.
    fn write(self: &Arc<Self>, ids: &mut Ids, id: &str, next: Metadata) -> Result<Writing, TxnError> {
        ids.check_room(id, &next)?;
        let appended = self.append(id, &next)?;
        ids.begin(id, next.state);
        let (inner, id) = (self.clone(), id.to_owned());
        Ok(Writing(tokio::spawn(async move {
            let durable = inner.topic.durable(&appended).await;
            let times_out_at_ms = next.times_out_at_ms();
            let mut ids = inner.lock();
            if durable.is_ok() {
                ids.set(&id, next);
            }
            ids.end(&id);
            drop(ids);
            inner.deadline(times_out_at_ms);
            durable.map_err(|error| unavailable(&id, &error))
        })))
    }

    /// Queues what is to be remembered of an id.
    pub fn append(&self, id: &str, metadata: &Metadata) -> Result<Appended, TxnError> {
        self.append_behind(id, metadata, None)
    }

    /// As `append`, and never without what it is to lie behind.
    pub fn append_behind(
        &self,
        id: &str,
        metadata: &Metadata,
        behind: Option<&Appended>,
    ) -> Result<Appended, TxnError> {
        let key = codec::encode_key(id).ok_or(TxnError::InvalidRequest)?;
        let record = (key, Some(codec::encode_value(metadata)));
        self.topic.append_behind(&[record], behind, self.now_ms()).map_err(|error| unavailable(id, &error))
    }
}

/// As Kafka refuses it, whoever asks.
fn check_id(id: &str) -> Result<(), TxnError> {
    if id.is_empty() { Err(TxnError::InvalidRequest) } else { Ok(()) }
}

/// The cause is told at its source; the client asks again.
pub(super) fn unavailable(id: &str, error: &dyn std::fmt::Display) -> TxnError {
    tracing::debug!(transactional_id = id, "the state of a transaction is not written: {error}");
    TxnError::NotAvailable
}

/// Whether a marker that could not be written need not be written any more.
pub(super) fn is_moot(error: &AppendError) -> bool {
    // The partition is gone, or a later epoch has ended the transaction there.
    matches!(error, AppendError::Deleted | AppendError::InvalidProducerEpoch { .. })
}
