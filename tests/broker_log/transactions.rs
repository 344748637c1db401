//! Transactions as the log sees them: the last stable offset, markers, and the index of aborted ones.

use std::path::Path;

use bytes::Bytes;
use finstream::broker::log::{
    AbortedTransaction, AppendError, Arrivals, Durability, EndTransaction, Isolation, Log, Marker, Partition,
    PartitionConfig,
};
use kafka_protocol::records::{Record, RecordBatchDecoder};

use crate::support::*;

pub fn end(producer_id: i64, producer_epoch: i16, marker: Marker) -> EndTransaction {
    EndTransaction { producer_id, producer_epoch, marker, coordinator_epoch: 1 }
}

/// Ends the transaction of a producer and waits until that is durable; the marker's offset.
pub async fn finish(partition: &Partition, end: EndTransaction) -> i64 {
    let appended = partition.write_marker(end, 5, NOW_MS).unwrap();
    partition.durable(&appended).await.unwrap();
    appended.last_offset
}

pub async fn put_transactional(partition: &Partition, batch: BatchOf) -> i64 {
    let appended = partition.append_transactional(batch.transactional().bytes(), 5, NOW_MS).unwrap();
    partition.durable(&appended).await.unwrap();
    appended.base_offset
}

/// What a client that reads committed records sees from `offset` on, as (offset, value), by the rules of Kafka's own
/// consumer; `max_bytes` in each fetch.
pub fn committed_from(partition: &Partition, mut offset: i64, max_bytes: usize) -> Vec<(i64, Bytes)> {
    let mut seen = Vec::new();
    loop {
        let read = partition.read_isolated(offset, max_bytes, true, Isolation::Committed).unwrap();
        let Some(next) = read.end_offset() else {
            assert!(offset >= read.last_stable_offset, "nothing at {offset} of {}", read.last_stable_offset);
            return seen;
        };
        assert!(next <= read.last_stable_offset);
        let mut aborted = partition.aborted_transactions(offset, next).unwrap();
        aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        let mut skipped = std::collections::HashSet::new();
        let mut bytes = read.batches;
        while !bytes.is_empty() {
            let length = i32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize + 12;
            let records = RecordBatchDecoder::decode(&mut bytes.split_to(length)).unwrap().records;
            let last_offset = records[records.len() - 1].offset;
            while aborted.last().is_some_and(|next| next.first_offset <= last_offset) {
                skipped.insert(aborted.pop().unwrap().producer_id);
            }
            let Record { producer_id, control, transactional, .. } = records[0];
            if control {
                if is_abort(&records[0]) {
                    skipped.remove(&producer_id);
                }
                continue;
            }
            if !(transactional && skipped.contains(&producer_id)) {
                let wanted = records.into_iter().filter(|record| record.offset >= offset);
                seen.extend(wanted.map(|record| (record.offset, record.value.unwrap())));
            }
        }
        offset = next;
    }
}

pub fn is_abort(record: &Record) -> bool {
    assert_eq!((record.key.as_ref().unwrap().len(), record.value.as_ref().unwrap().len()), (4, 6));
    record.key.as_ref().unwrap()[2..] == [0, 0]
}

fn transactional(records: usize, producer_id: i64, sequence: i32) -> BatchOf {
    BatchOf::records(records).of(producer_id, 0, sequence)
}

#[tokio::test]
async fn only_who_says_so_may_write_transactional_batches_and_nobody_control_batches() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let batch = transactional(2, 1, 0).transactional().bytes();
    let refused = partition.append(batch.clone(), 0, NOW_MS).unwrap_err();
    assert!(matches!(refused, AppendError::OutsideOfTransaction { producer_id: 1 }), "{refused}");
    assert_eq!(put_transactional(&partition, transactional(2, 1, 0)).await, 0);
    assert_eq!(partition.open_transaction(1), Some(0));
    finish(&partition, end(1, 0, Marker::Commit)).await;
    assert_eq!(partition.open_transaction(1), None);
    let marker = partition.read(2, 1000, true).unwrap().batches;
    for refused in [partition.append(marker.clone(), 0, NOW_MS), partition.append_transactional(marker, 0, NOW_MS)] {
        assert!(matches!(refused, Err(AppendError::InvalidRecord(_))));
    }
    let nobody = BatchOf::records(1).transactional().bytes();
    assert!(matches!(partition.append_transactional(nobody, 0, NOW_MS), Err(AppendError::InvalidRecord(_))));
    assert_eq!(partition.high_watermark(), 3);
}

