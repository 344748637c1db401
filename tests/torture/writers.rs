//! A producer: idempotent, patient, and it notes each message that the broker acknowledged.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::child::{Clients, Member};
use super::message::{Identity, Place};
use super::notes::{Note, Notebook};

pub const WRITERS: u32 = 50;
/// Partitions of a producer; each partition has two producers at a time.
const PLACES: u32 = 8;
/// On average 2.5 messages each 125 ms, and now and then a hundred: 1,400 a second from all.
const BURST: std::ops::RangeInclusive<u32> = 1..=4;
const LARGE_BURST: u32 = 100;
const LARGE_BURST_ONE_IN: u32 = 100;
const PAUSE_MS: std::ops::RangeInclusive<u64> = 50..=200;
const FLUSH_MAX: Duration = Duration::from_secs(180);
const CODECS: [&str; 5] = ["none", "lz4", "none", "zstd", "gzip"];

struct Deliveries {
    notebook: Mutex<Notebook>,
    failure: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    // Outages are the point of it; a fatal error fails the deliveries, and they are looked at.
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                let Identity { life, place, sequence } = Identity::of(message.payload().unwrap()).unwrap();
                let offset = u64::try_from(message.offset()).ok();
                self.notebook.lock().unwrap().write(Note::Delivered { place, offset, life, sequence });
            }
            Err((error, _)) => {
                self.failure.lock().unwrap().get_or_insert_with(|| format!("a message was given up: {error}"));
            }
        }
    }
}

fn places(client: u32) -> Vec<Place> {
    (0..PLACES).map(|number| Place((client * PLACES / 2 + number) % Place::COUNT)).collect()
}

/// Writes until `stop`, then waits until everything is acknowledged.
///
/// # Errors
/// A message was given up: none ever should be.
pub fn run(clients: &Clients, member: Member, stop: &AtomicBool) -> Result<(), String> {
    let notebook = Mutex::new(Notebook::create(&clients.notes.join(format!("writer-{:06}", member.life))));
    let context = Deliveries { notebook, failure: Mutex::new(None) };
    let producer: BaseProducer<Deliveries> = clients
        .config()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "0")
        .set("linger.ms", "5")
        .set("compression.type", CODECS[member.client as usize % CODECS.len()])
        .create_with_context(context)
        .map_err(|error| error.to_string())?;
    let mut random = ChaCha8Rng::seed_from_u64(u64::from(member.life));
    let mut next: Vec<(Place, u32)> = places(member.client).into_iter().map(|place| (place, 0)).collect();
    while !stop.load(Ordering::Relaxed) {
        let large = random.random_range(0..LARGE_BURST_ONE_IN) == 0;
        for _ in 0..if large { LARGE_BURST } else { random.random_range(BURST) } {
            send_one(&producer, member.life, &mut next, &mut random)?;
        }
        producer.poll(Duration::from_millis(random.random_range(PAUSE_MS)));
        failure(&producer)?;
    }
    let asked = Instant::now();
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(20));
        failure(&producer)?;
        if asked.elapsed() > FLUSH_MAX {
            return Err(format!("{} messages are not acknowledged after {FLUSH_MAX:?}", producer.in_flight_count()));
        }
    }
    Ok(())
}

fn send_one(
    producer: &BaseProducer<Deliveries>,
    life: u32,
    next: &mut [(Place, u32)],
    random: &mut impl Rng,
) -> Result<(), String> {
    let (place, sequence) = &mut next[random.random_range(0..PLACES as usize)];
    let (topic, payload) = (place.topic(), Identity { life, place: *place, sequence: *sequence }.payload());
    let record = BaseRecord::<(), [u8]>::to(&topic).partition(place.partition()).payload(&payload);
    match producer.send(record) {
        Ok(()) => *sequence += 1,
        // The broker is away; the same message is tried again.
        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {}
        Err((error, _)) => return Err(format!("cannot send: {error}")),
    }
    Ok(())
}

fn failure(producer: &BaseProducer<Deliveries>) -> Result<(), String> {
    producer.context().failure.lock().unwrap().take().map_or(Ok(()), Err)
}

#[test]
fn every_partition_has_two_producers() {
    let mut producers = vec![0; Place::COUNT as usize];
    (0..WRITERS).flat_map(places).for_each(|place| producers[place.0 as usize] += 1);
    assert!(producers.iter().all(|count| *count == 2), "{producers:?}");
}
