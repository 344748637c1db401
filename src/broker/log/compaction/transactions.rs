//! How the transactions of what is cleaned ended, and which of them still have batches.
//!
//! A pass goes through the log in order, and tells of each batch of a transaction and of each marker that it meets. All
//! transactions before the last stable offset have ended: what was not aborted was committed.
//!
//! Source: KIP-98, KIP-534; `CleanedTransactionMetadata` in Apache Kafka.

use std::collections::{HashMap, HashSet};

use super::super::batch::BatchHeader;
use super::super::open_transactions::AbortedTransaction;

/// Of one walk through the log.
pub(super) struct Transactions<'a> {
    aborted: &'a Aborted,
    /// The producers of whose present transaction a batch was met.
    met: HashSet<i64>,
}

/// The aborted transactions: of each producer the first offset and the marker's, ascending.
pub(super) struct Aborted(HashMap<i64, Vec<(i64, i64)>>);

impl Aborted {
    /// `aborted`: in the order of the markers.
    pub fn of(aborted: Vec<AbortedTransaction>) -> Aborted {
        let mut of_producers: HashMap<i64, Vec<(i64, i64)>> = HashMap::new();
        for AbortedTransaction { producer_id, first_offset, last_offset, .. } in aborted {
            of_producers.entry(producer_id).or_default().push((first_offset, last_offset));
        }
        Aborted(of_producers)
    }

    /// Whether this batch is part of one.
    pub fn holds(&self, batch: &BatchHeader) -> bool {
        #[cfg(test)]
        if super::super::simulation::is_left_out(super::super::simulation::Check::AbortedInCleaner) {
            return false;
        }
        let Some(transactions) = self.0.get(&batch.producer_id).filter(|_| batch.is_transactional()) else {
            return false;
        };
        let ends_behind = transactions.partition_point(|(_, last_offset)| *last_offset < batch.base_offset);
        transactions.get(ends_behind).is_some_and(|(first_offset, _)| *first_offset <= batch.base_offset)
    }
}

impl Transactions<'_> {
    pub fn new(aborted: &Aborted) -> Transactions<'_> {
        Transactions { aborted, met: HashSet::new() }
    }

    /// Whether the next batch was aborted. It holds its transaction's marker, even if it goes itself.
    pub fn is_aborted(&mut self, batch: &BatchHeader) -> bool {
        if batch.is_transactional() {
            self.met.insert(batch.producer_id);
        }
        self.aborted.holds(batch)
    }

    /// Whether the next marker is all that is left of its transaction.
    pub fn is_last_of_its_transaction(&mut self, marker: &BatchHeader) -> bool {
        !self.met.remove(&marker.producer_id)
    }
}
