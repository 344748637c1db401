//! Figures of several rounds, the table of their medians, and what they say about the bars.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::brokers::Subject;
use crate::support::median;

/// What is measured, in the table's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    ProduceRate,
    ProduceBrokerCpu,
    ProduceClientCpu,
    ProduceClientRan,
    ProduceClientWanted,
    ProduceMachine,
    ConsumeRate,
    ConsumeBrokerCpu,
    ConsumeClientCpu,
    ConsumeClientRan,
    ConsumeClientWanted,
    ConsumeMachine,
    TransactionsOfOne,
    TransactionsOfTen,
    SlowP50,
    SlowP99,
    SlowP999,
    FastP50,
    FastP99,
    FastP999,
    Memory,
}

impl Metric {
    const ALL: [Metric; 21] = [
        Metric::ProduceRate,
        Metric::ProduceBrokerCpu,
        Metric::ProduceClientCpu,
        Metric::ProduceClientRan,
        Metric::ProduceClientWanted,
        Metric::ProduceMachine,
        Metric::ConsumeRate,
        Metric::ConsumeBrokerCpu,
        Metric::ConsumeClientCpu,
        Metric::ConsumeClientRan,
        Metric::ConsumeClientWanted,
        Metric::ConsumeMachine,
        Metric::TransactionsOfOne,
        Metric::TransactionsOfTen,
        Metric::SlowP50,
        Metric::SlowP99,
        Metric::SlowP999,
        Metric::FastP50,
        Metric::FastP99,
        Metric::FastP999,
        Metric::Memory,
    ];

    fn title(self) -> &'static str {
        match self {
            Metric::ProduceRate => "produce, thousands of messages a second",
            Metric::ProduceBrokerCpu => "… broker CPU, s per million",
            Metric::ProduceClientCpu => "… client CPU, s per million",
            Metric::ProduceClientRan => "… busiest client thread ran, % of the time",
            Metric::ProduceClientWanted => "… … ran or waited for a core, % of the time",
            Metric::ProduceMachine => "… of all cores in use, %",
            Metric::ConsumeRate => "consume, thousands of messages a second",
            Metric::ConsumeBrokerCpu => "… broker CPU, s per million",
            Metric::ConsumeClientCpu => "… client CPU, s per million",
            Metric::ConsumeClientRan => "… busiest client thread ran, % of the time",
            Metric::ConsumeClientWanted => "… … ran or waited for a core, % of the time",
            Metric::ConsumeMachine => "… of all cores in use, %",
            Metric::TransactionsOfOne => "transactions of 100 messages, 1 producer, commits a second",
            Metric::TransactionsOfTen => "… 10 producers, commits a second",
            Metric::SlowP50 => "end to end at 1,000 messages/s, p50, ms",
            Metric::SlowP99 => "… p99, ms",
            Metric::SlowP999 => "… p99.9, ms",
            Metric::FastP50 => "end to end at 20,000 messages/s, p50, ms",
            Metric::FastP99 => "… p99, ms",
            Metric::FastP999 => "… p99.9, ms",
            Metric::Memory => "RSS of the broker after load, MiB",
        }
    }
}

/// Every figure seen.
#[derive(Default)]
pub struct Figures(BTreeMap<(Metric, Subject), Vec<f64>>);

impl Figures {
    pub fn add(&mut self, metric: Metric, subject: Subject, value: f64) {
        self.0.entry((metric, subject)).or_default().push(value);
    }

    pub fn add_some(&mut self, metric: Metric, subject: Subject, value: Option<f64>) {
        if let Some(value) = value {
            self.add(metric, subject, value);
        }
    }

    fn median(&self, metric: Metric, subject: Subject) -> Option<f64> {
        self.0.get(&(metric, subject)).map(|values| median(values.iter().copied()))
    }

    /// Median, and from least to most where there were several rounds.
    fn cell(&self, metric: Metric, subject: Subject) -> String {
        let Some(values) = self.0.get(&(metric, subject)) else { return String::new() };
        let middle = number(median(values.iter().copied()));
        if values.len() == 1 {
            return middle;
        }
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        format!("{middle} ({} to {})", number(least), number(most))
    }

    /// A row a metric, a column a subject.
    pub fn table(&self) -> String {
        let mut text = String::from("| median (least to most) |");
        for subject in Subject::ALL {
            write!(text, " {} |", subject.title()).unwrap();
        }
        text += "\n|---|---|---|---|---|---|\n";
        for metric in Metric::ALL {
            if !self.0.keys().any(|(known, _)| *known == metric) {
                continue;
            }
            write!(text, "| {} |", metric.title()).unwrap();
            for subject in Subject::ALL {
                write!(text, " {} |", self.cell(metric, subject)).unwrap();
            }
            text.push('\n');
        }
        text
    }

    /// Each bar for which there are figures: what is demanded, what was seen, whether it is met; then those that are not.
    pub fn bars(&self) -> String {
        let mut text = String::from("| bar | demanded | seen | met |\n|---|---|---|---|\n");
        let mut missed = String::new();
        let throughput = self.produce_bars().into_iter().chain(self.consume_bars()).chain(self.transaction_bars());
        for (what, demanded, seen, met) in throughput.chain(self.latency_bars()) {
            writeln!(text, "| {what} | {demanded} | {seen} | {} |", if met { "yes" } else { "**no**" }).unwrap();
            if !met {
                writeln!(missed, "- {what}: {seen}; demanded: {demanded}").unwrap();
            }
        }
        if !missed.is_empty() {
            write!(text, "\nFell short:\n\n{missed}").unwrap();
        }
        text
    }

