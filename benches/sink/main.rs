//! Our consumer beside psql's `\copy` and two consumers in Python, on one backlog of this machine: `make bench-sink`.
//!
//! Broker and PostgreSQL run from the first round to the last, started as the product starts them. After each drain rows are
//! counted, and all totals compared. A whole run writes its tables into `docs/MEASUREMENTS.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod committed;
mod drain;
mod report;
mod stage;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use report::{Figures, Subject};
use stage::{Backlog, Stage};

/// Rounds of a run that is written down.
const ROUNDS: usize = 5;
const MESSAGES: u64 = 5_000_000;
const LATENCY: &str = "latency-1000";
const LATENCY_RATE: f64 = 1_000.0;

/// Our consumer beside psql's \copy (the floor) and two consumers in Python, and commits beside their own floor.
///
/// Rows: finstream, copy, naive, tuned, latency-1000.
#[derive(Parser)]
#[command(name = "bench-sink", override_usage = "make bench-sink ARGS=\"[OPTIONS] [ROWS]...\"")]
struct Arguments {
    /// Rows to measure [default: all]
    rows: Vec<String>,
    /// Rounds; medians are shown
    #[arg(long, default_value_t = ROUNDS)]
    runs: usize,
    /// Messages of the backlog
    #[arg(long, default_value_t = MESSAGES)]
    messages: u64,
    /// Messages of the smaller backlog, which Python's first try drains
    #[arg(long, default_value_t = 300_000)]
    part: u64,
    /// Seconds of a round of latency-1000
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// A further flag of our consumer, to try what it does; repeatable
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    flag: Vec<String>,
    /// Leave the backlogs for the next run, or use those of the last one
    #[arg(long)]
    keep: bool,
    /// Folder for all data; a folder in it is made and removed
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target"))]
    dir: PathBuf,
    /// Ignored: cargo hands it to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a run has at hand.
struct Bench {
    stage: Stage,
    dir: PathBuf,
    whole: Backlog,
    part: Backlog,
    python: Option<PathBuf>,
    figures: Figures,
}

fn main() {
    let arguments = Arguments::parse();
    let names: Vec<&str> = Subject::ALL.into_iter().map(Subject::name).chain([LATENCY]).collect();
    for row in &arguments.rows {
        assert!(names.contains(&row.as_str()), "no row {row}: write some of {}", names.join(", "));
    }
    let chosen = |row: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|name| name == row);
    let python = (chosen("naive") || chosen("tuned")).then(interpreter);
    let dir = arguments.dir.join("bench-sink");
    if !arguments.keep {
        Stage::clear(&dir);
    }
    std::fs::create_dir_all(&dir).unwrap();

    let mut bench = Bench {
        stage: Stage::set(&dir, arguments.flag.clone()),
        dir: dir.clone(),
        whole: Backlog { name: "whole", messages: arguments.messages },
        part: Backlog { name: "part", messages: arguments.part },
        python,
        figures: Figures::default(),
    };
    let load = support::load_average();
    bench.prepare();
    let versions = bench.versions();
    for round in 0..arguments.runs {
        let mut subjects = Subject::ALL;
        subjects.rotate_left(round % Subject::ALL.len());
        for subject in subjects.into_iter().filter(|subject| chosen(subject.name())) {
            eprintln!("round {}: {}", round + 1, subject.name());
            bench.drain(subject);
        }
        if chosen(LATENCY) {
            eprintln!("round {}: {LATENCY}", round + 1);
            bench.latency(Duration::from_secs(arguments.seconds));
        }
    }
    let text = format!(
        "{}; load average {load} at the start. {versions} {} messages, (c) {}. {} rounds.\n\n{}{}",
        support::machine(&dir),
        arguments.messages,
        arguments.part,
        arguments.runs,
        bench.figures.tables(),
        bench.figures.bars()
    );
    bench.stage.end();
    if !arguments.keep {
        Stage::clear(&dir);
    }
    println!("{text}");
    if arguments.rows.is_empty()
        && arguments.flag.is_empty()
        && arguments.runs >= ROUNDS
        && arguments.messages >= MESSAGES
    {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/MEASUREMENTS.md");
        support::replace_between(&document, "bench-sink", &text);
        eprintln!("written into {}", document.display());
    }
}

/// The Python that has what the rivals need; made where it is not there yet.
fn interpreter() -> PathBuf {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/python.sh")).output().unwrap();
    assert!(output.status.success(), "scripts/python.sh: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

impl Bench {
    /// The backlogs, what they come to, and the rows for `\copy`; the drains for that are the warm-up.
    fn prepare(&mut self) {
        for backlog in [self.whole, self.part] {
            let stored = format!("select sum(messages)::bigint from {}.partition_offsets", backlog.reference());
            match self.stage.number(&stored) {
                Some(stored) => {
                    assert_eq!(stored.cast_unsigned(), backlog.messages, "kept messages; run without --keep")
                }
                None => {
                    eprintln!("filling a backlog of {} messages …", backlog.messages);
                    self.stage.fill(backlog);
                    eprintln!("draining it for the first time …");
                    drain::finstream(&mut self.stage, backlog, &backlog.reference(), &self.dir.join("consumer.txt"));
                }
            }
        }
        let file = self.rows_file();
        if !file.exists() {
            drain::export(&self.stage, self.whole, &file);
        }
    }

    fn rows_file(&self) -> PathBuf {
        self.dir.join("messages.bin")
    }

    fn drain(&mut self, subject: Subject) {
        let (stage, schema) = (&mut self.stage, format!("drain_{}", subject.name()));
        let rows = self.dir.join("messages.bin");
        let python = self.python.as_deref();
        let drain = match subject {
            Subject::Finstream => {
                let drain = drain::finstream(stage, self.whole, &schema, &self.dir.join("consumer.txt"));
                drain::check_totals(stage, self.whole, &schema);
                drain
            }
            Subject::Copy => drain::copy(stage, self.whole, &schema, &rows),
            Subject::Naive => drain::python(stage, self.part, &schema, python.unwrap(), "naive.py"),
            Subject::Tuned => drain::python(stage, self.whole, &schema, python.unwrap(), "tuned.py"),
        };
        stage.drop_schema(&schema);
        eprintln!(
            "    {:.0} rows/s, {:.2} s of CPU per million",
            drain.rows_per_second,
            drain.usage.total_s() / (drain.messages as f64 / 1e6)
        );
        self.figures.add(subject, &drain);
    }

    fn latency(&mut self, measured: Duration) {
        let floor = committed::floor(&mut self.stage, &self.dir, LATENCY_RATE, measured);
        let whole = committed::whole(&self.dir, LATENCY_RATE, measured, &self.stage.flags);
        let [p50, p99] = floor;
        eprintln!("    floor p50 {p50:.2} p99 {p99:.2} ms, finstream {:.2} and {:.2} ms", whole.p50_ms, whole.p99_ms);
        self.figures.add_latencies(floor, whole.p50_ms, whole.p99_ms, whole.cpu_share);
    }

    fn versions(&self) -> String {
        let mut text = format!("finstream {}, PostgreSQL {}", env!("CARGO_PKG_VERSION"), self.stage.version);
        if let Some(python) = &self.python {
            let requirements = include_str!("requirements.txt").split_whitespace().collect::<Vec<_>>().join(", ");
            text +=
                &format!(", {}, {requirements}", support::first_line(&python.display().to_string(), &["--version"]));
        }
        text + "."
    }
}
