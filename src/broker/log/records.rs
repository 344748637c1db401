//! What a journal group holds: batches and changes, one record after the other.
//!
//! A record is kind u8, partition number u64, length u32, data. Batch: wall clock of the append i64, then the raw batch.

use std::path::PathBuf;

use bytes::Bytes;
use uuid::Uuid;

use super::batch::{CRC_FROM, HEADER_BYTES, OFFSET_MAX};
use super::codec::{Decoder, Encoder, Format};
use super::partition::Partition;
use super::queue::PendingBatch;
use super::settings::Compaction;
use super::{PartitionConfig, PartitionId};

const BATCH: u8 = 1;
const STATE: u8 = 2;
const CREATE: u8 = 3;
const DELETE: u8 = 4;
const LOG_START: u8 = 5;
const HEAD_BYTES: usize = 13;
/// Smaller records are copied beside the heads: one part less for the kernel to walk.
const COPIED_BYTES_MAX: usize = 1024;
/// From here on, combining checksums is cheaper than reading the records again.
const COMBINED_BYTES_MIN: usize = 64 * 1024;

/// Names in the log's directory that no partition may have.
const RESERVED_NAMES: [&str; 6] = ["journal", "deleted", "checkpoint", "checkpoint.tmp", ".", ".."];
/// Partitions, journal files and groups are counted from 0: what lies on disk says nothing higher, so that counting on
/// from it never overflows.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// Whether a partition's directory may be called that. Also asked of what is read from disk: recovery removes what it
/// finds in the place of a partition, which must never lie outside of the log.
pub(super) fn is_plain_name(directory: &str) -> bool {
    !directory.is_empty() && !RESERVED_NAMES.contains(&directory) && !directory.contains(['/', '\0'])
}

/// Keys and their new values; none removes the key.
pub(super) type StateChanges = Vec<(Bytes, Option<Bytes>)>;

/// What is told about a partition once. The number tells lives of one directory apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionRecord {
    pub number: u64,
    pub id: PartitionId,
    pub directory: String,
    pub config: PartitionConfig,
}

impl PartitionRecord {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put(&self.number.to_le_bytes());
        out.put(&self.id.topic_id.as_u128().to_le_bytes());
        out.put(&self.id.partition.to_le_bytes());
        out.put_bytes(self.directory.as_bytes());
        let config = &self.config;
        out.put(&config.segment_bytes_max.to_le_bytes());
        out.put(&config.segment_age_ms_max.to_le_bytes());
        out.put_optional_u64(config.retention_bytes);
        out.put_optional_u64(config.retention_ms.map(|ms| ms as u64));
        out.put(&config.batch_bytes_max.to_le_bytes());
        out.put(&[u8::from(config.log_append_time), u8::from(config.compaction.is_some())]);
        out.put(&config.timestamp_before_ms_max.to_le_bytes());
        out.put(&config.timestamp_after_ms_max.to_le_bytes());
        let compaction = config.compaction.unwrap_or_default();
        out.put(&[u8::from(compaction.and_retention)]);
        out.put(&compaction.delete_retention_ms.to_le_bytes());
        out.put(&compaction.lag_ms_min.to_le_bytes());
        out.put(&compaction.lag_ms_max.to_le_bytes());
        out.put(&compaction.dirty_ppm_min.to_le_bytes());
    }

    /// Reads it as it was written; before there was compaction, it ended earlier.
    pub fn decode(decoder: &mut Decoder<'_>, format: Format) -> Option<PartitionRecord> {
        let number = decoder.u64()?;
        let id = PartitionId { topic_id: Uuid::from_u128(decoder.u128()?), partition: decoder.i32()? };
        let directory = String::from_utf8(decoder.bytes()?.to_vec()).ok()?;
        let mut config = PartitionConfig {
            segment_bytes_max: decoder.u64()?,
            segment_age_ms_max: decoder.i64()?,
            retention_bytes: decoder.optional_u64()?,
            retention_ms: decoder.optional_u64()?.map(|ms| ms as i64),
            batch_bytes_max: decoder.u32()?,
            log_append_time: decoder.u8()? != 0,
            compaction: (decoder.u8()? != 0).then(Compaction::default),
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: i64::MAX,
        };
        if format >= Format::Two {
            config.timestamp_before_ms_max = decoder.i64()?;
            config.timestamp_after_ms_max = decoder.i64()?;
            let compaction = Compaction {
                and_retention: decoder.u8()? != 0,
                delete_retention_ms: decoder.i64()?,
                lag_ms_min: decoder.i64()?,
                lag_ms_max: decoder.i64()?,
                dirty_ppm_min: decoder.u32()?,
            };
            config.compaction = config.compaction.map(|_| compaction);
        }
        (number <= NUMBER_MAX && is_plain_name(&directory)).then_some(PartitionRecord { number, id, directory, config })
    }
}

