//! Compaction: what goes, what stays, and what a crash in the middle of it leaves.

use bytes::Bytes;
use finstream::broker::log::{AppendError, Compaction, Durability, Log, Partition, PartitionConfig};

use crate::support::*;

pub const DELETE_RETENTION_MS: i64 = 1_000_000;

/// Small segments, cleaned however little there is to clean.
pub fn compacted() -> PartitionConfig {
    let compaction = Compaction { dirty_ppm_min: 0, delete_retention_ms: DELETE_RETENTION_MS, ..Compaction::default() };
    PartitionConfig { segment_bytes_max: 1_000, compaction: Some(compaction), ..config() }
}

fn create_compacted(log: &Log) -> Partition {
    log.create_partition(id(0), "topic-0", compacted()).unwrap()
}

async fn put_one(partition: &Partition, key: &str, value: Option<&str>) -> i64 {
    let mut one = Written::of(key, value);
    one.value = value.map(|value| Bytes::from(value.repeat(20)));
    put(partition, batch_of(&[one], 0, None)).await.base_offset
}

/// What can be read: offset, key, and whether there is a value.
fn readable(partition: &Partition) -> Vec<(i64, String, bool)> {
    let all = records_from(partition, partition.log_start_offset());
    all.into_iter()
        .map(|(offset, record)| {
            let key = String::from_utf8(record.key.unwrap_or_default().to_vec()).unwrap();
            (offset, key, record.value.is_some())
        })
        .collect()
}

/// Closes the last segment, however young it is.
pub async fn roll(log: &Log, partition: &Partition, now_ms: i64) {
    let config = partition.config();
    partition.set_config(PartitionConfig { segment_age_ms_max: -1, ..config.clone() });
    log.enforce_retention(now_ms);
    log.put_state(vec![(Bytes::from("settled"), None)]).await.unwrap();
    partition.set_config(config);
}

pub fn compact(log: &Log, now_ms: i64) {
    while log.compact_one(now_ms) {}
}

#[tokio::test]
async fn of_each_key_the_last_record_stays_with_its_offset_and_the_end_can_be_reached() {
    for durability in [Durability::Fsync, Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), settings(durability)).unwrap().0;
        let partition = create_compacted(&log);
        for index in 0..200 {
            put_one(&partition, &format!("k{}", index % 3), Some("v")).await;
        }
        put_one(&partition, "rare", Some("v")).await;
        put_one(&partition, "k0", Some("v")).await;
        roll(&log, &partition, NOW_MS).await;
        compact(&log, NOW_MS);
        let expected = ["k2 197", "k1 199", "rare 200", "k0 201"];
        let found: Vec<_> = readable(&partition).iter().map(|(offset, key, _)| format!("{key} {offset}")).collect();
        assert_eq!(found, expected);
        // Wherever a reader begins, it reaches the next record that is there.
        for offset in 0..partition.high_watermark() {
            let first = batches_from(&partition, offset)[0].0;
            assert!(first >= offset.min(201), "{offset} gave {first}");
        }
        assert_eq!(partition.high_watermark(), 202);
        assert_eq!(partition.log_start_offset(), 0);
        log.close().await.unwrap();
        drop((log, partition));
        let log = Log::open(dir.path(), settings(durability)).unwrap().0;
        let partition = log.partition(id(0)).unwrap();
        let again: Vec<_> = readable(&partition).iter().map(|(offset, key, _)| format!("{key} {offset}")).collect();
        assert_eq!(again, expected);
        assert_eq!(put_one(&partition, "k1", Some("v")).await, 202);
    }
}

#[tokio::test]
async fn a_tombstone_stays_for_its_time_and_takes_its_key_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create_compacted(&log);
    for _ in 0..20 {
        put_one(&partition, "gone", Some("v")).await;
    }
    let tombstone = put_one(&partition, "gone", None).await;
    put_one(&partition, "other", Some("v")).await;
    roll(&log, &partition, NOW_MS).await;
    compact(&log, NOW_MS);
    let expected = [(tombstone, "gone".to_owned(), false), (tombstone + 1, "other".to_owned(), true)];
    assert_eq!(readable(&partition), expected);
    let batch = partition.read(tombstone, 1, true).unwrap().batches;
    assert_eq!(batch[22] & 0x40, 0x40, "the delete horizon is marked");
    let horizon_ms = NOW_MS + DELETE_RETENTION_MS;
    assert_eq!(&batch[27..35], &horizon_ms.to_be_bytes());
    for (now_ms, is_there) in [(horizon_ms - 1, true), (horizon_ms, false)] {
        // Something dirty, or there is no reason to look.
        put_one(&partition, "other", Some("v")).await;
        put_one(&partition, "other", Some("v")).await;
        roll(&log, &partition, now_ms).await;
        compact(&log, now_ms);
        assert_eq!(readable(&partition)[0].1 == "gone", is_there, "at {now_ms}");
    }
}

#[tokio::test]
async fn a_value_in_the_same_last_batch_as_its_tombstone_does_not_outlive_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create_compacted(&log);
    let records = [Written::of("gone", Some("v")), Written::of("gone", None), Written::of("last", None)];
    put(&partition, batch_of(&records, 4, None)).await;
    let mut seen = Vec::new();
    for life in 0..4 {
        let now_ms = NOW_MS + life * DELETE_RETENTION_MS;
        roll(&log, &partition, now_ms).await;
        compact(&log, now_ms);
        seen.push(readable(&partition).into_iter().map(|(offset, ..)| offset).collect::<Vec<_>>());
        put_one(&partition, "other", Some("v")).await;
    }
    // The last record of the log stays, also when it is a tombstone whose time is over.
    assert_eq!(seen, [vec![1, 2], vec![3], vec![4], vec![5]]);
}

