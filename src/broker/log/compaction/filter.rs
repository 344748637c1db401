//! What is left of one batch.
//!
//! A record goes when a later one has its key, when it has no key (it came before the topic was compacted), or when it is
//! a tombstone whose time is over. That time begins when a pass first meets the tombstone: its end, the delete horizon,
//! is written into the batch's header (KIP-534). Offsets, times, producer and sequence of what stays do not change.
//!
//! The records of aborted transactions go at once, those of committed ones are like any other. A marker begins to count
//! down, as a tombstone does, when a pass finds it to be all that is left of its transaction.

use std::io;

use bytes::Bytes;

use super::super::batch::CheckedBatch;
use super::super::compressed::{fold, plain_records};
use super::super::record::{RecordView, Records};
use super::map::KeyMap;
use super::transactions::Transactions;

pub(super) struct Filter<'a> {
    pub map: &'a KeyMap,
    /// The end of what the map covers; what lies beyond stays.
    pub covered: i64,
    /// The last one before the last stable offset. Its record stays, also an aborted one, so that every reader always
    /// reaches the end of what it may read.
    pub last_offset: i64,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
    /// Is told of the batches in the order of the log.
    pub transactions: Transactions<'a>,
}

/// What is left of a batch.
#[derive(Debug)]
pub(super) enum Left {
    All,
    Some(CheckedBatch),
    Nothing,
}

impl Filter<'_> {
    /// # Errors
    /// The records are malformed, though the batch is whole.
    pub fn left_of(&mut self, batch: &CheckedBatch) -> io::Result<Left> {
        let header = &batch.header;
        if header.last_offset() >= self.covered {
            return Ok(Left::All);
        }
        if header.is_control() {
            return self.left_of_control(batch);
        }
        if self.transactions.is_aborted(header) {
            return Ok(if header.last_offset() == self.last_offset { Left::All } else { Left::Nothing });
        }
        let plain = plain_records(batch)?;
        let horizon_ms = header.delete_horizon_ms();
        let mut kept = Vec::with_capacity(usize::try_from(header.records_count).unwrap_or(0).min(plain.len()));
        let (mut count, mut has_tombstone) = (0, false);
        for record in Records::of(&plain) {
            let record = record.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record is malformed"))?;
            count += 1;
            let offset = header.base_offset.saturating_add(record.offset_delta);
            let is_over = !record.has_value && horizon_ms.is_some_and(|horizon_ms| self.now_ms >= horizon_ms);
            let is_wanted = !is_over && record.key.is_some_and(|key| self.map.is_last(key, offset));
            if is_wanted || offset == self.last_offset {
                has_tombstone |= !record.has_value;
                kept.push(record);
            }
        }
        let begins = has_tombstone && horizon_ms.is_none();
        let new_horizon_ms = begins.then(|| self.now_ms.saturating_add(self.delete_retention_ms));
        match kept.len() {
            0 => Ok(Left::Nothing),
            left if left == count && new_horizon_ms.is_none() => Ok(Left::All),
            _ => written(batch, &kept, new_horizon_ms).map(Left::Some),
        }
    }

    /// A marker goes when its time is over, which begins when nothing else is left of its transaction.
    fn left_of_control(&mut self, batch: &CheckedBatch) -> io::Result<Left> {
        let header = &batch.header;
        // Control batches of other kinds are none of ours.
        if batch.marker().is_none() || !self.transactions.is_last_of_its_transaction(header) {
            return Ok(Left::All);
        }
        match header.delete_horizon_ms() {
            None => {
                let records: Option<Vec<_>> = Records::of(&batch.records).collect();
                let records = records.ok_or(io::ErrorKind::InvalidData)?;
                let horizon_ms = self.now_ms.saturating_add(self.delete_retention_ms);
                written(batch, &records, Some(horizon_ms)).map(Left::Some)
            }
            Some(horizon_ms) if self.now_ms >= horizon_ms && header.last_offset() != self.last_offset => {
                Ok(Left::Nothing)
            }
            Some(_) => Ok(Left::All),
        }
    }
}

/// The batch with these of its records only.
fn written(batch: &CheckedBatch, kept: &[RecordView<'_>], horizon_ms: Option<i64>) -> io::Result<CheckedBatch> {
    let before = batch.header.base_timestamp;
    let base_timestamp = horizon_ms.unwrap_or(before);
    let mut records = Vec::with_capacity(batch.records.len());
    let mut max_timestamp = i64::MIN;
    for record in kept {
        // Around the end of the numbers it comes out right as well: a reader adds what is subtracted here.
        let timestamp = before.wrapping_add(record.timestamp_delta);
        record.write(timestamp.wrapping_sub(base_timestamp), &mut records);
        max_timestamp = max_timestamp.max(timestamp);
    }
    if batch.header.is_log_append_time() {
        max_timestamp = batch.header.max_timestamp;
    }
    let records = match batch.header.codec() {
        0 => records,
        codec => fold(codec, &batch.records, &records)?,
    };
    Ok(batch.with_records(Bytes::from(records), kept.len() as i32, max_timestamp, horizon_ms))
}
