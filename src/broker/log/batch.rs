//! The record batch header (magic 2): the view, the checks at the door, and the few fields that the log may patch.
//!
//! Layout (big endian): base_offset i64, batch_length i32, partition_leader_epoch i32, magic i8, crc u32 | attributes
//! i16, last_offset_delta i32, base_timestamp i64, max_timestamp i64, producer_id i64, producer_epoch i16, base_sequence
//! i32, records_count i32, records. The CRC-32C covers everything behind the bar.

use bytes::Bytes;

use super::AppendError;
use super::compressed::{CompressedRecords, UNFOLDED_BYTES_MAX};
use super::marker::StoredMarker;
use super::record::Records;
use super::settings::PartitionConfig;

/// Bytes of a batch before its records.
pub(super) const HEADER_BYTES: usize = 61;
/// Bytes before the ones that `batch_length` counts.
pub(super) const LENGTH_PREFIX_BYTES: usize = 12;
/// Where what the CRC covers begins.
pub(super) const CRC_FROM: usize = 21;
const COMPRESSION_MASK: i16 = 0x07;
const COMPRESSION_MAX: i16 = 4;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
pub(super) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(super) const CONTROL_BIT: i16 = 0x20;
/// The base timestamp is the time from which on the batch's tombstones may go (KIP-534).
const DELETE_HORIZON_BIT: i16 = 0x40;
/// Records without a key of one batch that are named, at most.
const KEYLESS_TOLD_MAX: usize = 10_000;
/// No client sends more; a forged count would only burn offsets and, in a careless reader, memory.
const RECORDS_PER_BATCH_MAX: i32 = 1 << 24;

/// No log gets there in a lifetime. What lies on disk says nothing higher, so that counting on from it never overflows.
pub(super) const OFFSET_MAX: i64 = i64::MAX / 2;

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
        bytes.first_chunk().map(BatchHeader::of)
    }

    fn of(header: &[u8; HEADER_BYTES]) -> BatchHeader {
        BatchHeader {
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
        }
    }

    /// Bytes of the whole batch; none when the length field cannot be true.
    pub fn total_bytes(&self) -> Option<usize> {
        let total = usize::try_from(self.batch_length).ok()?.checked_add(LENGTH_PREFIX_BYTES)?;
        (total >= HEADER_BYTES).then_some(total)
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Its bytes, if it can be a batch that begins at `offset_min` or later and has `bytes_left` bytes of room. The CRC
    /// does not cover the base offset, and is not computed when a batch is served.
    pub fn fits(&self, offset_min: i64, bytes_left: u64) -> Option<usize> {
        let in_order = self.last_offset_delta >= 0 && self.base_offset >= offset_min && self.last_offset() < OFFSET_MAX;
        self.total_bytes().filter(|total| self.magic == 2 && in_order && *total as u64 <= bytes_left)
    }

    /// Sequence of the last record; sequences go on at 0 after `i32::MAX`.
    pub fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.last_offset_delta)
    }

    pub fn is_compressed(&self) -> bool {
        self.attributes & COMPRESSION_MASK != 0
    }

    /// Number of the compression codec; 0 is none.
    pub fn codec(&self) -> i16 {
        self.attributes & COMPRESSION_MASK
    }

    /// From when on the tombstones in it may go, if compaction has met them (KIP-534).
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// Belongs to a transaction, or ends one.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Holds no data, but the end of a transaction.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
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

    /// Puts a CRC to bytes that are a whole batch but for that.
    pub fn sealed(mut head: [u8; HEADER_BYTES], records: Bytes) -> CheckedBatch {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[CRC_FROM..]), &records);
        head[17..21].copy_from_slice(&crc.to_be_bytes());
        CheckedBatch { header: BatchHeader::of(&head), head, records }
    }

    pub fn total_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The end of a transaction, if that is what it holds.
    pub fn marker(&self) -> Option<StoredMarker> {
        if self.header.is_control() { StoredMarker::read(&self.records) } else { None }
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
        self.head[21..23].copy_from_slice(&self.header.attributes.to_be_bytes());
        self.set_max_timestamp(now_ms);
    }

    fn set_max_timestamp(&mut self, max_timestamp: i64) {
        self.header.max_timestamp = max_timestamp;
        self.head[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
        self.header.crc = self.computed_crc();
        self.head[17..21].copy_from_slice(&self.header.crc.to_be_bytes());
    }

    /// The same batch with other records, as compaction leaves it: base offset, last offset, producer and sequence stay.
    /// A horizon takes the place of the base timestamp, from which the records' times must then count.
    pub fn with_records(
        &self,
        records: Bytes,
        count: i32,
        max_timestamp: i64,
        horizon_ms: Option<i64>,
    ) -> CheckedBatch {
        let mut changed = CheckedBatch { header: self.header, head: self.head, records };
        let header = &mut changed.header;
        header.batch_length = (changed.records.len() + HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32;
        header.records_count = count;
        header.max_timestamp = max_timestamp;
        if let Some(horizon_ms) = horizon_ms {
            header.attributes |= DELETE_HORIZON_BIT;
            header.base_timestamp = horizon_ms;
        }
        let head = &mut changed.head;
        head[8..12].copy_from_slice(&header.batch_length.to_be_bytes());
        head[21..23].copy_from_slice(&header.attributes.to_be_bytes());
        head[27..35].copy_from_slice(&header.base_timestamp.to_be_bytes());
        head[35..43].copy_from_slice(&header.max_timestamp.to_be_bytes());
        head[57..61].copy_from_slice(&header.records_count.to_be_bytes());
        changed.header.crc = changed.computed_crc();
        changed.head[17..21].copy_from_slice(&changed.header.crc.to_be_bytes());
        changed
    }

    /// The same records in another codec.
    pub fn in_codec(&self, codec: i16, records: Bytes) -> CheckedBatch {
        let mut batch = self.clone();
        batch.header.attributes = (batch.header.attributes & !COMPRESSION_MASK) | (codec & COMPRESSION_MASK);
        batch.with_records(records, self.header.records_count, self.header.max_timestamp, None)
    }

    pub fn computed_crc(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.head[CRC_FROM..]), &self.records)
    }
}

