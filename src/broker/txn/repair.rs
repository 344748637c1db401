//! Transactions that are open in a partition at start-up, though nobody will end them.
//!
//! With `fsync` the journal keeps the order, and there are none. With `os` a power cut takes what each file had not on
//! the disk: a partition may have lost a marker that the coordinator knows to be written, or the coordinator may have
//! lost what it knew of a transaction. Left open, such a transaction would hold up readers for ever.

use std::collections::HashMap;

use super::coordinator::{Inner, is_moot};
use super::ending::{COORDINATOR_EPOCH, marker};
use super::loading::Loaded;
use super::metadata::{End, Metadata, Partitions, TransactionState};
use crate::broker::catalog::LEADER_EPOCH;
use crate::broker::internal_topic::CONSUMER_OFFSETS;
use crate::broker::log::{AppendError, EndTransaction, Partition};

/// What becomes of an open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its producer, its timer or its decided end take care of it.
    Leave,
    /// It ends so in this partition.
    End(End),
    /// It is torn: all of it is aborted.
    Abort,
}

/// What the coordinator's memory makes of a transaction that is open in a partition. `ended`: what the id's last
/// transaction that was to end had touched.
pub(super) fn judge(known: Option<&Metadata>, ended: Option<&Partitions>, topic: &str, partition: i32) -> Verdict {
    let holds = |partitions: &Partitions| partitions.get(topic).is_some_and(|indexes| indexes.contains(&partition));
    let Some(known) = known else { return Verdict::End(End::Abort) };
    match known.state {
        TransactionState::Ongoing if holds(&known.partitions) => Verdict::Leave,
        TransactionState::Ongoing => Verdict::Abort,
        TransactionState::PrepareCommit | TransactionState::PrepareAbort if holds(&known.partitions) => Verdict::Leave,
        TransactionState::CompleteCommit | TransactionState::CompleteAbort if ended.is_some_and(holds) => {
            Verdict::End(known.ending().unwrap_or(End::Abort))
        }
        _ => Verdict::End(End::Abort),
    }
}

impl Inner {
    /// Ends what nobody would end. Before anyone is served, so that nothing begins meanwhile.
    pub async fn repair(&self, loaded: &Loaded) -> Result<(), AppendError> {
        let owners: HashMap<i64, &String> =
            loaded.ids.iter().map(|(id, metadata)| (metadata.producer.id, id)).collect();
        let judge = |producer_id: i64, topic: &str, partition: i32| {
            let id = owners.get(&producer_id).copied();
            let known = id.and_then(|id| loaded.ids.get(id));
            (id, judge(known, id.and_then(|id| loaded.ended.get(id)), topic, partition))
        };
        for topic in self.catalog.topics() {
            for partition in &topic.partitions {
                for producer in partition.producers_in_transactions() {
                    let producer_id = producer.producer_id;
                    let (id, verdict) = judge(producer_id, &topic.name, partition.id().partition);
                    let known_epoch = id.and_then(|id| loaded.ids.get(id)).map_or(0, |known| known.producer.epoch);
                    match verdict {
                        Verdict::Leave => {}
                        Verdict::Abort => self.abort_at_start(id),
                        Verdict::End(end) => {
                            tracing::warn!(producer_id, "{partition:?} has a transaction open that is over: {end:?}");
                            let producer_epoch = producer.epoch.max(known_epoch);
                            let (marker, coordinator_epoch) = (marker(end), COORDINATOR_EPOCH);
                            let end = EndTransaction { producer_id, producer_epoch, marker, coordinator_epoch };
                            match topic.name == CONSUMER_OFFSETS {
                                true => self.groups.end_transaction(end, None)?.await?,
                                false => self.end_at_start(partition, end).await?,
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Has the timers abort all of a transaction.
    fn abort_at_start(&self, id: Option<&String>) {
        let Some(id) = id else { return };
        let mut ids = self.lock();
        if let Some(torn) = ids.get(id).filter(|metadata| !metadata.is_prepared()) {
            tracing::warn!(transactional_id = id, "a transaction has lost a part, and is aborted");
            let fenced = torn.fenced(self.now_ms());
            ids.set(id, fenced);
        }
    }

    async fn end_at_start(&self, partition: &Partition, end: EndTransaction) -> Result<(), AppendError> {
        match partition.write_marker(end, LEADER_EPOCH, self.now_ms()) {
            Ok(appended) => partition.durable(&appended).await,
            Err(error) if is_moot(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
