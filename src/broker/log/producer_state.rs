//! What each idempotent producer wrote last: tells the next batch from a retry, a gap and a fenced producer, and knows
//! who is in a transaction.
//!
//! Source: KIP-98, KIP-360, KIP-890. The last five batches are remembered, as a client has at most five requests under
//! way.

use std::collections::HashMap;

use super::AppendError;
use super::batch::{BatchHeader, sequence_after};
use super::codec::{Decoder, Encoder, Format};
use super::marker::StoredMarker;
use super::open_transactions::{AbortedTransaction, OpenTransaction, OpenTransactions};

/// Batches remembered of a producer.
const BATCHES_REMEMBERED: usize = 5;
/// Producers remembered of a partition; beyond that, those that were silent longest and have no open transaction are
/// forgotten.
pub(super) const PRODUCERS_MAX: usize = 10_000;
const BATCH_BYTES: usize = 24;
const PRODUCER_BYTES_MIN: usize = 8 + 2 + 8 + 1;
const OPEN_BYTES: usize = 16;
/// No coordinator has written yet.
const NO_COORDINATOR_EPOCH: i32 = -1;

/// Where a remembered batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredBatch {
    base_sequence: i32,
    last_sequence: i32,
    pub base_offset: i64,
    pub last_offset: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    coordinator_epoch: i32,
    last_append_ms: i64,
    /// Oldest first; empty if nothing but a marker came in this epoch.
    batches: Vec<StoredBatch>,
}

/// A producer as an administrator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Who.
    pub producer_id: i64,
    /// Its newest epoch.
    pub epoch: i16,
    /// Sequence of its last record; -1 if none came in this epoch.
    pub last_sequence: i32,
    /// Wall clock of its last append.
    pub last_append_ms: i64,
    /// Epoch of the coordinator that last ended a transaction of it; -1 if none did.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction; -1 if there is none.
    pub transaction_start: i64,
}

/// All producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProducerStates {
    producers: HashMap<i64, Producer>,
    open: OpenTransactions,
}

