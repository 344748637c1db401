//! Fetches over TCP, with records sent from their files: whole, in order, never beyond the high watermark, whoever
//! writes, reads slowly or removes files meanwhile.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Raw, admin, batch, create_topic, start};
use bytes::Bytes;
use finstream::broker::Broker;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, DeleteRecordsRequest, FetchRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use uuid::Uuid;

const MIB: usize = 1 << 20;

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn greeted(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker);
    raw.ask(&ApiVersionsRequest::default(), 3);
    raw
}

fn topic_id(raw: &mut Raw) -> Uuid {
    raw.ask(&MetadataRequest::default().with_topics(None), 12).topics[0].topic_id
}

fn produce(partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(name()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![topic])
}

/// Appends and returns the base offset.
fn append(raw: &mut Raw, partition: i32, records: Bytes) -> i64 {
    let answer = raw.ask(&produce(partition, records), 7);
    let appended = &answer.responses[0].partition_responses[0];
    assert_eq!(appended.error_code, 0);
    appended.base_offset
}

/// A fetch of the partitions `0..partitions`, all from `offset` on.
fn fetch(id: Uuid, version: i16, partitions: i32, offset: i64, bytes_max: usize) -> FetchRequest {
    let one = |partition| {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(bytes_max as i32)
    };
    let topic =
        if version >= 13 { FetchTopic::default().with_topic_id(id) } else { FetchTopic::default().with_topic(name()) };
    let topic = topic.with_partitions((0..partitions).map(one).collect());
    FetchRequest::default().with_max_bytes(i32::MAX).with_min_bytes(1).with_topics(vec![topic])
}

/// Checks that these are whole batches, each intact, without a gap from the one that holds `offset` on and below the
/// high watermark. Returns the offset behind them.
fn check(data: &PartitionData, offset: i64) -> i64 {
    assert_eq!(data.error_code, 0);
    let records = data.records.as_ref().expect("records are never null");
    let mut rest: &[u8] = records;
    let mut next: Option<i64> = None;
    while !rest.is_empty() {
        let number = |at: usize| i32::from_be_bytes(*rest[at..].first_chunk().unwrap());
        let base_offset = i64::from_be_bytes(*rest.first_chunk().unwrap());
        let end = base_offset + i64::from(number(23)) + 1;
        match next {
            None => assert!((base_offset..end).contains(&offset), "{offset} was asked for, {base_offset} came"),
            Some(next) => assert_eq!(base_offset, next, "a gap"),
        }
        let (one, others) = rest.split_at(12 + number(8) as usize);
        assert_eq!(crc32c::crc32c(&one[21..]), number(17) as u32, "the batch at {base_offset} is damaged");
        next = Some(end);
        rest = others;
    }
    let next = next.unwrap_or(offset);
    assert!(next <= data.high_watermark, "{next} is beyond the high watermark {}", data.high_watermark);
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_behind_a_fast_writer_gets_every_record_whole_in_every_version() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let topic = NewTopic::new("t", 1, TopicReplication::Fixed(1)).set("segment.bytes", "1048576");
    admin(&broker).create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    const BATCHES: i64 = 600;
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writer = greeted(&broker);
        let id = topic_id(&mut writer);
        let written = &written;
        scope.spawn(move || {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            for base_offset in 0..BATCHES {
                // Smaller and larger than what is copied, and larger than an interval of the index.
                let bytes = *[10, 300, 5_000, 17_000, 60_000].get(random.random_range(0..5)).unwrap();
                assert_eq!(append(&mut writer, 0, batch(&vec![b'x'; bytes])), base_offset);
            }
            written.store(true, Ordering::Release);
        });
        for version in 4..=17 {
            let mut reader = greeted(&broker);
            scope.spawn(move || {
                let mut random = ChaCha8Rng::seed_from_u64(seed + version as u64);
                let (mut offset, started) = (0, Instant::now());
                while offset < BATCHES {
                    assert!(started.elapsed() < 3 * PATIENCE, "{offset} of {BATCHES}");
                    let was_written = written.load(Ordering::Acquire);
                    let bytes_max = random.random_range(1..300_000);
                    let request = fetch(id, version, 1, offset, bytes_max).with_max_wait_ms(500);
                    let answer = reader.ask(&request, version);
                    let next = check(&answer.responses[0].partitions[0], offset);
                    assert!(next > offset || !was_written, "nothing came at {offset}");
                    offset = next;
                }
            });
        }
    });
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_the_limit_comes_alone_and_only_where_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 2).await;
    let mut raw = greeted(&broker);
    let id = topic_id(&mut raw);
    for partition in 0..2 {
        for bytes in [900_000, 10, 900_000] {
            append(&mut raw, partition, batch(&vec![b'x'; bytes]));
        }
    }
    for version in [4, 11, 12, 16] {
        let answer = raw.ask(&fetch(id, version, 2, 0, 1), version);
        let [first, second] = answer.responses[0].partitions.as_slice() else { panic!("two partitions") };
        assert_eq!((check(first, 0), check(second, 0)), (1, 0));
        let answer = raw.ask(&fetch(id, version, 2, 0, 950_000), version);
        let [first, second] = answer.responses[0].partitions.as_slice() else { panic!("two partitions") };
        assert_eq!((check(first, 0), check(second, 0)), (2, 2));
        assert_eq!(first.records.as_ref().unwrap().len(), second.records.as_ref().unwrap().len());
    }
    broker.stop().await.unwrap();
}

