//! Valid batches, and logs to put them into.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use finstream::broker::log::{Appended, Durability, Log, LogSettings, Partition, PartitionConfig, PartitionId};
use kafka_protocol::records::{
    Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use uuid::Uuid;

pub const NOW_MS: i64 = 1_700_000_000_000;

/// What a batch is made of.
#[derive(Clone, Copy)]
pub struct BatchOf {
    pub records: usize,
    pub value_bytes: usize,
    pub timestamp: i64,
    pub producer: Option<(i64, i16, i32)>,
    pub transactional: bool,
}

impl BatchOf {
    pub fn records(records: usize) -> Self {
        BatchOf { records, value_bytes: 20, timestamp: NOW_MS, producer: None, transactional: false }
    }

    pub fn of(self, id: i64, epoch: i16, sequence: i32) -> Self {
        BatchOf { producer: Some((id, epoch, sequence)), ..self }
    }

    pub fn transactional(self) -> Self {
        BatchOf { transactional: true, ..self }
    }

    pub fn bytes(self) -> Bytes {
        let (producer_id, producer_epoch, sequence) =
            self.producer.unwrap_or((NO_PRODUCER_ID, NO_PRODUCER_EPOCH, NO_SEQUENCE));
        let records: Vec<Record> = (0..self.records)
            .map(|index| Record {
                transactional: self.transactional,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 0,
                producer_id,
                producer_epoch,
                timestamp_type: TimestampType::Creation,
                offset: index as i64,
                // The encoder begins a new batch where sequences do not follow.
                sequence: sequence.wrapping_add(index as i32),
                timestamp: self.timestamp + index as i64,
                key: Some(Bytes::from(format!("key-{index}"))),
                value: Some(Bytes::from(vec![index as u8; self.value_bytes])),
                headers: Default::default(),
            })
            .collect();
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
        out.freeze()
    }
}

pub fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes_max: 1 << 20,
        segment_age_ms_max: 3_600_000,
        retention_bytes: None,
        retention_ms: None,
        batch_bytes_max: 1 << 20,
        log_append_time: false,
        timestamp_before_ms_max: i64::MAX,
        timestamp_after_ms_max: i64::MAX,
        compaction: None,
    }
}

pub fn settings(durability: Durability) -> LogSettings {
    LogSettings { durability, journal_bytes_max: 1 << 20 }
}

pub fn open(dir: &Path) -> Log {
    Log::open(dir, settings(Durability::Fsync)).unwrap().0
}

pub fn id(number: i32) -> PartitionId {
    PartitionId { topic_id: Uuid::from_u128(7), partition: number }
}

pub fn create(log: &Log, number: i32) -> Partition {
    log.create_partition(id(number), &format!("topic-{number}"), config()).unwrap()
}

/// Appends and waits until it is durable.
pub async fn put(partition: &Partition, batch: Bytes) -> Appended {
    let appended = partition.append(batch, 5, NOW_MS).unwrap();
    partition.durable(&appended).await.unwrap();
    appended
}

/// Everything from `offset` on, as (base offset, raw batch with its base offset and leader epoch taken out).
pub fn batches_from(partition: &Partition, mut offset: i64) -> Vec<(i64, Bytes)> {
    let mut found = Vec::new();
    while offset < partition.high_watermark() {
        let mut bytes = partition.read(offset, 1 << 16, true).unwrap().batches;
        if bytes.is_empty() {
            break;
        }
        while !bytes.is_empty() {
            let length = i32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize + 12;
            let batch = bytes.split_to(length);
            let base_offset = i64::from_be_bytes(batch[0..8].try_into().unwrap());
            let delta = i32::from_be_bytes(batch[23..27].try_into().unwrap());
            offset = base_offset + i64::from(delta) + 1;
            found.push((base_offset, as_sent(&batch)));
        }
    }
    found
}

/// Without the two fields that the log patches.
pub fn as_sent(batch: &Bytes) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[0..8].fill(0);
    bytes[12..16].fill(0);
    bytes.freeze()
}

pub fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The files in a directory whose names end so, sorted.
pub fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    found
}

/// The journal groups of a file: (position, sequence, bytes with header).
pub fn groups(journal: &Path) -> Vec<(usize, u64, usize)> {
    let bytes = std::fs::read(journal).unwrap();
    let starts = (512..bytes.len()).step_by(512).filter(|&at| bytes[at..].starts_with(b"FSGR"));
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    starts.map(|at| (at, number(at + 8), 44 + number(at + 32) as usize)).collect()
}

/// A small file system of its own; none where this user may not mount one.
pub struct SmallDisk(pub tempfile::TempDir);