#[tokio::test]
async fn what_a_compacted_topic_does_not_take_is_refused_in_every_codec() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create_compacted(&log);
    let keyless = Written { key: None, ..Written::of("", Some("v")) };
    for codec in 0..=4 {
        let batch = batch_of(&[Written::of("k", Some("v")), keyless.clone()], codec, None);
        let error = partition.append(batch.clone(), 0, NOW_MS).unwrap_err();
        assert_eq!(error, AppendError::KeylessRecords(vec![1]));
        assert!(error.to_string().contains("record 1 has no key"), "{error}");
        partition.set_config(config());
        partition.append(batch, 0, NOW_MS).unwrap();
        partition.set_config(PartitionConfig { timestamp_after_ms_max: 10, ..config() });
        let late = Written { timestamp: NOW_MS + 11, ..Written::of("k", None) };
        let error = partition.append(batch_of(&[late], codec, None), 0, NOW_MS).unwrap_err();
        assert!(matches!(error, AppendError::InvalidTimestamp { index: 0, .. }), "{error}");
        partition.set_config(compacted());
    }
}

#[tokio::test]
async fn young_records_and_too_little_dirt_are_left_alone_until_the_largest_lag() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let lags = Compaction { lag_ms_min: 1_000, ..compacted().compaction.unwrap() };
    let with = |compaction| PartitionConfig { compaction: Some(compaction), ..compacted() };
    let partition = log.create_partition(id(0), "topic-0", with(lags)).unwrap();
    for _ in 0..50 {
        put_one(&partition, "k", Some("v")).await;
    }
    roll(&log, &partition, NOW_MS).await;
    assert!(!log.compact_one(NOW_MS + 999));
    partition.set_config(with(Compaction { dirty_ppm_min: 1_000_000, ..lags }));
    assert!(!log.compact_one(NOW_MS + 5_000));
    partition.set_config(with(Compaction { dirty_ppm_min: 1_000_000, lag_ms_max: 6_000, ..lags }));
    assert!(!log.compact_one(NOW_MS + 6_000));
    assert!(log.compact_one(NOW_MS + 6_001));
    assert_eq!(readable(&partition).len(), 1);
}

#[tokio::test]
async fn both_policies_hold_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let both = Compaction { and_retention: true, ..compacted().compaction.unwrap() };
    let config = PartitionConfig { compaction: Some(both), retention_ms: Some(5_000), ..compacted() };
    let partition = log.create_partition(id(0), "topic-0", config).unwrap();
    for index in 0..50 {
        put_one(&partition, &format!("k{}", index % 2), Some("v")).await;
    }
    roll(&log, &partition, NOW_MS).await;
    compact(&log, NOW_MS);
    assert_eq!(readable(&partition).len(), 2);
    roll(&log, &partition, NOW_MS + 5_001).await;
    log.put_state(vec![(Bytes::from("settled"), None)]).await.unwrap();
    assert_eq!((partition.log_start_offset(), readable(&partition).len()), (50, 0));
    assert_eq!(put_one(&partition, "k0", Some("v")).await, 50);
}

#[tokio::test]
async fn a_crash_anywhere_between_two_checkpoints_gives_the_one_or_the_other_and_no_file_is_left_over() {
    for durability in [Durability::Fsync, Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        {
            let log = Log::open(dir.path(), settings(durability)).unwrap().0;
            let partition = create_compacted(&log);
            for index in 0..60 {
                put_one(&partition, &format!("k{}", index % 2), Some("v")).await;
            }
            log.close().await.unwrap();
        }
        let images = tempfile::tempdir().unwrap();
        let before = images.path().join("before");
        copy_directory(dir.path(), &before);
        let after = images.path().join("after");
        {
            let log = Log::open(dir.path(), settings(durability)).unwrap().0;
            let partition = log.partition(id(0)).unwrap();
            roll(&log, &partition, NOW_MS).await;
            compact(&log, NOW_MS);
            log.close().await.unwrap();
            copy_directory(dir.path(), &after);
        }
        // All files that were ever there, with one checkpoint or the other; and without the unsynced new ones.
        for (checkpoint, with_new, expected) in [("before", true, 60), ("before", false, 60), ("after", true, 2)] {
            let image = tempfile::tempdir().unwrap();
            copy_directory(&before, image.path());
            if with_new {
                copy_directory(&after.join("topic-0"), &image.path().join("topic-0"));
            }
            std::fs::copy(images.path().join(checkpoint).join("checkpoint"), image.path().join("checkpoint")).unwrap();
            let log = Log::open(image.path(), settings(durability)).unwrap().0;
            let partition = log.partition(id(0)).unwrap();
            assert_eq!(readable(&partition).len(), expected, "{checkpoint} {with_new}");
            assert_eq!(partition.high_watermark(), 60);
            log.close().await.unwrap();
            let directory = image.path().join("topic-0");
            let left = files(&directory, "");
            let old = left.iter().filter(|path| !path.to_string_lossy().contains("-1.")).count();
            assert!(if expected == 2 { old == 1 } else { old == left.len() }, "{left:?}");
            assert_eq!(files(&directory, ".log").len(), files(&directory, ".index").len());
        }
    }
}
