//! A log that was cut, or is another one, stops the consumer; `finstream reset` is the cure, and leaves a record.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};
use support::{Sandbox, wait_until};

const TOPIC: &str = "finance.transactions";

/// Cuts the log of a partition, as retention would.
fn cut(brokers: &str, partition: i32, before: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(TOPIC, partition, Offset::Offset(before)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(admin.delete_records(&offsets, &AdminOptions::new())).unwrap();
}

#[test]
fn a_log_that_was_cut_behind_the_totals_stops_the_consumer_until_the_gap_is_accepted_on_record() {
    let sandbox = Sandbox::new();
    let mut broker = sandbox.spawn(&["--role", "broker"]);
    let ready = broker.wait_ready();
    let consumer = sandbox.start(&["--role", "consumer"]);
    sandbox.expect(0, &["--role", "producer", "--count", "3000", "--rate", "max"]);
    wait_until("the first messages", || sandbox.sql("select count(*) from messages") == "3000");
    assert_eq!(consumer.stop().0, Some(0));
    sandbox.expect(0, &["--role", "producer", "--count", "3000", "--rate", "max"]);
    let next: i64 = sandbox.sql("select next_offset from pipeline_progress where partition = 0").parse().unwrap();
    cut(ready["kafka"].as_str().unwrap(), 0, next + 10);

    let stopped = sandbox.run(&["--role", "consumer", "--duration", "2s"]);
    assert_eq!(stopped.status.code(), Some(4));
    let error = String::from_utf8_lossy(&stopped.stderr).to_string();
    let cure = format!("finstream reset --topic {TOPIC} --partition 0 --to {} --accept-loss", next + 10);
    assert!(error.contains(&cure), "{error}");

    let to = (next + 10).to_string();
    let reset = ["reset", "--topic", TOPIC, "--partition", "0", "--to", &to];
    sandbox.expect(2, &reset);
    sandbox.expect(0, &[&reset[..], &["--accept-loss"]].concat());
    sandbox.expect(0, &["--role", "consumer", "--duration", "1s"]);
    assert_eq!(sandbox.sql("select count(*) from messages"), "5990");
    assert_eq!(sandbox.sql("select to_offset - from_offset from skipped_ranges"), "10");
    let report = String::from_utf8(sandbox.run(&["verify"]).stdout).unwrap();
    assert!(report.contains("skipped"), "{report}");
    assert_eq!(broker.stop().0, Some(0));
}

#[test]
fn a_new_log_under_old_totals_opens_a_new_life_and_both_count() {
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["--count", "500", "--rate", "max"]);
    std::fs::remove_dir_all(sandbox.data().join("broker")).unwrap();
    std::fs::create_dir(sandbox.data().join("broker")).unwrap();
    // The new log exists once a broker has run.
    let broker = sandbox.start(&["--role", "broker"]);
    let stopped = sandbox.run(&["--role", "consumer", "--duration", "1s"]);
    assert_eq!(stopped.status.code(), Some(4));
    sandbox.expect(0, &["reset", "--topic", TOPIC, "--partition", "0", "--to", "0", "--accept-loss"]);
    assert_eq!(broker.stop().0, Some(0));
    let text = sandbox.run(&["--count", "500", "--rate", "max"]);
    assert!(matches!(text.status.code(), Some(0 | 3)), "the second life is counted");
    assert_eq!(sandbox.sql("select count(*) from messages"), "1000");
    assert_eq!(sandbox.sql("select count(*) from streams where topic like '%transactions'"), "2");
    assert_eq!(sandbox.sql("select sum(transactions) from user_totals"), "1000");
}

#[test]
fn reset_removes_only_what_is_ours_and_not_while_something_runs() {
    let sandbox = Sandbox::new();
    let broker = sandbox.start(&["--role", "broker"]);
    std::fs::write(sandbox.data().join("notes.txt"), "mine").unwrap();
    sandbox.expect(4, &["reset", "--yes"]);
    assert_eq!(broker.stop().0, Some(0));
    sandbox.expect(4, &["reset"]);
    sandbox.expect(0, &["reset", "--yes"]);
    let left: Vec<_> = std::fs::read_dir(sandbox.data()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"]);
}
