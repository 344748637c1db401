//! A micro-batch in memory: fixed-size items over two arenas, so that a message costs copies, not allocations.

use std::ops::Range;

use rust_decimal::Decimal;

use super::error::SinkError;
use super::fingerprint::{Fingerprint, fingerprint};
use crate::aggregate::{Event, Kind};
use crate::clock::Micros;
use crate::transaction::{Currency, Detail, MessageId, RunId, RunInfo, Transaction, derived_from};

/// Where a record came from and when, with its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub partition: i32,
    pub offset: i64,
    /// The record's timestamp, milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// When the consumer got it.
    pub received_at: Micros,
    /// From its headers; none in a foreign message.
    pub identity: Option<MessageId>,
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
}

/// A run of bytes in an arena; the arenas of a batch stay below 4 GiB, see `BATCH_BYTES_LIMIT`.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.length as usize
    }
}

/// One message of a batch.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub partition: i32,
    pub offset: i64,
    pub received_at: Micros,
    pub identity: Option<MessageId>,
    timestamp_ms: Option<i64>,
    key: Option<Span>,
    payload: Option<Span>,
    pub body: Body,
}

impl Item {
    /// The transaction, if it could be read.
    pub fn transaction(&self) -> Option<&Stored> {
        match &self.body {
            Body::Transaction(stored) => Some(stored),
            Body::DeadLetter(_) => None,
        }
    }
}

/// What is to be stored of it.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Transaction(Stored),
    DeadLetter(Text),
}

/// A text in the batch's text arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text(Span);

/// What the row and the totals need of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// None where it is derived from the identity.
    pub transaction_id: Option<Text>,
    user_id: Text,
    currency: Currency,
    amount: Decimal,
    pub event_time: Micros,
    pub scheduled_at: Option<Micros>,
    pub sent_at: Option<Micros>,
    kind: StoredKind,
}

#[derive(Clone, Debug)]
enum StoredKind {
    Declined,
    Purchase { category: Text },
    Refund { category: Text },
    Trade { symbol: Text, quantity: i64, price: Decimal },
}

/// What was read of one partition and is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unstored {
    pub partition: i32,
    /// The log's timestamp of the first message, milliseconds since the epoch, where it has one.
    pub oldest_ms: Option<i64>,
    /// Behind the last message.
    pub next_offset: i64,
}

/// Messages that are stored together, in the order in which they came; offsets rise within a partition.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    items: Vec<Item>,
    texts: String,
    bytes: Vec<u8>,
    runs: Vec<(RunId, RunInfo)>,
    /// What it holds of each partition, so that a lag can be told without a look at all.
    unstored: Vec<Unstored>,
    /// The one of the last message.
    unstored_at: usize,
    /// A message was turned away: the batch must not be stored, as progress would pass the message over.
    has_overflowed: bool,
}

