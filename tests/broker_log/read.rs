//! Reads at every offset, over segments, by time.

use finstream::broker::log::{PartitionConfig, ReadError};

use crate::support::*;

#[tokio::test]
async fn a_read_at_every_offset_begins_with_the_batch_that_contains_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let small = PartitionConfig { segment_bytes_max: 20_000, ..config() };
    let partition = log.create_partition(id(0), "topic-0", small).unwrap();
    let mut expected = Vec::new();
    for index in 0..120usize {
        // Sizes around and far beyond the index interval.
        let of = BatchOf { value_bytes: [10, 300, 9_000][index % 3], ..BatchOf::records(1 + index % 4) };
        let appended = put(&partition, of.bytes()).await;
        expected
            .extend((appended.base_offset..=appended.last_offset).map(|_| (appended.base_offset, of.bytes().len())));
    }
    assert!(files(&dir.path().join("topic-0"), ".log").len() > 10);
    for (offset, &(base_offset, bytes)) in expected.iter().enumerate() {
        for max_bytes in [0, 100, 5_000, 100_000] {
            let read = partition.read(offset as i64, max_bytes, true).unwrap().batches;
            assert_eq!(i64::from_be_bytes(read[0..8].try_into().unwrap()), base_offset, "at {offset}");
            assert!(read.len() <= max_bytes.max(bytes), "at {offset}: {} bytes", read.len());
            let exact = partition.read(offset as i64, max_bytes, false).unwrap().batches;
            assert_eq!(exact.is_empty(), bytes > max_bytes, "at {offset}, {max_bytes}");
        }
    }
    let all = batches_from(&partition, 0);
    assert_eq!(all.len(), 120);
    let beyond = partition.read(expected.len() as i64 + 1, 1, true).unwrap_err();
    assert!(matches!(beyond, ReadError::OffsetOutOfRange { log_start: 0, .. }));
    assert!(partition.read(-1, 1, true).is_err());
}

#[tokio::test]
async fn offsets_are_found_by_time_to_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let small = PartitionConfig { segment_bytes_max: 3_000, ..config() };
    let partition = log.create_partition(id(0), "topic-0", small).unwrap();
    for index in 0..100 {
        put(&partition, BatchOf { timestamp: 1000 + 10 * index, ..BatchOf::records(5) }.bytes()).await;
    }
    assert_eq!(partition.offset_for_timestamp(0).unwrap(), Some((0, 1000)));
    assert_eq!(partition.offset_for_timestamp(1203).unwrap(), Some((103, 1203)));
    assert_eq!(partition.offset_for_timestamp(1207).unwrap(), Some((105, 1210)));
    assert_eq!(partition.offset_for_timestamp(1995).unwrap(), None);
    assert_eq!(partition.offset_of_max_timestamp().unwrap(), Some((499, 1994)));
    partition.delete_records_before(104).await.unwrap();
    assert_eq!(partition.offset_for_timestamp(0).unwrap(), Some((104, 1204)));
}

#[tokio::test]
async fn a_lost_or_damaged_index_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let small = PartitionConfig { segment_bytes_max: 50_000, ..config() };
    let expected = {
        let log = open(dir.path());
        let partition = log.create_partition(id(0), "topic-0", small).unwrap();
        for _ in 0..300 {
            put(&partition, BatchOf { value_bytes: 200, ..BatchOf::records(3) }.bytes()).await;
        }
        let expected = batches_from(&partition, 0);
        log.close().await.unwrap();
        expected
    };
    let indexes = files(&dir.path().join("topic-0"), ".index");
    assert!(indexes.len() > 3);
    std::fs::remove_file(&indexes[0]).unwrap();
    std::fs::write(&indexes[1], b"this is no index").unwrap();
    let mut flipped = std::fs::read(&indexes[2]).unwrap();
    flipped[5] ^= 1;
    std::fs::write(&indexes[2], flipped).unwrap();
    let log = open(dir.path());
    let partition = log.partition(id(0)).unwrap();
    assert_eq!(batches_from(&partition, 0), expected);
    for (base_offset, _) in &expected {
        let read = partition.read(base_offset + 2, 10, true).unwrap().batches;
        assert_eq!(read[0..8], base_offset.to_be_bytes());
    }
}
