//! Our broker beside Apache Kafka and the bare disk, interleaved, on this machine: `make bench-broker`.
//!
//! All four brokers run from the first round to the last on fresh folders of one file system; those that are not
//! measured have nothing to do. A whole run writes its tables into `docs/MEASUREMENTS.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod brokers;
mod end_to_end;
mod perf_client;
mod report;
mod single;
#[path = "../support/mod.rs"]
mod support;
mod transactions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use brokers::{Broker, Subject};
use clap::Parser;
use perf_client::{PARTITIONS, PerfClient};
use report::{Figures, Metric};
use support::floor::{Layout, Settings, measure};
use support::pace::percentiles_ms;

const MESSAGE_BYTES: u32 = 200;
/// Rounds of a run that is written down.
const ROUNDS: usize = 5;
const BACKLOG: u64 = 5_000_000;

/// Our broker beside Apache Kafka and the bare disk.
///
/// Rows: produce, consume, transactions, end-to-end-1000, end-to-end-20000, start-up, idle.
#[derive(Parser)]
#[command(name = "bench-broker", override_usage = "make bench-broker ARGS=\"[OPTIONS] [ROWS]...\"")]
struct Arguments {
    /// Rows to measure [default: all]
    rows: Vec<String>,
    /// Rounds; medians are shown
    #[arg(long, default_value_t = ROUNDS)]
    runs: usize,
    /// A tenth of the load: to see that everything works
    #[arg(long)]
    quick: bool,
    /// Folder for the data of all brokers; a folder in it is made and removed
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target"))]
    dir: PathBuf,
    /// Ignored: cargo hands it to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Names of what is measured.
const ROWS: [&str; 7] =
    ["produce", "consume", "transactions", "end-to-end-1000", "end-to-end-20000", "start-up", "idle"];
/// Of these, what compares brokers, round by round.
const COMPARED: [&str; 5] = ["produce", "consume", "transactions", "end-to-end-1000", "end-to-end-20000"];

/// p50, p99, p99.9 at 1,000/s and at 20,000/s.
const SLOW: [Metric; 3] = [Metric::SlowP50, Metric::SlowP99, Metric::SlowP999];
const FAST: [Metric; 3] = [Metric::FastP50, Metric::FastP99, Metric::FastP999];

/// What a run has at hand.
struct Bench {
    client: PerfClient,
    dir: PathBuf,
    quick: bool,
    figures: Figures,
}

fn main() {
    let arguments = Arguments::parse();
    for row in &arguments.rows {
        assert!(ROWS.contains(&row.as_str()), "no row {row}: write some of {}", ROWS.join(", "));
    }
    let chosen = |row: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|name| name == row);
    // One folder by name, so that what an interrupted run left is gone with the next one.
    let dir = arguments.dir.join("bench-broker");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();

    let mut bench =
        Bench { client: PerfClient::find(), dir: dir.clone(), quick: arguments.quick, figures: Figures::default() };
    let mut text = format!("{}; load average {} at the start.", support::machine(&dir), support::load_average());
    if COMPARED.iter().any(|row| chosen(row)) {
        let versions = bench.compare(arguments.runs, &chosen);
        text += &format!(" {versions}\n\n{}\n{}", bench.figures.table(), bench.figures.bars());
    }
    let mut singles = Vec::new();
    if chosen("start-up") {
        singles.extend(single::start_up(&bench.client, &dir, arguments.quick));
    }
    if chosen("idle") {
        singles.extend(single::idle(&dir, arguments.quick));
    }
    if !singles.is_empty() {
        text += "\n\n| what | measured |\n|---|---|\n";
        text.extend(singles.iter().map(|(what, measured)| format!("| {what} | {measured} |\n")));
    }
    std::fs::remove_dir_all(&dir).unwrap();
    println!("{text}");
    if arguments.rows.is_empty() && arguments.runs >= ROUNDS && !arguments.quick {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/MEASUREMENTS.md");
        support::replace_between(&document, "bench-broker", &text);
        eprintln!("written into {}", document.display());
    }
}

impl Bench {
    /// Runs all rounds; the versions of what was compared.
    fn compare(&mut self, runs: usize, chosen: &dyn Fn(&str) -> bool) -> String {
        let brokers: Vec<Broker> = Subject::ALL
            .into_iter()
            .filter(|subject| *subject != Subject::Floor)
            .map(|subject| Broker::start(subject, &self.dir))
            .collect();
        eprintln!("warming up …");
        for broker in &brokers {
            self.warm_up(broker, chosen("consume"));
        }
        for round in 0..runs {
            for row in COMPARED.into_iter().filter(|row| chosen(row)) {
                self.round(&brokers, round, row);
            }
            for broker in &brokers {
                let mib = support::resident_mib(broker.pid);
                self.figures.add_some(Metric::Memory, broker.subject, (mib > 0).then_some(mib as f64));
            }
        }
        format!(
            "finstream {}, Apache Kafka {} (1 GiB heap, G1), librdkafka {}. {runs} rounds.",
            brokers[0].version,
            brokers[1].version,
            rdkafka::util::get_rdkafka_version().1
        )
    }