#[tokio::test]
async fn the_last_stable_offset_stays_at_the_oldest_open_transaction_and_wakes_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    put(&partition, BatchOf::records(3).bytes()).await;
    put_transactional(&partition, transactional(2, 1, 0)).await;
    put_transactional(&partition, transactional(2, 2, 0)).await;
    put(&partition, BatchOf::records(1).bytes()).await;
    assert_eq!((partition.last_stable_offset(), partition.high_watermark()), (3, 8));
    let read = partition.read_isolated(5, 1000, true, Isolation::Committed).unwrap();
    assert_eq!((read.batches.len(), read.last_stable_offset, read.high_watermark), (0, 3, 8));
    let (arrivals, of_all) = (Arrivals::new(), Arrivals::new());
    let _listening =
        [partition.listen_isolated(&arrivals, Isolation::Committed).unwrap(), partition.listen(&of_all).unwrap()];
    // What cannot be read yet is not heard of.
    put(&partition, BatchOf::records(1).bytes()).await;
    of_all.reach(1).await;
    assert_eq!(arrivals.bytes(), 0);
    // A marker is small, and what it makes readable is all that a reader may have waited for.
    for (producer_id, how, offset, stable) in [(1, Marker::Abort, 9, 5), (2, Marker::Commit, 10, 11)] {
        let came = arrivals.bytes();
        assert_eq!(finish(&partition, end(producer_id, 0, how)).await, offset);
        arrivals.reach(came + (1 << 24)).await;
        assert_eq!(partition.last_stable_offset(), stable);
    }
    assert!(of_all.bytes() < 1000, "to whoever reads all, a marker is no more than its bytes");
    let aborted = AbortedTransaction { producer_id: 1, first_offset: 3, last_offset: 9, last_stable_offset: 5 };
    assert_eq!(partition.aborted_transactions(0, 11).unwrap(), [aborted]);
    assert_eq!(partition.aborted_transactions(10, 11).unwrap(), []);
    assert_eq!(partition.aborted_transactions(0, 3).unwrap(), []);
    let offsets: Vec<i64> = committed_from(&partition, 0, 1000).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, [0, 1, 2, 5, 6, 7, 8]);
}

#[tokio::test]
async fn a_marker_is_one_control_record_that_other_decoders_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let stamping = PartitionConfig { log_append_time: true, ..config() };
    for (number, config) in [(0, config()), (1, stamping)] {
        let partition = log.create_partition(id(number), &format!("topic-{number}"), config).unwrap();
        put_transactional(&partition, transactional(2, 1, 0)).await;
        let offset = finish(&partition, EndTransaction { coordinator_epoch: 77, ..end(1, 0, Marker::Abort) }).await;
        let mut batch = partition.read(offset, 1000, true).unwrap().batches;
        assert_eq!(&batch[53..57], &(-1i32).to_be_bytes());
        assert_eq!(&batch[17..21], &crc32c::crc32c(&batch[21..]).to_be_bytes());
        let records = RecordBatchDecoder::decode(&mut batch).unwrap().records;
        let [record] = &records[..] else { panic!("{} records", records.len()) };
        assert!(record.control && record.transactional && is_abort(record));
        assert_eq!((record.offset, record.producer_id, record.producer_epoch), (2, 1, 0));
        assert_eq!((record.timestamp, record.partition_leader_epoch), (NOW_MS, 5));
        assert_eq!(record.value.as_deref(), Some(&[0, 0, 0, 0, 0, 77][..]));
    }
}