/// The codecs of these concatenated batches, as far as they can be told apart; 0 is none.
pub(crate) fn codecs(bytes: &[u8]) -> impl Iterator<Item = i16> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.take()?;
        let header = BatchHeader::read(bytes)?;
        rest = header.total_bytes().and_then(|total| bytes.get(total..));
        Some(header.codec())
    })
}

/// Whether batches may belong to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transactional {
    /// The transaction coordinator knows of it.
    Allowed,
    Refused,
}

/// What a partition asks of the records that it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoorRules {
    pub batch_bytes_max: u32,
    transactional: Transactional,
    needs_keys: bool,
    /// Earliest and latest time of a record; none when any will do.
    times: Option<(i64, i64)>,
}

impl DoorRules {
    pub fn of(config: &PartitionConfig, transactional: Transactional, now_ms: i64) -> DoorRules {
        // With LogAppendTime the records' own times do not count.
        let limits = (config.timestamp_before_ms_max, config.timestamp_after_ms_max);
        let any = config.log_append_time || limits == (i64::MAX, i64::MAX);
        DoorRules {
            batch_bytes_max: config.batch_bytes_max,
            transactional,
            needs_keys: config.compaction.is_some(),
            times: (!any).then(|| (now_ms.saturating_sub(limits.0), now_ms.saturating_add(limits.1))),
        }
    }

    fn check_time(&self, index: i64, timestamp: i64) -> Result<(), AppendError> {
        match self.times {
            // -1: no time at all.
            Some((earliest, latest)) if timestamp != -1 && !(earliest..=latest).contains(&timestamp) => {
                Err(AppendError::InvalidTimestamp { index, timestamp, earliest, latest })
            }
            _ => Ok(()),
        }
    }
}

