//! The record batch header (magic 2): the view, the checks at the door, and the few fields that the log may patch.
//!
//! Layout (big endian): base_offset i64, batch_length i32, partition_leader_epoch i32, magic i8, crc u32 | attributes
//! i16, last_offset_delta i32, base_timestamp i64, max_timestamp i64, producer_id i64, producer_epoch i16, base_sequence
//! i32, records_count i32, records. The CRC-32C covers everything behind the bar.

use bytes::Bytes;

use super::AppendError;
use super::compressed::{CompressedRecords, UNFOLDED_BYTES_MAX};

/// Bytes of a batch before its records.
pub(super) const HEADER_BYTES: usize = 61;
/// Bytes before the ones that `batch_length` counts.
pub(super) const LENGTH_PREFIX_BYTES: usize = 12;
/// Where what the CRC covers begins.
pub(super) const CRC_FROM: usize = 21;
const COMPRESSION_MASK: i16 = 0x07;
const COMPRESSION_MAX: i16 = 4;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
/// No client sends more; a forged count would only burn offsets and, in a careless reader, memory.
const RECORDS_PER_BATCH_MAX: i32 = 1 << 24;

/// The header of one batch, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub base_offset: i64,
    pub batch_length: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the fields; checks nothing but that the header is whole.
    pub fn read(bytes: &[u8]) -> Option<BatchHeader> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        Some(BatchHeader {
            base_offset: i64::from_be_bytes(field(header, 0)),
            batch_length: i32::from_be_bytes(field(header, 8)),
            magic: header[16] as i8,
            crc: u32::from_be_bytes(field(header, 17)),
            attributes: i16::from_be_bytes(field(header, 21)),
            last_offset_delta: i32::from_be_bytes(field(header, 23)),
            base_timestamp: i64::from_be_bytes(field(header, 27)),
            max_timestamp: i64::from_be_bytes(field(header, 35)),
            producer_id: i64::from_be_bytes(field(header, 43)),
            producer_epoch: i16::from_be_bytes(field(header, 51)),
            base_sequence: i32::from_be_bytes(field(header, 53)),
            records_count: i32::from_be_bytes(field(header, 57)),
        })
    }

    /// Bytes of the whole batch; none when the length field cannot be true.
    pub fn total_bytes(&self) -> Option<usize> {
        let total = usize::try_from(self.batch_length).ok()?.checked_add(LENGTH_PREFIX_BYTES)?;
        (total >= HEADER_BYTES).then_some(total)
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Sequence of the last record; sequences go on at 0 after `i32::MAX`.
    pub fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.last_offset_delta)
    }

    pub fn is_compressed(&self) -> bool {
        self.attributes & COMPRESSION_MASK != 0
    }

    /// The times of its records are compressed, or do not count.
    pub fn has_hidden_times(&self) -> bool {
        self.is_compressed() || self.is_log_append_time()
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }
}

/// `sequence + increment` in the ring of non-negative `i32`.
pub(super) fn sequence_after(sequence: i32, increment: i32) -> i32 {
    ((i64::from(sequence) + i64::from(increment)) & i64::from(i32::MAX)) as i32
}

/// A batch that may be stored: its header's bytes (to be patched) and its records (handed on as they came).
#[derive(Clone, Debug)]
pub(super) struct CheckedBatch {
    pub header: BatchHeader,
    pub head: [u8; HEADER_BYTES],
    pub records: Bytes,
}

impl CheckedBatch {
    /// Splits one whole batch whose header was read before; none when it is shorter than it says.
    pub fn split(batch: &Bytes, header: BatchHeader) -> Option<CheckedBatch> {
        let total = header.total_bytes()?;
        let head = *batch.first_chunk()?;
        (batch.len() >= total).then(|| CheckedBatch { header, head, records: batch.slice(HEADER_BYTES..total) })
    }