    /// One row for all subjects, each time in another order: what one leaves to the disk must not always hit the same.
    fn round(&mut self, brokers: &[Broker], round: usize, row: &str) {
        let mut subjects = Subject::ALL;
        subjects.rotate_left(round % Subject::ALL.len());
        for subject in subjects {
            eprintln!("round {}: {row}, {}", round + 1, subject.title());
            // What others left in the page cache is on disk before anything is measured.
            rustix::fs::sync();
            let broker = brokers.iter().find(|broker| broker.subject == subject);
            match (row, broker) {
                ("produce", Some(broker)) => self.produce(broker, round),
                ("produce", None) => self.floor_at(None, &[Metric::ProduceRate]),
                // Whether Kafka flushed when it was written does not matter to who reads.
                ("consume", Some(broker)) if subject != Subject::KafkaFlush => self.consume(broker, round),
                ("consume", _) => {}
                ("transactions", Some(broker)) => self.transactions(broker, round),
                ("transactions", None) => {}
                ("end-to-end-1000", broker) => self.end_to_end(broker, round, 1_000.0, SLOW),
                (_, broker) => self.end_to_end(broker, round, 20_000.0, FAST),
            }
        }
    }

    /// Some seconds of load each, so that Java's compiler has seen the way; and the backlog for the consumers.
    fn warm_up(&self, broker: &Broker, backlog: bool) {
        broker.create_topic("backlog", PARTITIONS);
        let count = if backlog && broker.subject != Subject::KafkaFlush { BACKLOG } else { self.count(broker) };
        let count = if self.quick { count / 10 } else { count };
        self.client.produce(broker, "backlog", MESSAGE_BYTES, count);
        if backlog && broker.subject != Subject::KafkaFlush {
            self.client.consume(broker, "backlog", "warm-up", count);
        }
        broker.settle();
    }

    /// Messages of a produce run: five to fifteen seconds' worth.
    fn count(&self, broker: &Broker) -> u64 {
        match broker.subject {
            Subject::KafkaFlush => 1_000_000,
            Subject::Fsync => 3_000_000,
            _ => 5_000_000,
        }
    }

    fn produce(&mut self, broker: &Broker, round: usize) {
        let topic = format!("produce-{round}");
        broker.create_topic(&topic, PARTITIONS);
        let count = if self.quick { self.count(broker) / 10 } else { self.count(broker) };
        let load = self.client.produce(broker, &topic, MESSAGE_BYTES, count);
        self.figures.add(Metric::ProduceRate, broker.subject, load.messages_per_second / 1e3);
        self.figures.add_some(Metric::ProduceBrokerCpu, broker.subject, load.broker_cpu);
        self.figures.add_some(Metric::ProduceClientCpu, broker.subject, load.client_cpu);
        self.figures.add(Metric::ProduceClientRan, broker.subject, load.client_thread_ran);
        self.figures.add(Metric::ProduceClientWanted, broker.subject, load.client_thread_wanted);
        self.figures.add_some(Metric::ProduceMachine, broker.subject, load.machine_share);
        broker.delete_topic(&topic);
        broker.settle();
    }

    fn consume(&mut self, broker: &Broker, round: usize) {
        let count = if self.quick { BACKLOG / 10 } else { BACKLOG };
        let load = self.client.consume(broker, "backlog", &format!("consume-{round}"), count);
        self.figures.add(Metric::ConsumeRate, broker.subject, load.messages_per_second / 1e3);
        self.figures.add_some(Metric::ConsumeBrokerCpu, broker.subject, load.broker_cpu);
        self.figures.add_some(Metric::ConsumeClientCpu, broker.subject, load.client_cpu);
        self.figures.add(Metric::ConsumeClientRan, broker.subject, load.client_thread_ran);
        self.figures.add(Metric::ConsumeClientWanted, broker.subject, load.client_thread_wanted);
        self.figures.add_some(Metric::ConsumeMachine, broker.subject, load.machine_share);
    }

    fn transactions(&mut self, broker: &Broker, round: usize) {
        let (warm_up, measured) = match self.quick {
            true => (Duration::from_millis(500), Duration::from_secs(1)),
            false => (Duration::from_secs(2), Duration::from_secs(5)),
        };
        for (metric, producers) in [(Metric::TransactionsOfOne, 1), (Metric::TransactionsOfTen, 10)] {
            let topic = format!("transactions-{producers}-{round}");
            let rate = transactions::measure(broker, &topic, producers, warm_up, measured);
            self.figures.add(metric, broker.subject, rate);
            broker.settle();
        }
    }

    fn end_to_end(&mut self, broker: Option<&Broker>, round: usize, rate: f64, metrics: [Metric; 3]) {
        let Some(broker) = broker else { return self.floor_at(Some(rate), &metrics) };
        let topic = format!("end-to-end-{rate}-{round}");
        let (warm_up, measured) = self.latency_seconds();
        let delays = end_to_end::measure(broker, &topic, rate, warm_up, measured);
        for (metric, value) in metrics.into_iter().zip(percentiles_ms(&delays)) {
            self.figures.add(metric, broker.subject, value);
        }
        broker.settle();
    }

    fn latency_seconds(&self) -> (Duration, Duration) {
        if self.quick {
            (Duration::from_secs(1), Duration::from_secs(4))
        } else {
            (Duration::from_secs(3), Duration::from_secs(15))
        }
    }

    /// The floor at a rate gives percentiles, without one thousands of messages a second.
    fn floor_at(&mut self, rate: Option<f64>, metrics: &[Metric]) {
        let (warm_up, measured) = match rate {
            Some(_) => self.latency_seconds(),
            None => (Duration::from_secs(1), Duration::from_secs(4)),
        };
        let settings = Settings {
            layout: Layout::Journal,
            rate,
            message_bytes: MESSAGE_BYTES as usize,
            partitions: PARTITIONS as usize,
            warm_up,
            measured,
            waiting_max: 100_000,
        };
        let outcome = measure(&self.dir, &settings);
        let values = match rate {
            Some(_) => percentiles_ms(&outcome.latency).to_vec(),
            None => vec![outcome.messages_per_second / 1e3],
        };
        for (metric, value) in metrics.iter().zip(values) {
            self.figures.add(*metric, Subject::Floor, value);
        }
    }
}
