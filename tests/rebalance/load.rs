//! The load: one producer at a steady rate, which notes when the broker acknowledged each message.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::kind::{PARTITIONS, TOPIC};
use super::support::notes::now_us;

const MESSAGES_PER_SECOND: f64 = 2_000.0;
const PAYLOAD_BYTES: usize = 100;
const FLUSH_MAX: Duration = Duration::from_secs(60);

/// When each message of each partition was acknowledged, by its offset.
pub type Stored = Vec<Vec<u64>>;

/// Of the message at an offset: there is one producer, and it begins at 0.
pub fn payload(partition: u32, offset: u64) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [partition as u8; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&offset.to_le_bytes());
    payload
}

struct Deliveries(Mutex<Stored>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let message = result.as_ref().unwrap_or_else(|(error, _)| panic!("a message was given up: {error}"));
        let partition = &mut self.0.lock().unwrap()[message.partition() as usize];
        assert_eq!(message.offset(), partition.len() as i64, "the offset of a message");
        partition.push(now_us());
    }
}

/// Produces until told to end, and waits until everything is acknowledged.
pub fn produce(brokers: &str, mut is_over: impl FnMut() -> bool) -> Stored {
    let producer: BaseProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .create_with_context(Deliveries(Mutex::new(vec![Vec::new(); PARTITIONS as usize])))
        .unwrap();
    let (began, mut sent) = (Instant::now(), 0);
    while !is_over() {
        while (sent as f64) < began.elapsed().as_secs_f64() * MESSAGES_PER_SECOND {
            let partition = (sent % u64::from(PARTITIONS)) as u32;
            let payload = payload(partition, sent / u64::from(PARTITIONS));
            let record = BaseRecord::<(), [u8]>::to(TOPIC).partition(partition as i32).payload(&payload);
            match producer.send(record) {
                Ok(()) => sent += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => panic!("cannot send: {error}"),
            }
        }
        producer.poll(Duration::from_millis(5));
    }
    producer.flush(FLUSH_MAX).unwrap();
    let stored = producer.context().0.lock().unwrap().clone();
    assert_eq!(stored.iter().map(Vec::len).sum::<usize>() as u64, sent, "all that was sent is acknowledged");
    stored
}