/// A broker with one closed segment of 18 MiB, and another one behind it.
async fn two_segments(dir: &std::path::Path) -> Broker {
    let broker = start(dir).await;
    let topic = NewTopic::new("t", 1, TopicReplication::Fixed(1)).set("segment.bytes", "19000000");
    admin(&broker).create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let mut raw = greeted(&broker);
    for base_offset in 0..22 {
        assert_eq!(append(&mut raw, 0, batch(&vec![b'x'; 900_000])), base_offset);
    }
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn records_whose_file_is_removed_while_they_are_sent_still_come_whole() {
    let dir = tempfile::tempdir().unwrap();
    let broker = two_segments(dir.path()).await;
    let (mut slow, mut other) = (greeted(&broker), greeted(&broker));
    let id = topic_id(&mut other);
    let first = dir.path().join("t-0").join(format!("{:020}.log", 0));
    assert!(first.exists(), "{}", first.display());
    slow.send(&fetch(id, 16, 1, 0, 16 * MIB), 16);
    // It has begun to come; much more than what sockets hold is still in the file.
    slow.socket.peek(&mut [0]).unwrap();
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(-1);
    let topic = DeleteRecordsTopic::default().with_name(name()).with_partitions(vec![partition]);
    let answer = other.ask(&DeleteRecordsRequest::default().with_timeout_ms(20_000).with_topics(vec![topic]), 2);
    assert_eq!(answer.topics[0].partitions[0].low_watermark, 22);
    assert!(!first.exists());
    let (_, answer) = slow.answer::<FetchRequest>(16);
    let data = &answer.responses[0].partitions[0];
    assert_eq!(check(data, 0), 18);
    // Asked again, they are gone.
    let answer = other.ask(&fetch(id, 16, 1, 0, MIB), 16);
    assert_eq!(answer.responses[0].partitions[0].error_code, 1, "OFFSET_OUT_OF_RANGE");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_while_it_is_sent_ends_the_connection_and_nothing_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let broker = two_segments(dir.path()).await;
    let (mut slow, mut other) = (greeted(&broker), greeted(&broker));
    let id = topic_id(&mut other);
    slow.send(&fetch(id, 16, 1, 0, 16 * MIB), 16);
    slow.socket.peek(&mut [0]).unwrap();
    let first = dir.path().join("t-0").join(format!("{:020}.log", 0));
    std::fs::File::options().write(true).open(first).unwrap().set_len(1000).unwrap();
    let mut came = Vec::new();
    // Closed, not waited for: an error or the end.
    let _ = slow.socket.read_to_end(&mut came);
    assert!(came.len() < 16 * MIB);
    append(&mut other, 0, batch(b"all is well"));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_slowly_delay_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let broker = two_segments(dir.path()).await;
    let mut other = greeted(&broker);
    let id = topic_id(&mut other);
    let mut slow: Vec<Raw> = (0..8).map(|_| greeted(&broker)).collect();
    for raw in &mut slow {
        raw.send(&fetch(id, 16, 1, 0, 16 * MIB), 16);
        raw.socket.peek(&mut [0]).unwrap();
    }
    // Others write and read beside them.
    for expected in 22..122 {
        let offset = append(&mut other, 0, batch(b"small"));
        assert_eq!(offset, expected);
        let answer = other.ask(&fetch(id, 16, 1, offset, MIB), 16);
        assert_eq!(check(&answer.responses[0].partitions[0], offset), offset + 1);
    }
    for raw in &mut slow {
        let (_, answer) = raw.answer::<FetchRequest>(16);
        assert_eq!(check(&answer.responses[0].partitions[0], 0), 18);
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_is_answered_when_enough_has_come_in_all_its_partitions_together() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 200).await;
    let mut writer = greeted(&broker);
    let id = topic_id(&mut writer);
    let one = batch(&[b'x'; 1000]);
    let mut readers: Vec<Raw> = (0..50).map(|_| greeted(&broker)).collect();
    for raw in &mut readers {
        let request = fetch(id, 16, 200, 0, MIB).with_min_bytes(3 * one.len() as i32).with_max_wait_ms(60_000);
        raw.send(&request, 16);
    }
    append(&mut writer, 7, one.clone());
    append(&mut writer, 199, one.clone());
    for raw in &mut readers {
        raw.socket.set_nonblocking(true).unwrap();
        assert!(raw.socket.peek(&mut [0]).is_err(), "answered too early");
        raw.socket.set_nonblocking(false).unwrap();
    }
    append(&mut writer, 0, one.clone());
    let asked = Instant::now();
    for raw in &mut readers {
        let (_, answer) = raw.answer::<FetchRequest>(16);
        let bytes: usize = answer.responses[0].partitions.iter().map(|data| data.records.as_ref().unwrap().len()).sum();
        assert_eq!(bytes, 3 * one.len());
    }
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_named_a_hundred_thousand_times_is_read_and_listened_to_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 2).await;
    let mut raw = greeted(&broker);
    let id = topic_id(&mut raw);
    for partition in [0, 0, 1] {
        append(&mut raw, partition, batch(b"x"));
    }
    let one = |partition, offset| {
        FetchPartition::default().with_partition(partition).with_fetch_offset(offset).with_partition_max_bytes(1)
    };
    for version in [4, 12, 16] {
        let mut request = fetch(id, version, 0, 0, MIB);
        let mut partitions = vec![one(0, 0); 99_999];
        partitions.extend([one(1, 0), one(0, 1)]);
        let mut again = request.topics[0].clone();
        request.topics[0].partitions = partitions;
        again.partitions = vec![one(1, 1)];
        request.topics.push(again);
        let answer = raw.ask(&request, version);
        let [topic] = answer.responses.as_slice() else { panic!("{} topics", answer.responses.len()) };
        // Where it was named first, with what was said last.
        let [first, second] = topic.partitions.as_slice() else { panic!("{} partitions", topic.partitions.len()) };
        assert_eq!((first.partition_index, check(first, 1)), (0, 2));
        assert_eq!((second.partition_index, check(second, 1)), (1, 1));
    }
    // Many that are not named twice are all answered, and waited for.
    let mut request = fetch(id, 16, 0, 0, MIB).with_max_wait_ms(20_000);
    request.topics[0].partitions = (2..60_000).chain([0, 1]).map(|partition| one(partition, 1)).collect();
    let answer = raw.ask(&request, 16);
    let partitions = &answer.responses[0].partitions;
    let unknown = partitions.iter().filter(|partition| partition.error_code == 3).count();
    assert_eq!((partitions.len(), unknown), (60_000, 59_998));
    broker.stop().await.unwrap();
}