#[tokio::test]
async fn producers_are_fenced_by_markers_and_old_coordinators_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    put_transactional(&partition, transactional(2, 1, 0)).await;
    let plain = partition.append_transactional(transactional(1, 1, 2).bytes(), 0, NOW_MS).unwrap_err();
    assert!(matches!(plain, AppendError::InvalidTransaction { producer_id: 1, .. }));
    let retry = partition.append_transactional(transactional(2, 1, 0).transactional().bytes(), 0, NOW_MS).unwrap();
    assert!(retry.duplicate);
    // The coordinator fences the producer: its epoch goes up with the marker.
    finish(&partition, EndTransaction { coordinator_epoch: 4, ..end(1, 1, Marker::Abort) }).await;
    let old = partition.append_transactional(transactional(2, 1, 2).transactional().bytes(), 0, NOW_MS).unwrap_err();
    assert_eq!(old, AppendError::InvalidProducerEpoch { producer_id: 1, known: 1, got: 0 });
    let old = partition.write_marker(end(1, 0, Marker::Commit), 0, NOW_MS).unwrap_err();
    assert_eq!(old, AppendError::InvalidProducerEpoch { producer_id: 1, known: 1, got: 0 });
    let old = partition.write_marker(EndTransaction { coordinator_epoch: 3, ..end(1, 1, Marker::Commit) }, 0, NOW_MS);
    assert_eq!(old.unwrap_err(), AppendError::CoordinatorFenced { producer_id: 1, known: 4, got: 3 });
    for partition_end in [3, 4] {
        assert_eq!(partition.last_stable_offset(), partition_end);
        assert_eq!(partition.aborted_transactions(0, partition_end).unwrap().len(), 1);
        // A marker that comes again ends nothing.
        finish(&partition, EndTransaction { coordinator_epoch: 4, ..end(1, 1, Marker::Abort) }).await;
    }
    put_transactional(&partition, BatchOf::records(1).of(1, 1, 0)).await;
    drop((partition, log));
    let log = open(dir.path());
    let partition = log.partition(id(0)).unwrap();
    let [active] = partition.active_producers()[..] else { panic!("one producer") };
    assert_eq!((active.producer_id, active.epoch, active.last_sequence), (1, 1, 0));
    assert_eq!((active.coordinator_epoch, active.transaction_start), (4, 5));
}

#[tokio::test]
async fn retention_waits_for_an_open_transaction_and_delete_records_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let small = PartitionConfig { segment_bytes_max: 1_000, retention_bytes: Some(0), ..config() };
    let partition = log.create_partition(id(0), "topic-0", small).unwrap();
    let settled = async |log: &Log| {
        log.enforce_retention(NOW_MS);
        log.put_state(vec![(Bytes::from("settled"), None)]).await.unwrap();
    };
    for _ in 0..10 {
        put(&partition, BatchOf { value_bytes: 100, ..BatchOf::records(3) }.bytes()).await;
    }
    let first = put_transactional(&partition, transactional(2, 1, 0)).await;
    for _ in 0..10 {
        put(&partition, BatchOf { value_bytes: 100, ..BatchOf::records(3) }.bytes()).await;
    }
    settled(&log).await;
    let log_start = partition.log_start_offset();
    assert!((20..=first).contains(&log_start), "{log_start}");
    assert_eq!(partition.last_stable_offset(), first);
    // What an administrator deletes is gone; the transaction stays open, and nothing behind it is stable.
    assert_eq!(partition.delete_records_before(first + 10).await.unwrap(), first + 10);
    assert_eq!(partition.last_stable_offset(), first + 10);
    drop((partition, log));
    let log = open(dir.path());
    let partition = log.partition(id(0)).unwrap();
    assert_eq!((partition.log_start_offset(), partition.last_stable_offset()), (first + 10, first + 10));
    let marker = finish(&partition, end(1, 0, Marker::Abort)).await;
    assert_eq!(partition.last_stable_offset(), marker + 1);
    let aborted =
        AbortedTransaction { producer_id: 1, first_offset: first, last_offset: marker, last_stable_offset: marker + 1 };
    assert_eq!(partition.aborted_transactions(first + 10, marker + 1).unwrap(), [aborted]);
    settled(&log).await;
    assert!(partition.log_start_offset() > first + 10);
}

