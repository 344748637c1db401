//! Creating, deleting, cutting partitions; the key-value state.

use bytes::Bytes;
use finstream::broker::log::{AppendError, Arrivals, Compaction, OpenError, PartitionConfig, PartitionId, ReadError};
use uuid::Uuid;

use crate::support::*;

#[tokio::test]
async fn a_deleted_partition_is_gone_for_good_and_its_directory_free_again() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..3u128 {
        let log = open(dir.path());
        let old = log.partitions();
        assert_eq!(old.len(), usize::from(life > 0));
        for (id, _) in old {
            let partition = log.partition(id).unwrap();
            assert_eq!(batches_from(&partition, 0).len(), 3);
            let arrivals = Arrivals::new();
            let _listening = partition.listen(&arrivals).unwrap();
            log.delete_partition(id).await.unwrap();
            // Woken, though nothing came; and nothing will.
            arrivals.reach(1).await;
            assert!(arrivals.bytes() == 0 && partition.listen(&arrivals).is_none());
            assert_eq!(partition.append(BatchOf::records(1).bytes(), 0, 0).unwrap_err(), AppendError::Deleted);
            assert_eq!(partition.read(0, 1, true).unwrap_err(), ReadError::Deleted);
            assert!(log.partition(id).is_none());
            log.delete_partition(id).await.unwrap();
        }
        let id = PartitionId { topic_id: Uuid::from_u128(life), partition: 0 };
        let partition = log.create_partition(id, "topic-0", config()).unwrap();
        assert_eq!(partition.high_watermark(), 0);
        for _ in 0..3 {
            put(&partition, BatchOf::records(1).bytes()).await;
        }
    }
}

#[tokio::test]
async fn a_directory_belongs_to_one_partition_and_its_name_is_plain() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    create(&log, 0);
    for name in ["topic-0", "", "..", "a/b", "journal", "deleted", "checkpoint"] {
        assert!(matches!(log.create_partition(id(1), name, config()), Err(OpenError::Name(..))), "{name:?}");
    }
    let found = log
        .create_partition(id(0), "ignored", PartitionConfig { compaction: Some(Compaction::default()), ..config() })
        .unwrap();
    assert!(found.config().compaction.is_some());
    assert_eq!(log.partitions(), [(id(0), "topic-0".to_owned())]);
}

#[tokio::test]
async fn records_below_a_raised_log_start_stay_away_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let small = PartitionConfig { segment_bytes_max: 2_000, ..config() };
    {
        let log = open(dir.path());
        let partition = log.create_partition(id(0), "topic-0", small).unwrap();
        for _ in 0..40 {
            put(&partition, BatchOf { value_bytes: 100, ..BatchOf::records(3) }.bytes()).await;
        }
        assert_eq!(partition.delete_records_before(61).await.unwrap(), 61);
        assert!(partition.delete_records_before(121).await.is_err());
        assert_eq!(partition.delete_records_before(5).await.unwrap(), 61);
        assert!(matches!(partition.read(60, 1, true), Err(ReadError::OffsetOutOfRange { log_start: 61, .. })));
        let first = &files(&dir.path().join("topic-0"), ".log")[0];
        assert!(!first.ends_with("00000000000000000000.log"));
    }
    for _ in 0..2 {
        let log = open(dir.path());
        let partition = log.partition(id(0)).unwrap();
        assert_eq!((partition.log_start_offset(), partition.high_watermark()), (61, 120));
        assert_eq!(batches_from(&partition, 61).len(), 20);
    }
}

#[tokio::test]
async fn everything_may_be_deleted_and_offsets_go_on() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = open(dir.path());
        let partition = create(&log, 0);
        put(&partition, BatchOf::records(3).bytes()).await;
        log.close().await.unwrap();
    }
    {
        let log = open(dir.path());
        let partition = log.partition(id(0)).unwrap();
        put(&partition, BatchOf::records(3).bytes()).await;
        partition.delete_records_before(6).await.unwrap();
        assert_eq!(put(&partition, BatchOf::records(1).bytes()).await.base_offset, 6);
    }
    let log = open(dir.path());
    let partition = log.partition(id(0)).unwrap();
    assert_eq!((partition.log_start_offset(), partition.high_watermark()), (6, 7));
    assert_eq!(batches_from(&partition, 6).len(), 1);
}

#[tokio::test]
async fn retention_removes_whole_closed_segments_by_bytes_and_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let small = PartitionConfig { segment_bytes_max: 2_000, retention_bytes: Some(5_000), ..config() };
    let partition = log.create_partition(id(0), "topic-0", small.clone()).unwrap();
    for _ in 0..40 {
        put(&partition, BatchOf { value_bytes: 100, ..BatchOf::records(3) }.bytes()).await;
    }
    partition.set_config(PartitionConfig { compaction: Some(Compaction::default()), ..small.clone() });
    settle(&log, NOW_MS).await;
    assert_eq!(partition.log_start_offset(), 0);
    partition.set_config(small.clone());
    partition.hold_from(0);
    settle(&log, NOW_MS).await;
    assert_eq!(partition.log_start_offset(), 0, "someone needs them yet");
    partition.hold_from(30);
    settle(&log, NOW_MS).await;
    assert!((1..=30).contains(&partition.log_start_offset()), "{}", partition.log_start_offset());
    partition.hold_from(i64::MAX);
    settle(&log, NOW_MS).await;
    assert!((5_000..7_500).contains(&partition.size_bytes()), "{}", partition.size_bytes());
    let log_start = partition.log_start_offset();
    assert!(log_start > 0);
    assert_eq!(batches_from(&partition, log_start)[0].0, log_start);
    partition.set_config(PartitionConfig { retention_ms: Some(1000), segment_age_ms_max: 1000, ..small });
    settle(&log, NOW_MS + 900).await;
    assert_eq!(partition.log_start_offset(), log_start);
    // The open segment is closed by age first.
    settle(&log, NOW_MS + 1100).await;
    settle(&log, NOW_MS + 1100).await;
    assert_eq!((partition.log_start_offset(), partition.size_bytes()), (120, 0));
    assert_eq!(put(&partition, BatchOf::records(1).bytes()).await.base_offset, 120);
}

/// Runs retention, and waits until the writer has done what it asked for.
async fn settle(log: &finstream::broker::log::Log, now_ms: i64) {
    log.enforce_retention(now_ms);
    log.put_state(vec![(Bytes::from("settled"), None)]).await.unwrap();
}

#[tokio::test]
async fn state_changes_are_sorted_atomic_and_survive_crash_and_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |key: &str, value: &str| (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
    {
        let log = open(dir.path());
        let put = |key: &str, value: &str| (pair(key, value).0, Some(pair(key, value).1));
        log.put_state(vec![put("b/2", "x"), put("a/1", "y"), put("b/1", "z")]).await.unwrap();
        log.put_state(vec![put("b/2", ""), (Bytes::from("b/1"), None), put("b/3", "w")]).await.unwrap();
        assert_eq!(log.state(b"b/"), [pair("b/2", ""), pair("b/3", "w")]);
    }
    for _ in 0..2 {
        let log = open(dir.path());
        assert_eq!(log.state(b"b/"), [pair("b/2", ""), pair("b/3", "w")]);
        assert_eq!(log.state(b"").len(), 3);
        log.close().await.unwrap();
        assert!(log.disk_bytes() > 0);
    }
}
