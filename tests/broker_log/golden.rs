//! Bytes that must never change: a batch as a client sends it, and as it lies on disk.

use bytes::Bytes;
use finstream::broker::log::{AppendError, Arrivals, PartitionConfig};

use crate::support::*;

/// Two records (k=v1 at 1700000000000, null=v2 5 ms later) of producer 77, epoch 1, sequence 10; put together by hand
/// from the protocol guide.
pub const SENT: &str = "000000000000000000000044ffffffff02325e06600000000000010000018bcfe568000000018bcfe56805000000000000004d00010000000a0000000212000000026b0476310010000a020104763200";

pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn a_segment_holds_the_batch_as_it_was_sent_but_for_base_offset_and_leader_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    put(&partition, BatchOf::records(3).bytes()).await;
    let before = std::fs::metadata(dir.path().join("topic-0/00000000000000000000.log")).unwrap().len() as usize;
    assert_eq!(put(&partition, unhex(SENT).into()).await.base_offset, 3);
    let mut expected = unhex(SENT);
    expected[7] = 3;
    expected[12..16].copy_from_slice(&[0, 0, 0, 5]);
    let segment = std::fs::read(dir.path().join("topic-0/00000000000000000000.log")).unwrap();
    assert_eq!(segment[before..], expected);
    assert_eq!(partition.read(4, 1000, true).unwrap().batches, expected);
    assert_eq!(partition.offset_for_timestamp(1_700_000_000_003).unwrap(), Some((4, 1_700_000_000_005)));
    let retry = partition.append(unhex(SENT).into(), 9, NOW_MS).unwrap();
    assert_eq!((retry.duplicate, retry.base_offset, retry.last_offset), (true, 3, 4));
    let expected = AppendError::OutOfOrderSequence { producer_id: 77, expected: 12, got: 14 };
    let gap = BatchOf::records(1).of(77, 1, 14).bytes();
    assert_eq!(partition.append(gap, 0, NOW_MS).unwrap_err(), expected);
}

#[tokio::test]
async fn a_compressed_batch_is_stored_as_it_came_and_its_records_are_found_by_their_times() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let sent = with_records(&zstd::encode_all(&unhex(SENT)[61..], 3).unwrap());
    put(&partition, sent.clone().into()).await;
    assert_eq!(as_sent(&partition.read(0, 1000, true).unwrap().batches), as_sent(&Bytes::from(sent)));
    assert_eq!(partition.offset_for_timestamp(1_700_000_000_001).unwrap(), Some((1, 1_700_000_000_005)));
    assert_eq!(partition.offset_of_max_timestamp().unwrap(), Some((1, 1_700_000_000_005)));
}

/// The golden batch with other, zstd compressed records.
fn with_records(records: &[u8]) -> Vec<u8> {
    let mut sent = unhex(SENT);
    sent.truncate(61);
    sent[22] = 4;
    sent.extend_from_slice(records);
    let length = sent.len() as i32 - 12;
    sent[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&sent[21..]);
    sent[17..21].copy_from_slice(&crc.to_be_bytes());
    sent
}

#[tokio::test]
async fn a_compressed_batch_that_holds_other_records_than_it_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let plain = unhex(SENT)[61..].to_vec();
    let twice = [&plain[..], &plain[..]].concat();
    let cut = &plain[..plain.len() - 1];
    for (records, why) in [(&twice[..], "offset delta 0"), (cut, "compressed record 1"), (&plain[..0], "holds 0")] {
        let sent = with_records(&zstd::encode_all(records, 3).unwrap());
        let error = partition.append(sent.into(), 5, NOW_MS).unwrap_err();
        assert!(matches!(error, AppendError::InvalidRecord(_)) && error.to_string().contains(why), "{error}");
    }
    let error = partition.append(with_records(&[0xee; 40]).into(), 5, NOW_MS).unwrap_err();
    assert!(matches!(error, AppendError::InvalidRecord(_)), "{error}");
    assert_eq!(partition.high_watermark(), 0);
}

#[tokio::test]
async fn a_failed_write_stops_acknowledgements_and_not_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (partition_directory, elsewhere) = (dir.path().join("topic-0"), dir.path().join("elsewhere"));
    let log = open(dir.path());
    let small = PartitionConfig { segment_bytes_max: 1_000, ..config() };
    let partition = log.create_partition(id(0), "topic-0", small).unwrap();
    let one = || BatchOf { value_bytes: 100, ..BatchOf::records(3) }.bytes();
    let first = put(&partition, one()).await;
    // The next segment cannot be created.
    std::fs::rename(&partition_directory, &elsewhere).unwrap();
    let arrivals = Arrivals::new();
    let _listening = partition.listen(&arrivals).unwrap();
    let error = loop {
        let appended = match partition.append(one(), 0, NOW_MS) {
            Ok(appended) => appended,
            Err(error) => break error,
        };
        if let Err(error) = partition.durable(&appended).await {
            break error;
        }
    };
    assert!(matches!(&error, AppendError::Storage(why) if why.contains("restart the broker")), "{error}");
    // Whoever waits for more hears that there will be none.
    arrivals.reach(u64::MAX).await;
    assert!(partition.listen(&arrivals).is_none());
    let readable = batches_from(&partition, 0);
    assert_eq!(readable.len() as i64 * 3, partition.high_watermark());
    assert!(partition.append(one(), 0, NOW_MS).is_err());
    partition.durable(&first).await.unwrap();
    assert!(log.put_state(vec![(Bytes::from("k"), None)]).await.is_err());
    assert!(log.close().await.is_err());
    drop((log, partition));
    std::fs::rename(&elsewhere, &partition_directory).unwrap();
    let log = open(dir.path());
    let found = batches_from(&log.partition(id(0)).unwrap(), 0);
    // Files are opened before the journal is written: the one that failed was promised nothing and is not stored.
    assert_eq!(found, readable);
}
