//! CPU time of everybody who takes part in a drain, split by who they are. Linux: from `/proc`; zero elsewhere.

use std::ops::Sub;

use super::cpu_seconds;

/// Words in the titles of PostgreSQL's processes that serve no client.
const BACKGROUND: [&str; 6] =
    ["checkpointer", "background writer", "walwriter", "autovacuum", "stats collector", "logical"];

/// Seconds of CPU time so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// The process that reads: ours, psql or Python.
    pub consumer_s: f64,
    pub broker_s: f64,
    /// PostgreSQL's backends.
    pub backends_s: f64,
    /// PostgreSQL's other processes, and its backends that have ended.
    pub background_s: f64,
}

impl Usage {
    /// `postmaster`: the parent of PostgreSQL's processes; `own_backend`: the one that is not counted.
    pub fn now(consumer: Option<u32>, broker: u32, postmaster: u32, own_backend: u32) -> Usage {
        let mut usage = Usage {
            consumer_s: consumer.and_then(cpu_seconds).unwrap_or_default(),
            broker_s: cpu_seconds(broker).unwrap_or_default(),
            backends_s: 0.0,
            background_s: cpu_seconds(postmaster).unwrap_or_default() + ended_children_s(postmaster),
        };
        for pid in children(postmaster).into_iter().filter(|pid| *pid != own_backend) {
            let seconds = cpu_seconds(pid).unwrap_or_default();
            let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if BACKGROUND.iter().any(|word| title.contains(word)) {
                usage.background_s += seconds;
            } else {
                usage.backends_s += seconds;
            }
        }
        usage
    }

    pub fn total_s(&self) -> f64 {
        self.consumer_s + self.broker_s + self.backends_s + self.background_s
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, before: Usage) -> Usage {
        Usage {
            consumer_s: self.consumer_s - before.consumer_s,
            broker_s: self.broker_s - before.broker_s,
            backends_s: self.backends_s - before.backends_s,
            background_s: self.background_s - before.background_s,
        }
    }
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| field(*pid, 1) == Some(u64::from(parent))).collect()
}

/// CPU time of children that have ended.
fn ended_children_s(pid: u32) -> f64 {
    let ticks = field(pid, 13).unwrap_or_default() + field(pid, 14).unwrap_or_default();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// A field of `/proc/PID/stat`, counted from the one behind the name.
fn field(pid: u32, number: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(number)?.parse().ok()
}
