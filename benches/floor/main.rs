//! What the disk allows: appends and syncs at a rate, timing each message from the moment it was due. `make floor`.
//!
//!   make floor ARGS="--rate 20000 --partitions 200 --layout files"
//!
//! Several values, separated by commas, are measured one after the other, in each round.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use support::floor::{Layout, Settings, measure};
use support::median;
use support::pace::percentiles_ms;

/// Appends and syncs at a rate, without a network; times each message from the moment it was due.
#[derive(Parser)]
#[command(name = "floor", override_usage = "make floor ARGS=\"[OPTIONS]\"")]
struct Arguments {
    /// Messages a second, or max
    #[arg(long, value_delimiter = ',', default_value = "1000,20000,max")]
    rate: Vec<String>,
    /// Bytes of a message
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Partitions that messages go to in turn
    #[arg(long, value_delimiter = ',', default_value = "6")]
    partitions: Vec<usize>,
    /// journal, journal+files, files or preallocated-files
    #[arg(long, value_delimiter = ',', default_value = "journal")]
    layout: Vec<String>,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// With max: messages that wait at once
    #[arg(long, default_value_t = 100_000)]
    waiting: usize,
    /// Rounds; medians are shown
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Folder on the disk to measure
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Ignored: cargo hands it to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let mut cases = Vec::new();
    for partitions in &arguments.partitions {
        for rate in &arguments.rate {
            for layout in &arguments.layout {
                cases.push((settings(&arguments, *partitions, rate, layout), rate.clone(), layout.clone()));
            }
        }
    }
    let mut seen = vec![Vec::new(); cases.len()];
    for _ in 0..arguments.runs {
        for ((settings, _, _), seen) in cases.iter().zip(&mut seen) {
            let outcome = measure(&arguments.dir, settings);
            let [p50, p99, p999] = percentiles_ms(&outcome.latency);
            seen.push([outcome.messages_per_second, p50, p99, p999, outcome.syncs_per_second]);
        }
    }
    println!(
        "| partitions | arrive | layout | msg/s | p50 | p99 | p99.9 | syncs/s |\n|---|---|---|---|---|---|---|---|"
    );
    for ((settings, rate, layout), seen) in cases.iter().zip(seen) {
        let [rate_seen, p50, p99, p999, syncs] =
            std::array::from_fn(|column| median(seen.iter().map(|row| row[column])));
        let partitions = settings.partitions;
        println!(
            "| {partitions} | {rate}/s | {layout} | {rate_seen:.0} | {p50:.2} ms | {p99:.2} ms | {p999:.2} ms | {syncs:.0} |"
        );
    }
}

fn settings(arguments: &Arguments, partitions: usize, rate: &str, layout: &str) -> Settings {
    let known = Layout::ALL.iter().find(|(name, _)| *name == layout);
    let Some((_, layout)) = known else {
        panic!("--layout {layout}: write journal, journal+files, files or preallocated-files");
    };
    let rate = match rate {
        "max" => None,
        number => Some(number.parse().unwrap_or_else(|_| panic!("--rate {number}: write a number or max"))),
    };
    Settings {
        layout: *layout,
        rate,
        message_bytes: arguments.bytes,
        partitions,
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        measured: Duration::from_secs_f64(arguments.seconds),
        waiting_max: arguments.waiting,
    }
}
