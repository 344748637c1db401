//! Clients that ask for much and take nothing: what they hold in the broker's memory is bounded, and so is the time.
//!
//! Every byte of this process is counted, the client's side included; the tests of this file run one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, unsafe_code)]

#[path = "broker/support.rs"]
mod broker_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker_support::{PATIENCE, Raw, batch, create_topic, start_with};
use finstream::broker::{Broker, Limits};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most that was live since it was last reset.
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counted;

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: hands everything to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const MIB: usize = 1 << 20;
const BATCHES: i64 = 20;

/// Bytes held beyond what was held when this was made.
struct Watch(usize);

impl Watch {
    fn begin() -> Watch {
        let live = LIVE.load(Ordering::Relaxed);
        PEAK.store(live, Ordering::Relaxed);
        Watch(live)
    }
    fn peak(&self) -> usize {
        PEAK.load(Ordering::Relaxed).saturating_sub(self.0)
    }
    fn held(&self) -> usize {
        LIVE.load(Ordering::Relaxed).saturating_sub(self.0)
    }
}

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("large"))
}

fn produce(bytes: usize) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch(&vec![b'x'; bytes])));
    let topic = TopicProduceData::default().with_name(name()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![topic])
}

fn fetch(bytes_max: usize) -> FetchRequest {
    let partition = FetchPartition::default().with_partition(0).with_partition_max_bytes(bytes_max as i32);
    let topic = FetchTopic::default().with_topic(name()).with_partitions(vec![partition]);
    FetchRequest::default().with_max_bytes(bytes_max as i32).with_min_bytes(1).with_topics(vec![topic])
}

fn greeted(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker);
    raw.ask(&ApiVersionsRequest::default(), 3);
    raw
}

/// Bytes of records in the answer.
fn fetched(raw: &mut Raw, bytes_max: usize) -> usize {
    let answer = raw.ask(&fetch(bytes_max), 11);
    answer.responses[0].partitions[0].records.as_ref().map_or(0, bytes::Bytes::len)
}

