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
        compacted: false,
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
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
