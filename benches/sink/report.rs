//! Figures of several rounds, the tables of their medians, and what they say about the bars.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::drain::Drain;
use crate::support::median;

/// Who drains the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Finstream,
    Copy,
    Naive,
    Tuned,
}

impl Subject {
    pub const ALL: [Subject; 4] = [Subject::Finstream, Subject::Copy, Subject::Naive, Subject::Tuned];

    /// On the command line, and as a schema.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Finstream => "finstream",
            Subject::Copy => "copy",
            Subject::Naive => "naive",
            Subject::Tuned => "tuned",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Subject::Finstream => "(a) finstream",
            Subject::Copy => "(b) psql's binary `\\copy`",
            Subject::Naive => "(c) Python, first try",
            Subject::Tuned => "(d) Python, tuned",
        }
    }
}

/// What is measured, in the tables' order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Metric {
    Rows,
    Whole,
    ConsumerCpu,
    BrokerCpu,
    BackendsCpu,
    BackgroundCpu,
    Cpu,
    Memory,
}

impl Metric {
    const ALL: [Metric; 8] = [
        Metric::Rows,
        Metric::Whole,
        Metric::ConsumerCpu,
        Metric::BrokerCpu,
        Metric::BackendsCpu,
        Metric::BackgroundCpu,
        Metric::Cpu,
        Metric::Memory,
    ];

    fn title(self) -> &'static str {
        match self {
            Metric::Rows => "thousands of rows a second",
            Metric::Whole => "seconds per million rows from the start of the process, with joining the group",
            Metric::ConsumerCpu => "CPU of finstream, psql or Python, s per million rows",
            Metric::BrokerCpu => "… of the broker",
            Metric::BackendsCpu => "… of PostgreSQL's backends",
            Metric::BackgroundCpu => "… of PostgreSQL's other processes",
            Metric::Cpu => "… of all",
            Metric::Memory => "RSS of finstream, psql or Python at the end, MiB",
        }
    }
}

/// Every figure seen.
#[derive(Default)]
pub struct Figures {
    drains: BTreeMap<(Metric, Subject), Vec<f64>>,
    /// Floor's p50 and p99, then finstream's and its CPU share.
    latencies: Vec<[f64; 5]>,
}

impl Figures {
    pub fn add(&mut self, subject: Subject, drain: &Drain) {
        let million = drain.messages as f64 / 1e6;
        let usage = drain.usage;
        for (metric, value) in [
            (Metric::Rows, drain.rows_per_second / 1e3),
            (Metric::Whole, drain.whole_s / million),
            (Metric::ConsumerCpu, usage.consumer_s / million),
            (Metric::BrokerCpu, usage.broker_s / million),
            (Metric::BackendsCpu, usage.backends_s / million),
            (Metric::BackgroundCpu, usage.background_s / million),
            (Metric::Cpu, usage.total_s() / million),
            (Metric::Memory, drain.resident_mib as f64),
        ] {
            self.drains.entry((metric, subject)).or_default().push(value);
        }
    }

    pub fn add_latencies(&mut self, floor: [f64; 2], p50_ms: f64, p99_ms: f64, cpu_share: f64) {
        self.latencies.push([floor[0], floor[1], p50_ms, p99_ms, cpu_share]);
    }

    /// A row a metric, a column a subject; then the latencies.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        if !self.drains.is_empty() {
            text += "| median (least to most) |";
            for subject in Subject::ALL {
                write!(text, " {} |", subject.title()).unwrap();
            }
            text += "\n|---|---|---|---|---|\n";
            for metric in Metric::ALL {
                write!(text, "| {} |", metric.title()).unwrap();
                for subject in Subject::ALL {
                    write!(text, " {} |", self.drains.get(&(metric, subject)).map_or(String::new(), |seen| cell(seen)))
                        .unwrap();
                }
                text.push('\n');
            }
            text.push('\n');
        }
        if !self.latencies.is_empty() {
            text += "| 1,000 messages/s, scheduled -> committed, ms | floor | finstream |\n|---|---|---|\n";
            for (name, floor, ours) in [("p50", 0, 2), ("p99", 1, 3)] {
                writeln!(text, "| {name} | {} | {} |", cell(&self.column(floor)), cell(&self.column(ours))).unwrap();
            }
            writeln!(text, "| CPU of finstream with all roles, % of a core | | {} |\n", cell(&self.column(4))).unwrap();
        }
        text
    }

    /// Each bar for which there are figures: what is demanded, what was seen, whether it is met.
    pub fn bars(&self) -> String {
        let mut text = String::from("| bar | demanded | seen | met |\n|---|---|---|---|\n");
        let mut row = |what: &str, demanded: String, seen: String, met: bool| {
            writeln!(text, "| {what} | {demanded} | {seen} | {} |", if met { "yes" } else { "**no**" }).unwrap();
        };
        let rows = |subject| self.drains.get(&(Metric::Rows, subject)).map(|seen| median(seen.iter().copied()));
        for (other, demanded) in [(Subject::Copy, 0.6), (Subject::Tuned, 2.5), (Subject::Naive, 10.0)] {
            if let (Some(own), Some(theirs)) = (rows(Subject::Finstream), rows(other)) {
                let what = format!("rows a second, against {}", other.title());
                let seen = format!("{:.2}x", own / theirs);
                row(&what, format!("at least {demanded}x"), seen, own >= demanded * theirs);
            }
        }
        if !self.latencies.is_empty() {
            for (name, floor, ours, slack_ms) in [("p50", 0, 2, 2.0), ("p99", 1, 3, 5.0)] {
                let (floor, own) = (median(self.column(floor)), median(self.column(ours)));
                let most = 1.5 * floor + slack_ms;
                let demanded = format!("at most 1.5x floor + {slack_ms} ms = {most:.2} ms");
                row(&format!("{name} at 1,000/s"), demanded, format!("{own:.2} ms"), own <= most);
            }
        }
        text
    }

    fn column(&self, place: usize) -> Vec<f64> {
        self.latencies.iter().map(|figures| figures[place]).collect()
    }
}

/// Median, and from least to most where there were several rounds.
fn cell(values: &[f64]) -> String {
    let middle = number(median(values.iter().copied()));
    if values.len() == 1 {
        return middle;
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{middle} ({} to {})", number(least), number(most))
}

/// Three digits, and none behind the point where there are more before it.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