/// A change that waits for the writer.
pub(super) enum Change {
    /// If `synced`, durable before it is done, also with `Durability::Os`.
    State {
        changes: StateChanges,
        synced: bool,
    },
    Create(PartitionRecord),
    Delete(Partition),
    LogStart(Partition, i64),
    /// Closes the last segment; in memory only.
    Roll(Partition),
}

impl Change {
    /// Bytes that it takes in a group, about.
    pub fn bytes(&self) -> usize {
        let changed = |(key, value): &(Bytes, Option<Bytes>)| 9 + key.len() + value.as_ref().map_or(0, Bytes::len);
        match self {
            Change::State { changes, .. } => HEAD_BYTES + changes.iter().map(changed).sum::<usize>(),
            Change::Create(record) => HEAD_BYTES + 130 + record.directory.len(),
            Change::Delete(_) | Change::LogStart(..) | Change::Roll(_) => HEAD_BYTES + 8,
        }
    }

    /// It must be durable before it is done, also with `Durability::Os`: files are created or removed by it, or it was
    /// asked for.
    pub fn always_synced(&self) -> bool {
        match self {
            Change::State { synced, .. } => *synced,
            Change::Create(_) | Change::Delete(_) | Change::LogStart(..) => true,
            Change::Roll(_) => false,
        }
    }
}

/// Puts keys and values behind each other: count, then key and value (a flag byte, if set a value).
pub(super) fn encode_state<'a>(
    out: &mut Vec<u8>,
    changes: impl ExactSizeIterator<Item = (&'a Bytes, Option<&'a Bytes>)>,
) {
    out.put(&(changes.len() as u32).to_le_bytes());
    for (key, value) in changes {
        out.put_bytes(key);
        match value {
            None => out.put(&[0]),
            Some(value) => {
                out.put(&[1]);
                out.put_bytes(value);
            }
        }
    }
}

pub(super) fn decode_state(decoder: &mut Decoder<'_>) -> Option<StateChanges> {
    let count = decoder.count(5)?;
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        let key = Bytes::copy_from_slice(decoder.bytes()?);
        let value = match decoder.u8()? {
            0 => None,
            1 => Some(Bytes::copy_from_slice(decoder.bytes()?)),
            _ => return None,
        };
        changes.push((key, value));
    }
    Some(changes)
}

/// One group being put together: the large records stay where they are.
#[derive(Default)]
pub(super) struct GroupBuffer {
    copied: Vec<u8>,
    bodies: Vec<Body>,
}

/// Records that stay where they are.
struct Body {
    /// Where in `copied` they go.
    at: usize,
    records: Bytes,
    /// The checksum of their batch, which was checked when it came.
    batch_crc: u32,
}

impl GroupBuffer {
    pub fn is_empty(&self) -> bool {
        self.copied.is_empty()
    }

    fn head(&mut self, kind: u8, number: u64, length: usize) {
        self.copied.put(&[kind]);
        self.copied.put(&number.to_le_bytes());
        self.copied.put(&(length as u32).to_le_bytes());
    }

