//! Other people's tests against our broker: `make conformance`.
//!
//! librdkafka's own suite, test by test; rust-rdkafka's integration tests; kcat. A whole run writes its tables into
//! `docs/CONFORMANCE.md`; with `--kafka`, the same against Apache Kafka. Exit code 1 where a test failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod broker;
mod kcat;
mod librdkafka;
mod process;
mod report;
mod rust_rdkafka;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod topics;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use broker::{Broker, Settings, Subject};
use clap::Parser;
use librdkafka::Suite;
use report::{Outcome, Row, table, totals};
use suite::{TESTS, Test};

/// What librdkafka's suite expects of a new topic.
const SUITE_PARTITIONS: u32 = 4;

/// Other people's tests against our broker, or Apache Kafka.
///
/// Tests: numbers of librdkafka's suite (0012), kcat, rust-rdkafka.
#[derive(Parser)]
#[command(name = "conformance", override_usage = "make conformance ARGS=\"[OPTIONS] [TESTS]...\"")]
struct Arguments {
    /// Tests to run [default: all]
    tests: Vec<String>,
    /// Against Apache Kafka instead (fetched first)
    #[arg(long)]
    kafka: bool,
    /// What CI runs: the quick tests, with fewer messages, and kcat
    #[arg(long)]
    subset: bool,
    /// Tests of librdkafka's suite at once; most of them mostly wait
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Folder for logs; a folder in it is made anew
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target"))]
    dir: PathBuf,
    /// Ignored: cargo hands it to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn subject(&self) -> Subject {
        if self.kafka { Subject::Kafka } else { Subject::Finstream }
    }

    fn wants(&self, name: &str) -> bool {
        self.tests.is_empty() || self.tests.iter().any(|test| test == name)
    }

    fn wants_test(&self, test: &Test) -> bool {
        self.wants(test.number()) && (!self.subset || test.in_subset)
    }

    fn is_whole(&self) -> bool {
        self.tests.is_empty() && !self.subset
    }
}

/// What was tested, and what came of it.
struct Results {
    version: String,
    sections: Vec<(&'static str, Vec<Row>)>,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("kafka-topics") {
        return match topics::main(std::env::args().skip(2)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("kafka-topics: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::parse();
    let known = |name: &String| {
        ["kcat", "rust-rdkafka"].contains(&name.as_str()) || TESTS.iter().any(|test| test.number() == name)
    };
    if let Some(unknown) = arguments.tests.iter().find(|name| !known(name)) {
        panic!("no test {unknown}: write a number of librdkafka's suite, kcat or rust-rdkafka");
    }
    let dir = arguments.dir.join(if arguments.kafka { "conformance-kafka" } else { "conformance" });
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let results = run(&arguments, &dir);
    let failed = results.sections.iter().flat_map(|(_, rows)| rows).filter(|row| row.is_failed()).count();
    let text = document(&results, &dir);
    println!("{text}");
    if arguments.is_whole() {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFORMANCE.md");
        support::replace_between(&document, if arguments.kafka { "kafka" } else { "finstream" }, &text);
        eprintln!("written into {}", document.display());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &Arguments, dir: &Path) -> Results {
    let mut version = String::new();
    let mut suite = None;
    let mut sections = Vec::new();
    for (title, without, name) in [
        ("librdkafka's suite", false, "suite"),
        ("librdkafka's suite, topics not created by being asked for", true, "suite-noautocreate"),
    ] {
        let chosen: Vec<&Test> =
            TESTS.iter().filter(|test| test.without_auto_creation == without && arguments.wants_test(test)).collect();
        if chosen.is_empty() {
            continue;
        }
        let settings = Settings { default_partitions: SUITE_PARTITIONS, auto_creation: !without };
        let mut broker = Broker::start(arguments.subject(), settings, dir, name);
        let mut rows = suite_rows(
            suite.get_or_insert_with(|| Suite::find(dir, arguments.subset)),
            arguments.jobs,
            &chosen,
            &broker,
        );
        check_alive(&mut broker, &mut rows);
        version.clone_from(&broker.version);
        sections.push((title, rows));
    }
    if arguments.wants("kcat") {
        let settings = Settings { default_partitions: SUITE_PARTITIONS, auto_creation: true };
        let mut broker = Broker::start(arguments.subject(), settings, dir, "kcat");
        let mut rows = kcat::run(&broker.address, dir);
        check_alive(&mut broker, &mut rows);
        version.clone_from(&broker.version);
        sections.push(("kcat", rows));
    }
    // Its tests expect node 0, which Apache Kafka is not as scripts/kafka/run.sh starts it.
    if arguments.wants("rust-rdkafka") && !arguments.subset && !arguments.kafka {
        let settings = Settings { default_partitions: rust_rdkafka::DEFAULT_PARTITIONS, auto_creation: true };
        let mut broker = Broker::start(arguments.subject(), settings, dir, "rust-rdkafka");
        let mut rows = rust_rdkafka::run(&broker.address, dir);
        check_alive(&mut broker, &mut rows);
        version.clone_from(&broker.version);
        sections.push(("rust-rdkafka's integration tests", rows));
    }
    Results { version, sections }
}

/// Rows of the suite's tests, those that are skipped among them, in order.
fn suite_rows(suite: &Suite, jobs: usize, chosen: &[&Test], broker: &Broker) -> Vec<Row> {
    let to_run: Vec<&Test> = chosen.iter().copied().filter(|test| test.plan.skipped().is_none()).collect();
    let mut ran = suite.run(&to_run, &broker.address, jobs).into_iter();
    let rows: Vec<Row> = chosen
        .iter()
        .filter_map(|test| match test.plan.skipped() {
            Some(reason) => Some(Row::with(test.name, Outcome::Skipped(reason.to_string()))),
            None => ran.next(),
        })
        .collect();
    // The suite says that all passed when it ran none: each test that is chosen must have an outcome of its own.
    assert_eq!(rows.len(), chosen.len(), "not every test has an outcome");
    rows
}

/// No test proves anything of a broker that is gone.
fn check_alive(broker: &mut Broker, rows: &mut Vec<Row>) {
    if !broker.is_alive() {
        rows.push(Row::with("the broker runs to the end", Outcome::Failed("it ended by itself".to_string())));
    }
}

fn document(results: &Results, dir: &Path) -> String {
    let all: Vec<Row> = results.sections.iter().flat_map(|(_, rows)| rows.clone()).collect();
    let mut text = format!("{}; {}\n\n{}\n", results.version, support::machine(dir), totals(&all));
    for (title, rows) in &results.sections {
        text += &format!("\n{}", table(title, rows));
    }
    text
}
