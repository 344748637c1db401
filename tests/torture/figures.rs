//! What is counted and measured, the table that shows it, and whether memory stayed flat.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::Blow;

/// Lives of the broker are compared at this age: the clients are back by then, and few live much longer.
const AGE: std::ops::Range<Duration> = Duration::from_millis(300)..Duration::from_millis(3_000);
/// The last third's median may be above the first third's by so much.
const GROWTH_FACTOR_MAX: f64 = 1.25;
const GROWTH_MIB_MAX: f64 = 16.0;
const SAMPLES_MIN: usize = 5;
/// A run that is this long must be able to tell.
const SECONDS_TO_TELL: u64 = 120;

/// What the broker's process holds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since it was ready.
    pub age: Duration,
    pub resident_mib: f64,
    pub files: usize,
}

impl Sample {
    pub fn of(id: u32, age: Duration) -> Option<Sample> {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_kib: f64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
        let files = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?.count();
        Some(Sample { age, resident_mib: resident_kib / 1024.0, files })
    }
}

/// The first third of some samples beside the last third.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    pub first: f64,
    pub last: f64,
}

impl Growth {
    /// None when there are too few to tell.
    fn of(values: &[f64]) -> Option<Growth> {
        let third = values.len() / 3;
        (third >= SAMPLES_MIN)
            .then(|| Growth { first: median(&values[..third]), last: median(&values[values.len() - third..]) })
    }

    fn is_flat(self) -> bool {
        self.last <= self.first * GROWTH_FACTOR_MAX + GROWTH_MIB_MAX
    }
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} -> {:.1}", self.first, self.last)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Everything that is told in the end.
#[derive(Default)]
pub struct Figures {
    pub kills: BTreeMap<&'static str, usize>,
    /// While the broker was killed again and again, and in its long last life.
    pub young: Vec<Sample>,
    pub old: Vec<Sample>,
    pub rows: Vec<(String, String)>,
}

impl Figures {
    pub fn count(&mut self, blow: &Blow) {
        let (name, times) = match blow {
            Blow::KillBroker { again_after } => {
                *self.kills.entry("broker, kill -9 while it recovers").or_default() += again_after.len();
                ("broker, kill -9", 1)
            }
            Blow::KillBusyBroker { .. } => ("broker, kill -9 right after SIGSTOP and SIGCONT", 1),
            Blow::KillReadersAndBroker { .. } => ("broker, kill -9 after 5 consumers", 1),
            Blow::StopBroker => ("broker, SIGTERM", 1),
            Blow::PauseBroker(_) => ("broker, SIGSTOP", 1),
            Blow::KillWriters(_) => ("5 producers, kill -9", 1),
            Blow::KillReaders(_) => ("5 consumers, kill -9", 1),
        };
        *self.kills.entry(name).or_default() += times;
    }

    pub fn row(&mut self, name: &str, value: impl ToString) {
        self.rows.push((name.to_owned(), value.to_string()));
    }

    /// Resident memory, of young lives and in the last one: growth by name.
    fn memory(&self) -> Vec<(&'static str, Growth)> {
        let young: Vec<f64> =
            self.young.iter().filter(|sample| AGE.contains(&sample.age)).map(|sample| sample.resident_mib).collect();
        // Warm-up: the log is empty at first, and the clients are not all there.
        let young = Growth::of(&young[young.len() / 10..]);
        let old: Vec<f64> = self.old.iter().map(|sample| sample.resident_mib).collect();
        let old = Growth::of(&old[old.len() / 10..]);
        let named = [("RSS at the age of 0.3 to 3 s, MiB", young), ("RSS in one long life, MiB", old)];
        named.into_iter().filter_map(|(name, growth)| Some((name, growth?))).collect()
    }

    pub fn print(&mut self) {
        for (name, growth) in self.memory() {
            self.row(name, growth);
        }
        let files = |samples: &[Sample]| samples.iter().map(|sample| sample.files).max().unwrap_or(0);
        let (young, old) = (files(&self.young), files(&self.old));
        self.row("open files of the broker, at most; in the long life", format!("{young}; {old}"));
        let highest = self.young.iter().chain(&self.old).map(|sample| sample.resident_mib).fold(0.0, f64::max);
        self.row("RSS of the broker at most, MiB", format!("{highest:.1}"));
        for (name, count) in self.kills.iter().map(|(name, count)| (*name, *count)) {
            println!("| {name:<52} | {count:>24} |");
        }
        for (name, value) in &self.rows {
            println!("| {name:<52} | {value:>24} |");
        }
    }

    pub fn assert_flat(&self, seconds: u64) {
        let can_tell = seconds >= SECONDS_TO_TELL && cfg!(target_os = "linux");
        assert!(!can_tell || self.memory().len() == 2, "too few samples: {} and {}", self.young.len(), self.old.len());
        for (name, growth) in self.memory() {
            assert!(growth.is_flat(), "{name}: {growth}");
        }
    }
}

#[test]
fn memory_that_grows_is_caught() {
    let lives = |growth_mib: f64| -> Vec<Sample> {
        let sample = |index: usize| Sample {
            age: Duration::from_secs(1),
            resident_mib: 50.0 + growth_mib * index as f64 / 100.0,
            files: 1,
        };
        (0..100).map(sample).collect()
    };
    let flat = |growth_mib: f64| {
        let figures = Figures { young: lives(growth_mib), ..Figures::default() };
        figures.memory()[0].1.is_flat()
    };
    assert!(flat(0.0) && flat(20.0));
    assert!(!flat(60.0));
}