    pub fn batch(&mut self, pending: &PendingBatch) {
        let batch = &pending.batch;
        self.head(BATCH, pending.partition.number(), 8 + batch.total_bytes());
        self.copied.put(&pending.now_ms.to_le_bytes());
        self.copied.put(&batch.head);
        if batch.records.len() <= COPIED_BYTES_MAX {
            self.copied.put(&batch.records);
        } else {
            let (records, batch_crc) = (batch.records.clone(), batch.header.crc);
            self.bodies.push(Body { at: self.copied.len(), records, batch_crc });
        }
    }

    pub fn change(&mut self, change: &Change) {
        let mut data = Vec::new();
        let (kind, number) = match change {
            Change::State { changes, .. } => {
                encode_state(&mut data, changes.iter().map(|(key, value)| (key, value.as_ref())));
                (STATE, 0)
            }
            Change::Create(record) => {
                record.encode(&mut data);
                (CREATE, record.number)
            }
            Change::Delete(partition) => (DELETE, partition.number()),
            Change::LogStart(partition, offset) => {
                data.put(&offset.to_le_bytes());
                (LOG_START, partition.number())
            }
            Change::Roll(_) => return,
        };
        self.head(kind, number, data.len());
        self.copied.put(&data);
    }

    /// The payload in order, without copying.
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(2 * self.bodies.len() + 1);
        let mut from = 0;
        for body in &self.bodies {
            parts.push(&self.copied[from..body.at]);
            parts.push(&body.records);
            from = body.at;
        }
        parts.push(&self.copied[from..]);
        parts
    }

    /// The payload's CRC-32C. Records whose batch has one are not read again for it.
    pub fn crc(&self) -> u32 {
        let mut crc = 0;
        let mut from = 0;
        for body in &self.bodies {
            if body.records.len() < COMBINED_BYTES_MIN {
                crc = crc32c::crc32c_append(crc, &self.copied[from..body.at]);
                crc = crc32c::crc32c_append(crc, &body.records);
            } else {
                // A batch's own checksum begins within its header, which was copied last.
                let begins = body.at - (HEADER_BYTES - CRC_FROM);
                crc = crc32c::crc32c_append(crc, &self.copied[from..begins]);
                let counted = body.at - begins + body.records.len();
                crc = crc32c::crc32c_combine(crc, body.batch_crc, counted);
            }
            from = body.at;
        }
        crc32c::crc32c_append(crc, &self.copied[from..])
    }
}

/// A record read back.
pub(super) enum Record {
    Batch { number: u64, now_ms: i64, bytes: Bytes },
    State(StateChanges),
    Create(PartitionRecord),
    Delete(u64),
    LogStart { number: u64, offset: i64 },
}

/// Reads the records of one group; none when the bytes make no sense.
pub(super) fn decode_group(payload: &Bytes) -> Option<Vec<Record>> {
    let mut decoder = Decoder(payload);
    let mut records = Vec::new();
    while !decoder.is_empty() {
        let kind = decoder.u8()?;
        let number = decoder.u64()?;
        let mut data = Decoder(decoder.bytes()?);
        records.push(match kind {
            BATCH => Record::Batch { number, now_ms: data.i64()?, bytes: payload.slice_ref(data.0) },
            STATE => Record::State(decode_state(&mut data)?),
            CREATE => Record::Create(decode_create(data)?),
            DELETE => Record::Delete(number),
            LOG_START => {
                let offset = data.i64().filter(|offset| (0..=OFFSET_MAX).contains(offset))?;
                Record::LogStart { number, offset }
            }
            _ => return None,
        });
    }
    Some(records)
}

/// One that was journaled before there was compaction is shorter.
fn decode_create(data: Decoder<'_>) -> Option<PartitionRecord> {
    [Format::Two, Format::One].into_iter().find_map(|format| {
        let mut data = data;
        PartitionRecord::decode(&mut data, format).filter(|_| data.is_empty())
    })
}

/// The file in a partition's directory that says whose it is.
pub(super) fn identity_path(directory: &std::path::Path) -> PathBuf {
    directory.join("partition")
}
