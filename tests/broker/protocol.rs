//! What the broker does on the wire: versions, hostile frames, order of answers.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::{Raw, batch, create_topic, producer, send, start, start_with};
use bytes::{Buf, Bytes};
use finstream::broker::{Broker, BrokerError, Limits};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_versions_request_from_the_future_gets_error_35_in_a_version_0_body() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut raw = Raw::connect(&broker);
    // Key 18, version 99, correlation id 7, then whatever the future holds.
    raw.socket.write_all(&[0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 1, 2, 3]).unwrap();
    let mut frame = raw.receive().unwrap();
    assert_eq!(frame.get_i32(), 7);
    let response = ApiVersionsResponse::decode(&mut frame, 0).unwrap();
    assert!(frame.is_empty());
    assert_eq!(response.error_code, 35);
    let told: Vec<_> = response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    assert_eq!(told, [(18, 0, 4)], "which versions there are, and nothing else");
    // The same connection goes on with a version that is known.
    assert_eq!(raw.ask(&ApiVersionsRequest::default(), 3).error_code, 0);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_with_its_cure() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let other = tempfile::tempdir().unwrap();
    let mut settings = crate::support::settings(other.path());
    settings.listen = broker.address();
    let error = Broker::start(settings).await.err().expect("the port is taken");
    assert!(matches!(error, BrokerError::Listen { .. }));
    let text = error.to_string();
    assert!(text.contains(&broker.address().to_string()) && text.contains("--kafka-listen"), "{text}");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_impossible_length_close_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    for head in [[0xff, 0xff, 0xff, 0xff], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 0], *b"GET "] {
        let mut raw = Raw::connect(&broker);
        raw.socket.write_all(&head).unwrap();
        raw.socket.write_all(&[0; 8]).unwrap();
        assert!(raw.receive().is_none(), "{head:?}");
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_api_and_an_unknown_version_close_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    for (key, version) in [(999i16, 0i16), (0, 2), (3, 99), (-1, -1), (24, 5)] {
        let mut raw = Raw::connect(&broker);
        let mut frame = vec![0, 0, 0, 16];
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend([0; 12]);
        raw.socket.write_all(&frame).unwrap();
        assert!(raw.receive().is_none(), "key {key} version {version}");
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_request_is_cut_off_at_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { request_timeout: Duration::from_millis(200), ..Limits::default() };
    let broker = start_with(dir.path(), limits).await;
    let mut raw = Raw::connect(&broker);
    let frame = raw.frame(&ApiVersionsRequest::default(), 3);
    raw.socket.write_all(&frame[..frame.len() - 1]).unwrap();
    let started = Instant::now();
    assert!(raw.receive().is_none());
    assert!(started.elapsed() >= Duration::from_millis(150), "cut off too early: {:?}", started.elapsed());
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_does_not_hold_up_another() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "slow", 1).await;
    let mut waiting = Raw::connect(&broker);
    let long =
        FetchRequest::default().with_max_wait_ms(30_000).with_min_bytes(1).with_max_bytes(1 << 20).with_topics(vec![
            FetchTopic::default()
                .with_topic(name("slow"))
                .with_partitions(vec![FetchPartition::default().with_partition(0).with_partition_max_bytes(1 << 20)]),
        ]);
    waiting.ask(&ApiVersionsRequest::default(), 3);
    waiting.send(&long, 11);
    let mut half = Raw::connect(&broker);
    half.socket.write_all(&[0, 0]).unwrap();
    let started = Instant::now();
    let mut quick = Raw::connect(&broker);
    assert_eq!(quick.ask(&MetadataRequest::default().with_topics(None), 12).topics.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(2));
    // And the broker stops although one client waits and another never finishes its sentence.
    let started = Instant::now();
    broker.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "stopping took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_with(dir.path(), Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = Raw::connect(&broker);
    first.ask(&ApiVersionsRequest::default(), 0);
    let mut second = Raw::connect(&broker);
    assert_eq!(second.socket.read(&mut [0; 1]).unwrap_or(0), 0);
    first.ask(&ApiVersionsRequest::default(), 0);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_session_is_given_from_version_7_on_and_an_empty_answer_has_empty_records() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "empty", 1).await;
    let mut raw = Raw::connect(&broker);
    let topic = FetchTopic::default()
        .with_topic(name("empty"))
        .with_partitions(vec![FetchPartition::default().with_partition_max_bytes(1000)]);
    let request = FetchRequest::default().with_session_epoch(0).with_max_bytes(1000).with_topics(vec![topic]);
    for version in 4..=12 {
        let response = raw.ask(&request.clone().with_session_epoch(if version < 7 { -1 } else { 0 }), version);
        assert_eq!((response.error_code, response.session_id != 0), (0, version >= 7), "version {version}");
        assert_eq!(response.responses[0].partitions[0].records, Some(Bytes::new()), "version {version}");
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_by_an_unknown_topic_id_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut raw = Raw::connect(&broker);
    let topic = FetchTopic::default()
        .with_topic_id(uuid::Uuid::from_u128(42))
        .with_partitions(vec![FetchPartition::default().with_partition_max_bytes(1000)]);
    let request = FetchRequest::default().with_max_wait_ms(20_000).with_min_bytes(1).with_topics(vec![topic]);
    let started = Instant::now();
    for version in 13..=17 {
        let request = if version >= 15 { request.clone() } else { request.clone().with_replica_id((-1).into()) };
        assert_eq!(raw.ask(&request, version).responses[0].partitions[0].error_code, 100, "version {version}");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "an error must not wait");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_wakes_when_a_message_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "wake", 1).await;
    let producer = producer(&broker);
    send(&producer, "wake", 0, "before").await;
    let mut raw = Raw::connect(&broker);
    raw.ask(&ApiVersionsRequest::default(), 3);
    let topic = FetchTopic::default()
        .with_topic(name("wake"))
        .with_partitions(vec![FetchPartition::default().with_fetch_offset(1).with_partition_max_bytes(1 << 20)]);
    let request = FetchRequest::default()
        .with_max_wait_ms(15_000)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    raw.send(&request, 11);
    let waiter = tokio::task::spawn_blocking(move || {
        let (_, response) = raw.answer::<FetchRequest>(11);
        (Instant::now(), response)
    });
    assert_eq!(send(&producer, "wake", 0, "after").await, 1);
    let acknowledged = Instant::now();
    let (woken, response) = waiter.await.unwrap();
    assert!(!response.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
    let apart = woken.max(acknowledged) - woken.min(acknowledged);
    assert!(apart < Duration::from_secs(5), "woken {apart:?} from the acknowledgement");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_id_is_given_out_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut raw = Raw::connect(&broker);
    let idempotent = InitProducerIdRequest::default().with_transactional_id(None);
    let ours: Vec<i64> = (0..3).map(|_| raw.ask(&idempotent, 4).producer_id.0).collect();
    assert_eq!(ours, vec![ours[0], ours[0] + 1, ours[0] + 2]);
    broker.stop().await.unwrap();
    // A restart never gives out an id twice.
    let broker = start(dir.path()).await;
    let next = Raw::connect(&broker).ask(&idempotent, 4).producer_id.0;
    assert!(next > ours[2]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_the_order_of_pipelined_requests() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "order", 1).await;
    let mut raw = Raw::connect(&broker);
    raw.ask(&ApiVersionsRequest::default(), 3);
    let produce = ProduceRequest::default().with_acks(-1).with_timeout_ms(5000);
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push((true, raw.send(&produce, 9)));
        sent.push((false, raw.send(&MetadataRequest::default().with_topics(None), 12)));
    }
    for (is_produce, id) in sent {
        let answered = if is_produce { raw.answer::<ProduceRequest>(9).0 } else { raw.answer::<MetadataRequest>(12).0 };
        assert_eq!(answered, id);
    }
    broker.stop().await.unwrap();
}

