//! A test against a real Kafka broker that lives inside of it: `cargo run --example broker_in_a_test`.
//!
//! What is tested here is a small service that adds up orders by customer. It knows nothing of the test: it is given
//! `bootstrap.servers`, as it is in production.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finstream::testing::TestBroker;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const PATIENCE: Duration = Duration::from_secs(10);

/// The service: reads `count` orders in a consumer group, and commits where it is.
fn add_up(bootstrap_servers: &str, count: usize) -> BTreeMap<String, u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "totals")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&["orders"]).unwrap();
    let mut totals = BTreeMap::new();
    for _ in 0..count {
        let message = next(&consumer);
        let customer = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
        let amount: u64 = std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap();
        *totals.entry(customer).or_default() += amount;
        consumer.commit_message(&message, CommitMode::Sync).unwrap();
    }
    totals
}

/// A poll may also return because partitions were assigned.
fn next(consumer: &BaseConsumer) -> BorrowedMessage<'_> {
    let began = Instant::now();
    loop {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            return message.unwrap();
        }
        assert!(began.elapsed() < PATIENCE, "no order came");
    }
}

fn order(bootstrap_servers: &str, orders: &[(&str, u64)]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap_servers).set("linger.ms", "0").create().unwrap();
    for (customer, amount) in orders {
        let amount = amount.to_string();
        producer.send(BaseRecord::to("orders").key(*customer).payload(&amount)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// What would be a `#[test]`: no set-up before it, and nothing left after it.
fn a_restart_of_the_service_and_of_the_broker_counts_no_order_twice() {
    let mut broker = TestBroker::builder().partitions(3).start().unwrap();
    order(broker.bootstrap_servers(), &[("ada", 10), ("bob", 5), ("ada", 7)]);
    let first = add_up(broker.bootstrap_servers(), 3);
    assert_eq!(first, BTreeMap::from([("ada".to_string(), 17), ("bob".to_string(), 5)]));

    broker.restart().unwrap();
    order(broker.bootstrap_servers(), &[("bob", 1)]);
    let second = add_up(broker.bootstrap_servers(), 1);
    assert_eq!(second, BTreeMap::from([("bob".to_string(), 1)]));
}

fn main() {
    a_restart_of_the_service_and_of_the_broker_counts_no_order_twice();
    println!("passed");
}