    pub fn total_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Gives the batch its place in the log. Both fields lie outside of the CRC.
    pub fn place(&mut self, base_offset: i64, leader_epoch: i32) {
        self.header.base_offset = base_offset;
        self.head[0..8].copy_from_slice(&base_offset.to_be_bytes());
        self.head[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    }

    /// Stamps the batch with the broker's time, which needs a new CRC.
    pub fn stamp(&mut self, now_ms: i64) {
        self.header.attributes |= LOG_APPEND_TIME_BIT;
        self.header.max_timestamp = now_ms;
        self.head[21..23].copy_from_slice(&self.header.attributes.to_be_bytes());
        self.head[35..43].copy_from_slice(&now_ms.to_be_bytes());
        self.header.crc = self.computed_crc();
        self.head[17..21].copy_from_slice(&self.header.crc.to_be_bytes());
    }

    pub fn computed_crc(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.head[CRC_FROM..]), &self.records)
    }
}

/// Whether one of these concatenated batches is compressed, as far as they can be told apart.
pub(crate) fn is_compressed(bytes: &Bytes) -> bool {
    let mut rest: &[u8] = bytes;
    while let Some(header) = BatchHeader::read(rest) {
        if header.is_compressed() {
            return true;
        }
        let Some(next) = header.total_bytes().and_then(|total| rest.get(total..)) else { break };
        rest = next;
    }
    false
}

/// Checks and splits concatenated batches as a client sends them.
///
/// # Errors
/// `Corrupt`, `TooLarge` or `UnsupportedMagic`, for the first batch that may not be stored.
pub(super) fn check_all(bytes: &Bytes, batch_bytes_max: u32) -> Result<Vec<CheckedBatch>, AppendError> {
    let mut rest = bytes.clone();
    let mut checked = Vec::with_capacity(1);
    let mut unfolded_left = UNFOLDED_BYTES_MAX;
    if rest.is_empty() {
        return Err(corrupt("there is no batch"));
    }
    while !rest.is_empty() {
        let batch = check_one(&rest, batch_bytes_max, &mut unfolded_left)?;
        rest = rest.slice(batch.total_bytes()..);
        checked.push(batch);
    }
    Ok(checked)
}

fn corrupt(what: impl Into<String>) -> AppendError {
    AppendError::Corrupt(what.into())
}

fn check_one(bytes: &Bytes, batch_bytes_max: u32, unfolded_left: &mut u64) -> Result<CheckedBatch, AppendError> {
    match bytes.get(16) {
        Some(2) => {}
        Some(&magic) => return Err(AppendError::UnsupportedMagic(magic as i8)),
        None => return Err(corrupt(format!("{} bytes are no batch", bytes.len()))),
    }
    let header = BatchHeader::read(bytes).ok_or_else(|| corrupt("the header is cut off"))?;
    let total =
        header.total_bytes().ok_or_else(|| corrupt(format!("a batch length of {} cannot be", header.batch_length)))?;
    if total > batch_bytes_max as usize {
        return Err(AppendError::TooLarge { bytes: total, limit: batch_bytes_max });
    }
    let batch = CheckedBatch::split(bytes, header)
        .ok_or_else(|| corrupt(format!("the batch says {total} bytes, {} came", bytes.len())))?;
    let crc = batch.computed_crc();
    if crc != header.crc {
        return Err(corrupt(format!("its CRC-32C is {crc:08x}, it says {:08x}", header.crc)));
    }
    check_fields(&header)?;
    if header.is_compressed() {
        check_compressed(&batch, unfolded_left)?;
    } else {
        check_records(&batch)?;
    }
    Ok(batch)
}