/// Records that a compacted topic cannot take, as they are met: clients send the others again, without them.
struct Keyless {
    are_refused: bool,
    indexes: Vec<i32>,
}

impl Keyless {
    fn of(rules: &DoorRules) -> Keyless {
        Keyless { are_refused: rules.needs_keys, indexes: Vec::new() }
    }

    fn note(&mut self, index: i64, has_key: bool) {
        if self.are_refused && !has_key && self.indexes.len() < KEYLESS_TOLD_MAX {
            // A batch holds fewer records than an i32 can count.
            self.indexes.extend(i32::try_from(index));
        }
    }

    fn refuse(self) -> Result<(), AppendError> {
        if self.indexes.is_empty() { Ok(()) } else { Err(AppendError::KeylessRecords(self.indexes)) }
    }
}

/// Checks and splits concatenated batches as a client sends them.
///
/// # Errors
/// `Corrupt`, `TooLarge`, `UnsupportedMagic`, `InvalidRecord`, `KeylessRecords`, `InvalidTimestamp` or
/// `OutsideOfTransaction`, for the first batch that may not be stored.
pub(super) fn check_all(bytes: &Bytes, rules: &DoorRules) -> Result<Vec<CheckedBatch>, AppendError> {
    let mut rest = bytes.clone();
    let mut checked = Vec::with_capacity(1);
    let mut unfolded_left = UNFOLDED_BYTES_MAX;
    if rest.is_empty() {
        return Err(invalid("there is no batch"));
    }
    while !rest.is_empty() {
        let batch = check_one(&rest, rules, &mut unfolded_left)?;
        if batch.header.is_transactional() && rules.transactional == Transactional::Refused {
            return Err(AppendError::OutsideOfTransaction { producer_id: batch.header.producer_id });
        }
        rest = rest.slice(batch.total_bytes()..);
        checked.push(batch);
    }
    Ok(checked)
}

/// The bytes are not what was sent: a client tries again.
fn corrupt(what: impl Into<String>) -> AppendError {
    AppendError::Corrupt(what.into())
}

/// The bytes are what was sent, and sent anew they are refused again.
fn invalid(what: impl Into<String>) -> AppendError {
    AppendError::InvalidRecord(what.into())
}

fn check_one(bytes: &Bytes, rules: &DoorRules, unfolded_left: &mut u64) -> Result<CheckedBatch, AppendError> {
    match bytes.get(16) {
        Some(2) => {}
        Some(&magic) => return Err(AppendError::UnsupportedMagic(magic as i8)),
        None => return Err(corrupt(format!("{} bytes are no batch", bytes.len()))),
    }
    let header = BatchHeader::read(bytes).ok_or_else(|| corrupt("the header is cut off"))?;
    let total =
        header.total_bytes().ok_or_else(|| corrupt(format!("a batch length of {} cannot be", header.batch_length)))?;
    if total > rules.batch_bytes_max as usize {
        return Err(AppendError::TooLarge { bytes: total, limit: rules.batch_bytes_max });
    }
    let mut batch = CheckedBatch::split(bytes, header)
        .ok_or_else(|| corrupt(format!("the batch says {total} bytes, {} came", bytes.len())))?;
    let crc = batch.computed_crc();
    if crc != header.crc {
        return Err(corrupt(format!("its CRC-32C is {crc:08x}, it says {:08x}", header.crc)));
    }
    check_fields(&header)?;
    let max_timestamp = if header.is_compressed() {
        check_compressed(&batch, rules, unfolded_left)?
    } else {
        check_records(&batch, rules)?
    };
    // Records are found by it. Some clients get it wrong, and Kafka corrects it likewise.
    if max_timestamp != header.max_timestamp {
        batch.set_max_timestamp(max_timestamp);
    }
    Ok(batch)
}

