//! Any bytes as the batches of one append, compressed or not, up to the answer of the log.

use std::io::Write;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use super::meter;
use super::recovery::{directory, served};
use crate::broker::log::{Durability, Log, LogSettings, Partition, PartitionConfig, PartitionId};

/// Checking may take this many times the bytes that came.
const BYTES_PER_BYTE_MAX: usize = 64;
/// A decoder's own buffers: two lz4 blocks of 4 MiB and one that comes. zstd's window is not counted by Rust's allocator.
const BYTES_MAX: usize = 13 << 20;
const HEADER_BYTES: usize = 61;
/// Appends between two looks at what may be removed.
const RETENTION_EVERY: usize = 256;

/// The first byte of the input: lengths and CRCs are put right.
const REPAIR: u8 = 1;
/// The first byte of the input: what follows are the records of one batch, whose count is the second byte.
const RECORDS_ONLY: u8 = 2;

struct Target {
    _directory: TempDir,
    log: Log,
    partition: Partition,
    runtime: Runtime,
    appends: usize,
}

thread_local! {
    static TARGET: std::cell::RefCell<Option<Target>> = const { std::cell::RefCell::new(None) };
}

/// Appends `data`; what was accepted must come back in whole batches, in order.
///
/// # Panics
/// When a promise is broken.
pub fn run(data: &[u8]) {
    let Some((&flags, rest)) = data.split_first() else { return };
    let bytes = match (flags & RECORDS_ONLY != 0, rest.split_first()) {
        (true, Some((&count, records))) => sealed(i16::from(flags >> 2 & 7), i32::from(count), None, records),
        _ if flags & REPAIR != 0 => repaired(rest.to_vec()),
        _ => rest.to_vec(),
    };
    TARGET.with_borrow_mut(|target| target.get_or_insert_with(Target::new).append(bytes.into()));
}

impl Target {
    #[allow(clippy::expect_used)]
    fn new() -> Target {
        let directory = directory();
        let settings = LogSettings { durability: Durability::Os, journal_bytes_max: 1 << 16 };
        let (log, _) = Log::open(directory.path(), settings).expect("an empty log opens");
        let config = PartitionConfig {
            segment_bytes_max: 1 << 20,
            segment_age_ms_max: i64::MAX,
            retention_bytes: Some(1 << 20),
            retention_ms: None,
            batch_bytes_max: 1 << 20,
            log_append_time: false,
            compaction: None,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: i64::MAX,
        };
        let id = PartitionId { topic_id: Uuid::from_u128(7), partition: 0 };
        let partition = log.create_partition(id, "fuzz-0", config).expect("a partition is created");
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        Target { _directory: directory, log, partition, runtime, appends: 0 }
    }

    fn append(&mut self, bytes: Bytes) {
        let bytes_max = bytes.len() * BYTES_PER_BYTE_MAX + BYTES_MAX;
        let before = self.partition.high_watermark();
        let answer = meter::within(bytes_max, "an append", || self.partition.append(bytes.clone(), 0, 7));
        self.appends += 1;
        if self.appends.is_multiple_of(RETENTION_EVERY) {
            self.log.enforce_retention(7);
        }
        let Ok(appended) = answer else { return };
        assert_eq!(self.runtime.block_on(self.partition.durable(&appended)), Ok(()), "nothing is in its way");
        if !appended.duplicate {
            assert_eq!(appended.base_offset, before, "offsets are given one after the other");
            assert_eq!(served(&self.partition, appended.base_offset), Ok(bytes.len()), "what was accepted is served");
        }
    }
}

/// A batch around `records`.
pub(super) fn sealed(codec: i16, count: i32, producer: Option<(i64, i16, i32)>, records: &[u8]) -> Vec<u8> {
    let (producer_id, epoch, sequence) = producer.unwrap_or((-1, -1, -1));
    let mut batch = vec![0; 16];
    batch.extend([2, 0, 0, 0, 0]);
    batch.extend(codec.to_be_bytes());
    batch.extend(count.wrapping_sub(1).to_be_bytes());
    batch.extend(1_700_000_000_000i64.to_be_bytes());
    batch.extend(1_700_000_000_002i64.to_be_bytes());
    batch.extend(producer_id.to_be_bytes());
    batch.extend(epoch.to_be_bytes());
    batch.extend(sequence.to_be_bytes());
    batch.extend(count.to_be_bytes());
    batch.extend(records);
    let length = batch.len() as i32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    repaired(batch)
}

/// Puts the CRC right of each batch that is whole.
pub(super) fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut rest = bytes.as_mut_slice();
    while let Some(&[a, b, c, d]) = rest.get(8..12).and_then(|length| length.first_chunk::<4>()) {
        let total = usize::try_from(i32::from_be_bytes([a, b, c, d])).unwrap_or(0) + 12;
        if total < HEADER_BYTES || total > rest.len() {
            break;
        }
        let (batch, next) = rest.split_at_mut(total);
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        rest = next;
    }
    bytes
}

/// Records without keys and headers, with small deltas.
pub(super) fn records(count: u8, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for delta in 0..count.min(60) {
        let mut record = vec![0, delta * 2, delta * 2, 1, (value.len().min(40) * 2) as u8];
        record.extend(&value[..value.len().min(40)]);
        record.push(0);
        out.push((record.len() * 2) as u8);
        out.extend(record);
    }
    out
}

fn compressed(codec: i16, bytes: &[u8]) -> Option<Vec<u8>> {
    match codec {
        0 => Some(bytes.to_vec()),
        1 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).ok()?;
            encoder.finish().ok()
        }
        2 => snap::raw::Encoder::new().compress_vec(bytes).ok(),
        3 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).ok()?;
            encoder.finish().ok()
        }
        _ => zstd::encode_all(bytes, 3).ok(),
    }
}

/// Batches of every codec, whole ones and their records alone.
///
/// # Panics
/// Never.
pub fn seeds() -> Vec<Vec<u8>> {
    let plain = records(3, b"a value of some bytes, bytes, bytes");
    let mut seeds = Vec::new();
    for codec in 0..5i16 {
        let Some(folded) = compressed(codec, &plain) else { continue };
        seeds.push([vec![REPAIR], sealed(codec, 3, None, &folded)].concat());
        seeds.push([vec![RECORDS_ONLY | (codec as u8) << 2, 3], folded].concat());
    }
    let several: Vec<u8> = (0..3).flat_map(|index| sealed(0, 3, Some((5, 0, 3 * index)), &plain)).collect();
    seeds.push([vec![REPAIR], several].concat());
    seeds
}
