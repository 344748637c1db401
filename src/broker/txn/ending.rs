//! The end of a transaction: decided in `__transaction_state`, told to every partition, and noted as done.
//!
//! Decision, markers and note are queued one behind the other, and waited for once: the journal keeps their order, and the
//! queue takes none of them once the decision was refused, so whatever a crash or a full disk leaves of them begins with
//! the decision. What is missing then is written by another try.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::coordinator::{GROUPS_PARTITION, Inner, Writing, is_moot, unavailable};
use super::ids::{Ids, Progress};
use super::metadata::{End, Metadata, Partitions, TxnError, holds};
use crate::broker::catalog::LEADER_EPOCH;
use crate::broker::group;
use crate::broker::internal_topic::CONSUMER_OFFSETS;
use crate::broker::log::{AppendError, Appended, EndTransaction, Marker, Partition};

/// There was never another coordinator.
pub(crate) const COORDINATOR_EPOCH: i32 = 0;

/// What stands in the queue of the log.
pub(super) struct Queued {
    /// None: it is durable already.
    decision: Option<Appended>,
    markers: Vec<Told>,
    /// The marker behind offsets of groups: when it is durable, and they count or are gone.
    offsets: Option<BoxFuture<'static, Result<(), AppendError>>>,
    /// The partitions that have their marker, or need none.
    told: Partitions,
    /// Some of the markers could not be queued.
    is_short: bool,
    /// Missing if one of the markers is.
    note: Option<Appended>,
}

/// A marker on its way to a partition of that topic.
struct Told {
    topic: String,
    index: i32,
    partition: Partition,
    appended: Appended,
}

impl Inner {
    /// Ends a transaction as it was prepared; to be called again until it is done.
    ///
    /// # Errors
    /// `NotAvailable`: nothing was written.
    pub fn end(self: &Arc<Self>, ids: &mut Ids, id: &str, prepared: Metadata) -> Result<Writing, TxnError> {
        let Progress { is_decided, told } = ids.progress(id);
        let decision = if is_decided { None } else { Some(self.append(id, &prepared)?) };
        let queued = self.queue_behind(decision, told, id, &prepared);
        ids.begin(id, prepared.state);
        let (inner, id) = (self.clone(), id.to_owned());
        Ok(Writing(tokio::spawn(async move {
            let ended = inner.carry_out(&id, prepared, queued).await;
            inner.lock().end(&id);
            // What is left to do is done when the timers look.
            inner.deadline(if matches!(ended, Ok(true)) { None } else { Some(inner.now_ms()) });
            ended.map(|_| ())
        })))
    }

    /// Queues markers for all who were not told yet, and the note, if that can be: nothing of it without the decision.
    pub(super) fn queue_behind(
        &self,
        decision: Option<Appended>,
        told: Partitions,
        id: &str,
        prepared: &Metadata,
    ) -> Queued {
        let mut queued = Queued { decision, markers: Vec::new(), offsets: None, told, is_short: false, note: None };
        let Some(end) = end_of(prepared) else { return queued };
        for (topic, indexes) in &prepared.partitions {
            let known = self.catalog.topic(topic);
            for &index in indexes {
                if holds(&queued.told, topic, index) {
                    continue;
                }
                match known.as_ref().and_then(|topic| topic.partition(index)) {
                    Some(_) if topic == CONSUMER_OFFSETS => queued.mark_offsets(&self.groups, end),
                    Some(partition) => queued.mark(topic, index, partition, end, self.now_ms()),
                    None => tell(&mut queued.told, topic, index),
                }
            }
        }
        // A later try is in no hurry: it waits for its markers first.
        if !queued.is_short && queued.decision.is_some() {
            let completed = prepared.completed(self.now_ms());
            let note = |completed| self.append_behind(id, &completed, queued.decision.as_ref()).ok();
            queued.note = completed.and_then(note);
        }
        queued
    }

    /// Waits for what is queued, and writes the rest. False when it is decided, and not done.
    pub(super) async fn carry_out(&self, id: &str, prepared: Metadata, queued: Queued) -> Result<bool, TxnError> {
        let Queued { decision, markers, offsets, mut told, is_short, note } = queued;
        let decided = match &decision {
            Some(decision) => self.topic.durable(decision).await,
            None => Ok(()),
        };
        let are_all_told = told_all(markers, offsets, &mut told).await && !is_short;
        if let Err(error) = &decided {
            // Nothing was queued without it, so nothing has changed.
            return Err(unavailable(id, error));
        }
        {
            let mut ids = self.lock();
            ids.set(id, prepared.clone());
            ids.note_progress(id, Progress { is_decided: true, told });
        }
        Ok(are_all_told && self.note(id, &prepared, note).await.is_ok())
    }

    async fn note(&self, id: &str, prepared: &Metadata, queued: Option<Appended>) -> Result<(), TxnError> {
        let Some(completed) = prepared.completed(self.now_ms()) else { return Ok(()) };
        let note = match queued {
            Some(note) => note,
            None => self.append(id, &completed)?,
        };
        self.topic.durable(&note).await.map_err(|error| unavailable(id, &error))?;
        self.lock().set(id, completed);
        Ok(())
    }
}

impl Queued {
    fn mark(&mut self, topic: &str, index: i32, partition: &Partition, end: EndTransaction, now_ms: i64) {
        match partition.write_marker_behind(end, self.decision.as_ref(), LEADER_EPOCH, now_ms) {
            Ok(appended) => {
                let (topic, partition) = (topic.to_owned(), partition.clone());
                self.markers.push(Told { topic, index, partition, appended });
            }
            Err(error) if is_moot(&error) => tell(&mut self.told, topic, index),
            Err(_) => self.is_short = true,
        }
    }

    fn mark_offsets(&mut self, groups: &group::Coordinator, end: EndTransaction) {
        match groups.end_transaction(end, self.decision.as_ref()) {
            Ok(ending) => self.offsets = Some(Box::pin(ending)),
            Err(error) if is_moot(&error) => tell(&mut self.told, CONSUMER_OFFSETS, GROUPS_PARTITION),
            Err(_) => self.is_short = true,
        }
    }
}

/// Waits for markers, and notes who has them. False when some were refused.
async fn told_all(
    markers: Vec<Told>,
    offsets: Option<BoxFuture<'static, Result<(), AppendError>>>,
    told: &mut Partitions,
) -> bool {
    let mut are_all_told = true;
    for Told { topic, index, partition, appended } in markers {
        match partition.durable(&appended).await {
            Ok(()) | Err(AppendError::Deleted) => tell(told, &topic, index),
            Err(_) => are_all_told = false,
        }
    }
    if let Some(offsets) = offsets {
        match offsets.await {
            Ok(()) => tell(told, CONSUMER_OFFSETS, GROUPS_PARTITION),
            Err(_) => are_all_told = false,
        }
    }
    are_all_told
}

fn tell(told: &mut Partitions, topic: &str, index: i32) {
    told.entry(topic.to_owned()).or_default().insert(index);
}

/// What the partitions are told.
fn end_of(metadata: &Metadata) -> Option<EndTransaction> {
    let marker = marker(metadata.ending()?);
    let (producer_id, producer_epoch) = (metadata.producer.id, metadata.producer.epoch);
    Some(EndTransaction { producer_id, producer_epoch, marker, coordinator_epoch: COORDINATOR_EPOCH })
}

pub(super) fn marker(end: End) -> Marker {
    match end {
        End::Commit => Marker::Commit,
        End::Abort => Marker::Abort,
    }
}