/// Interleaved transactions over many segments, every second one aborted; closed.
async fn interleaved(dir: &Path, durability: Durability) -> (Vec<AbortedTransaction>, Vec<(i64, Bytes)>) {
    let log = Log::open(dir, settings(durability)).unwrap().0;
    let small = PartitionConfig { segment_bytes_max: 2_000, ..config() };
    let partition = log.create_partition(id(0), "topic-0", small).unwrap();
    for round in 0..40 {
        for producer_id in 0..4 {
            put_transactional(&partition, transactional(2, producer_id, 2 * round)).await;
            if (i64::from(round) + producer_id) % 3 == 0 {
                let marker = if round % 2 == 0 { Marker::Abort } else { Marker::Commit };
                finish(&partition, end(producer_id, 0, marker)).await;
            }
        }
    }
    for producer_id in 0..4 {
        finish(&partition, end(producer_id, 0, Marker::Commit)).await;
    }
    // What began before the log start is told all the same.
    partition.delete_records_before(41).await.unwrap();
    let high_watermark = partition.high_watermark();
    let found = (partition.aborted_transactions(41, high_watermark).unwrap(), committed_from(&partition, 41, 500));
    log.close().await.unwrap();
    drop((partition, log));
    // With `os` the next start removes what lies below the log start.
    Log::open(dir, settings(durability)).unwrap().0.close().await.unwrap();
    found
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files(&dir.join("topic-0"), ".txnindex").iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn a_missing_or_wrong_index_of_aborted_transactions_is_rebuilt_to_the_same_bytes() {
    type Damage = fn(&Path, usize);
    let damages: [(&str, Damage); 5] = [
        ("deleted", |path, _| std::fs::remove_file(path).unwrap()),
        ("truncated", |path, at| {
            let content = std::fs::read(path).unwrap();
            std::fs::write(path, &content[..at % content.len()]).unwrap();
        }),
        ("flipped", |path, at| {
            let mut content = std::fs::read(path).unwrap();
            let at = at % content.len();
            content[at] ^= 1;
            std::fs::write(path, content).unwrap();
        }),
        ("lengthened", |path, at| {
            let mut content = std::fs::read(path).unwrap();
            content.resize(content.len() + 1 + at, 0xa5);
            std::fs::write(path, content).unwrap();
        }),
        ("replaced", |path, at| std::fs::write(path, vec![0; at]).unwrap()),
    ];
    for durability in [Durability::Fsync, Durability::Os] {
        let original = tempfile::tempdir().unwrap();
        let (aborted, committed) = interleaved(original.path(), durability).await;
        assert!(aborted.len() > 15 && aborted.iter().any(|transaction| transaction.first_offset < 41));
        let expected = contents(original.path());
        assert!(expected.len() > 5, "{} files", expected.len());
        for (what, damage) in damages {
            for at in [0, 1, 17, 32, 33, 64, 95] {
                let dir = tempfile::tempdir().unwrap();
                copy_directory(original.path(), dir.path());
                files(&dir.path().join("topic-0"), ".txnindex").iter().for_each(|path| damage(path, at));
                let log = Log::open(dir.path(), settings(durability)).unwrap().0;
                let partition = log.partition(id(0)).unwrap();
                let end = partition.high_watermark();
                assert_eq!(partition.aborted_transactions(41, end).unwrap(), aborted, "{what} {at}");
                assert_eq!(committed_from(&partition, 41, 500), committed, "{what} {at}");
                log.close().await.unwrap();
                assert_eq!(contents(dir.path()), expected, "{what} {at}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_deleted_segment_told_of_producers_survives_a_crash_with_durability_os() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), settings(Durability::Os)).unwrap().0;
    let small = PartitionConfig { segment_bytes_max: 1_000, ..config() };
    let partition = log.create_partition(id(0), "topic-0", small).unwrap();
    let first = put_transactional(&partition, transactional(2, 1, 0)).await;
    for index in 0..20 {
        put(&partition, BatchOf { value_bytes: 100, ..BatchOf::records(3) }.of(2, 0, 3 * index).bytes()).await;
    }
    let end = partition.high_watermark();
    assert_eq!(partition.delete_records_before(end).await.unwrap(), end);
    drop((partition, log));
    let log = Log::open(dir.path(), settings(Durability::Os)).unwrap().0;
    let partition = log.partition(id(0)).unwrap();
    assert_eq!((partition.log_start_offset(), partition.open_transaction(1)), (end, Some(first)));
    put(&partition, BatchOf::records(1).of(2, 0, 60).bytes()).await;
    assert_eq!(partition.last_stable_offset(), end);
    // The files go once a checkpoint holds what they told.
    log.close().await.unwrap();
    drop((partition, log));
    let log = Log::open(dir.path(), settings(Durability::Os)).unwrap().0;
    let partition = log.partition(id(0)).unwrap();
    assert_eq!(partition.open_transaction(1), Some(first));
    assert_eq!(files(&dir.path().join("topic-0"), ".log").len(), 1);
}
