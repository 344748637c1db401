//! From the moment a message is due to the moment a consumer's poll returns it: both clients in this process, one clock.
//!
//! Producer and consumer are librdkafka as it comes, but for a linger of 0: at these rates waiting for company would be
//! most of what is measured. acks=all, idempotent. Each message carries the time at which it was due.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::brokers::Broker;
use crate::perf_client::PARTITIONS;
use crate::support::pace::{Pace, histogram};

const MESSAGE_BYTES: usize = 200;
/// Longest wait for messages that are still under way at the end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// Counts what was not delivered.
struct Failures(AtomicU64);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Microseconds from the due moment, of all messages due after the warm-up.
pub fn measure(broker: &Broker, topic: &str, rate: f64, warm_up: Duration, measured: Duration) -> Histogram<u64> {
    broker.create_topic(topic, PARTITIONS);
    let producer: BaseProducer<Failures> = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .create_with_context(Failures(AtomicU64::new(0)))
        .unwrap();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("group.id", topic)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();

    // One message a partition goes through before the clock starts: connections, producer id, fetches in place.
    let origin = Instant::now();
    for partition in 0..PARTITIONS {
        send(&producer, topic, partition, origin, origin);
    }
    producer.flush(DRAIN_PATIENCE).unwrap();
    let began = Instant::now();
    let mut greetings = 0;
    while greetings < PARTITIONS {
        assert!(began.elapsed() < DRAIN_PATIENCE, "the first messages do not come back");
        greetings += i32::from(due_of(&consumer).is_some());
    }

    let begins = Instant::now() + Duration::from_millis(50);
    let counted_from = begins + warm_up;
    let sent_all = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let delays = std::thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&consumer, origin, counted_from, &sent_all, &sent));
        let mut pace = Pace::new(begins, rate);
        let mut partition = 0;
        loop {
            let due = pace.wait_for_next();
            if due >= counted_from + measured {
                break;
            }
            send(&producer, topic, partition, due, origin);
            sent.fetch_add(1, Ordering::Relaxed);
            partition = (partition + 1) % PARTITIONS;
        }
        sent_all.store(true, Ordering::Release);
        producer.flush(DRAIN_PATIENCE).unwrap();
        receiving.join().unwrap()
    });
    assert_eq!(producer.context().0.load(Ordering::Relaxed), 0, "messages were not delivered");
    broker.delete_topic(topic);
    delays
}

fn send(producer: &BaseProducer<Failures>, topic: &str, partition: i32, due: Instant, origin: Instant) {
    let mut payload = [b'x'; MESSAGE_BYTES];
    payload[..8].copy_from_slice(&((due - origin).as_nanos() as u64).to_le_bytes());
    producer
        .send(BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(&payload))
        .map_err(|(error, _)| error)
        .unwrap();
    producer.poll(Duration::ZERO);
}

/// When the next message was due, as nanoseconds after the origin; none when none came for a while.
fn due_of(consumer: &BaseConsumer) -> Option<u64> {
    let message = consumer.poll(Duration::from_millis(100))?.unwrap();
    Some(u64::from_le_bytes(message.payload().unwrap()[..8].try_into().unwrap()))
}

fn receive(
    consumer: &BaseConsumer,
    origin: Instant,
    counted_from: Instant,
    sent_all: &AtomicBool,
    sent: &AtomicU64,
) -> Histogram<u64> {
    let mut delays = histogram();
    let mut received = 0;
    let mut last = Instant::now();
    while !(sent_all.load(Ordering::Acquire) && received == sent.load(Ordering::Relaxed)) {
        let Some(due) = due_of(consumer) else {
            assert!(last.elapsed() < DRAIN_PATIENCE, "{received} messages came, and then no more");
            continue;
        };
        last = Instant::now();
        received += 1;
        let due = origin + Duration::from_nanos(due);
        if due >= counted_from {
            delays.saturating_record((last - due).as_micros() as u64);
        }
    }
    delays
}
