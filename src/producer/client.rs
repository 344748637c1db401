//! The Kafka client: its settings, and the delivery reports that come back from it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{ProducerContext, ThreadedProducer};

use crate::clock::{Micros, SharedClock};
use crate::config::{KafkaSettings, Pace};
use crate::transaction::read_sent_at;

// A delivery report carries its sequence in a pointer.
const _: () = assert!(usize::BITS >= 64);

/// What became of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) sequence: i64,
    /// Partition and offset; None: unknown.
    pub(super) place: Option<(i32, i64)>,
    pub(super) sent_at: Option<Micros>,
    pub(super) reported_at: Micros,
}

/// What the client's thread tells the producer's thread. Holds at most what fits the client's queue.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    reports: Mutex<Vec<Report>>,
    last_error: Mutex<String>,
    has_identity: Mutex<bool>,
    identity_came: Condvar,
}

impl Deliveries {
    /// Waits until the client has its producer id, at most for `patience`: until then librdkafka holds messages back, and
    /// where it found no broker at its first look it asks again half a second later. Arrivals must not begin meanwhile.
    pub(super) fn wait_for_identity(&self, patience: Duration) {
        let waited = self.identity_came.wait_timeout_while(lock(&self.has_identity), patience, |has| !*has);
        // Whoever goes on without an identity is only late; a poisoned flag is still a flag.
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Swaps the reports so far for the empty `into`.
    pub(super) fn take(&self, into: &mut Vec<Report>) {
        into.clear();
        std::mem::swap(&mut *lock(&self.reports), into);
    }

    /// What librdkafka complained about last.
    pub(super) fn last_error(&self) -> String {
        lock(&self.last_error).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A vector of reports is whole after every push.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Receives callbacks on the client's thread.
pub(super) struct DeliveryContext {
    deliveries: Arc<Deliveries>,
    clock: SharedClock,
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The loop says it, not more often than every few seconds.
        tracing::debug!(target: "librdkafka", %error, reason);
        *lock(&self.deliveries.last_error) = reason.to_owned();
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let mut has_identity = lock(&self.deliveries.has_identity);
        if !*has_identity && (contains(statistics, ASSIGNED) || !contains(statistics, STATE)) {
            *has_identity = true;
            self.deliveries.identity_came.notify_all();
        }
    }
}

/// In librdkafka's statistics of an idempotent producer; absent where the user switched idempotence off.
const STATE: &[u8] = b"\"idemp_state\"";
/// The same once messages may go out.
const ASSIGNED: &[u8] = b"\"idemp_state\": \"Assigned\"";

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: usize) {
        let (message, place) = match result {
            Ok(message) => (message, Some((message.partition(), message.offset()))),
            Err((error, message)) => {
                *lock(&self.deliveries.last_error) = error.to_string();
                (message, None)
            }
        };
        let report = Report {
            sequence: sequence as i64,
            place,
            sent_at: message.payload().and_then(read_sent_at),
            reported_at: self.clock.now(),
        };
        lock(&self.deliveries.reports).push(report);
    }
}

/// The producer's client, with a thread that serves its callbacks.
pub(super) type Client = ThreadedProducer<DeliveryContext>;

/// Connects lazily: an unreachable broker is no error here.
pub(super) fn connect(
    kafka: &KafkaSettings,
    finite: bool,
    pace: &Pace,
    deliveries: &Arc<Deliveries>,
    clock: &SharedClock,
) -> KafkaResult<Client> {
    let context = DeliveryContext { deliveries: Arc::clone(deliveries), clock: Arc::clone(clock) };
    producer_config(kafka, finite, pace).create_with_context(context)
}

/// What every client of this role has in common; the user's properties come last and win.
pub(super) fn base_config(kafka: &KafkaSettings, ours: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    for (name, value) in COMMON_PROPERTIES.iter().chain(ours) {
        config.set(*name, *value);
    }
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
}

/// Below this rate a message waits for no company: in the time of a linger a partition would get one more at most.
const LINGER_ABOVE_PER_S: f64 = 2_500.0;

const COMMON_PROPERTIES: &[(&str, &str)] = &[
    ("client.id", "finstream"),
    // A restarted broker is found again within half a second; the default backs off to ten.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "500"),
    ("socket.nagle.disable", "true"),
];

fn producer_config(kafka: &KafkaSettings, finite: bool, pace: &Pace) -> ClientConfig {
    // Set before the user's own properties are: a finite source must not expire what it cannot make again.
    let message_timeout = if finite { "0" } else { "300000" };
    let is_slow = matches!(pace, Pace::Rate { per_second, .. } if *per_second <= LINGER_ABOVE_PER_S);
    let linger_ms = if is_slow { "0" } else { "2" };
    base_config(
        kafka,
        &[
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("max.in.flight.requests.per.connection", "5"),
            ("message.timeout.ms", message_timeout),
            // Long enough to share a request at high rates. At low ones nobody comes to share it with.
            ("linger.ms", linger_ms),
            // A third of a second at 150,000 messages/s; some 30 MB.
            ("queue.buffering.max.messages", "50000"),
            // Where the producer id shows.
            ("statistics.interval.ms", "50"),
            ("retry.backoff.ms", "50"),
            ("retry.backoff.max.ms", "500"),
            // The partitioner of the Java client, so that other producers agree on where a user lives.
            ("partitioner", "murmur2_random"),
        ],
    )
}