impl SmallDisk {
    pub fn mount(mebibytes: usize) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk(dir))
    }

    pub fn resize(&self, mebibytes: usize) {
        let size = format!("remount,size={mebibytes}m");
        let status = std::process::Command::new("mount").args(["-o", &size]).arg(self.0.path()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// One record, as a producer means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub timestamp: i64,
    /// Headers as they lie in the record, with their count.
    pub headers: Bytes,
}

impl Written {
    pub fn of(key: &str, value: Option<&str>) -> Written {
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        Written { key, value, timestamp: NOW_MS, headers: Bytes::from_static(&[0]) }
    }
}

pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)) as u64;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(bytes: &mut Bytes) -> i64 {
    let mut value = 0u64;
    for shift in (0..).step_by(7) {
        let byte = bytes.split_to(1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A batch in the codec of that number, put together by hand.
pub fn batch_of(records: &[Written], codec: u8, producer: Option<(i64, i16, i32)>) -> Bytes {
    let base = records[0].timestamp;
    let mut plain = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let mut body = vec![0];
        put_varint(&mut body, record.timestamp - base);
        put_varint(&mut body, index as i64);
        for field in [&record.key, &record.value] {
            put_varint(&mut body, field.as_ref().map_or(-1, |field| field.len() as i64));
            body.extend_from_slice(field.as_ref().map_or(&[], |field| &field[..]));
        }
        body.extend_from_slice(&record.headers);
        put_varint(&mut plain, body.len() as i64);
        plain.extend(body);
    }
    let stored = compressed(codec, &plain);
    let (id, epoch, sequence) = producer.unwrap_or((-1, -1, -1));
    let count = records.len() as i32;
    let max = records.iter().map(|record| record.timestamp).max().unwrap();
    let mut out = vec![0; 8];
    out.extend((stored.len() as i32 + 49).to_be_bytes());
    out.extend([255, 255, 255, 255, 2, 0, 0, 0, 0, 0, codec]);
    out.extend((count - 1).to_be_bytes());
    out.extend(base.to_be_bytes());
    out.extend(max.to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend(epoch.to_be_bytes());
    out.extend(sequence.to_be_bytes());
    out.extend(count.to_be_bytes());
    out.extend(stored);
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.into()
}

fn compressed(codec: u8, plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    match codec {
        0 => plain.to_vec(),
        1 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        2 => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
        3 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(plain, 1).unwrap(),
    }
}

fn plain(codec: u8, stored: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut out = Vec::new();
    match codec {
        0 => return stored.to_vec(),
        1 => flate2::read::GzDecoder::new(stored).read_to_end(&mut out).unwrap(),
        2 => return snap::raw::Decoder::new().decompress_vec(stored).unwrap(),
        3 => lz4_flex::frame::FrameDecoder::new(stored).read_to_end(&mut out).unwrap(),
        _ => return zstd::decode_all(stored).unwrap(),
    };
    out
}

/// Every record from `offset` on with its offset; the batches must be whole, valid and in order.
pub fn records_from(partition: &Partition, offset: i64) -> Vec<(i64, Written)> {
    let mut found: Vec<(i64, Written)> = Vec::new();
    for (base_offset, batch) in batches_from(partition, offset) {
        let mut placed = BytesMut::from(&batch[..]);
        placed[0..8].copy_from_slice(&base_offset.to_be_bytes());
        for (offset, record) in records_of(&placed.freeze()) {
            assert!(found.last().is_none_or(|(last, _)| *last < offset), "offset {offset} is out of order");
            found.push((offset, record));
        }
    }
    found
}

/// The records of one batch.
pub fn records_of(batch: &Bytes) -> Vec<(i64, Written)> {
    assert_eq!(&batch[17..21], &crc32c::crc32c(&batch[21..]).to_be_bytes());
    let number = |at: usize| i64::from_be_bytes(batch[at..at + 8].try_into().unwrap());
    let (base_offset, base_timestamp) = (number(0), number(27));
    let count = i32::from_be_bytes(batch[57..61].try_into().unwrap());
    let mut rest = Bytes::from(plain(batch[22] & 7, &batch[61..]));
    let mut found = Vec::new();
    for _ in 0..count {
        let length = varint(&mut rest) as usize;
        let mut record = rest.split_to(length);
        assert_eq!(record.split_to(1)[0], 0);
        let timestamp = base_timestamp + varint(&mut record);
        let offset = base_offset + varint(&mut record);
        let mut field = || match varint(&mut record) {
            -1 => None,
            length => Some(record.split_to(length as usize)),
        };
        let (key, value) = (field(), field());
        found.push((offset, Written { key, value, timestamp, headers: record }));
    }
    assert!(rest.is_empty(), "{base_offset} says {count} records and holds more");
    assert_eq!(Some(number(35)), found.iter().map(|(_, record)| record.timestamp).max());
    found
}
