//! What the transaction coordinator asks of a partition: transactional batches, markers, and what was aborted.
//!
//! Must not know: who may write to which transaction, and when one ends. That is the coordinator's.

use bytes::Bytes;

use super::batch::Transactional;
use super::open_transactions::AbortedTransaction;
use super::partition::Partition;
use super::producer_state::ActiveProducer;
use super::{AppendError, Appended, EndTransaction, ReadError, lock};

impl Partition {
    /// As [`Partition::append`], for a producer whose transaction the coordinator knows: transactional batches are
    /// taken, too. The first one opens the transaction in this partition.
    ///
    /// # Errors
    /// Those of `append`; `InvalidTransaction` for a plain batch of a producer that is in a transaction.
    pub fn append_transactional(
        &self,
        batches: Bytes,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.check_and_append(batches, Transactional::Allowed, leader_epoch, now_ms)
    }

    /// Ends a producer's transaction by a control batch, which takes one offset. It holds once it is durable. To end
    /// what is not open does no harm: a coordinator may try again.
    ///
    /// # Errors
    /// `InvalidProducerEpoch` for an epoch older than the producer's; `CoordinatorFenced` for an older coordinator.
    /// Nothing was written then. `Busy`, `TooManyOpen` and a full disk's `Storage` are worth a retry.
    pub fn write_marker(&self, end: EndTransaction, leader_epoch: i32, now_ms: i64) -> Result<Appended, AppendError> {
        if end.producer_id < 0 || end.producer_epoch < 0 {
            let EndTransaction { producer_id, producer_epoch, .. } = end;
            return Err(AppendError::Corrupt(format!("producer {producer_id} with epoch {producer_epoch} cannot be")));
        }
        self.append_checked(vec![end.batch(now_ms)], leader_epoch, now_ms)
    }

    /// Where this producer's transaction begins in this partition, if it is in one; as appended, not as durable.
    pub fn open_transaction(&self, producer_id: i64) -> Option<i64> {
        lock(&self.0.front).producers.open().of(producer_id)
    }

    /// The producers that are remembered, as far as they are durable, by id.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        lock(&self.0.store).producers.active()
    }

    /// The aborted transactions that a reader of the offsets from `from` up to `to` must skip, in the order of their
    /// markers. Complete for a `to` up to the last stable offset. Blocking file read (page cache) if need be.
    ///
    /// # Errors
    /// `Storage` when a file cannot be read.
    pub fn aborted_transactions(&self, from: i64, to: i64) -> Result<Vec<AbortedTransaction>, ReadError> {
        let mut found = Vec::new();
        if from >= to {
            return Ok(found);
        }
        let segments = lock(&self.0.store).all_from(from);
        for segment in segments {
            let complete = segment
                .collect_aborted(from, to, &mut found)
                .map_err(|error| ReadError::Storage(format!("{}: {error}", segment.log_path().display())))?;
            if complete {
                break;
            }
        }
        Ok(found)
    }
}
