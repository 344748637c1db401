//! Valid batches of small records, and what is read back.

use bytes::{Bytes, BytesMut};

use super::super::Appended;
use super::super::batch::{BatchHeader, CheckedBatch, HEADER_BYTES};
use super::super::record::{RecordView, Records, put_varint};

/// Who writes a batch, if it is idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    pub producer_id: i64,
    pub base_sequence: i32,
}

/// What a record is made of: a key, and a value unless it is a tombstone.
pub(super) type Content = (Vec<u8>, Option<Vec<u8>>);

/// An uncompressed batch.
pub(super) fn batch(writer: Option<Writer>, attributes: i16, timestamp_ms: i64, contents: &[Content]) -> Bytes {
    let mut records = Vec::new();
    for (index, (key, value)) in contents.iter().enumerate() {
        let mut body = Vec::new();
        put_varint(&mut body, key.len() as i64);
        body.extend_from_slice(key);
        put_varint(&mut body, value.as_ref().map_or(-1, |value| value.len() as i64));
        body.extend_from_slice(value.as_deref().unwrap_or_default());
        // No headers.
        body.push(0);
        let view = RecordView {
            attributes: 0,
            timestamp_delta: 0,
            offset_delta: index as i64,
            key: None,
            has_value: true,
            body: &body,
        };
        view.write(0, &mut records);
    }
    let (producer_id, epoch, sequence) = writer.map_or((-1, -1, -1), |w| (w.producer_id, 0i16, w.base_sequence));
    let count = contents.len() as i32;
    let mut counted = Vec::with_capacity(HEADER_BYTES + records.len());
    counted.extend_from_slice(&attributes.to_be_bytes());
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

/// As it is stored at an offset, with the broker's time if it stamps.
pub(super) fn stored(batch: &Bytes, appended: &Appended, leader_epoch: i32) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    if let (true, Some(header)) = (appended.log_append_time_ms >= 0, BatchHeader::read(batch))
        && let Some(mut stamped) = CheckedBatch::split(batch, header)
    {
        stamped.stamp(appended.log_append_time_ms);
        bytes[..HEADER_BYTES].copy_from_slice(&stamped.head);
    }
    let base_offset = appended.base_offset;
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

/// A record that was read.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub offset: i64,
    pub key: Bytes,
    pub is_tombstone: bool,
    /// Key, value and headers as they lie.
    pub body: Bytes,
}

/// The records of one uncompressed batch.
pub(super) fn records(batch: &Bytes) -> Vec<Record> {
    let Some(header) = BatchHeader::read(batch) else { return Vec::new() };
    let views = Records::of(&batch[HEADER_BYTES..]).flatten();
    let record = |view: RecordView<'_>| Record {
        offset: header.base_offset + view.offset_delta,
        key: Bytes::copy_from_slice(view.key.unwrap_or_default()),
        is_tombstone: !view.has_value,
        body: Bytes::copy_from_slice(view.body),
    };
    views.map(record).collect()
}
