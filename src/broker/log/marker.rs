//! Control batches: the marker that ends a transaction, byte for byte as Kafka writes it.
//!
//! One record. Key: version i16, type i16 (0 abort, 1 commit). Value: version i16, coordinator epoch i32. It takes one
//! offset and has no sequence. Source: KIP-98; `EndTransactionMarker` in Apache Kafka.

use bytes::Bytes;

use super::batch::{CONTROL_BIT, CheckedBatch, HEADER_BYTES, LENGTH_PREFIX_BYTES, TRANSACTIONAL_BIT};
use super::record::varint;

const ABORT: i16 = 0;
const COMMIT: i16 = 1;
const KEY_BYTES: u8 = 4;
const VALUE_BYTES: u8 = 6;
const RECORD_BYTES: u8 = 1 + 1 + 1 + 1 + KEY_BYTES + 1 + VALUE_BYTES + 1;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Its records count.
    Commit,
    /// Its records are to be skipped.
    Abort,
}

/// The end of a producer's transaction in one partition, as the transaction coordinator tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransaction {
    /// Whose transaction.
    pub producer_id: i64,
    /// The producer's epoch; a newer one than before fences the producer, whose sequences begin at 0 again.
    pub producer_epoch: i16,
    /// How it ended.
    pub marker: Marker,
    /// The epoch of the coordinator that tells it; an older one than before is refused.
    pub coordinator_epoch: i32,
}

/// What the marker in a stored control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredMarker {
    pub marker: Marker,
    pub coordinator_epoch: i32,
}

impl EndTransaction {
    /// The control batch that says so, without its place in the log.
    pub(super) fn batch(&self, now_ms: i64) -> CheckedBatch {
        let kind = match self.marker {
            Marker::Commit => COMMIT,
            Marker::Abort => ABORT,
        };
        // Zigzag: a small length is written as its double. Attributes and both deltas are 0.
        let mut record = vec![2 * RECORD_BYTES, 0, 0, 0, 2 * KEY_BYTES];
        record.extend(0i16.to_be_bytes());
        record.extend(kind.to_be_bytes());
        record.push(2 * VALUE_BYTES);
        record.extend(0i16.to_be_bytes());
        record.extend(self.coordinator_epoch.to_be_bytes());
        record.push(0);
        let batch_length = (HEADER_BYTES - LENGTH_PREFIX_BYTES + record.len()) as i32;
        let mut head = [0; HEADER_BYTES];
        head[8..12].copy_from_slice(&batch_length.to_be_bytes());
        head[16] = 2;
        head[21..23].copy_from_slice(&(TRANSACTIONAL_BIT | CONTROL_BIT).to_be_bytes());
        head[27..35].copy_from_slice(&now_ms.to_be_bytes());
        head[35..43].copy_from_slice(&now_ms.to_be_bytes());
        head[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        head[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        head[53..57].copy_from_slice(&(-1i32).to_be_bytes());
        head[57..61].copy_from_slice(&1i32.to_be_bytes());
        CheckedBatch::sealed(head, record.into())
    }
}

impl StoredMarker {
    /// Reads the record of a control batch; none when it is no marker of a transaction's end.
    pub fn read(records: &Bytes) -> Option<StoredMarker> {
        let mut rest: &[u8] = records;
        varint(&mut rest)?;
        rest = rest.get(1..)?;
        varint(&mut rest)?;
        varint(&mut rest)?;
        let key_bytes = usize::try_from(varint(&mut rest)?).ok()?;
        let (key, mut rest) = rest.split_at_checked(key_bytes)?;
        let value_bytes = usize::try_from(varint(&mut rest)?).ok()?;
        let value = rest.get(..value_bytes)?;
        let marker = match i16::from_be_bytes(*key.get(2..)?.first_chunk()?) {
            ABORT => Marker::Abort,
            COMMIT => Marker::Commit,
            _ => return None,
        };
        let coordinator_epoch = i32::from_be_bytes(*value.get(2..)?.first_chunk()?);
        Some(StoredMarker { marker, coordinator_epoch })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn end(marker: Marker) -> EndTransaction {
        EndTransaction { producer_id: 77, producer_epoch: 3, marker, coordinator_epoch: 9 }
    }

    #[test]
    fn a_marker_is_read_as_it_was_written_and_no_cut_of_it_is_read() {
        for marker in [Marker::Commit, Marker::Abort] {
            let batch = end(marker).batch(5);
            assert_eq!(batch.marker(), Some(StoredMarker { marker, coordinator_epoch: 9 }));
            assert_eq!(batch.header.total_bytes(), Some(batch.total_bytes()));
            // The last byte counts headers, of which there are none.
            for length in 0..batch.records.len() - 1 {
                assert_eq!(StoredMarker::read(&batch.records.slice(..length)), None, "{length}");
            }
        }
    }

    #[test]
    fn the_bytes_of_a_marker_are_those_of_apache_kafka() {
        let batch = end(Marker::Commit).batch(1_700_000_000_000);
        let mut bytes = batch.head.to_vec();
        bytes.extend(&batch.records[..]);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // Put together by hand from the protocol guide, but for the CRC-32C.
        let expected = format!(
            "0000000000000000000000420000000002{:08x}0030000000000000018bcfe568000000018bcfe56800000000000000004d0003\
             ffffffff00000001200000000800000001 0c 0000 00000009 00",
            batch.header.crc
        );
        assert_eq!(hex, expected.replace(' ', ""));
        assert_eq!(batch.header.crc, crc32c::crc32c(&bytes[21..]));
    }
}
