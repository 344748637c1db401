//! Which transactions are open at a point of the log, and which were aborted up to there.
//!
//! The one place that says so, for appends as for an index that is rebuilt: both come to the same entries.

use std::collections::{BTreeMap, HashMap};

use super::batch::BatchHeader;
use super::marker::Marker;

/// A transaction that has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

/// A transaction whose records are to be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose records.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// The marker that ended it.
    pub last_offset: i64,
    /// The first offset, then, of the oldest transaction still open; behind the marker if there was none.
    pub last_stable_offset: i64,
}

/// The open ones; at most one of a producer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenTransactions {
    first_offsets: HashMap<i64, i64>,
    producers: BTreeMap<i64, i64>,
}

impl OpenTransactions {
    pub fn len(&self) -> usize {
        self.first_offsets.len()
    }

    /// Where the open transaction of this producer begins.
    pub fn of(&self, producer_id: i64) -> Option<i64> {
        self.first_offsets.get(&producer_id).copied()
    }

    /// The first offset of the oldest.
    pub fn oldest(&self) -> Option<i64> {
        self.producers.first_key_value().map(|(first_offset, _)| *first_offset)
    }

    /// Oldest first.
    pub fn all(&self) -> impl ExactSizeIterator<Item = OpenTransaction> {
        self.producers.iter().map(|(&first_offset, &producer_id)| OpenTransaction { producer_id, first_offset })
    }

    /// Counts a batch, with the marker in it if it is a control batch. Tells of the transaction that it aborted.
    pub fn apply(&mut self, batch: &BatchHeader, marker: Option<Marker>) -> Option<AbortedTransaction> {
        let producer_id = batch.producer_id;
        if producer_id < 0 || !batch.is_transactional() {
            return None;
        }
        if !batch.is_control() {
            self.begin(OpenTransaction { producer_id, first_offset: batch.base_offset });
            return None;
        }
        let marker = marker?;
        // A marker may come twice, or to a partition that the transaction never wrote to: nothing to skip then.
        let first_offset = self.first_offsets.remove(&producer_id)?;
        self.producers.remove(&first_offset);
        let last_offset = batch.last_offset();
        let last_stable_offset = self.oldest().unwrap_or(last_offset + 1);
        (marker == Marker::Abort).then_some(AbortedTransaction {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset,
        })
    }

    fn begin(&mut self, open: OpenTransaction) {
        let OpenTransaction { producer_id, first_offset } = open;
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.first_offsets.entry(producer_id) {
            vacant.insert(first_offset);
            self.producers.insert(first_offset, producer_id);
        }
    }
}

impl FromIterator<OpenTransaction> for OpenTransactions {
    fn from_iter<I: IntoIterator<Item = OpenTransaction>>(open: I) -> Self {
        let mut transactions = OpenTransactions::default();
        open.into_iter().for_each(|open| transactions.begin(open));
        transactions
    }
}
