//! A block of outcomes: runs of consecutive offsets of one partition.
//!
//! Payload: runs, each `partition + 1` (0: unknown outcomes), the first offset (absent for unknown ones), how many, the
//! first sequence, and the differences between the following ones. A delivery report costs about one byte so.

use super::block::PAYLOAD_BYTES_MAX;
use super::{Outcome, varint};

/// Past this size a block is full.
const BLOCK_FULL_BYTES: usize = PAYLOAD_BYTES_MAX / 4;
/// Bytes of one outcome, at most, while it waits in a run.
const OUTCOME_BYTES_MAX: usize = 10;

/// The outcomes that wait for the next flush, a run for each partition that is being reported.
#[derive(Debug, Default)]
pub(super) struct OutcomeBlock {
    closed: Vec<u8>,
    open: Vec<Run>,
    waiting: usize,
}

#[derive(Debug)]
struct Run {
    /// None: unknown outcomes.
    partition: Option<i32>,
    first_offset: i64,
    sequences: Vec<i64>,
}

impl Run {
    fn takes(&self, partition: Option<i32>, offset: i64) -> bool {
        self.partition == partition
            && (partition.is_none() || self.first_offset.checked_add(self.sequences.len() as i64) == Some(offset))
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Some(&first) = self.sequences.first() else { return };
        varint::push(out, self.partition.map_or(0, |partition| (i128::from(partition) + 1) as u128));
        if self.partition.is_some() {
            varint::push_signed(out, i128::from(self.first_offset));
        }
        varint::push(out, self.sequences.len() as u128);
        varint::push_signed(out, i128::from(first));
        for pair in self.sequences.windows(2) {
            varint::push_signed(out, i128::from(pair[1]) - i128::from(pair[0]));
        }
    }
}

impl OutcomeBlock {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.closed.len() + self.waiting * OUTCOME_BYTES_MAX > BLOCK_FULL_BYTES
    }

    pub(super) fn push(&mut self, outcome: Outcome) {
        let (partition, offset, sequence) = match outcome {
            Outcome::Acknowledged { sequence, partition, offset } => (Some(partition), offset, sequence),
            Outcome::Unknown { sequence } => (None, 0, sequence),
        };
        self.waiting += 1;
        match self.open.iter_mut().find(|run| run.partition == partition) {
            Some(run) if run.sequences.is_empty() || run.takes(partition, offset) => {
                if run.sequences.is_empty() {
                    run.first_offset = offset;
                }
                run.sequences.push(sequence);
            }
            Some(run) => {
                run.write(&mut self.closed);
                run.first_offset = offset;
                run.sequences.clear();
                run.sequences.push(sequence);
            }
            None => self.open.push(Run { partition, first_offset: offset, sequences: vec![sequence] }),
        }
    }

    /// The payload so far; waiting runs stay until [`Self::clear`].
    pub(super) fn payload_into(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.closed);
        for run in &self.open {
            run.write(out);
        }
    }

    /// Starts the next block.
    pub(super) fn clear(&mut self) {
        self.closed.clear();
        self.open.iter_mut().for_each(|run| run.sequences.clear());
        self.waiting = 0;
    }
}

/// Reads one block; None if it makes no sense.
pub(super) fn decode(mut payload: &[u8], mut each: impl FnMut(Outcome)) -> Option<()> {
    let bytes = &mut payload;
    while !bytes.is_empty() {
        let partition = match varint::take_u64(bytes)? {
            0 => None,
            partition => Some(i32::try_from(partition - 1).ok()?),
        };
        let mut offset = if partition.is_some() { varint::take_i64(bytes)? } else { 0 };
        let count = varint::take_u64(bytes)?;
        let mut sequence = 0i64;
        for _ in 0..count {
            sequence = sequence.checked_add(varint::take_i64(bytes)?)?;
            each(match partition {
                Some(partition) => Outcome::Acknowledged { sequence, partition, offset },
                None => Outcome::Unknown { sequence },
            });
            offset = offset.checked_add(1)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::intents;

    proptest! {
        #[test]
        fn content_that_no_writer_wrote_is_refused_or_read_but_never_panics(
            payload in proptest::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..200),
        ) {
            let _ = decode(&payload, |_| {});
            let _ = intents::decode(&payload, &mut intents::UserTable::default(), |_| {});
            let _ = intents::range_of(&payload);
        }
    }
}
