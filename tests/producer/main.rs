//! The producer against librdkafka's mock cluster: what the ledger says was stored is what the log holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod killed;
mod resume;
mod support;
mod trouble;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use finstream::clock::SystemClock;
use finstream::config::{Arrival, Pace, ProducerSettings};
use finstream::ledger::LedgerReader;
use finstream::producer;
use finstream::progress::{Progress, Stage as Latency};
use finstream::shutdown::{self, Stage};
use finstream::source;
use finstream::transaction::{
    HEADER_RUN_INFO, HEADER_SEQUENCE, MessageId, RunInfo, Transaction, derived_transaction_id,
};
use rdkafka::message::Message;

use support::{PARTITIONS, assert_books_balance, cluster, from_file, header, log, produce, settings, unpaused};

#[tokio::test(flavor = "multi_thread")]
async fn a_counted_run_stores_each_message_once_and_the_ledger_knows_where() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = ProducerSettings { count: Some(5_000), ..settings(cluster.bootstrap_servers(), dir.path()) };
    let report = produce(&settings).await.unwrap();
    let run = report.run.unwrap();
    assert_eq!((report.scheduled, report.sent, report.acknowledged, report.unknown), (5_000, 5_000, 5_000, 0));
    assert!(report.complete);
    let messages = log(&settings.kafka.brokers);
    assert_eq!(messages.len(), 5_000);
    assert_books_balance(dir.path(), run, &messages);
    for message in &messages {
        let sequence = header(message, HEADER_SEQUENCE).unwrap().parse().unwrap();
        let id = MessageId { run, sequence };
        let transaction = Transaction::decode(message.payload().unwrap()).unwrap();
        assert_eq!(transaction.transaction_id, derived_transaction_id(id));
        assert_eq!(header(message, HEADER_RUN_INFO).is_some(), sequence < 64, "{sequence}");
    }
    let info: RunInfo = messages
        .iter()
        .find_map(|message| header(message, HEADER_RUN_INFO))
        .map(serde_json::from_str)
        .unwrap()
        .unwrap();
    assert_eq!((info.source.as_str(), info.rate.as_str(), info.seed), ("synthetic", "max", Some(1)));
    for partition in 0..PARTITIONS {
        let highest = messages.iter().filter(|message| message.partition() == partition).map(Message::offset).max();
        assert_eq!(report.highest_acknowledged.get(&partition).copied(), highest);
    }
    assert!(LedgerReader::new(dir.path()).runs().unwrap()[0].finished);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_and_a_duration_give_their_product_of_messages() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = ProducerSettings {
        pace: Pace::Rate { per_second: 2_000.0, arrival: Arrival::Constant },
        duration: Some(Duration::from_millis(1_500)),
        ..settings(cluster.bootstrap_servers(), dir.path())
    };
    let progress = Arc::new(Progress::new());
    let (_trigger, shutdown) = shutdown::channel();
    let report = producer::run(settings.clone(), SystemClock::shared(), shutdown, unpaused(), Arc::clone(&progress))
        .await
        .unwrap();
    assert_eq!((report.scheduled, report.sent, report.acknowledged), (3_000, 3_000, 3_000));
    assert_eq!(progress.scheduled.load(Ordering::Relaxed), 3_000);
    assert_eq!(progress.acknowledged.load(Ordering::Relaxed), 3_000);
    for stage in [Latency::Sent, Latency::Acknowledged] {
        assert_eq!(progress.latencies(stage).histogram.len(), 3_000);
        assert_eq!(progress.latencies(stage).negative, 0);
    }
    assert_books_balance(dir.path(), report.run.unwrap(), &log(&settings.kafka.brokers));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_an_endless_run_cleanly_and_also_the_wait_for_a_broker() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    for (brokers, reachable) in [(cluster.bootstrap_servers(), true), ("127.0.0.1:1".to_owned(), false)] {
        let settings = ProducerSettings {
            pace: Pace::Rate { per_second: 500.0, arrival: Arrival::Constant },
            ..settings(brokers, dir.path())
        };
        let progress = Arc::new(Progress::new());
        let (trigger, shutdown) = shutdown::channel();
        let running = tokio::spawn(producer::run(
            settings.clone(),
            SystemClock::shared(),
            shutdown,
            unpaused(),
            Arc::clone(&progress),
        ));
        while reachable && progress.acknowledged.load(Ordering::Relaxed) < 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        trigger.raise(Stage::Drain);
        let report = running.await.unwrap().unwrap();
        assert_eq!(report.run.is_some(), reachable);
        assert_eq!((report.sent, report.unknown), (report.acknowledged, 0));
        assert_eq!(report.scheduled, report.sent);
    }
    assert_eq!(LedgerReader::new(dir.path()).runs().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_ends_its_run_and_the_next_start_is_another_run_that_repeats_the_ids() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = from_file(settings(cluster.bootstrap_servers(), dir.path()));
    let total = source::open(&settings.source).unwrap().total().unwrap();
    let (first, second) = (produce(&settings).await.unwrap(), produce(&settings).await.unwrap());
    assert_ne!(first.run, second.run);
    assert!(first.complete && second.complete && !second.continued);
    let messages = log(&settings.kafka.brokers);
    let mut ids: BTreeMap<String, u32> = BTreeMap::new();
    for message in &messages {
        let transaction = Transaction::decode(message.payload().unwrap()).unwrap();
        *ids.entry(transaction.transaction_id.into_owned()).or_default() += 1;
    }
    assert_eq!(ids.len() as u64, total);
    assert!(ids.values().all(|count| *count == 2));
    for run in [first.run.unwrap(), second.run.unwrap()] {
        assert_books_balance(dir.path(), run, &messages);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paces_that_make_no_sense_are_refused_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    for (pace, expected) in [
        (Pace::Rate { per_second: 0.0, arrival: Arrival::Constant }, "--rate 0 is not a positive number"),
        (Pace::Rate { per_second: f64::NAN, arrival: Arrival::Constant }, "--rate NaN"),
        (Pace::Speed(-1.0), "--speed -1 is not a positive factor"),
        (Pace::Speed(2.0), "--speed needs a source with times of its own"),
    ] {
        let settings = ProducerSettings { pace, ..settings("127.0.0.1:1".into(), dir.path()) };
        let error = produce(&settings).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(LedgerReader::new(dir.path()).runs().unwrap().is_empty());
}
