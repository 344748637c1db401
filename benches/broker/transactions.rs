//! Transactions a second: each of 100 messages over all partitions, one behind the other, by some producers at once.
//!
//! The producers are librdkafka as it comes, but for a linger of 0: a commit sends what waits, and would wait for company
//! that cannot come. All brokers see the same calls; a transaction counts when its commit has returned.

use std::sync::{Barrier, Condvar, Mutex};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::brokers::Broker;
use crate::perf_client::PARTITIONS;

/// Messages in each.
const MESSAGES: i32 = 100;
const MESSAGE_BYTES: usize = 200;
/// A call that takes longer than this is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts what was delivered of a transaction: rust-rdkafka's own flush looks only every 100 ms.
#[derive(Default)]
struct Deliveries {
    count: Mutex<i32>,
    whole: Condvar,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        result.as_ref().map_err(|(error, _)| error.clone()).unwrap();
        let mut count = self.count.lock().unwrap();
        *count += 1;
        if *count == MESSAGES {
            *count = 0;
            self.whole.notify_one();
        }
    }
}

/// Commits a second of all producers together.
pub fn measure(broker: &Broker, topic: &str, producers: usize, warm_up: Duration, measured: Duration) -> f64 {
    broker.create_topic(topic, PARTITIONS);
    let together = Barrier::new(producers);
    let commits: usize = std::thread::scope(|scope| {
        let running: Vec<_> = (0..producers)
            .map(|number| {
                let together = &together;
                scope.spawn(move || {
                    let producer = transactional(broker, &format!("{topic}-{number}"));
                    together.wait();
                    let begins = Instant::now() + warm_up;
                    while Instant::now() < begins {
                        commit(&producer, topic);
                    }
                    let ends = begins + measured;
                    let mut commits = 0;
                    loop {
                        commit(&producer, topic);
                        if Instant::now() > ends {
                            break commits;
                        }
                        commits += 1;
                    }
                })
            })
            .collect();
        running.into_iter().map(|producer| producer.join().unwrap()).sum()
    });
    broker.delete_topic(topic);
    commits as f64 / measured.as_secs_f64()
}

fn transactional(broker: &Broker, id: &str) -> ThreadedProducer<Deliveries> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("transactional.id", id)
        .set("linger.ms", "0")
        .create_with_context(Deliveries::default())
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn commit(producer: &ThreadedProducer<Deliveries>, topic: &str) {
    producer.begin_transaction().unwrap();
    // Held, so that no report comes before it is waited for.
    let sending = producer.context().count.lock().unwrap();
    for number in 0..MESSAGES {
        let record = BaseRecord::<(), [u8]>::to(topic).partition(number % PARTITIONS).payload(&[b'x'; MESSAGE_BYTES]);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    drop(producer.context().whole.wait(sending).unwrap());
    // The last report is told of a moment before it is taken off.
    while producer.in_flight_count() > 0 {
        yield_now();
    }
    producer.commit_transaction(PATIENCE).unwrap();
}
