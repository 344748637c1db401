//! What is let in, which offsets it gets, and what a retry is.

use bytes::{Bytes, BytesMut};
use finstream::broker::log::{AppendError, Arrivals, PartitionConfig};

use crate::support::*;

#[tokio::test]
async fn offsets_count_records_and_only_base_offset_and_leader_epoch_are_patched() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let sent = BatchOf::records(3).bytes();
    assert_eq!(put(&partition, sent.clone()).await.base_offset, 0);
    let second = put(&partition, sent.clone()).await;
    assert_eq!((second.base_offset, second.last_offset, second.log_append_time_ms), (3, 5, -1));
    let read = partition.read(4, 1 << 20, true).unwrap();
    assert_eq!(read.high_watermark, 6);
    assert_eq!(&read.batches[0..8], &3i64.to_be_bytes());
    assert_eq!(&read.batches[12..16], &5i32.to_be_bytes());
    assert_eq!(read.batches[16..], sent[16..]);
}

#[tokio::test]
async fn several_batches_in_one_append_get_offsets_behind_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let both = [BatchOf::records(3).of(9, 0, 0).bytes(), BatchOf::records(2).of(9, 0, 3).bytes()].concat();
    let appended = put(&partition, both.clone().into()).await;
    assert_eq!((appended.base_offset, appended.last_offset), (0, 4));
    let again = put(&partition, both.into()).await;
    assert_eq!((again.base_offset, again.last_offset, again.duplicate), (0, 4, true));
    assert_eq!(partition.high_watermark(), 5);
}

#[tokio::test]
async fn nothing_malformed_is_stored_or_takes_an_offset() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let good = BatchOf::records(3).of(4, 0, 0).bytes();
    for length in 0..good.len() {
        let error = partition.append(good.slice(..length), 0, NOW_MS).unwrap_err();
        match length {
            0 => assert!(matches!(error, AppendError::InvalidRecord(_)), "{error}"),
            _ => assert!(matches!(error, AppendError::Corrupt(_)), "{length} bytes: {error}"),
        }
    }
    for at in 0..good.len() {
        // Base offset and leader epoch are the log's own.
        if at < 8 || (12..16).contains(&at) {
            continue;
        }
        let mut bad = BytesMut::from(&good[..]);
        bad[at] ^= 0x10;
        assert!(partition.append(bad.freeze(), 0, NOW_MS).is_err(), "byte {at}");
    }
    let second_is_bad = [&good[..], &good[..good.len() - 1]].concat();
    assert!(partition.append(second_is_bad.into(), 0, NOW_MS).is_err());
    assert_eq!(put(&partition, good).await.base_offset, 0);
}

/// Sets bytes of the header and makes the CRC fit again.
fn forged(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut forged = BytesMut::from(&batch[..]);
    forged[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&forged[21..]);
    forged[17..21].copy_from_slice(&crc.to_be_bytes());
    forged.freeze()
}

#[tokio::test]
async fn forged_headers_are_refused_though_their_crc_fits() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let good = BatchOf::records(3).bytes();
    let forgeries: [(usize, Vec<u8>, &str); 8] = [
        (57, i32::MAX.to_be_bytes().to_vec(), "count"),
        (57, 0i32.to_be_bytes().to_vec(), "count of none"),
        (23, 7i32.to_be_bytes().to_vec(), "last offset delta"),
        (21, 0x20i16.to_be_bytes().to_vec(), "control"),
        (21, 0x07i16.to_be_bytes().to_vec(), "compression"),
        (21, 0x100i16.to_be_bytes().to_vec(), "unknown attribute"),
        (43, 5i64.to_be_bytes().to_vec(), "producer without epoch"),
        (61, vec![0x7f], "record length"),
    ];
    for (at, bytes, what) in forgeries {
        let error = partition.append(forged(&good, at, &bytes), 0, NOW_MS).unwrap_err();
        assert!(matches!(error, AppendError::InvalidRecord(_)), "{what}: {error}");
    }
    let stamped = forged(&good, 21, &0x08i16.to_be_bytes());
    assert_eq!(partition.append(stamped, 0, NOW_MS).unwrap_err(), AppendError::TimestampType);
    let old = forged(&good, 16, &[1]);
    assert_eq!(partition.append(old, 0, NOW_MS).unwrap_err(), AppendError::UnsupportedMagic(1));
    partition.set_config(PartitionConfig { batch_bytes_max: 50, ..config() });
    assert!(matches!(partition.append(good, 0, NOW_MS), Err(AppendError::TooLarge { limit: 50, .. })));
}

