//! The end of a transaction: decided in `__transaction_state`, told to every partition, and noted as done.
//!
//! Decision, markers and note are queued one behind the other, and waited for once: the journal keeps their order, so
//! whatever a crash leaves of them begins with the decision. What is missing then, or was refused because the disk was
//! full, is written by another try.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::coordinator::{Inner, Writing, is_moot, unavailable};
use super::ids::Ids;
use super::metadata::{End, Metadata, TxnError};
use crate::broker::catalog::LEADER_EPOCH;
use crate::broker::internal_topic::CONSUMER_OFFSETS;
use crate::broker::log::{AppendError, Appended, EndTransaction, Marker, Partition};

/// There was never another coordinator.
pub(crate) const COORDINATOR_EPOCH: i32 = 0;

/// What stands in the queue of the log.
struct Queued {
    decision: Appended,
    markers: Vec<(Partition, Appended)>,
    /// The marker behind offsets of groups: when it is durable, and they count or are gone.
    offsets: Option<BoxFuture<'static, Result<(), AppendError>>>,
    /// Some of the markers could not be queued.
    is_short: bool,
    /// Missing if one of the markers is.
    note: Option<Appended>,
}

impl Inner {
    /// Ends a transaction as it was prepared; to be called again until it is done.
    ///
    /// # Errors
    /// `NotAvailable`: nothing was written.
    pub fn end(self: &Arc<Self>, ids: &mut Ids, id: &str, prepared: Metadata) -> Result<Writing, TxnError> {
        let queued = self.queue_end(id, &prepared)?;
        ids.begin(id, prepared.state);
        let (inner, id) = (self.clone(), id.to_owned());
        Ok(Writing(tokio::spawn(async move {
            let ended = inner.carry_out(&id, prepared, queued).await;
            inner.lock().end(&id);
            // What is left to do is done when the timers look.
            inner.deadline(if ended.is_ok_and(|is_whole| is_whole) { None } else { Some(inner.now_ms()) });
            ended.map(|_| ())
        })))
    }

    fn queue_end(&self, id: &str, prepared: &Metadata) -> Result<Queued, TxnError> {
        let now_ms = self.now_ms();
        let decision = self.append(id, prepared)?;
        let mut queued = Queued { decision, markers: Vec::new(), offsets: None, is_short: false, note: None };
        let Some(end) = end_of(prepared) else { return Ok(queued) };
        for (topic, indexes) in &prepared.partitions {
            if topic == CONSUMER_OFFSETS {
                match self.groups.end_transaction(end, None) {
                    Ok(ending) => queued.offsets = Some(Box::pin(ending)),
                    Err(error) if is_moot(&error) => {}
                    Err(_) => queued.is_short = true,
                }
                continue;
            }
            let known = self.catalog.topic(topic);
            for partition in indexes.iter().filter_map(|index| known.as_ref()?.partition(*index)) {
                match partition.write_marker(end, LEADER_EPOCH, now_ms) {
                    Ok(appended) => queued.markers.push((partition.clone(), appended)),
                    Err(error) if is_moot(&error) => {}
                    Err(_) => queued.is_short = true,
                }
            }
        }
        if !queued.is_short {
            queued.note = prepared.completed(now_ms).and_then(|completed| self.append(id, &completed).ok());
        }
        Ok(queued)
    }

    /// Waits for what is queued, and writes the rest. False when it is decided, and not done.
    async fn carry_out(&self, id: &str, prepared: Metadata, queued: Queued) -> Result<bool, TxnError> {
        let decision = self.topic.durable(&queued.decision).await;
        let mut markers = told(&queued.markers).await;
        if let Some(offsets) = queued.offsets {
            match offsets.await {
                Ok(()) => markers.written += 1,
                Err(_) => markers.refused += 1,
            }
        }
        if let Err(error) = &decision
            && markers.written == 0
        {
            return Err(unavailable(id, error));
        }
        // With a marker in a partition there is no way back.
        self.lock().set(id, prepared.clone());
        if decision.is_err() || markers.refused > 0 || queued.is_short {
            return Ok(false);
        }
        Ok(self.note(id, &prepared, queued.note).await.is_ok())
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

#[derive(Default)]
struct Told {
    written: usize,
    refused: usize,
}

/// Waits for markers.
async fn told(markers: &[(Partition, Appended)]) -> Told {
    let mut told = Told::default();
    for (partition, appended) in markers {
        match partition.durable(appended).await {
            Ok(()) => told.written += 1,
            Err(AppendError::Deleted) => {}
            Err(_) => told.refused += 1,
        }
    }
    told
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
