//! Valid batches of small records, and what is read back.

use bytes::{Bytes, BytesMut};

use super::super::batch::{BatchHeader, CheckedBatch, HEADER_BYTES};

/// Who writes a batch, if it is idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    pub producer_id: i64,
    pub base_sequence: i32,
}

/// An uncompressed batch with one value a record.
pub(super) fn batch(writer: Option<Writer>, timestamp_ms: i64, values: &[Vec<u8>]) -> Bytes {
    let mut records = Vec::new();
    for (index, value) in values.iter().enumerate() {
        // Attributes, timestamp delta, offset delta, no key, value, no headers.
        let mut body = vec![0, 0];
        put_varint(&mut body, index as i64);
        put_varint(&mut body, -1);
        put_varint(&mut body, value.len() as i64);
        body.extend_from_slice(value);
        put_varint(&mut body, 0);
        put_varint(&mut records, body.len() as i64);
        records.extend_from_slice(&body);
    }
    let (producer_id, epoch, sequence) = writer.map_or((-1, -1, -1), |w| (w.producer_id, 0i16, w.base_sequence));
    let count = values.len() as i32;
    let mut counted = Vec::with_capacity(HEADER_BYTES + records.len());
    counted.extend_from_slice(&0i16.to_be_bytes());
    counted.extend_from_slice(&(count - 1).to_be_bytes());
    counted.extend_from_slice(&timestamp_ms.to_be_bytes());
    counted.extend_from_slice(&timestamp_ms.to_be_bytes());
    counted.extend_from_slice(&producer_id.to_be_bytes());
    counted.extend_from_slice(&epoch.to_be_bytes());
    counted.extend_from_slice(&sequence.to_be_bytes());
    counted.extend_from_slice(&count.to_be_bytes());
    counted.extend_from_slice(&records);
    let mut out = BytesMut::new();
    out.extend_from_slice(&0i64.to_be_bytes());
    out.extend_from_slice(&(9 + counted.len() as i32).to_be_bytes());
    out.extend_from_slice(&0i32.to_be_bytes());
    out.extend_from_slice(&[2]);
    out.extend_from_slice(&crc32c::crc32c(&counted).to_be_bytes());
    out.extend_from_slice(&counted);
    out.freeze()
}

/// As it is stored at an offset.
pub(super) fn stored(batch: &Bytes, base_offset: i64, leader_epoch: i32) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    bytes.freeze()
}

/// Takes concatenated batches apart.
pub(super) fn split(mut bytes: Bytes) -> Vec<(BatchHeader, Bytes)> {
    let mut found = Vec::new();
    while let Some(header) = BatchHeader::read(&bytes) {
        let total = header.total_bytes().unwrap_or(usize::MAX).min(bytes.len());
        found.push((header, bytes.split_to(total)));
    }
    found
}

pub(super) fn is_whole(header: &BatchHeader, bytes: &Bytes) -> bool {
    CheckedBatch::split(bytes, *header).is_some_and(|batch| batch.computed_crc() == header.crc)
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