#[tokio::test]
async fn log_append_time_stamps_the_batch_and_renews_its_crc() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let stamping = PartitionConfig { log_append_time: true, ..config() };
    let partition = log.create_partition(id(0), "topic-0", stamping).unwrap();
    let appended = put(&partition, BatchOf { timestamp: 5, ..BatchOf::records(2) }.bytes()).await;
    assert_eq!(appended.log_append_time_ms, NOW_MS);
    let batch = partition.read(0, 1 << 20, true).unwrap().batches;
    assert_eq!(batch[22] & 0x08, 0x08);
    assert_eq!(&batch[35..43], &NOW_MS.to_be_bytes());
    assert_eq!(&batch[17..21], &crc32c::crc32c(&batch[21..]).to_be_bytes());
    assert_eq!(partition.offset_for_timestamp(NOW_MS).unwrap(), Some((0, NOW_MS)));
}

#[tokio::test]
async fn a_wrong_largest_timestamp_is_corrected_so_that_records_are_found_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let good = BatchOf::records(3).bytes();
    for (index, wrong) in [0, -1, NOW_MS, i64::MAX].into_iter().enumerate() {
        let base_offset = put(&partition, forged(&good, 35, &i64::to_be_bytes(wrong))).await.base_offset;
        assert_eq!(batches_from(&partition, base_offset)[0].1, as_sent(&good));
        let found = partition.offset_for_timestamp(NOW_MS + 2).unwrap();
        assert_eq!(found, Some((2, NOW_MS + 2)), "after batch {index}");
    }
}

#[tokio::test]
async fn a_retry_of_one_of_the_last_five_batches_is_answered_with_its_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let batch = |index: i32| BatchOf::records(2).of(1, 0, 2 * index).bytes();
    for index in 0..7 {
        put(&partition, batch(index)).await;
    }
    for index in 2..7 {
        let again = put(&partition, batch(index)).await;
        assert_eq!((again.base_offset, again.duplicate), (2 * i64::from(index), true));
    }
    let expected = AppendError::OutOfOrderSequence { producer_id: 1, expected: 14, got: 2 };
    assert_eq!(partition.append(batch(1), 0, NOW_MS).unwrap_err(), expected);
    assert!(matches!(partition.append(batch(8), 0, NOW_MS), Err(AppendError::OutOfOrderSequence { .. })));
    assert_eq!(put(&partition, batch(7)).await.base_offset, 14);
}

#[tokio::test]
async fn an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    put(&partition, BatchOf::records(1).of(1, 3, 40).bytes()).await;
    let fenced = partition.append(BatchOf::records(1).of(1, 2, 41).bytes(), 0, NOW_MS).unwrap_err();
    assert_eq!(fenced, AppendError::InvalidProducerEpoch { producer_id: 1, known: 3, got: 2 });
    assert!(partition.append(BatchOf::records(1).of(1, 4, 41).bytes(), 0, NOW_MS).is_err());
    put(&partition, BatchOf::records(1).of(1, 4, 0).bytes()).await;
}

#[tokio::test]
async fn sequences_go_on_at_zero_after_the_largest() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    put(&partition, BatchOf::records(3).of(1, 0, i32::MAX - 1).bytes()).await;
    put(&partition, BatchOf::records(3).of(1, 0, 1).bytes()).await;
    assert_eq!(partition.high_watermark(), 6);
}

#[tokio::test]
async fn who_listens_is_woken_when_enough_is_durable_and_only_durable_records_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (first, second) = (create(&log, 0), create(&log, 1));
    let arrivals = Arrivals::new();
    let listening = [first.listen(&arrivals).unwrap(), second.listen(&arrivals).unwrap()];
    assert!(first.read(0, 100, true).unwrap().batches.is_empty());
    let batch = BatchOf::records(4).bytes();
    let enough = 2 * batch.len() as u64;
    first.append(batch.clone(), 0, NOW_MS).unwrap();
    second.append(batch.clone(), 0, NOW_MS).unwrap();
    arrivals.reach(enough).await;
    for partition in [&first, &second] {
        assert_eq!(partition.high_watermark(), 4);
        assert_eq!(partition.read(0, 100, true).unwrap().batches.len(), batch.len());
    }
    // Who listens no more hears nothing.
    drop(listening);
    put(&first, batch).await;
    assert_eq!(arrivals.bytes(), enough);
}

#[tokio::test]
async fn a_closed_log_refuses_appends_and_goes_on_reading() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    put(&partition, BatchOf::records(1).bytes()).await;
    log.close().await.unwrap();
    log.close().await.unwrap();
    assert!(matches!(partition.append(BatchOf::records(1).bytes(), 0, NOW_MS), Err(AppendError::Storage(_))));
    assert!(log.put_state(vec![(Bytes::from("k"), None)]).await.is_err());
    assert_eq!(batches_from(&partition, 0).len(), 1);
}