fn check_fields(header: &BatchHeader) -> Result<(), AppendError> {
    let attributes = header.attributes;
    if attributes & COMPRESSION_MASK > COMPRESSION_MAX {
        return Err(corrupt(format!("compression {} is unknown", attributes & COMPRESSION_MASK)));
    }
    if attributes & LOG_APPEND_TIME_BIT != 0 {
        return Err(corrupt("a producer may not set the timestamp type LogAppendTime"));
    }
    if attributes & CONTROL_BIT != 0 {
        return Err(corrupt("a client may not write control records"));
    }
    if attributes & TRANSACTIONAL_BIT != 0 {
        return Err(corrupt("transactional batches are not supported"));
    }
    if attributes & !COMPRESSION_MASK != 0 {
        return Err(corrupt(format!("attributes {attributes:#06x} are unknown")));
    }
    let count = header.records_count;
    if !(1..=RECORDS_PER_BATCH_MAX).contains(&count) {
        return Err(corrupt(format!("a count of {count} records cannot be")));
    }
    if header.last_offset_delta != count - 1 {
        let delta = header.last_offset_delta;
        return Err(corrupt(format!("last offset delta {delta} does not fit {count} records")));
    }
    let idempotent = header.producer_id >= 0;
    if header.producer_id < -1 || (idempotent && (header.producer_epoch < 0 || header.base_sequence < 0)) {
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        return Err(corrupt(format!("producer {id} with epoch {epoch} and sequence {sequence} cannot be")));
    }
    Ok(())
}

/// Walks the uncompressed records: they must fill the batch exactly, with offset deltas 0, 1, 2, …
fn check_records(batch: &CheckedBatch) -> Result<(), AppendError> {
    let mut walked = 0;
    for record in Records::of(batch) {
        let record = record.ok_or_else(|| corrupt(format!("record {walked} is malformed")))?;
        if record.offset_delta != walked {
            return Err(corrupt(format!("record {walked} has offset delta {}", record.offset_delta)));
        }
        walked += 1;
    }
    check_count(&batch.header, walked)
}

/// The same for compressed records, which are unfolded for it and thrown away.
fn check_compressed(batch: &CheckedBatch, unfolded_left: &mut u64) -> Result<(), AppendError> {
    let malformed = |walked: i64, error: std::io::Error| corrupt(format!("compressed record {walked}: {error}"));
    let codec = batch.header.attributes & COMPRESSION_MASK;
    let mut walked = 0;
    let mut records =
        CompressedRecords::of(codec, &batch.records, *unfolded_left).map_err(|error| malformed(0, error))?;
    for record in records.by_ref() {
        let record = record.map_err(|error| malformed(walked, error))?;
        if record.offset_delta != walked {
            return Err(corrupt(format!("compressed record {walked} has offset delta {}", record.offset_delta)));
        }
        walked += 1;
        if walked > i64::from(batch.header.records_count) {
            break;
        }
    }
    *unfolded_left = records.left();
    check_count(&batch.header, walked)
}

fn check_count(header: &BatchHeader, walked: i64) -> Result<(), AppendError> {
    let said = i64::from(header.records_count);
    if walked == said { Ok(()) } else { Err(corrupt(format!("it says {said} records and holds {walked}"))) }
}

/// Offset and time of one record, relative to its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordStamp {
    pub offset_delta: i64,
    pub timestamp_delta: i64,
}

/// Walks uncompressed records; yields one `None` at the first malformed one, then ends.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn of(batch: &'a CheckedBatch) -> Self {
        Records { rest: &batch.records }
    }

    fn parse(&mut self) -> Option<RecordStamp> {
        let length = usize::try_from(varint(&mut self.rest)?).ok()?;
        let (mut record, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let (_attributes, fields) = record.split_first()?;
        record = fields;
        let timestamp_delta = varint(&mut record)?;
        let offset_delta = varint(&mut record)?;
        // Key length, value length and header count follow; a record without them is cut off.
        (record.len() >= 3).then_some(RecordStamp { offset_delta, timestamp_delta })
    }
}

impl Iterator for Records<'_> {
    type Item = Option<RecordStamp>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.parse();
        if record.is_none() {
            self.rest = &[];
        }
        Some(record)
    }
}

/// A zigzag number of at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}