/// Bytes of keys and payloads in one batch, at most.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A batch that has so many bytes takes nothing more, even from someone who does not ask whether it is full. A Kafka
/// record has less than 2 GiB, so a `Span` never reaches beyond 4 GiB.
const BATCH_BYTES_LIMIT: usize = 1024 * 1024 * 1024;
/// Memory of a batch that is kept for the next one, at most.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Runs that tell about themselves in one batch, at most; what is left out is told again to other partitions.
const RUN_INFOS_MAX: usize = 256;

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Adds a transaction.
    pub fn push_transaction(&mut self, message: Message<'_>, transaction: &Transaction<'_>) {
        if self.refuses(BATCH_BYTES_LIMIT) {
            return;
        }
        let of = |id: MessageId| derived_from(&transaction.transaction_id, id.run) == Some(id.sequence);
        let derived = message.identity.is_some_and(of);
        let stored = Stored {
            transaction_id: (!derived).then(|| self.text(&transaction.transaction_id)),
            user_id: self.text(&transaction.user_id),
            currency: transaction.currency,
            amount: transaction.amount,
            event_time: transaction.event_time,
            scheduled_at: transaction.scheduled_at,
            sent_at: transaction.sent_at,
            kind: match &transaction.detail {
                Detail::Purchase { .. } if transaction.is_declined() => StoredKind::Declined,
                Detail::Purchase { category, .. } => StoredKind::Purchase { category: self.text(category) },
                Detail::Refund { category, .. } => StoredKind::Refund { category: self.text(category) },
                Detail::Trade { symbol, quantity, price, .. } => {
                    StoredKind::Trade { symbol: self.text(symbol), quantity: *quantity, price: *price }
                }
            },
        };
        self.push(message, Body::Transaction(stored));
    }

    /// Adds a message that could not be read.
    pub fn push_dead_letter(&mut self, message: Message<'_>, reason: &str) {
        if self.refuses(BATCH_BYTES_LIMIT) {
            return;
        }
        let reason = self.text(reason);
        self.push(message, Body::DeadLetter(reason));
    }

    /// Adds what a run says about itself.
    pub fn push_run_info(&mut self, run: RunId, info: RunInfo) {
        if self.runs.len() < RUN_INFOS_MAX {
            self.runs.push((run, info));
        }
    }

    /// Empties it; its memory is kept for the next messages, unless it is more than an ordinary batch needs.
    pub fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES_MAX || self.texts.capacity() > KEPT_BYTES_MAX {
            *self = Batch::new();
            return;
        }
        self.items.clear();
        self.texts.clear();
        self.bytes.clear();
        self.runs.clear();
        self.unstored.clear();
        self.has_overflowed = false;
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it takes no more: `messages_max` messages, or bytes that a batch does not exceed by more than a message.
    pub fn is_full(&self, messages_max: usize) -> bool {
        self.items.len() >= messages_max || self.size() >= BATCH_BYTES_MAX
    }

    /// Refuses a batch that had to turn a message away.
    pub(super) fn check_whole(&self) -> Result<(), SinkError> {
        if self.has_overflowed {
            Err(SinkError::BatchTooLarge { messages: self.len(), bytes: self.size() })
        } else {
            Ok(())
        }
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.texts.len()
    }

    /// Whether a message is turned away.
    fn refuses(&mut self, limit: usize) -> bool {
        self.has_overflowed |= self.size() >= limit;
        self.has_overflowed
    }

    /// What it holds of each partition.
    pub fn unstored(&self) -> &[Unstored] {
        &self.unstored
    }

    /// Partition, offset and bytes of each transaction.
    pub fn transactions(&self) -> impl Iterator<Item = (i32, i64, &[u8])> {
        self.items
            .iter()
            .filter(|item| item.transaction().is_some())
            .map(|item| (item.partition, item.offset, self.payload(item).unwrap_or_default()))
    }

    /// The last transactions, oldest first, with what is known of each: for viewers.
    pub fn last_transactions(&self, count: usize) -> impl Iterator<Item = Message<'_>> {
        let from = self.items.len().saturating_sub(count);
        self.items[from..].iter().filter(|item| item.transaction().is_some()).map(|item| Message {
            partition: item.partition,
            offset: item.offset,
            timestamp_ms: item.timestamp_ms,
            received_at: item.received_at,
            identity: item.identity,
            key: self.key(item),
            payload: self.payload(item),
        })
    }

    /// Drops the messages of partitions that are no longer owned.
    pub fn remove_partitions(&mut self, partitions: &[i32]) {
        self.items.retain(|item| !partitions.contains(&item.partition));
        self.unstored.retain(|unstored| !partitions.contains(&unstored.partition));
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn runs(&self) -> &[(RunId, RunInfo)] {
        &self.runs
    }

    pub(super) fn str(&self, text: Text) -> &str {
        self.texts.get(text.0.range()).unwrap_or_default()
    }

    pub(super) fn key<'a>(&'a self, item: &Item) -> Option<&'a [u8]> {
        item.key.and_then(|span| self.bytes.get(span.range()))
    }

    pub(super) fn payload<'a>(&'a self, item: &Item) -> Option<&'a [u8]> {
        item.payload.and_then(|span| self.bytes.get(span.range()))
    }

    pub(super) fn fingerprint(&self, item: &Item) -> Fingerprint {
        fingerprint(self.key(item), self.payload(item), item.identity, item.timestamp_ms)
    }

    /// What the totals need of a transaction.
    pub(super) fn event<'a>(&'a self, offset: i64, stored: &Stored) -> Event<'a> {
        Event {
            offset,
            user_id: self.str(stored.user_id),
            currency: stored.currency,
            amount: stored.amount,
            event_time: stored.event_time,
            kind: match stored.kind {
                StoredKind::Declined => Kind::Declined,
                StoredKind::Purchase { category } => Kind::Purchase { category: self.str(category) },
                StoredKind::Refund { category } => Kind::Refund { category: self.str(category) },
                StoredKind::Trade { symbol, quantity, price } => {
                    Kind::Trade { symbol: self.str(symbol), quantity, price }
                }
            },
        }
    }

    fn reach(&mut self, partition: i32, timestamp_ms: Option<i64>, next_offset: i64) {
        // Messages come in runs of one partition, as they were fetched.
        if self.unstored.get(self.unstored_at).is_none_or(|known| known.partition != partition) {
            let known = self.unstored.iter().position(|known| known.partition == partition);
            self.unstored_at = known.unwrap_or(self.unstored.len());
        }
        match self.unstored.get_mut(self.unstored_at) {
            Some(known) => known.next_offset = next_offset,
            None => self.unstored.push(Unstored { partition, oldest_ms: timestamp_ms, next_offset }),
        }
    }

    fn push(&mut self, message: Message<'_>, body: Body) {
        let key = message.key.map(|bytes| self.keep(bytes));
        let payload = message.payload.map(|bytes| self.keep(bytes));
        self.reach(message.partition, message.timestamp_ms, message.offset + 1);
        self.items.push(Item {
            partition: message.partition,
            offset: message.offset,
            received_at: message.received_at,
            identity: message.identity,
            timestamp_ms: message.timestamp_ms,
            key,
            payload,
            body,
        });
    }

    fn text(&mut self, text: &str) -> Text {
        let start = self.texts.len() as u32;
        self.texts.push_str(text);
        Text(Span { start, length: text.len() as u32 })
    }

    fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        Span { start, length: bytes.len() as u32 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_turned_a_message_away_is_never_stored() {
        let mut batch = Batch::new();
        let payload = vec![b'x'; BATCH_BYTES_MAX];
        let message = Message {
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            received_at: Micros(0),
            identity: None,
            key: None,
            payload: Some(&payload),
        };
        batch.push_dead_letter(message, "");
        assert!(batch.is_full(usize::MAX) && !batch.refuses(BATCH_BYTES_LIMIT) && batch.check_whole().is_ok());
        assert!(batch.refuses(BATCH_BYTES_MAX));
        batch.push_dead_letter(Message { offset: 1, payload: None, ..message }, "");
        assert_eq!(batch.len(), 1);
        // Nor by dropping what was taken: nobody knows whose the message was.
        batch.remove_partitions(&[0]);
        let error = batch.check_whole().unwrap_err().to_string();
        assert!(error.contains("the next start reads them again"), "{error}");
    }
}