    fn produce_bars(&self) -> Vec<Bar> {
        let rate = |subject| self.median(Metric::ProduceRate, subject);
        let cpu = |subject| self.median(Metric::ProduceBrokerCpu, subject);
        let mut bars = Vec::new();
        let mut rates = |what: &str, demanded: f64, ours: Subject, theirs: Subject| {
            let (Some(own), Some(other)) = (rate(ours), rate(theirs)) else { return };
            let thread = self.median(Metric::ProduceClientRan, ours).unwrap_or_default();
            let is_bound = thread >= CLIENT_BOUND;
            let verdict = if is_bound { "client-bound" } else { "not shown to be client-bound" };
            let seen = format!("{:.2}x; the client's busiest thread ran {thread:.0} %: {verdict}", own / other);
            bars.push((what.into(), format!("{demanded}x or client-bound"), seen, own >= demanded * other || is_bound));
        };
        rates("produce, `os` against Kafka's default", 1.5, Subject::Os, Subject::Kafka);
        rates("produce, `fsync` against Kafka with a flush each", 5.0, Subject::Fsync, Subject::KafkaFlush);
        rates("produce, `fsync` against the floor", 0.5, Subject::Fsync, Subject::Floor);
        if let (Some(own), Some(other)) = (cpu(Subject::Os), cpu(Subject::Kafka)) {
            let seen = format!("{:.2}x ({own:.2} s a million)", own / other);
            bars.push(("broker CPU of that, `os`".into(), "at most 0.5x".into(), seen, own <= 0.5 * other));
        }
        bars
    }

    fn consume_bars(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for (metric, what, more_is_better) in
            [(Metric::ConsumeRate, "consume a backlog", true), (Metric::ConsumeBrokerCpu, "broker CPU of that", false)]
        {
            for ours in [Subject::Os, Subject::Fsync] {
                let (Some(own), Some(other)) = (self.median(metric, ours), self.median(metric, Subject::Kafka)) else {
                    continue;
                };
                let (demanded, met) =
                    if more_is_better { ("at least 1x", own >= other) } else { ("below 1x", own < other) };
                bars.push((format!("{what}, {}", ours.title()), demanded.into(), format!("{:.2}x", own / other), met));
            }
        }
        bars
    }

    fn transaction_bars(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for (metric, producers) in
            [(Metric::TransactionsOfOne, "1 producer"), (Metric::TransactionsOfTen, "10 producers")]
        {
            for (ours, theirs, against, demanded) in [
                (Subject::Fsync, Subject::KafkaFlush, "`fsync` against Kafka with a flush each", 3.0),
                (Subject::Os, Subject::Kafka, "`os` against Kafka's default", 1.0),
            ] {
                let (Some(own), Some(other)) = (self.median(metric, ours), self.median(metric, theirs)) else {
                    continue;
                };
                let what = format!("transactions of 100 messages, {producers}, {against}");
                let seen = format!("{:.2}x ({own:.0} a second)", own / other);
                bars.push((what, format!("at least {demanded}x"), seen, own >= demanded * other));
            }
        }
        bars
    }

    fn latency_bars(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for (rate, p50, p99) in
            [("1,000/s", Metric::SlowP50, Metric::SlowP99), ("20,000/s", Metric::FastP50, Metric::FastP99)]
        {
            for (name, metric, slack_ms) in [("p50", p50, 0.5), ("p99", p99, 2.0)] {
                let of = |subject| self.median(metric, subject);
                if let (Some(own), Some(other)) = (of(Subject::Os), of(Subject::Kafka)) {
                    let seen = format!("{:.2}x ({own:.2} ms)", own / other);
                    let what = format!("{name} at {rate}, `os` against Kafka's default");
                    bars.push((what, "at most 0.5x".into(), seen, own <= 0.5 * other));
                }
                if let (Some(own), Some(floor)) = (of(Subject::Fsync), of(Subject::Floor)) {
                    let most = 1.5 * floor + slack_ms;
                    let what = format!("{name} at {rate}, `fsync` against the floor");
                    let demanded = format!("at most 1.5x + {slack_ms} ms = {most:.2} ms");
                    bars.push((what, demanded, format!("{own:.2} ms"), own <= most));
                }
                if let (Some(own), Some(other)) = (of(Subject::Fsync), of(Subject::KafkaFlush)) {
                    let seen = format!("{:.3}x", own / other);
                    let what = format!("{name} at {rate}, `fsync` against Kafka with a flush each");
                    bars.push((what, "below 0.1x".into(), seen, own < 0.1 * other));
                }
            }
        }
        bars
    }
}

/// What, demanded, seen, met.
type Bar = (String, String, String, bool);

/// A client whose busiest thread runs in this share of the time, in percent, sets the pace itself. Waiting for a core does
/// not count: the broker may be who has it.
const CLIENT_BOUND: f64 = 90.0;

/// Three digits, and none behind the point where there are more before it.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
