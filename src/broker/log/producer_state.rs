//! What each idempotent producer wrote last: tells the next batch from a retry, a gap and a fenced producer.
//!
//! Source: KIP-98. The last five batches are remembered, as a client has at most five requests under way.

use std::collections::HashMap;

use super::AppendError;
use super::batch::{BatchHeader, sequence_after};
use super::codec::{Decoder, Encoder};

/// Batches remembered of a producer.
const BATCHES_REMEMBERED: usize = 5;
/// Producers remembered of a partition; beyond that, those that were silent longest are forgotten.
const PRODUCERS_MAX: usize = 10_000;
/// A producer that was silent for a day is forgotten (Kafka's `producer.id.expiration.ms`).
const SILENT_MS_MAX: i64 = 24 * 3600 * 1000;
const BATCH_BYTES: usize = 24;
const PRODUCER_BYTES_MIN: usize = 8 + 2 + 8 + 1;

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
    last_append_ms: i64,
    /// Oldest first; never empty.
    batches: Vec<StoredBatch>,
}

/// All producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProducerStates {
    producers: HashMap<i64, Producer>,
}

impl ProducerStates {
    /// `Ok(None)`: the batch is the next one. `Ok(Some)`: a retry of that one.
    ///
    /// # Errors
    /// `InvalidProducerEpoch` for a fenced producer; `OutOfOrderSequence` for a gap.
    pub fn check(&self, batch: &BatchHeader) -> Result<Option<StoredBatch>, AppendError> {
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
        if batch.base_sequence == expected {
            Ok(None)
        } else {
            Err(AppendError::OutOfOrderSequence { producer_id, expected, got: batch.base_sequence })
        }
    }

    /// Remembers a batch that has got its offsets.
    pub fn apply(&mut self, batch: &BatchHeader, now_ms: i64) {
        if batch.producer_id < 0 {
            return;
        }
        if self.producers.len() >= PRODUCERS_MAX && !self.producers.contains_key(&batch.producer_id) {
            self.forget_most_silent();
        }
        let stored = StoredBatch {
            base_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            last_offset: batch.last_offset(),
        };
        let producer = self.producers.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            last_append_ms: now_ms,
            batches: Vec::with_capacity(BATCHES_REMEMBERED),
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_REMEMBERED {
            producer.batches.remove(0);
        }
        producer.batches.push(stored);
        producer.last_append_ms = now_ms;
    }

    /// Forgets those that were silent for a day.
    pub fn expire(&mut self, now_ms: i64) {
        self.producers.retain(|_, producer| now_ms.saturating_sub(producer.last_append_ms) <= SILENT_MS_MAX);
    }

    /// Only what `check` needs to know about the producers of `batches`.
    pub fn only<'a>(&self, batches: impl Iterator<Item = &'a BatchHeader>) -> ProducerStates {
        let known = batches.filter_map(|batch| {
            self.producers.get(&batch.producer_id).map(|producer| (batch.producer_id, producer.clone()))
        });
        ProducerStates { producers: known.collect() }
    }

    /// A tenth at once, so that a flood of new producers does not pay for a search with each batch.
    fn forget_most_silent(&mut self) {
        let mut times: Vec<i64> = self.producers.values().map(|producer| producer.last_append_ms).collect();
        times.sort_unstable();
        let oldest_kept = times.get(PRODUCERS_MAX / 10).copied().unwrap_or(i64::MAX);
        let mut excess = PRODUCERS_MAX / 10;
        self.producers.retain(|_, producer| {
            let forget = excess > 0 && producer.last_append_ms <= oldest_kept;
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
            out.put(&producer.last_append_ms.to_le_bytes());
            out.put(&[producer.batches.len() as u8]);
            for batch in &producer.batches {
                out.put(&batch.base_sequence.to_le_bytes());
                out.put(&batch.last_sequence.to_le_bytes());
                out.put(&batch.base_offset.to_le_bytes());
                out.put(&batch.last_offset.to_le_bytes());
            }
        }
    }

    pub fn decode(decoder: &mut Decoder<'_>) -> Option<ProducerStates> {
        let count = decoder.count(PRODUCER_BYTES_MIN)?;
        let mut producers = HashMap::with_capacity(count.min(PRODUCERS_MAX));
        for _ in 0..count {
            let producer_id = decoder.i64()?;
            let epoch = decoder.i16()?;
            let last_append_ms = decoder.i64()?;
            let remembered = usize::from(decoder.u8()?);
            if remembered > BATCHES_REMEMBERED || remembered * BATCH_BYTES > decoder.0.len() {
                return None;
            }
            let mut batches = Vec::with_capacity(BATCHES_REMEMBERED);
            for _ in 0..remembered {
                batches.push(StoredBatch {
                    base_sequence: decoder.i32()?,
                    last_sequence: decoder.i32()?,
                    base_offset: decoder.i64()?,
                    last_offset: decoder.i64()?,
                });
            }
            producers.insert(producer_id, Producer { epoch, last_append_ms, batches });
        }
        Some(ProducerStates { producers })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::broker::log::batch::HEADER_BYTES;

    fn batch(producer_id: i64, base_sequence: i32, base_offset: i64) -> BatchHeader {
        let empty = BatchHeader::read(&[0; HEADER_BYTES]).unwrap();
        BatchHeader { producer_id, base_sequence, base_offset, last_offset_delta: 1, ..empty }
    }

    #[test]
    fn producers_survive_the_checkpoint_and_no_cut_of_it_is_read() {
        let mut states = ProducerStates::default();
        for index in 0..8 {
            states.apply(&batch(1, 2 * index, 100 + 2 * i64::from(index)), 5);
            states.apply(&batch(i64::from(index), 0, 300), 6);
        }
        let mut bytes = Vec::new();
        states.encode(&mut bytes);
        assert_eq!(ProducerStates::decode(&mut Decoder(&bytes)), Some(states));
        for length in 0..bytes.len() {
            assert_eq!(ProducerStates::decode(&mut Decoder(&bytes[..length])), None);
        }
    }

    #[test]
    fn the_number_of_producers_is_bounded_and_the_silent_go_first() {
        let mut states = ProducerStates::default();
        for id in 0..3 * PRODUCERS_MAX as i64 {
            states.apply(&batch(id, 0, id), id);
            assert!(states.producers.len() <= PRODUCERS_MAX);
        }
        assert!(!states.producers.contains_key(&0));
        assert!(states.producers.contains_key(&(3 * PRODUCERS_MAX as i64 - 1)));
        states.expire(SILENT_MS_MAX + 3 * PRODUCERS_MAX as i64);
        assert!(states.producers.is_empty());
    }
}