impl ProducerStates {
    /// `Ok(None)`: the batch is the next one. `Ok(Some)`: a retry of that one.
    ///
    /// # Errors
    /// `InvalidProducerEpoch` for a fenced producer; `OutOfOrderSequence` for a gap; `InvalidTransaction` for a plain
    /// batch inside of a transaction; `CoordinatorFenced` for a marker of an older coordinator.
    pub fn check(&self, batch: &BatchHeader, marker: Option<StoredMarker>) -> Result<Option<StoredBatch>, AppendError> {
        let producer_id = batch.producer_id;
        #[cfg(test)]
        if super::simulation::is_left_out(super::simulation::Check::ProducerSequence) {
            return Ok(None);
        }
        if producer_id < 0 {
            return Ok(None);
        }
        // Forgotten, or new to this partition: its first sequence is taken on trust, as in Kafka.
        let Some(known) = self.producers.get(&producer_id) else { return Ok(None) };
        if batch.producer_epoch < known.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id,
                known: known.epoch,
                got: batch.producer_epoch,
            });
        }
        if let Some(StoredMarker { coordinator_epoch: got, .. }) = marker {
            let fenced = AppendError::CoordinatorFenced { producer_id, known: known.coordinator_epoch, got };
            return if got < known.coordinator_epoch { Err(fenced) } else { Ok(None) };
        }
        let expected = if batch.producer_epoch > known.epoch {
            0
        } else {
            let (first, last) = (batch.base_sequence, batch.last_sequence());
            let retry = known.batches.iter().find(|old| old.base_sequence == first && old.last_sequence == last);
            if let Some(original) = retry {
                return Ok(Some(*original));
            }
            known.batches.last().map_or(0, |last| sequence_after(last.last_sequence, 1))
        };
        if batch.base_sequence != expected {
            return Err(AppendError::OutOfOrderSequence { producer_id, expected, got: batch.base_sequence });
        }
        if !batch.is_transactional() && self.open.of(producer_id).is_some() {
            let what = "it sent a plain batch before its transaction has ended";
            return Err(AppendError::InvalidTransaction { producer_id, what });
        }
        Ok(None)
    }

    /// The sequence that `check` expects of this producer in this epoch.
    pub fn next_sequence(&self, producer_id: i64, epoch: i16) -> i32 {
        let known = self.producers.get(&producer_id).filter(|known| known.epoch == epoch);
        known.and_then(|known| known.batches.last()).map_or(0, |last| sequence_after(last.last_sequence, 1))
    }

    /// Whether the producers of these batches can be remembered: those with open transactions are never forgotten.
    pub fn check_room<'a>(&self, batches: impl ExactSizeIterator<Item = &'a BatchHeader>) -> Result<(), AppendError> {
        let open = self.open.len();
        // As a rule nobody needs to be looked up.
        if open + batches.len() <= PRODUCERS_MAX {
            return Ok(());
        }
        let is_new = |batch: &&BatchHeader| batch.producer_id >= 0 && !self.producers.contains_key(&batch.producer_id);
        if open + batches.filter(is_new).count() > PRODUCERS_MAX {
            return Err(AppendError::TooManyOpen { open, limit: PRODUCERS_MAX });
        }
        Ok(())
    }

    /// Remembers a batch that has got its offsets. Tells of the transaction that it aborted.
    pub fn apply(
        &mut self,
        batch: &BatchHeader,
        marker: Option<StoredMarker>,
        now_ms: i64,
    ) -> Option<AbortedTransaction> {
        if batch.producer_id < 0 {
            return None;
        }
        if self.producers.len() >= PRODUCERS_MAX && !self.producers.contains_key(&batch.producer_id) {
            self.forget_most_silent();
        }
        let producer = self.producers.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            last_append_ms: now_ms,
            batches: Vec::new(),
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        producer.last_append_ms = now_ms;
        match marker {
            Some(marker) => producer.coordinator_epoch = marker.coordinator_epoch,
            None if batch.is_control() => {}
            None => producer.remember(batch),
        }
        self.open.apply(batch, marker.map(|stored| stored.marker))
    }

    /// Forgets those that were silent for longer than this.
    pub fn expire(&mut self, now_ms: i64, silent_ms_max: i64) {
        let ProducerStates { producers, open } = self;
        producers.retain(|producer_id, producer| {
            now_ms.saturating_sub(producer.last_append_ms) <= silent_ms_max || open.of(*producer_id).is_some()
        });
        // Memory that a flood of them took comes back.
        if producers.capacity() / 8 > producers.len() {
            producers.shrink_to(2 * producers.len());
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// When each of them wrote last.
    pub fn last_appends_ms(&self) -> impl Iterator<Item = i64> {
        self.producers.values().map(|producer| producer.last_append_ms)
    }

    /// The open transactions.
    pub fn open(&self) -> &OpenTransactions {
        &self.open
    }

    /// All that are remembered, by id.
    pub fn active(&self) -> Vec<ActiveProducer> {
        let mut active: Vec<_> = self.producers.keys().filter_map(|producer_id| self.describe(*producer_id)).collect();
        active.sort_unstable_by_key(|producer| producer.producer_id);
        active
    }

    /// Those in transactions, the oldest transaction first.
    pub fn in_transactions(&self) -> Vec<ActiveProducer> {
        self.open.all().filter_map(|open| self.describe(open.producer_id)).collect()
    }

    fn describe(&self, producer_id: i64) -> Option<ActiveProducer> {
        self.producers.get(&producer_id).map(|producer| ActiveProducer {
            producer_id,
            epoch: producer.epoch,
            last_sequence: producer.batches.last().map_or(-1, |last| last.last_sequence),
            last_append_ms: producer.last_append_ms,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: self.open.of(producer_id).unwrap_or(-1),
        })
    }

    /// Only what `check` needs to know about the producers of `batches`.
    pub fn only<'a>(&self, batches: impl Iterator<Item = &'a BatchHeader>) -> ProducerStates {
        let mut only = ProducerStates::default();
        let mut open = Vec::new();
        for producer_id in batches.map(|batch| batch.producer_id) {
            if let Some(producer) = self.producers.get(&producer_id) {
                only.producers.insert(producer_id, producer.clone());
            }
            open.extend(self.open.of(producer_id).map(|first_offset| OpenTransaction { producer_id, first_offset }));
        }
        ProducerStates { open: open.into_iter().collect(), ..only }
    }

    /// A tenth at once, so that a flood of new producers does not pay for a search with each batch.
    fn forget_most_silent(&mut self) {
        let ProducerStates { producers, open } = self;
        let is_idle = |producer_id: &i64| open.of(*producer_id).is_none();
        let idle = producers.iter().filter(|(producer_id, _)| is_idle(producer_id));
        let mut times: Vec<i64> = idle.map(|(_, producer)| producer.last_append_ms).collect();
        times.sort_unstable();
        let oldest_kept = times.get(PRODUCERS_MAX / 10).copied().unwrap_or(i64::MAX);
        let mut excess = PRODUCERS_MAX / 10;
        producers.retain(|producer_id, producer| {
            let forget = excess > 0 && producer.last_append_ms <= oldest_kept && is_idle(producer_id);
            excess -= usize::from(forget);
            !forget
        });
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put(&(self.producers.len() as u32).to_le_bytes());
        // In order, so that the same states are the same bytes.
        let mut producers: Vec<(&i64, &Producer)> = self.producers.iter().collect();
        producers.sort_unstable_by_key(|(producer_id, _)| **producer_id);
        for (producer_id, producer) in producers {
            out.put(&producer_id.to_le_bytes());
            out.put(&producer.epoch.to_le_bytes());
            out.put(&producer.coordinator_epoch.to_le_bytes());
            out.put(&producer.last_append_ms.to_le_bytes());
            out.put(&[producer.batches.len() as u8]);
            for batch in &producer.batches {
                out.put(&batch.base_sequence.to_le_bytes());
                out.put(&batch.last_sequence.to_le_bytes());
                out.put(&batch.base_offset.to_le_bytes());
                out.put(&batch.last_offset.to_le_bytes());
            }
        }
        encode_open(out, self.open.all());
    }

    pub fn decode(decoder: &mut Decoder<'_>, format: Format) -> Option<ProducerStates> {
        let count = decoder.count(PRODUCER_BYTES_MIN)?;
        let mut producers = HashMap::with_capacity(count.min(PRODUCERS_MAX));
        for _ in 0..count {
            let producer_id = decoder.i64()?;
            let epoch = decoder.i16()?;
            let coordinator_epoch = if format >= Format::Two { decoder.i32()? } else { NO_COORDINATOR_EPOCH };
            let last_append_ms = decoder.i64()?;
            let remembered = usize::from(decoder.u8()?);
            if remembered > BATCHES_REMEMBERED || remembered * BATCH_BYTES > decoder.0.len() {
                return None;
            }
            let mut batches = Vec::with_capacity(remembered);
            for _ in 0..remembered {
                batches.push(StoredBatch {
                    base_sequence: decoder.i32()?,
                    last_sequence: decoder.i32()?,
                    base_offset: decoder.i64()?,
                    last_offset: decoder.i64()?,
                });
            }
            producers.insert(producer_id, Producer { epoch, coordinator_epoch, last_append_ms, batches });
        }
        let open = if format >= Format::Two { decode_open(decoder)? } else { Vec::new() };
        Some(ProducerStates { producers, open: open.into_iter().collect() })
    }
}

