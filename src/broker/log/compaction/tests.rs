//! The cleaner step by step, without threads.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};

use bytes::Bytes;
use uuid::Uuid;

use super::super::batch::{BatchHeader, CheckedBatch, HEADER_BYTES};
use super::super::disk::OsDisk;
use super::super::housekeeper::{self, Job};
use super::super::journal::Journal;
use super::super::queue::Completion;
use super::super::record::{RecordView, Records};
use super::super::records::{Change, PartitionRecord};
use super::super::{Durability, LogSettings, PartitionConfig, PartitionId, recovery, writer};
use super::*;

const NOW_MS: i64 = 1_700_000_000_000;

/// A log whose threads are stepped by hand.
struct Stepped {
    core: Arc<Core>,
    jobs: Receiver<Job>,
}

impl Stepped {
    fn open(dir: &Path) -> Stepped {
        let (sender, jobs) = mpsc::channel();
        let settings = LogSettings { durability: Durability::Fsync, journal_bytes_max: 1 << 20 };
        let (core, _) = recovery::recover(Arc::new(OsDisk), dir, settings, sender).unwrap();
        Stepped { core, jobs }
    }

    fn create(&self, segment_bytes_max: u64) -> Partition {
        let config = PartitionConfig {
            segment_bytes_max,
            segment_age_ms_max: i64::MAX,
            retention_bytes: None,
            retention_ms: None,
            batch_bytes_max: 1 << 20,
            log_append_time: false,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: i64::MAX,
            compaction: Some(Compaction { dirty_ppm_min: 0, ..Compaction::default() }),
        };
        let id = PartitionId { topic_id: Uuid::from_u128(7), partition: 0 };
        let record = PartitionRecord { number: 1, id, directory: "t-0".to_owned(), config };
        self.core.queue.push_change(Change::Create(record), Completion::Nobody);
        self.write();
        self.core.all_partitions().remove(0)
    }

    fn write(&self) {
        let mut journal = Journal::new(&self.core.journal_files, self.core.sequence());
        assert!(writer::serve(&self.core, &mut journal, self.core.queue.take()));
    }

    fn append(&self, partition: &Partition, key: &str) {
        partition.append(batch(key), 0, NOW_MS).unwrap();
        self.write();
    }

    fn keep_house(&self) {
        assert!(housekeeper::serve(&self.core, self.jobs.try_iter()));
    }
}

/// One record without headers, with a value that is the key.
fn batch(key: &str) -> Bytes {
    let mut body = vec![key.len() as u8 * 2];
    body.extend_from_slice(key.as_bytes());
    body.extend_from_slice(&body.clone());
    body.push(0);
    let record =
        RecordView { attributes: 0, timestamp_delta: 0, offset_delta: 0, key: None, has_value: true, body: &body };
    let mut records = Vec::new();
    record.write(0, &mut records);
    let mut head = [0; HEADER_BYTES];
    head[16] = 2;
    head[43..57].fill(255);
    let header = BatchHeader::read(&head).unwrap();
    let empty = CheckedBatch { header, head, records: Bytes::new() };
    let batch = empty.with_records(records.into(), 1, 0, None);
    [&batch.head[..], &batch.records].concat().into()
}

fn keys(partition: &Partition) -> Vec<(i64, String)> {
    let segments: Vec<_> = lock(&partition.0.store).segments.iter().cloned().collect();
    let mut found = Vec::new();
    for segment in segments {
        let mut bytes = vec![0; segment.length() as usize];
        segment.file.read_exact_at(&mut bytes, 0).unwrap();
        let mut rest = Bytes::from(bytes);
        while let Some(header) = BatchHeader::read(&rest) {
            let batch = CheckedBatch::split(&rest.split_to(header.total_bytes().unwrap()), header).unwrap();
            for record in Records::of(&batch.records) {
                let record = record.unwrap();
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                found.push((header.base_offset + record.offset_delta, key));
            }
        }
    }
    found
}

#[test]
fn more_keys_than_fit_into_memory_take_more_passes_and_end_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let stepped = Stepped::open(dir.path());
    let partition = stepped.create(300);
    for index in 0..120 {
        stepped.append(&partition, &format!("k{}", index % 9));
    }
    lock(&stepped.core.cleaner).keys_max = 5;
    let mut passes = 0;
    while clean_one(&stepped.core, NOW_MS) {
        passes += 1;
        stepped.keep_house();
    }
    assert!(passes > 10, "{passes} passes");
    let open = lock(&partition.0.store).segments.back().unwrap().base_offset;
    let (cleaned, tail): (Vec<_>, Vec<_>) = keys(&partition).into_iter().partition(|(offset, _)| *offset < open);
    let expected: Vec<_> = (open - 9..open).map(|offset| (offset, format!("k{}", offset % 9))).collect();
    assert_eq!(cleaned, expected);
    assert_eq!(tail.len() as i64, 120 - open);
}

#[test]
fn old_files_stay_until_a_checkpoint_tells_of_the_new_ones_and_one_batch_of_too_many_keys_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let stepped = Stepped::open(dir.path());
    let partition = stepped.create(300);
    for _ in 0..30 {
        stepped.append(&partition, "k");
    }
    stepped.keep_house();
    let names = || {
        let listed = stepped.core.disk.list(&partition.0.path).unwrap();
        listed.into_iter().map(|name| name.name).filter(|name| name.ends_with(".log")).collect::<Vec<_>>()
    };
    let before = names();
    lock(&stepped.core.cleaner).keys_max = 0;
    assert!(clean_one(&stepped.core, NOW_MS) && !clean_one(&stepped.core, NOW_MS), "it fails once, and waits");
    lock(&stepped.core.cleaner).keys_max = 10;
    assert!(!clean_one(&stepped.core, NOW_MS + FAILED_PAUSE_MS - 1));
    assert!(clean_one(&stepped.core, NOW_MS + FAILED_PAUSE_MS));
    let kept = keys(&partition);
    assert!(before.iter().all(|name| names().contains(name)), "{before:?}");
    // A start that knows only the old checkpoint finds all it needs; this one cleans again from there.
    let other = tempfile::tempdir().unwrap();
    copy(dir.path(), other.path());
    let again = Stepped::open(other.path());
    assert_eq!(keys(&again.core.all_partitions()[0]).len(), 30);
    stepped.keep_house();
    assert!(names().len() < before.len() && !names().contains(&before[0]), "{:?}", names());
    assert!(lock(&partition.0.store).replaced.is_empty());
    drop(partition);
    copy(dir.path(), other.path().join("later").as_path());
    let later = Stepped::open(&other.path().join("later"));
    assert_eq!(keys(&later.core.all_partitions()[0]), kept);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_batch_that_came_after_the_deletion_of_its_partition_does_not_keep_the_log_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    let stepped = Stepped::open(dir.path());
    let partition = stepped.create(1 << 20);
    stepped.append(&partition, "a");
    let core = &stepped.core;
    let mut journal = Journal::new(&core.journal_files, core.sequence());
    core.queue.push_change(Change::Delete(partition.clone()), Completion::Nobody);
    // The writer takes the deletion, while a producer goes on: nobody has marked the partition yet.
    let deletion = core.queue.take();
    partition.append(batch("b"), 0, NOW_MS).unwrap();
    assert!(writer::serve(core, &mut journal, deletion));
    // From this one on nothing tells of the partition any more.
    super::super::checkpoint::take(core, false).unwrap();
    assert!(writer::serve(core, &mut journal, core.queue.take()));
    drop(journal);
    drop(stepped);
    assert!(Stepped::open(dir.path()).core.all_partitions().is_empty());
}
