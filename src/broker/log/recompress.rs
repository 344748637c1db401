//! Compresses batches anew, for topics that want another codec than the one that a producer chose.
//!
//! Owns: the way from one codec to another. Must not know why a topic wants one, nor store anything: what comes out goes
//! through the door like any other append.

use bytes::{Bytes, BytesMut};

use super::batch::{self, CheckedBatch, DoorRules, Transactional};
use super::compressed::{fold, plain_records};
use super::error::AppendError;
use super::partition::Partition;

impl Partition {
    /// The same batches in `codec`: 0 is none, and 1 to 4 are gzip, snappy, lz4 and zstd, as in a batch's attributes.
    /// Those that have it already stay as they are.
    ///
    /// It may take a core for a while and 64 MiB of memory: not for threads that others wait for.
    ///
    /// # Errors
    /// As for an append, for batches that may not be stored; `InvalidRecord` also for a codec that is unknown.
    pub(crate) fn recompressed(&self, batches: &Bytes, codec: i16, now_ms: i64) -> Result<Bytes, AppendError> {
        // With a new CRC nobody would find out later that the batch had come damaged. Whose it may be, the append asks.
        let rules = DoorRules::of(&self.config(), Transactional::Allowed, now_ms);
        let checked = batch::check_all(batches, &rules)?;
        let mut all = BytesMut::new();
        for batch in checked {
            let batch = recompress(batch, codec).map_err(|error| AppendError::InvalidRecord(error.to_string()))?;
            all.extend_from_slice(&batch.head);
            all.extend_from_slice(&batch.records);
        }
        Ok(all.freeze())
    }
}

fn recompress(batch: CheckedBatch, codec: i16) -> std::io::Result<CheckedBatch> {
    // A marker's two numbers are never compressed.
    if batch.header.codec() == codec || batch.header.is_control() {
        return Ok(batch);
    }
    let plain = plain_records(&batch)?;
    let records = if codec == 0 { plain.into_owned() } else { fold(codec, &[], &plain)? };
    Ok(batch.in_codec(codec, records.into()))
}
