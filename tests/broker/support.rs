//! A broker on a free port with a directory of its own, and ways to reach it: rdkafka, and raw frames.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use finstream::broker::{Broker, Limits};
use finstream::config::BrokerSettings;
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};

/// No test waits longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn settings(dir: &Path) -> BrokerSettings {
    BrokerSettings {
        default_partitions: 3,
        retention: Duration::from_secs(86_400),
        retention_bytes_per_partition: 1 << 30,
        ..BrokerSettings::local(dir.to_owned())
    }
}

pub async fn start(dir: &Path) -> Broker {
    Broker::start(settings(dir)).await.unwrap()
}

pub async fn start_with(dir: &Path, limits: Limits) -> Broker {
    Broker::start_with(settings(dir), limits).await.unwrap()
}

pub fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address().to_string());
    config
}

pub fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    client(broker).create().unwrap()
}

pub async fn create_topic(broker: &Broker, name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let results = admin(broker).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert_eq!(results, vec![Ok(name.to_owned())]);
}

pub fn producer(broker: &Broker) -> FutureProducer {
    client(broker).set("enable.idempotence", "true").set("linger.ms", "1").create().unwrap()
}

/// Sends one message and waits for its acknowledgement; returns its offset.
pub async fn send(producer: &FutureProducer, topic: &str, partition: i32, payload: &str) -> i64 {
    let record = FutureRecord::<(), str>::to(topic).partition(partition).payload(payload);
    producer.send(record, PATIENCE).await.unwrap().offset
}

pub fn consumer(broker: &Broker, group: &str, more: &[(&str, &str)]) -> BaseConsumer {
    let mut config = client(broker);
    config
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200");
    for (key, value) in more {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// Polls until `count` messages have come; returns their payloads.
pub fn take(consumer: &BaseConsumer, count: usize) -> Vec<String> {
    let started = std::time::Instant::now();
    let mut payloads = Vec::new();
    while payloads.len() < count {
        assert!(started.elapsed() < PATIENCE, "only {} of {count} messages came", payloads.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            payloads.push(payload(&message.unwrap()));
        }
    }
    payloads
}

pub fn payload(message: &BorrowedMessage<'_>) -> String {
    String::from_utf8(message.payload().unwrap_or_default().to_vec()).unwrap()
}

/// Polls both until `done` says so about their assignments.
pub fn settle(consumers: &[&BaseConsumer], mut done: impl FnMut(&[Vec<i32>]) -> bool) -> Vec<Vec<i32>> {
    let started = std::time::Instant::now();
    loop {
        for consumer in consumers {
            if let Some(Err(error)) = consumer.poll(Duration::from_millis(20)) {
                panic!("{error}");
            }
        }
        let assignments: Vec<Vec<i32>> = consumers.iter().map(|consumer| assignment(consumer)).collect();
        if done(&assignments) {
            return assignments;
        }
        assert!(started.elapsed() < PATIENCE, "the group does not settle: {assignments:?}");
    }
}

pub fn assignment(consumer: &BaseConsumer) -> Vec<i32> {
    let mut partitions: Vec<i32> =
        consumer.assignment().unwrap().elements().iter().map(|element| element.partition()).collect();
    partitions.sort_unstable();
    partitions
}

/// A connection that speaks frames.
pub struct Raw {
    pub socket: TcpStream,
    next_id: i32,
}

impl Raw {
    pub fn connect(broker: &Broker) -> Raw {
        Raw::connect_to(broker.address())
    }

    pub fn connect_to(address: SocketAddr) -> Raw {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Raw { socket, next_id: 1 }
    }

    /// A request's frame with its length.
    pub fn frame<R: Request>(&mut self, request: &R, version: i16) -> Vec<u8> {
        self.next_id += 1;
        let key = ApiKey::try_from(R::KEY).unwrap();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next_id)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        let mut body = BytesMut::new();
        header.encode(&mut body, key.request_header_version(version)).unwrap();
        request.encode(&mut body, version).unwrap();
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend(body);
        frame
    }

    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        let frame = self.frame(request, version);
        self.socket.write_all(&frame).unwrap();
        self.next_id
    }

    /// The next frame; None when the broker closed the connection.
    pub fn receive(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut frame).ok()?;
        Some(Bytes::from(frame))
    }

    /// The next frame as the answer to a request.
    pub fn answer<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let mut frame = self.receive().expect("an answer");
        let id = frame.get_i32();
        if R::Response::header_version(version) >= 1 {
            assert_eq!(frame.get_u8(), 0);
        }
        (id, R::Response::decode(&mut frame, version).unwrap())
    }

    pub fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let id = self.send(request, version);
        let (answered, response) = self.answer::<R>(version);
        assert_eq!(answered, id);
        response
    }
}

/// One batch of one record.
pub fn batch(value: &[u8]) -> Bytes {
    let record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: NO_SEQUENCE,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(Bytes::copy_from_slice(value)),
        headers: Default::default(),
    };
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, [&record], &options).unwrap();
    out.freeze()
}
