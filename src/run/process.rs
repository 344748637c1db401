//! What the system says of this process, by the names that Prometheus clients agree on.
//!
//! From `/proc` on Linux. Elsewhere open files and the limit of them only: what cannot be known is not shown. A crate for it
//! would bring bindgen, and with it libclang, to every build on macOS.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use crate::metrics::{
    PROCESS_CPU_SECONDS_TOTAL, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY_BYTES,
    PROCESS_START_TIME_SECONDS, PROCESS_THREADS,
};

/// What was found out once.
pub(super) struct Process {
    /// Seconds since the epoch.
    started: f64,
}

/// Of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    /// Since the machine's start.
    start_ticks: u64,
    resident_pages: u64,
}

impl Process {
    /// Begins to watch.
    pub(super) fn new() -> Process {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        // The system knows to a hundredth of a second; without it, it was a moment ago.
        let uptime = fs::read_to_string("/proc/uptime").ok();
        let uptime = uptime.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        let age = uptime.zip(stat()).map_or(0.0, |(uptime, stat)| uptime - seconds(stat.start_ticks));
        Process { started: now - age.max(0.0) }
    }

    /// Sets the metrics to what is so now.
    pub(super) fn show(&self) {
        gauge!(PROCESS_START_TIME_SECONDS).set(self.started);
        if let Some(stat) = stat() {
            counter!(PROCESS_CPU_SECONDS_TOTAL).absolute(seconds(stat.cpu_ticks) as u64);
            gauge!(PROCESS_THREADS).set(stat.threads as f64);
            gauge!(PROCESS_RESIDENT_MEMORY_BYTES).set(stat.resident_pages as f64 * page_size() as f64);
        }
        // Both systems have it; the folder itself is open while it is read.
        if let Ok(entries) = fs::read_dir("/dev/fd") {
            gauge!(PROCESS_OPEN_FDS).set(entries.count().saturating_sub(1) as f64);
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            gauge!(PROCESS_MAX_FDS).set(limit as f64);
        }
    }
}

fn stat() -> Option<Stat> {
    parse(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The name of the process, in parentheses, may hold anything.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // proc_pid_stat(5) counts from 1, and the name is the second.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        threads: field(20)?,
        start_ticks: field(22)?,
        resident_pages: field(24)?,
    })
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_move_the_fields() {
        let text =
            "42 (a) b) S 1 42 42 0 -1 4194560 10 0 0 0 700 300 0 0 20 0 9 0 123456 1000 55 18446744073709551615 1";
        let stat = Stat { cpu_ticks: 1000, threads: 9, start_ticks: 123_456, resident_pages: 55 };
        assert_eq!(parse(text), Some(stat));
        assert_eq!(parse("42 (short) S 1"), None);
    }
}
