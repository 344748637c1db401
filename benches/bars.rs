//! Measures the bars of the pipeline on this machine, as a user would see them: `make bars`.
//!
//! Each figure comes from the real binary on a fresh data directory. Prints one Markdown table, which is copied into
//! `docs/MEASUREMENTS.md` together with the machine and the date. Names given as arguments choose single bars.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/mod.rs"]
mod measuring;
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use measuring::{cpu_seconds, resident_mib};
use serde_json::Value;
use support::Sandbox;

type Bar = (&'static str, fn() -> Vec<(String, String)>);

const BARS: [Bar; 6] = [
    ("startup", startup),
    ("rate-20000", rate_20000),
    ("rate-max", rate_max),
    ("latency-1000", latency_1000),
    ("idle-broker", idle_broker),
    ("build", build),
];

fn main() {
    if std::env::args().any(|word| word == "--help" || word == "-h") {
        let names: Vec<_> = BARS.iter().map(|(name, _)| *name).collect();
        println!("Usage: make bars ARGS=\"[BAR]...\"\n\nBars [default: all]: {}", names.join(", "));
        return;
    }
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    for word in &chosen {
        assert!(BARS.iter().any(|(name, _)| name == word), "no bar {word}: --help says which there are");
    }
    let mut rows = Vec::new();
    for (name, measure) in BARS {
        if chosen.is_empty() || chosen.iter().any(|word| word == name) {
            eprintln!("measuring {name} …");
            rows.extend(measure());
        }
    }
    println!("| what | measured |\n|---|---|");
    for (what, measured) in rows {
        println!("| {what} | {measured} |");
    }
}

fn summary(sandbox: &Sandbox) -> Value {
    serde_json::from_str(&std::fs::read_to_string(sandbox.path().join("summary.json")).unwrap()).unwrap()
}

fn stage<'a>(summary: &'a Value, name: &str) -> &'a Value {
    summary["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == name).unwrap()
}

fn milliseconds(value: &Value) -> String {
    format!("{:.1} ms", value.as_f64().unwrap() / 1e3)
}

/// Runs with a summary; returns it and the largest RSS of the binary in MiB.
fn measured_run(sandbox: &Sandbox, arguments: &[&str]) -> (Value, u64) {
    let mut all = arguments.to_vec();
    all.extend(["--summary", "summary.json"]);
    let mut child = sandbox.command(&all).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut resident_max = 0;
    let status = loop {
        resident_max = resident_max.max(resident_mib(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(status.success(), "{arguments:?}: {status}");
    (summary(sandbox), resident_max)
}

fn first_total(sandbox: &Sandbox, before: u64) -> Duration {
    let started = Instant::now();
    let ready = sandbox.path().join("ready.json");
    let _ = std::fs::remove_file(&ready);
    let mut command = sandbox.command(&["--rate", "1000", "--ready-file", "ready.json"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let counted = || {
        let output = sandbox
            .command(&["sql", "--json", "select coalesce(sum(transactions), 0) as n from user_totals"])
            .output()
            .unwrap();
        let row: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        row["n"].as_u64().unwrap_or(0)
    };
    let elapsed = loop {
        // Only a data directory that is already served may be asked, or the question itself would start PostgreSQL.
        if ready.exists() && counted() > before {
            break started.elapsed();
        }
        assert!(started.elapsed() < support::PATIENCE, "no total came");
        std::thread::sleep(Duration::from_millis(10));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    elapsed
}

fn startup() -> Vec<(String, String)> {
    let mut fresh = Vec::new();
    let mut old = Vec::new();
    for _ in 0..5 {
        let sandbox = Sandbox::new();
        fresh.push(first_total(&sandbox, 0));
        let before = sandbox.sql("select sum(transactions) as n from user_totals").parse().unwrap();
        old.push(first_total(&sandbox, before));
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        format!("median {:.2} s, max {:.2} s of {}", times[2].as_secs_f64(), times[4].as_secs_f64(), times.len())
    };
    vec![
        ("start to first total, new data directory".into(), median(&mut fresh)),
        ("start to first total, old data directory, after kill -9".into(), median(&mut old)),
    ]
}

fn rate_20000() -> Vec<(String, String)> {
    let sandbox = Sandbox::new();
    let (summary, resident) = measured_run(&sandbox, &["--rate", "20000", "--duration", "30s"]);
    let rows = sandbox.sql("select count(*) from messages");
    let verify = sandbox.run(&["verify"]).status.code();
    let end_to_end = stage(&summary, "scheduled -> committed");
    vec![(
        "--rate 20000 --duration 30s".into(),
        format!(
            "{} sent, {rows} rows, verify {verify:?}, RSS max {resident} MiB, p50 {} p99 {}",
            summary["sent"],
            milliseconds(&end_to_end["p50_us"]),
            milliseconds(&end_to_end["p99_us"])
        ),
    )]
}

fn rate_max() -> Vec<(String, String)> {
    let mut rates: Vec<f64> = Vec::new();
    let mut resident_max = 0;
    for _ in 0..3 {
        let sandbox = Sandbox::new();
        let (summary, resident) = measured_run(&sandbox, &["--rate", "max", "--duration", "20s"]);
        rates.push(summary["rate_per_s"].as_f64().unwrap());
        resident_max = resident_max.max(resident);
    }
    rates.sort_by(f64::total_cmp);
    let text =
        format!("median {:.0}/s stored, {:.0} to {:.0}; RSS max {resident_max} MiB", rates[1], rates[0], rates[2]);
    vec![("--rate max --duration 20s, three runs".into(), text)]
}

fn latency_1000() -> Vec<(String, String)> {
    let mut figures = Vec::new();
    for _ in 0..3 {
        let sandbox = Sandbox::new();
        let (summary, _) = measured_run(&sandbox, &["--rate", "1000", "--duration", "30s"]);
        let end_to_end = stage(&summary, "scheduled -> committed");
        let read = |name: &str| end_to_end[name].as_u64().unwrap();
        figures.push((read("p50_us"), read("p99_us"), read("max_us")));
    }
    figures.sort();
    let show = |(p50, p99, max): (u64, u64, u64)| {
        format!("p50 {:.1} p99 {:.1} max {:.1} ms", p50 as f64 / 1e3, p99 as f64 / 1e3, max as f64 / 1e3)
    };
    let text = figures.iter().map(|figure| show(*figure)).collect::<Vec<_>>().join("; ");
    vec![("1,000/s for 30 s, scheduled -> committed, three runs".into(), text)]
}

fn idle_broker() -> Vec<(String, String)> {
    let sandbox = Sandbox::new();
    let running = sandbox.start(&["--role", "broker"]);
    let cpu_now = || cpu_seconds(running.pid()).unwrap();
    let before = cpu_now();
    let watched = Duration::from_secs(20);
    std::thread::sleep(watched);
    let share = (cpu_now() - before) / watched.as_secs_f64() * 100.0;
    vec![("idle --role broker".into(), format!("{share:.2} % of a core, RSS {} MiB", resident_mib(running.pid())))]
}

fn build() -> Vec<(String, String)> {
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_finstream")).unwrap().len();
    vec![("size of the binary".into(), format!("{:.0} MiB", size as f64 / 1048576.0))]
}