/// A batch with other bytes at `at`; its CRC is made to fit, if they lie in what it covers.
fn forged(at: usize, bytes: &[u8]) -> Bytes {
    let mut forged = batch(b"value").to_vec();
    forged[at..at + bytes.len()].copy_from_slice(bytes);
    if at > 20 {
        let crc = crc32c::crc32c(&forged[21..]);
        forged[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    forged.into()
}

/// Which of the two it is decides whether a client sends the batch again.
#[tokio::test(flavor = "multi_thread")]
async fn batches_that_arrive_damaged_are_told_from_batches_that_were_sent_wrong_as_in_kafka() {
    const CORRUPT_MESSAGE: i16 = 2;
    const INVALID_TIMESTAMP: i16 = 32;
    const INVALID_RECORD: i16 = 87;
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "codes", 1).await;
    let mut raw = Raw::connect(&broker);
    raw.ask(&ApiVersionsRequest::default(), 3);
    let good = batch(b"value");
    let cases = [
        ("crc", forged(17, &[1, 2, 3, 4]), CORRUPT_MESSAGE),
        ("cut off", good.slice(..good.len() - 1), CORRUPT_MESSAGE),
        ("length", forged(8, &1i32.to_be_bytes()), CORRUPT_MESSAGE),
        ("magic 3", forged(16, &[3]), CORRUPT_MESSAGE),
        ("magic 1", forged(16, &[1]), INVALID_RECORD),
        ("no batch", Bytes::new(), INVALID_RECORD),
        ("count", forged(57, &2i32.to_be_bytes()), INVALID_RECORD),
        ("no records", forged(57, &0i32.to_be_bytes()), INVALID_RECORD),
        ("last offset delta", forged(23, &7i32.to_be_bytes()), INVALID_RECORD),
        ("control", forged(21, &0x20i16.to_be_bytes()), INVALID_RECORD),
        ("compression 7", forged(21, &7i16.to_be_bytes()), INVALID_RECORD),
        ("zstd that is none", forged(21, &4i16.to_be_bytes()), INVALID_RECORD),
        ("producer without sequence", forged(43, &5i64.to_be_bytes()), INVALID_RECORD),
        ("record length", forged(61, &[0x7f]), INVALID_RECORD),
        ("log append time", forged(21, &0x08i16.to_be_bytes()), INVALID_TIMESTAMP),
        ("nothing", good.clone(), 0),
    ];
    for (what, records, code) in cases {
        let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
        let topic = TopicProduceData::default().with_name(name("codes")).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![topic]);
        let answer = raw.ask(&request, 9);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, code, "{what}: {:?}", answer.error_message);
        assert_eq!(answer.base_offset, if code == 0 { 0 } else { -1 }, "{what}");
    }
    broker.stop().await.unwrap();
}
