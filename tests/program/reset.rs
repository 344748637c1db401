//! A log that was cut, or is another one, stops the consumer; `finstream reset` is the cure, and leaves a record.

use std::path::Path;
use std::process::Command;

use crate::support::{Sandbox, wait_until};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: &str = "finance.transactions";

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

fn wait_for<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(answer)
}

/// Cuts the log of a partition, as retention would.
fn cut(brokers: &str, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(TOPIC, partition, Offset::Offset(before)).unwrap();
    wait_for(admin(brokers).delete_records(&offsets, &AdminOptions::new())).unwrap();
}

fn recreate(brokers: &str) {
    let (admin, options) = (admin(brokers), AdminOptions::new());
    for deleted in wait_for(admin.delete_topics(&[TOPIC], &options)).unwrap() {
        deleted.unwrap();
    }
    for created in
        wait_for(admin.create_topics(&[NewTopic::new(TOPIC, 6, TopicReplication::Fixed(1))], &options)).unwrap()
    {
        created.unwrap();
    }
}

/// The command that an error ends with, without its first word.
fn cure(error: &str) -> Vec<&str> {
    let (_, command) = error.trim_end().rsplit_once("type: finstream ").unwrap();
    command.split_whitespace().collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
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
    for partition in [0, 1] {
        let query = format!("select next_offset from pipeline_progress where partition = {partition}");
        let next: i64 = sandbox.sql(&query).parse().unwrap();
        cut(ready["kafka"].as_str().unwrap(), partition, next + 10);
    }

    // One after the other is found, told, and cured as told.
    for _ in 0..2 {
        let stopped = sandbox.run(&["--role", "consumer", "--duration", "2s"]);
        assert_eq!(stopped.status.code(), Some(4));
        let error = String::from_utf8_lossy(&stopped.stderr).to_string();
        assert!(error.contains("10 offsets were deleted"), "{error}");
        let cure = cure(&error);
        let (agreement, reset) = cure.split_last().unwrap();
        assert_eq!(*agreement, "--accept-loss");
        sandbox.expect(2, reset);
        sandbox.expect(0, &cure);
    }
    sandbox.expect(0, &["--role", "consumer", "--duration", "1s"]);
    assert_eq!(sandbox.sql("select count(*) from messages"), "5980");
    assert_eq!(sandbox.sql("select sum(to_offset - from_offset) from skipped_ranges"), "20");
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
fn a_topic_that_is_recreated_while_it_is_read_stops_the_consumer_before_it_counts_anything_of_the_new_one() {
    let sandbox = Sandbox::new();
    let mut broker = sandbox.spawn(&["--role", "broker"]);
    let ready = broker.wait_ready();
    let mut consumer = sandbox.start(&["--role", "consumer"]);
    sandbox.expect(0, &["--role", "producer", "--count", "1200", "--rate", "max"]);
    wait_until("the first messages", || sandbox.sql("select count(*) from messages") == "1200");
    recreate(ready["kafka"].as_str().unwrap());
    sandbox.expect(0, &["--role", "producer", "--count", "6000", "--rate", "max"]);
    assert_eq!(consumer.wait(), Some(4));
    let output = consumer.output();
    // Which is noticed first is chance: the new id, or, at an assignment in between, the other log.
    assert!(output.contains("deleted and created anew") || output.contains("the topic was recreated"), "{output}");
    assert_eq!(sandbox.sql("select count(*) from messages"), "1200", "nothing of the new topic");
    sandbox.expect(0, &cure(&output));
    sandbox.expect(0, &["--role", "consumer", "--duration", "1s"]);
    assert_eq!(sandbox.sql("select count(*) from messages"), "7200");
    assert_eq!(broker.stop().0, Some(0));
}

#[test]
fn a_log_that_came_back_from_a_backup_is_not_counted_twice() {
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["--count", "3000", "--rate", "max"]);
    copy(&sandbox.data().join("broker"), &sandbox.path().join("backup"));
    sandbox.expect(0, &["--count", "2000", "--rate", "max"]);
    let spend = "select sum(spend) from user_totals";
    let before = sandbox.sql(spend);
    std::fs::remove_dir_all(sandbox.data().join("broker")).unwrap();
    copy(&sandbox.path().join("backup"), &sandbox.data().join("broker"));

    let stopped = sandbox.run(&["--role", "broker,consumer", "--duration", "4s"]);
    assert_eq!(stopped.status.code(), Some(4));
    let error = String::from_utf8_lossy(&stopped.stderr).to_string();
    assert!(error.contains("behind what is in the totals already"), "{error}");
    let cure = cure(&error);
    let mut from_the_start = cure.clone();
    let to = from_the_start.iter().position(|word| *word == "--to").unwrap();
    from_the_start[to + 1] = "0";
    sandbox.expect(2, &from_the_start);
    sandbox.expect(0, &cure);
    sandbox.expect(0, &["--role", "broker,consumer", "--duration", "1s"]);
    assert_eq!(sandbox.sql("select count(*) from messages"), "5000");
    assert_eq!(sandbox.sql(spend), before);
    // What the log has lost is in the totals, and new messages follow.
    sandbox.expect(0, &["--count", "1000", "--rate", "max"]);
    assert_eq!(sandbox.sql("select sum(transactions) from user_totals"), "6000");
    let report = sandbox.expect(0, &["verify"]);
    assert!(report.contains("earlier life"), "{report}");
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