impl Producer {
    fn remember(&mut self, batch: &BatchHeader) {
        if self.batches.len() == BATCHES_REMEMBERED {
            self.batches.remove(0);
        }
        // Many write once and never again.
        self.batches.reserve_exact(1);
        self.batches.push(StoredBatch {
            base_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            last_offset: batch.last_offset(),
        });
    }
}

/// A count and the transactions.
pub(super) fn encode_open(out: &mut Vec<u8>, open: impl ExactSizeIterator<Item = OpenTransaction>) {
    out.put(&(open.len() as u32).to_le_bytes());
    for transaction in open {
        out.put(&transaction.producer_id.to_le_bytes());
        out.put(&transaction.first_offset.to_le_bytes());
    }
}

pub(super) fn decode_open(decoder: &mut Decoder<'_>) -> Option<Vec<OpenTransaction>> {
    let count = decoder.count(OPEN_BYTES)?;
    (0..count).map(|_| Some(OpenTransaction { producer_id: decoder.i64()?, first_offset: decoder.i64()? })).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::broker::log::batch::HEADER_BYTES;
    use crate::broker::log::marker::Marker;

    fn batch(producer_id: i64, base_sequence: i32, base_offset: i64) -> BatchHeader {
        let empty = BatchHeader::read(&[0; HEADER_BYTES]).unwrap();
        BatchHeader { producer_id, base_sequence, base_offset, last_offset_delta: 1, ..empty }
    }

    #[test]
    fn producers_survive_the_checkpoint_and_no_cut_of_it_is_read() {
        let mut states = ProducerStates::default();
        for index in 0..8 {
            states.apply(&batch(1, 2 * index, 100 + 2 * i64::from(index)), None, 5);
            states.apply(&batch(i64::from(index), 0, 300), None, 6);
            states.apply(&transactional(batch(10 + i64::from(index), 0, 400 + 2 * i64::from(index))), None, 6);
        }
        let (ended, marker) = marker(11, 3, 500);
        assert!(states.apply(&ended, Some(marker), 7).is_some());
        let mut bytes = Vec::new();
        states.encode(&mut bytes);
        assert_eq!(ProducerStates::decode(&mut Decoder(&bytes), Format::Two), Some(states));
        for length in 0..bytes.len() {
            assert_eq!(ProducerStates::decode(&mut Decoder(&bytes[..length]), Format::Two), None);
        }
    }

    fn transactional(batch: BatchHeader) -> BatchHeader {
        BatchHeader { attributes: 0x10, ..batch }
    }

    /// An abort.
    fn marker(producer_id: i64, epoch: i16, base_offset: i64) -> (BatchHeader, StoredMarker) {
        let header = BatchHeader {
            attributes: 0x30,
            base_sequence: -1,
            last_offset_delta: 0,
            producer_epoch: epoch,
            ..batch(producer_id, -1, base_offset)
        };
        (header, StoredMarker { marker: Marker::Abort, coordinator_epoch: 4 })
    }

    #[test]
    fn a_marker_ends_the_transaction_and_a_newer_epoch_in_it_begins_the_sequences_again() {
        let mut states = ProducerStates::default();
        states.apply(&transactional(batch(1, 0, 10)), None, 5);
        states.apply(&transactional(batch(2, 0, 12)), None, 5);
        states.apply(&transactional(batch(1, 2, 14)), None, 5);
        assert_eq!(states.open().oldest(), Some(10));
        let plain = states.check(&batch(1, 4, 16), None).unwrap_err();
        assert!(matches!(plain, AppendError::InvalidTransaction { producer_id: 1, .. }));
        assert_eq!(states.check(&batch(1, 2, 16), None).unwrap().unwrap().base_offset, 14);
        let (ended, said) = marker(1, 1, 16);
        assert_eq!(states.check(&ended, Some(said)), Ok(None));
        let aborted = AbortedTransaction { producer_id: 1, first_offset: 10, last_offset: 16, last_stable_offset: 12 };
        assert_eq!(states.apply(&ended, Some(said), 6), Some(aborted));
        // A second one has nothing to end.
        assert_eq!(states.apply(&marker(1, 1, 17).0, Some(said), 6), None);
        assert_eq!(states.open().oldest(), Some(12));
        let older = states.check(&marker(1, 0, 18).0, Some(said)).unwrap_err();
        assert_eq!(older, AppendError::InvalidProducerEpoch { producer_id: 1, known: 1, got: 0 });
        let fenced = states.check(&ended, Some(StoredMarker { coordinator_epoch: 3, ..said })).unwrap_err();
        assert_eq!(fenced, AppendError::CoordinatorFenced { producer_id: 1, known: 4, got: 3 });
        let next = BatchHeader { producer_epoch: 1, ..transactional(batch(1, 4, 18)) };
        assert!(matches!(states.check(&next, None), Err(AppendError::OutOfOrderSequence { expected: 0, .. })));
        assert_eq!(states.check(&BatchHeader { base_sequence: 0, ..next }, None), Ok(None));
    }

    #[test]
    fn a_producer_in_a_transaction_is_never_forgotten_and_their_number_is_bounded() {
        let mut states = ProducerStates::default();
        let in_transaction = PRODUCERS_MAX as i64 / 2;
        for id in 0..3 * PRODUCERS_MAX as i64 {
            let of = batch(id, 0, 2 * id);
            states.apply(&if id < in_transaction { transactional(of) } else { of }, None, id);
            assert!(states.producers.len() <= PRODUCERS_MAX);
        }
        states.expire(i64::MAX, 0);
        assert_eq!((states.producers.len(), states.open().len()), (PRODUCERS_MAX / 2, PRODUCERS_MAX / 2));
        for id in in_transaction..PRODUCERS_MAX as i64 {
            let next = transactional(batch(id, 0, 100_000 + 2 * id));
            assert_eq!(states.check_room([&next].into_iter()), Ok(()));
            states.apply(&next, None, id);
        }
        let newcomer = batch(-5 + 2 * PRODUCERS_MAX as i64, 0, 1 << 30);
        let full = AppendError::TooManyOpen { open: PRODUCERS_MAX, limit: PRODUCERS_MAX };
        assert_eq!(states.check_room([&newcomer].into_iter()), Err(full));
        // Those that are known, and those without a producer id, go on.
        let known = [batch(5, 2, 1 << 30), batch(-1, -1, 1 << 30)];
        assert_eq!(states.check_room(known.iter()), Ok(()));
        let (ended, said) = marker(7, 0, 1 << 31);
        states.apply(&ended, Some(said), 1);
        assert_eq!(states.check_room([&newcomer].into_iter()), Ok(()));
    }

    #[test]
    fn the_number_of_producers_is_bounded_and_the_silent_go_first() {
        let mut states = ProducerStates::default();
        for id in 0..3 * PRODUCERS_MAX as i64 {
            states.apply(&batch(id, 0, id), None, id);
            assert!(states.producers.len() <= PRODUCERS_MAX);
        }
        assert!(!states.producers.contains_key(&0));
        assert!(states.producers.contains_key(&(3 * PRODUCERS_MAX as i64 - 1)));
        states.expire(3 * PRODUCERS_MAX as i64 + 5, 10);
        assert_eq!(states.len(), 5);
        assert!(
            states.producers.capacity() < 100 && states.producers.values().all(|known| known.batches.capacity() == 1)
        );
        states.expire(4 * PRODUCERS_MAX as i64, 10);
        assert!(states.producers.is_empty());
    }
}
