//! The same calls to Apache Kafka and to our broker, and a comparison of what comes back: `make differential`.
//!
//! A scenario (one entry of a family's table) sends requests; every field of every answer becomes a fact (`facts`), less
//! what two right brokers may say otherwise. What differs must stand in the table of `differences` with its reason, and
//! everything in that table must occur. Needs Java and Kafka's jars, which scripts/kafka/fetch.sh fetches.
//!
//! `FINSTREAM_DIFFERENTIAL=WORDS` runs only the scenarios whose names hold these words. With
//! `FINSTREAM_DIFFERENTIAL_OTHER=kafka` a second Apache Kafka stands in for ours: what differs then is chance. With the
//! path of a finstream binary there, that one does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod batch;
mod broker_configs;
mod brokers;
mod cluster;
mod commits;
mod compare;
mod configs;
mod differences;
mod document;
mod facts;
mod fetch;
mod group;
mod hostile;
mod members;
mod offsets;
mod produce;
mod requests;
mod scenario;
#[path = "../../benches/support/server.rs"]
mod server;
mod session;
mod statics;
mod tools;
mod topics;
mod transactions;
mod value;
mod wire;

use std::path::Path;
use std::time::Instant;

use brokers::{Broker, Side};
use kafka_protocol::messages::ApiKey;
use scenario::Scenario;

/// Scenarios by API family; families run side by side.
const FAMILIES: &[&[Scenario]] = &[
    cluster::SCENARIOS,
    hostile::SCENARIOS,
    topics::METADATA,
    topics::CREATE,
    topics::CHANGE,
    configs::SCENARIOS,
    produce::PLAIN,
    produce::IDEMPOTENT,
    fetch::SCENARIOS,
    offsets::SCENARIOS,
    members::JOINING,
    members::LIVING,
    statics::SCENARIOS,
    commits::OFFSETS,
    commits::GROUPS,
];

#[test]
#[ignore = "needs Apache Kafka: make differential"]
fn the_same_calls_are_answered_as_apache_kafka_answers_them() {
    let began = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let other = other_side();
    let is_ours = other == Side::Ours;
    let (kafka, ours) = Broker::start_both(other, dir.path());
    let served = brokers::common(&kafka.served(), &ours.served());
    let chosen = std::env::var("FINSTREAM_DIFFERENTIAL").unwrap_or_default();
    let started = began.elapsed();
    let mut families = FAMILIES.to_vec();
    if fetch::has_sessions(ours.address, &served) {
        families.push(fetch::SESSIONS);
    }
    if served.contains_key(&(ApiKey::EndTxn as i16)) {
        families.push(transactions::SCENARIOS);
    }
    let run =
        |families: &[&'static [Scenario]]| scenario::run_all(families, &chosen, kafka.address, ours.address, &served);
    // What holds for all topics is changed when nobody else looks at any.
    let outcome = run(&families).and(run(&[broker_configs::SCENARIOS]));
    let unequal = outcome.unequal.clone();
    let verdict = compare::judge(unequal);
    for (listed, count) in verdict.listed.iter().filter(|(_, count)| *count > 0) {
        println!("listed, {count} times: {} / {}: {}", listed.scenario, listed.path, listed.reason);
    }
    for each in &verdict.unlisted {
        println!("UNLISTED {} / {}\n    Kafka {}\n    ours  {}", each.scenario, each.path, each.kafka, each.ours);
    }
    let gone: Vec<_> = verdict.listed.iter().filter(|(_, count)| *count == 0).map(|(listed, _)| listed).collect();
    println!(
        "{} scenarios, {} calls, {} facts; {} differ, {} of them unlisted; start {started:.1?}, all {:.1?}",
        outcome.scenarios,
        outcome.calls,
        outcome.facts,
        outcome.unequal.len(),
        verdict.unlisted.len(),
        began.elapsed()
    );
    assert!(outcome.broken.is_empty(), "scenarios that could not be carried out:\n{}", outcome.broken.join("\n"));
    assert!(verdict.unlisted.is_empty(), "{} differences are not listed", verdict.unlisted.len());
    if chosen.is_empty() && is_ours {
        assert!(gone.is_empty(), "listed, but it does not differ any more: {gone:#?}");
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/DIFFERENCES.md");
        document::write(&document, &document::text(&kafka.version, &outcome, &verdict));
    }
}

#[test]
#[ignore = "needs Apache Kafka's tools: make differential"]
fn apache_kafkas_own_tools_work() {
    let began = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(other_side(), dir.path());
    let has_transactions = broker.served().contains_key(&(ApiKey::EndTxn as i16));
    let (count, faults) = tools::run_all(broker.address, has_transactions);
    println!("{count} runs of tools in {:.1?}", began.elapsed());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Who is compared with Apache Kafka: ours, or another Apache Kafka.
fn other_side() -> Side {
    match std::env::var("FINSTREAM_DIFFERENTIAL_OTHER") {
        Err(_) => Side::Ours,
        Ok(other) if other == "kafka" => Side::Kafka,
        Ok(program) => Side::Program(program),
    }
}

#[test]
fn a_child_becomes_a_broker_and_is_no_test_by_itself() {
    brokers::become_now();
}
