//! The producers: what they sent, what they wait for, and which sequence comes next.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::PartitionId;
use super::super::partition::Appended;
use super::batches::Writer;

pub(super) const PRODUCERS: i64 = 2;

/// A batch whose answer its producer waits for.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub id: PartitionId,
    pub appended: Appended,
    pub bytes: Bytes,
    pub is_idempotent: bool,
}

/// The producers: they outlive the log, and send again what was not answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    /// Raised when the log lost what it had acknowledged: then clients begin anew.
    generation: i64,
    next_sequences: BTreeMap<(PartitionId, i64), i32>,
    pub unanswered: Vec<Sent>,
}

impl Clients {
    /// The log died.
    pub fn begin_life(&mut self, may_have_lost: bool) {
        self.unanswered.retain(|sent| sent.is_idempotent);
        if may_have_lost {
            self.begin_anew();
        }
    }

    /// As new producers, who know of nothing that went wrong.
    pub fn begin_anew(&mut self) {
        self.unanswered.clear();
        self.generation += 1;
        self.next_sequences.clear();
    }

    pub fn producer_id(&self, producer: i64) -> i64 {
        self.generation * PRODUCERS + producer
    }

    pub fn writer(&mut self, id: PartitionId, producer: i64, records: usize) -> Writer {
        let producer_id = self.producer_id(producer);
        let next = self.next_sequences.entry((id, producer_id)).or_default();
        let base_sequence = *next;
        *next += records as i32;
        Writer { producer_id, base_sequence }
    }
}
