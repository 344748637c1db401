//! The messages whose intents go into the ledger together, encoded and waiting for their time.

use std::ops::Range;

use crate::clock::Micros;
use crate::source::{DerivedIds, Draft};
use crate::transaction::{MessageId, patch_sent_at};

/// Encoded messages in one buffer that is used again and again.
#[derive(Debug, Default)]
pub(super) struct Staged {
    bytes: Vec<u8>,
    messages: Vec<StagedMessage>,
    ids: DerivedIds,
}

#[derive(Debug)]
struct StagedMessage {
    sequence: i64,
    due: Micros,
    key: Range<usize>,
    payload: Range<usize>,
}

impl Staged {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn push(&mut self, id: MessageId, draft: &Draft, due: Micros) {
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(draft.user_id.as_bytes());
        let payload_start = self.bytes.len();
        draft.transaction(id, &mut self.ids, due, due).encode_into(&mut self.bytes);
        self.messages.push(StagedMessage {
            sequence: id.sequence,
            due,
            key: key_start..payload_start,
            payload: payload_start..self.bytes.len(),
        });
    }

    pub(super) fn sequence(&self, index: usize) -> i64 {
        self.messages[index].sequence
    }

    pub(super) fn due(&self, index: usize) -> Micros {
        self.messages[index].due
    }

    /// Notes when a message is handed to the client.
    pub(super) fn stamp(&mut self, index: usize, sent_at: Micros) {
        let payload = self.messages[index].payload.clone();
        patch_sent_at(&mut self.bytes[payload], sent_at);
    }

    /// Key and payload.
    pub(super) fn record(&self, index: usize) -> (&[u8], &[u8]) {
        let message = &self.messages[index];
        (&self.bytes[message.key.clone()], &self.bytes[message.payload.clone()])
    }
}