fn check_fields(header: &BatchHeader) -> Result<(), AppendError> {
    let attributes = header.attributes;
    if attributes & COMPRESSION_MASK > COMPRESSION_MAX {
        return Err(invalid(format!("compression {} is unknown", attributes & COMPRESSION_MASK)));
    }
    if attributes & LOG_APPEND_TIME_BIT != 0 {
        return Err(AppendError::TimestampType);
    }
    if attributes & CONTROL_BIT != 0 {
        return Err(invalid("a client may not write control records"));
    }
    if attributes & !(COMPRESSION_MASK | TRANSACTIONAL_BIT) != 0 {
        return Err(invalid(format!("attributes {attributes:#06x} are unknown")));
    }
    let count = header.records_count;
    if !(1..=RECORDS_PER_BATCH_MAX).contains(&count) {
        return Err(invalid(format!("a count of {count} records cannot be")));
    }
    if header.last_offset_delta != count - 1 {
        let delta = header.last_offset_delta;
        return Err(invalid(format!("last offset delta {delta} does not fit {count} records")));
    }
    let idempotent = header.producer_id >= 0;
    if header.producer_id < -1 || (idempotent && (header.producer_epoch < 0 || header.base_sequence < 0)) {
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        return Err(invalid(format!("producer {id} with epoch {epoch} and sequence {sequence} cannot be")));
    }
    if header.is_transactional() && !idempotent {
        return Err(invalid("a transactional batch must say whose it is"));
    }
    Ok(())
}

/// Walks the uncompressed records: they must fill the batch exactly, with offset deltas 0, 1, 2, … Returns the largest
/// timestamp.
fn check_records(batch: &CheckedBatch, rules: &DoorRules) -> Result<i64, AppendError> {
    let (mut walked, mut max_timestamp) = (0, i64::MIN);
    let mut keyless = Keyless::of(rules);
    for record in Records::of(&batch.records) {
        let record = record.ok_or_else(|| invalid(format!("record {walked} is malformed")))?;
        if record.offset_delta != walked {
            return Err(invalid(format!("record {walked} has offset delta {}", record.offset_delta)));
        }
        let timestamp = batch.header.base_timestamp.wrapping_add(record.timestamp_delta);
        rules.check_time(walked, timestamp)?;
        keyless.note(walked, record.key.is_some());
        max_timestamp = max_timestamp.max(timestamp);
        walked += 1;
    }
    check_count(&batch.header, walked)?;
    keyless.refuse()?;
    Ok(max_timestamp)
}

/// The same for compressed records, which are unfolded for it and thrown away.
fn check_compressed(batch: &CheckedBatch, rules: &DoorRules, unfolded_left: &mut u64) -> Result<i64, AppendError> {
    let malformed = |walked: i64, error: std::io::Error| invalid(format!("compressed record {walked}: {error}"));
    let codec = batch.header.codec();
    let (mut walked, mut max_timestamp) = (0, i64::MIN);
    let mut keyless = Keyless::of(rules);
    let mut records =
        CompressedRecords::of(codec, &batch.records, *unfolded_left).map_err(|error| malformed(0, error))?;
    for record in records.by_ref() {
        let record = record.map_err(|error| malformed(walked, error))?;
        if record.offset_delta != walked {
            return Err(invalid(format!("compressed record {walked} has offset delta {}", record.offset_delta)));
        }
        let timestamp = batch.header.base_timestamp.wrapping_add(record.timestamp_delta);
        rules.check_time(walked, timestamp)?;
        keyless.note(walked, record.has_key);
        max_timestamp = max_timestamp.max(timestamp);
        walked += 1;
        if walked > i64::from(batch.header.records_count) {
            break;
        }
    }
    *unfolded_left = records.left();
    check_count(&batch.header, walked)?;
    keyless.refuse()?;
    Ok(max_timestamp)
}

fn check_count(header: &BatchHeader, walked: i64) -> Result<(), AppendError> {
    let said = i64::from(header.records_count);
    if walked == said { Ok(()) } else { Err(invalid(format!("it says {said} records and holds {walked}"))) }
}
