//! A full disk refuses appends, loses nothing, and is over when there is room. Skipped where no tmpfs can be mounted.

use std::time::{Duration, Instant};

use bytes::Bytes;
use finstream::broker::log::{AppendError, Durability, Log, LogSettings, Partition, PartitionConfig};

use crate::compaction::{compacted, roll};
use crate::support::*;

fn big(sequence: i32) -> Bytes {
    BatchOf { value_bytes: 100_000, ..BatchOf::records(2) }.of(1, 0, sequence).bytes()
}

/// One append to its end, as a producer sees it.
async fn try_put(partition: &Partition, sequence: i32) -> Result<i64, AppendError> {
    let appended = partition.append(big(sequence), 0, NOW_MS)?;
    partition.durable(&appended).await?;
    Ok(appended.base_offset)
}

/// Appends until it is refused; returns the sequence that was refused and what was stored.
async fn fill(partition: &Partition, mut sequence: i32) -> (i32, Vec<i64>) {
    let mut stored = Vec::new();
    loop {
        match try_put(partition, sequence).await {
            Ok(base_offset) => stored.push(base_offset),
            Err(error) => {
                assert!(error.to_string().contains("full") || error.to_string().contains("no room"), "{error}");
                return (sequence, stored);
            }
        }
        sequence += 2;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_appends_until_there_is_room_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let directory = disk.0.path().join("log");
    // Once the journal runs out of room, once the look at the file system comes first.
    for journal_bytes_max in [2 << 20, 16 << 20] {
        let settings = LogSettings { durability: Durability::Fsync, journal_bytes_max };
        let log = Log::open(&directory, settings.clone()).unwrap().0;
        let partition = create(&log, 0);
        let (refused, mut stored) = fill(&partition, 0).await;
        assert!(stored.len() > 20);
        assert!(log.obstacle().unwrap().contains("MiB must be"));
        assert_eq!(batches_from(&partition, 0).len(), stored.len());
        // Changes that free room are let in; then the same batch goes through.
        let cut = stored[stored.len() - 10];
        assert_eq!(partition.delete_records_before(cut).await.unwrap(), cut);
        let deadline = Instant::now() + Duration::from_secs(20);
        let accepted = loop {
            match try_put(&partition, refused).await {
                Ok(base_offset) => break base_offset,
                Err(_) => tokio::task::yield_now().await,
            }
            assert!(Instant::now() < deadline, "appends are still refused");
        };
        assert_eq!(log.obstacle(), None);
        assert!(accepted > stored[stored.len() - 1]);
        stored.push(accepted);
        drop(partition);
        drop(log);
        let log = Log::open(&directory, settings).unwrap().0;
        let partition = log.partition(id(0)).unwrap();
        let found: Vec<i64> = batches_from(&partition, cut).into_iter().map(|(base_offset, _)| base_offset).collect();
        assert_eq!(found, stored[stored.len() - 11..]);
        assert!(partition.append(big(refused), 0, NOW_MS).unwrap().duplicate);
        log.delete_partition(id(0)).await.unwrap();
        log.close().await.unwrap();
    }
}

/// As `try_put`, by a coordinator.
async fn remember(partition: &Partition, batch: Bytes) -> Result<(), AppendError> {
    let appended = partition.append_as_coordinator(batch, None, 0, NOW_MS)?;
    partition.durable(&appended).await
}

#[tokio::test]
async fn what_coordinators_append_finds_room_where_clients_do_not_and_leaves_some() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let log = open(&disk.0.path().join("log"));
    let (clients, coordinators) = (create(&log, 0), create(&log, 1));
    let (refused, stored) = fill(&clients, 0).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    // Clients hear of the refusal first.
    while remember(&coordinators, BatchOf::records(1).bytes()).await.is_err() {
        assert!(Instant::now() < deadline, "coordinators are refused as well");
    }
    for _ in 0..100 {
        remember(&coordinators, BatchOf::records(1).bytes()).await.unwrap();
        assert!(clients.append(big(refused), 0, NOW_MS).is_err());
    }
    let mut sequence = 0;
    while remember(&coordinators, big(sequence)).await.is_ok() {
        sequence += 2;
    }
    let space = rustix::fs::statvfs(disk.0.path()).unwrap();
    assert!(space.f_bavail * space.f_frsize >= 12 << 20, "a checkpoint needs room");
    assert_eq!(log.failure(), None);
    // Changes go on; and once they have made room, those who never stop do not keep clients out.
    clients.delete_records_before(stored[stored.len() - 10]).await.unwrap();
    let is_over = std::cell::Cell::new(false);
    let never_stops = async || {
        while !is_over.get() {
            let _ = remember(&coordinators, BatchOf::records(1).bytes()).await;
            tokio::task::yield_now().await;
        }
    };
    let client = async {
        while try_put(&clients, refused).await.is_err() {
            assert!(Instant::now() < deadline, "clients are still refused");
            tokio::task::yield_now().await;
        }
        is_over.set(true);
    };
    tokio::join!(client, never_stops(), never_stops(), never_stops());
    remember(&coordinators, big(sequence)).await.unwrap();
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_journal_file_that_takes_the_last_room_is_no_end_of_the_log() {
    let Some(disk) = SmallDisk::mount(600) else { return };
    // The usual size; with 330 MiB free the next file is not a small one.
    let settings = LogSettings { durability: Durability::Fsync, journal_bytes_max: 64 << 20 };
    let log = Log::open(&disk.0.path().join("log"), settings).unwrap().0;
    let config = PartitionConfig { batch_bytes_max: 64 << 20, segment_bytes_max: 1 << 30, ..config() };
    let partition = log.create_partition(id(0), "topic-0", config).unwrap();
    let (hog, fill) = (disk.0.path().join("hog"), disk.0.path().join("fill"));
    std::fs::write(&hog, vec![1; (600 - 330) << 20]).unwrap();
    let big = BatchOf { value_bytes: 6_000_000, ..BatchOf::records(1) };
    let mut sequence = 0;
    // Every amount of room that is left, from more than enough to nothing.
    let refused = loop {
        std::fs::write(&fill, vec![1; (sequence as usize * 5) << 20]).unwrap_or_default();
        match partition.append(big.of(1, 0, sequence).bytes(), 0, NOW_MS) {
            Ok(appended) if partition.durable(&appended).await.is_ok() => sequence += 1,
            _ => break sequence,
        }
    };
    assert_eq!(log.failure(), None);
    std::fs::remove_file(hog).unwrap();
    std::fs::remove_file(fill).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let appended = partition.append(big.of(1, 0, refused).bytes(), 0, NOW_MS);
        match appended {
            Ok(appended) if partition.durable(&appended).await.is_ok() => break,
            _ => tokio::task::yield_now().await,
        }
        assert!(Instant::now() < deadline, "appends are still refused");
    }
    assert_eq!(batches_from(&partition, 0).len() as i32, refused + 1);
}

