//! What goes wrong between producer and broker, and what the books say then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use finstream::clock::SystemClock;
use finstream::config::{Arrival, Pace, ProducerSettings};
use finstream::ledger::{LedgerReader, Outcome};
use finstream::producer;
use finstream::progress::{Progress, Stage as Latency};
use finstream::shutdown;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::{TOPIC, assert_books_balance, cluster, log, produce, settings, stored, unpaused};

#[tokio::test(flavor = "multi_thread")]
async fn retried_requests_are_neither_lost_nor_stored_twice() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ];
    cluster.request_errors(RDKafkaApiKey::Produce, &errors);
    let settings = ProducerSettings { count: Some(3_000), ..settings(cluster.bootstrap_servers(), dir.path()) };
    let report = produce(&settings).await.unwrap();
    assert_eq!((report.acknowledged, report.unknown), (3_000, 0));
    assert_books_balance(dir.path(), report.run.unwrap(), &log(&settings.kafka.brokers));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_for_a_while_costs_time_and_no_message() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = ProducerSettings {
        pace: Pace::Rate { per_second: 1_000.0, arrival: Arrival::Constant },
        duration: Some(Duration::from_secs(2)),
        ..settings(cluster.bootstrap_servers(), dir.path())
    };
    let progress = Arc::new(Progress::new());
    let (_trigger, shutdown) = shutdown::channel();
    let running = producer::run(settings.clone(), SystemClock::shared(), shutdown, unpaused(), Arc::clone(&progress));
    let running = tokio::spawn(running);
    while progress.acknowledged.load(Ordering::Relaxed) < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.broker_down(1).unwrap();
    let stuck = progress.acknowledged.load(Ordering::Relaxed);
    while progress.sent.load(Ordering::Relaxed) < stuck + 300 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.broker_up(1).unwrap();
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.scheduled, report.sent, report.acknowledged), (2_000, 2_000, 2_000));
    // Lateness shows where it belongs: the arrival clock went on.
    assert!(progress.latencies(Latency::Acknowledged).histogram.max() > 200_000);
    assert_books_balance(dir.path(), report.run.unwrap(), &log(&settings.kafka.brokers));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_the_broker_refuses_are_unknown_in_the_ledger_and_the_others_are_not() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let settings = ProducerSettings {
        pace: Pace::Rate { per_second: 1_000.0, arrival: Arrival::Constant },
        count: Some(500),
        ..settings(cluster.bootstrap_servers(), dir.path())
    };
    let report = produce(&settings).await.unwrap();
    let run = report.run.unwrap();
    assert!(report.unknown > 0 && !report.complete, "{report:?}");
    assert_eq!(report.acknowledged + report.unknown, 500);
    let (mut unknown, mut known) = (0, 0);
    LedgerReader::new(dir.path())
        .read_outcomes(run, |outcome| match outcome {
            Outcome::Unknown { .. } => unknown += 1,
            Outcome::Acknowledged { .. } => known += 1,
        })
        .unwrap();
    assert_eq!((unknown, known), (report.unknown, report.acknowledged));
    assert_eq!(stored(&log(&settings.kafka.brokers), run).len() as u64, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_run_goes_on_with_a_new_identity_when_the_broker_refuses_the_old_one() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let settings = ProducerSettings {
        pace: Pace::Rate { per_second: 1_000.0, arrival: Arrival::Constant },
        count: Some(1_000),
        ..settings(cluster.bootstrap_servers(), dir.path())
    };
    let report = produce(&settings).await.unwrap();
    assert_eq!(report.sent, 1_000);
    assert!(report.unknown > 0 && report.acknowledged > 500, "{report:?}");
    assert_eq!(report.acknowledged + report.unknown, 1_000);
    let stored = stored(&log(&settings.kafka.brokers), report.run.unwrap());
    assert!(stored.len() as u64 >= report.acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_refused_for_a_while_delays_messages_and_does_not_end_the_run() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = ProducerSettings {
        pace: Pace::Rate { per_second: 1_000.0, arrival: Arrival::Constant },
        count: Some(2_000),
        ..settings(cluster.bootstrap_servers(), dir.path())
    };
    let progress = Arc::new(Progress::new());
    let (_trigger, shutdown) = shutdown::channel();
    let running = producer::run(settings.clone(), SystemClock::shared(), shutdown, unpaused(), Arc::clone(&progress));
    let running = tokio::spawn(running);
    while progress.acknowledged.load(Ordering::Relaxed) < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.topic_error(TOPIC, refusal).unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[refusal]);
    // The client itself refuses messages now: the arrival clock goes on and what is sent stays behind.
    let behind = || {
        let sent = progress.sent.load(Ordering::Relaxed);
        progress.scheduled.load(Ordering::Relaxed).saturating_sub(sent)
    };
    while behind() < 300 {
        assert!(!running.is_finished(), "the run ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.scheduled, report.sent), (2_000, 2_000));
    assert_eq!(report.acknowledged + report.unknown, 2_000);
    assert!(report.unknown < 300, "{report:?}");
    assert_eq!(stored(&log(&settings.kafka.brokers), report.run.unwrap()).len() as u64, report.acknowledged);
}