/// A broker with 18 MiB in one partition.
async fn filled(dir: &std::path::Path, limits: Limits) -> Broker {
    let broker = start_with(dir, limits).await;
    create_topic(&broker, "large", 1).await;
    let mut raw = greeted(&broker);
    for base_offset in 0..BATCHES {
        let answer = raw.ask(&produce(900_000), 7);
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, base_offset);
    }
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_are_few_and_still_come_in_order() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let broker = filled(dir.path(), Limits::default()).await;
    let (mut deaf, mut reader) = (greeted(&broker), greeted(&broker));
    let watch = Watch::begin();
    let asked: Vec<i32> = (0..40).map(|_| deaf.send(&fetch(16 * MIB), 11)).collect();
    // While this one was served that often, the other one could have been, too.
    for _ in 0..40 {
        assert!(fetched(&mut reader, 16 * MIB) > 14 * MIB);
    }
    // Two connections: an answer that waits, one in the making and its records, each; and what the reader decodes.
    assert!(watch.peak() < 160 * MIB, "{} MiB are held", watch.peak() / MIB);
    for id in asked {
        assert_eq!(deaf.answer::<FetchRequest>(11).0, id);
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_hold_hardly_any_memory_and_take_nothing_from_others() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    // Of records that are copied: those that are sent from their file do not count.
    let limits = Limits { all_answers_bytes_max: MIB, ..Limits::default() };
    let broker = filled(dir.path(), limits).await;
    let mut deaf: Vec<Raw> = (0..20).map(|_| greeted(&broker)).collect();
    let mut reader = greeted(&broker);
    let watch = Watch::begin();
    let asked: Vec<Vec<i32>> =
        deaf.iter_mut().map(|raw| (0..4).map(|_| raw.send(&fetch(16 * MIB), 11)).collect()).collect();
    for raw in &mut deaf {
        // Its first answer has begun to come.
        raw.socket.peek(&mut [0]).unwrap();
    }
    // 20 answers of 15 MiB; and what the reader takes and decodes of its own.
    assert!(watch.peak() < 8 * MIB, "{} MiB are held", watch.peak() / MIB);
    assert!(fetched(&mut reader, 16 * MIB) > 14 * MIB, "others get less");
    for (raw, asked) in deaf.iter_mut().zip(asked) {
        for id in asked {
            assert_eq!(raw.answer::<FetchRequest>(11).0, id);
        }
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_copies_for_answers_hold_much_small_batches_are_sent_from_their_file() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { all_answers_bytes_max: 0, ..Limits::default() };
    let broker = start_with(dir.path(), limits).await;
    create_topic(&broker, "large", 1).await;
    let mut raw = greeted(&broker);
    raw.ask(&produce(100), 7);
    let answer = raw.ask(&fetch(MIB), 11);
    let records = answer.responses[0].partitions[0].records.clone().unwrap();
    assert!(records.windows(100).any(|window| window == [b'x'; 100]));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_waits_for_the_room_of_another_and_small_ones_do_not() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { all_requests_bytes_max: MIB, ..Limits::default() };
    let broker = filled(dir.path(), limits).await;
    let (mut first, mut second, mut small) = (greeted(&broker), greeted(&broker), greeted(&broker));
    let mut acknowledge = |count: usize| {
        for _ in 0..count {
            assert_eq!(small.ask(&produce(10), 7).responses[0].partition_responses[0].error_code, 0);
        }
    };
    // All but the last byte: it has the room, and keeps it.
    let frame = first.frame(&produce(900_000), 7);
    first.socket.write_all(&frame[..frame.len() - 1]).unwrap();
    acknowledge(10);
    second.send(&produce(900_000), 7);
    acknowledge(20);
    second.socket.set_nonblocking(true).unwrap();
    assert!(second.socket.peek(&mut [0]).is_err(), "answered beside a request that has all the room");
    second.socket.set_nonblocking(false).unwrap();
    first.socket.write_all(&frame[frame.len() - 1..]).unwrap();
    for raw in [&mut first, &mut second] {
        let answer = raw.answer::<ProduceRequest>(7).1;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_announce_much_and_send_little_hold_no_room() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { all_requests_bytes_max: MIB, ..Limits::default() };
    let broker = filled(dir.path(), limits).await;
    let (mut silent, mut stalled, mut honest) = (greeted(&broker), greeted(&broker), greeted(&broker));
    let frame = silent.frame(&produce(900_000), 7);
    silent.socket.write_all(&frame[..100]).unwrap();
    stalled.socket.write_all(&frame[..100_000]).unwrap();
    let asked = Instant::now();
    assert_eq!(honest.ask(&produce(900_000), 7).responses[0].partition_responses[0].error_code, 0);
    // The request's own time limit is 30 s.
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_a_byte_now_and_then_is_given_up() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { request_timeout: Duration::from_secs(2), answer_rate_min: 16 * MIB, ..Limits::default() };
    let broker = filled(dir.path(), limits).await;
    let mut slow = greeted(&broker);
    for _ in 0..20 {
        slow.send(&fetch(16 * MIB), 11);
    }
    let started = Instant::now();
    let mut piece = vec![0; 64 * 1024];
    let mut taken = 0;
    // Slower than the limit, yet never silent for its timeout. A closed connection ends what can be read.
    loop {
        match slow.socket.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => taken += count,
        }
        assert!(started.elapsed() < PATIENCE, "still served after {taken} bytes");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(taken < 20 * 14 * MIB, "all was sent");
    broker.stop().await.unwrap();
}

/// A frame with so many bytes behind the request, which nobody reads.
fn padded(mut frame: Vec<u8>, bytes: usize) -> Vec<u8> {
    frame.resize(frame.len() + bytes, 0);
    let length = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_wait_do_not_hold_the_requests_that_they_answer() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let broker = filled(dir.path(), Limits::default()).await;
    let (mut deaf, mut other) = (greeted(&broker), greeted(&broker));
    const REQUESTS: i64 = 25;
    let frame = padded(deaf.frame(&produce(10), 7), MIB);
    // The answer to this one fills the socket, and those that follow wait for it.
    deaf.send(&fetch(15 * MIB), 11);
    deaf.socket.peek(&mut [0]).unwrap();
    let watch = Watch::begin();
    for _ in 0..REQUESTS {
        deaf.socket.write_all(&frame).unwrap();
    }
    let started = Instant::now();
    for tried in 0.. {
        let answer = other.ask(&produce(10), 7);
        if answer.responses[0].partition_responses[0].base_offset == BATCHES + REQUESTS + tried {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the requests are not carried out");
    }
    // Some buffers are kept for the next large requests, whoever sends them.
    assert!(watch.held() < 12 * MIB, "{} MiB are held", watch.held() / MIB);
    deaf.answer::<FetchRequest>(11);
    for _ in 0..REQUESTS {
        assert_eq!(deaf.answer::<ProduceRequest>(7).1.responses[0].partition_responses[0].error_code, 0);
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_waits_does_not_hold_its_frame() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let broker = filled(dir.path(), Limits::default()).await;
    let mut waiting = greeted(&broker);
    let mut other = greeted(&broker);
    let mut request = fetch(MIB).with_max_wait_ms(60_000);
    request.topics[0].partitions[0].fetch_offset = BATCHES;
    let frame = padded(waiting.frame(&request, 11), 7 * MIB);
    let watch = Watch::begin();
    waiting.socket.write_all(&frame).unwrap();
    let started = Instant::now();
    // Read, and given back.
    while watch.peak() < frame.len() || watch.held() > MIB {
        other.ask(&ApiVersionsRequest::default(), 3);
        assert!(started.elapsed() < PATIENCE, "{} MiB are held, {} were", watch.held() / MIB, watch.peak() / MIB);
    }
    assert_eq!(other.ask(&produce(10), 7).responses[0].partition_responses[0].error_code, 0);
    assert_eq!(waiting.answer::<FetchRequest>(11).1.responses[0].partitions[0].high_watermark, BATCHES + 1);
    broker.stop().await.unwrap();
}