#[tokio::test]
async fn who_waits_for_a_refused_append_hears_of_it_even_when_later_ones_are_stored() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let log = open(&disk.0.path().join("log"));
    let partition = create(&log, 0);
    let end = put(&partition, BatchOf::records(1).bytes()).await.last_offset + 1;
    let hog = disk.0.path().join("hog");
    std::fs::write(&hog, vec![1; 56 << 20]).unwrap();
    let lost = partition.append(big(0), 0, NOW_MS).unwrap();
    assert!(matches!(partition.durable(&lost).await, Err(AppendError::Storage(_))));
    std::fs::remove_file(hog).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while try_put(&partition, 0).await.is_err() {
        assert!(Instant::now() < deadline, "appends are still refused");
        tokio::task::yield_now().await;
    }
    assert_eq!(partition.high_watermark(), end + 2);
    // Its offsets were given to the one that came later.
    assert!(matches!(partition.durable(&lost).await, Err(AppendError::Storage(_))));
}

#[tokio::test]
async fn without_room_a_partition_is_not_compacted_until_there_is_some_and_goes_on_meanwhile() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let log = Log::open(&disk.0.path().join("log"), settings(Durability::Fsync)).unwrap().0;
    let partition = log.create_partition(id(0), "topic-0", compacted()).unwrap();
    for index in 0..40 {
        put(&partition, batch_of(&[Written::of("k", Some(&"v".repeat(100 + index)))], 0, None)).await;
    }
    roll(&log, &partition, NOW_MS).await;
    assert!(log.compact_one(NOW_MS), "there is something to do, and no room for it");
    assert!(!log.compact_one(NOW_MS + 59_999), "it is left alone for a while");
    assert_eq!(records_from(&partition, 0).len(), 40);
    put(&partition, batch_of(&[Written::of("k", None)], 0, None)).await;
    disk.resize(256);
    assert!(log.compact_one(NOW_MS + 60_000));
    let left: Vec<i64> = records_from(&partition, 0).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(left, [39, 40]);
    log.close().await.unwrap();
}
