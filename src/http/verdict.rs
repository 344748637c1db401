//! The one line: healthy, or the fault and what to do about it. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::history::{Column, History, RECENT_SECONDS};
use crate::metrics::{LAG_SLO_SECONDS, LATENCY_SLO_BUDGET, LATENCY_SLO_SECONDS};
use crate::progress::Stage;

/// A lag grows when it is more than ten seconds ago by this.
const LAG_GROWS_BY: f64 = 1.0;
/// Arrivals that wait for the producer for longer than this are late.
const LATE_SECONDS_MAX: f64 = 2.0;
/// Dead letters are told of for so many seconds.
const DEAD_LETTERS_SECONDS: usize = 300;
/// Until something was ready once, this long passes for a start.
const START_SECONDS: f64 = 60.0;

/// How it goes, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Verdict {
    /// In a word.
    pub state: State,
    /// For people.
    #[schema(example = "Healthy: 20,140 tx/s, p99 8.1 ms, 0.2 s behind")]
    pub text: String,
    /// What is wrong; null when nothing is.
    pub fault: Option<Fault>,
    /// What to do about it.
    pub cure: Option<String>,
}

/// In a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All is as it should be.
    Healthy,
    /// Roles are about to be ready.
    Starting,
    /// Nothing comes.
    Idle,
    /// It works, and worse than it should.
    Degraded,
    /// It does not work.
    Broken,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The last audit has found differences between ledger, log and PostgreSQL.
    BooksDiffer,
    /// PostgreSQL does not store.
    DatabaseAway,
    /// The producer or the broker holds back for want of space.
    DiskFull,
    /// PostgreSQL is behind the log.
    LagGrowing,
    /// The producer is behind its arrivals.
    ProducerBehind,
    /// Nothing comes.
    NoData,
    /// A role waits for something.
    Waiting,
    /// Messages were refused.
    DeadLetters,
    /// More messages take longer than the objective than may.
    Slow,
}

/// What is judged.
pub struct Facts<'a> {
    /// Seconds since the windows opened.
    pub uptime_seconds: f64,
    /// The roles of this process.
    pub roles: &'a [&'static str],
    /// Whether all were ready once.
    pub was_ready: bool,
    /// Role -> what it waits for.
    pub waiting_for: &'a BTreeMap<&'static str, String>,
    /// PostgreSQL does not store.
    pub database_away: bool,
    /// The last audit has found differences.
    pub books_differ: bool,
    /// Records not applied.
    pub lag_messages: Option<u64>,
    /// The last columns.
    pub history: &'a History,
    /// How a person starts finstream on this data directory.
    pub command: &'a str,
}

impl Verdict {
    fn new(state: State, fault: Option<Fault>, text: String, cure: Option<String>) -> Verdict {
        Verdict { state, text, fault, cure }
    }

    /// The worst that there is to say.
    pub fn of(facts: &Facts<'_>) -> Verdict {
        facts
            .books()
            .or_else(|| facts.outage())
            .or_else(|| facts.waiting())
            .or_else(|| facts.lag())
            .or_else(|| facts.late())
            .or_else(|| facts.refused())
            .or_else(|| facts.silence())
            .or_else(|| facts.slow())
            .unwrap_or_else(|| Verdict::new(State::Healthy, None, facts.healthy(), None))
    }
}

impl Facts<'_> {
    fn runs(&self, role: &str) -> bool {
        self.roles.contains(&role)
    }

    fn books(&self) -> Option<Verdict> {
        let text = "The books do not balance: ledger, log and PostgreSQL differ".to_owned();
        let cure = format!("{} verify names the differences; meanwhile nothing is removed.", self.command);
        self.books_differ.then(|| Verdict::new(State::Broken, Some(Fault::BooksDiffer), text, Some(cure)))
    }

    fn outage(&self) -> Option<Verdict> {
        if self.database_away && self.was_ready {
            let text = "PostgreSQL does not store: messages wait in the log, nothing is lost".to_owned();
            let cure = "Start PostgreSQL again, or look at its log; the consumer goes on by itself.";
            return Some(Verdict::new(State::Broken, Some(Fault::DatabaseAway), text, Some(cure.to_owned())));
        }
        let (role, what) = self.waiting_for.iter().find(|(_, what)| is_about_space(what))?;
        let text = format!("The {role} holds back: it waits for {what}");
        let cure = "Free space on the file system of the data directory; it goes on by itself, and nothing is lost.";
        Some(Verdict::new(State::Broken, Some(Fault::DiskFull), text, Some(cure.to_owned())))
    }

    fn waiting(&self) -> Option<Verdict> {
        let waits: Vec<String> =
            self.waiting_for.iter().map(|(role, what)| format!("{role} waits for {what}")).collect();
        if waits.is_empty() {
            return None;
        }
        let text = waits.join("; ");
        if !self.was_ready && self.uptime_seconds < START_SECONDS {
            return Some(Verdict::new(State::Starting, None, format!("Starting: {text}"), None));
        }
        let cure = "See that what is waited for runs and can be reached; the log on the terminal says more.";
        let text = format!("Waiting: {text}");
        Some(Verdict::new(State::Degraded, Some(Fault::Waiting), text, Some(cure.to_owned())))
    }

    fn lag(&self) -> Option<Verdict> {
        let now = self.newest()?.lag_seconds;
        let before = self.history.last(RECENT_SECONDS + 1).next().and_then(|column| column.lag_seconds);
        let stored = self.sum(RECENT_SECONDS, |column| column.stored + column.dead_letters);
        let is_stalled = self.lag_messages.is_some_and(|messages| messages > 0)
            && stored == 0
            && self.history.last(RECENT_SECONDS).count() == RECENT_SECONDS;
        let behind = now.unwrap_or(0.0);
        if behind < LAG_SLO_SECONDS && !is_stalled {
            return None;
        }
        let stores = self.rate(|column| column.stored);
        let messages = grouped(self.lag_messages.unwrap_or(0));
        if is_stalled {
            let text = format!("Stalled: {messages} messages are in the log, and nothing was stored for 10 s");
            let cure = "Look at the log on the terminal, and at PostgreSQL (locks, disk).";
            return Some(Verdict::new(State::Broken, Some(Fault::LagGrowing), text, Some(cure.to_owned())));
        }
        if stores == 0.0 {
            let text = format!("Nothing is stored at the moment: {behind:.1} s behind ({messages} messages)");
            let cure = "Look at PostgreSQL: its log, locks, its disk. A session that is silent for 15 s is given up.";
            return Some(Verdict::new(State::Degraded, Some(Fault::LagGrowing), text, Some(cure.to_owned())));
        }
        if before.is_some_and(|before| behind > before + LAG_GROWS_BY) {
            let text = format!(
                "Falling behind: {behind:.1} s ({messages} messages), PostgreSQL stores {} tx/s",
                grouped(stores as u64)
            );
            let cure = format!(
                "Lower --rate, or start another consumer: {} --role consumer; or give PostgreSQL a faster disk.",
                self.command
            );
            return Some(Verdict::new(State::Degraded, Some(Fault::LagGrowing), text, Some(cure)));
        }
        let text =
            format!("Catching up: {behind:.1} s behind ({messages} messages), stores {} tx/s", grouped(stores as u64));
        Some(Verdict::new(State::Degraded, None, text, None))
    }

    fn late(&self) -> Option<Verdict> {
        let late = self.newest()?.late as f64;
        let due = self.rate(|column| column.scheduled);
        if !self.runs("producer") || due <= 0.0 || late < due * LATE_SECONDS_MAX {
            return None;
        }
        let text = format!(
            "The producer is behind: {} messages are due and not sent, it sends {} tx/s of {}",
            grouped(late as u64),
            grouped(self.rate(|column| column.sent) as u64),
            grouped(due as u64)
        );
        let cure = "Lower --rate: the broker or this machine does not take more. The latencies count the wait.";
        Some(Verdict::new(State::Degraded, Some(Fault::ProducerBehind), text, Some(cure.to_owned())))
    }

    fn refused(&self) -> Option<Verdict> {
        let refused = self.sum(DEAD_LETTERS_SECONDS, |column| column.dead_letters);
        if refused == 0 {
            return None;
        }
        let text = format!("{} dead letters in the last 5 minutes: messages that cannot be stored", grouped(refused));
        let cure = format!("{} dead-letters says why; with --replay it puts them through after a fix.", self.command);
        Some(Verdict::new(State::Degraded, Some(Fault::DeadLetters), text, Some(cure)))
    }

    fn silence(&self) -> Option<Verdict> {
        if !self.runs("producer") && !self.runs("consumer") {
            return None;
        }
        let moved = |column: &Column| column.sent + column.acknowledged + column.stored + column.dead_letters;
        if self.sum(RECENT_SECONDS, moved) > 0 {
            return None;
        }
        let seconds = self.history.last(usize::MAX).rev().take_while(|column| moved(column) == 0).count();
        let text = match seconds {
            0 => "Ready: waiting for the first transaction".to_owned(),
            _ => format!("Idle: no transaction for {seconds} s"),
        };
        let cure = match self.runs("producer") {
            true => "The source gives nothing at the moment: it may be at its end, or its next event is not due yet."
                .to_owned(),
            false => format!("Start a producer: {} --role producer", self.command),
        };
        let fault = (seconds > RECENT_SECONDS).then_some(Fault::NoData);
        Some(Verdict::new(State::Idle, fault, text, fault.map(|_| cure)))
    }

    fn slow(&self) -> Option<Verdict> {
        let latencies = &self.history.recent(Stage::EndToEnd).counts;
        let (slo_us, part) = (LATENCY_SLO_SECONDS * 1e6, 1.0 - LATENCY_SLO_BUDGET);
        let p99_us = latencies.quantile(part).filter(|us| *us as f64 > slo_us)?;
        let rate = grouped(self.rate(|column| column.stored).round() as u64);
        let (p99, slo) = (latency(p99_us), latency(slo_us as u64));
        let text =
            format!("Slow: p99 {p99} at {rate} tx/s; the objective is {slo} for {:.0} % of messages", part * 100.0);
        let cure = "The slowest place of the way below is marked. A lower --rate, a quicker disk or more cores help.";
        Some(Verdict::new(State::Degraded, Some(Fault::Slow), text, Some(cure.to_owned())))
    }

    fn healthy(&self) -> String {
        let p99 = |stage, what: &str| {
            let p99_us = self.history.recent(stage).counts.quantile(0.99);
            p99_us.map_or(String::new(), |us| format!(", {what} {}", latency(us)))
        };
        if self.runs("consumer") {
            let behind = self.newest().and_then(|column| column.lag_seconds);
            let behind = behind.map_or(String::new(), |seconds| format!(", {seconds:.1} s behind"));
            let rate = grouped(self.rate(|column| column.stored).round() as u64);
            return format!("Healthy: {rate} tx/s{}{behind}", p99(Stage::EndToEnd, "p99"));
        }
        if self.runs("producer") {
            let rate = grouped(self.rate(|column| column.acknowledged).round() as u64);
            return format!(
                "Healthy: {rate} tx/s acknowledged{}",
                p99(Stage::Acknowledged, "p99 of the broker's answer")
            );
        }
        "Healthy: the broker is up".to_owned()
    }

    fn newest(&self) -> Option<&Column> {
        self.history.last(1).next()
    }

    fn sum(&self, seconds: usize, count: impl Fn(&Column) -> u64) -> u64 {
        self.history.last(seconds).map(count).sum()
    }

    fn rate(&self, count: impl Fn(&Column) -> u64) -> f64 {
        self.history.rate(count).unwrap_or(0.0)
    }
}

/// Readiness is words for people: those of the disk guard and of the broker that is full.
fn is_about_space(what: &str) -> bool {
    what.contains("disk") && (what.contains("space") || what.contains("full"))
}

/// `1234567` -> `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn latency(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::figures::Counts;
    use crate::http::history::Recent;

    const ALL: &[&str] = &["broker", "producer", "consumer"];

    /// Seconds of 20,140 messages each, as `change` makes them.
    fn history(seconds: u64, change: impl Fn(u64, &mut Column)) -> History {
        history_at(8_100, seconds, change)
    }

    /// The same, where each message takes so long.
    fn history_at(latency_us: u64, seconds: u64, change: impl Fn(u64, &mut Column)) -> History {
        let mut history = History::default();
        for second in 0..seconds {
            let (length, lag_seconds) = (Duration::from_secs(1), Some(0.2));
            let count = 20_140;
            let mut column = Column {
                length,
                scheduled: count,
                sent: count,
                acknowledged: count,
                stored: count,
                lag_seconds,
                ..Column::default()
            };
            change(second, &mut column);
            let mut histogram = crate::progress::Progress::new().latencies(Stage::EndToEnd).histogram;
            histogram.saturating_record_n(latency_us, column.stored);
            let mut stages = vec![Recent::default(); Stage::ALL.len()];
            stages[Stage::EndToEnd as usize].counts = Counts::of(&histogram);
            history.add(column, stages);
        }
        history
    }

    fn judge(history: &History, roles: &'static [&'static str], change: impl FnOnce(&mut Facts<'_>)) -> Verdict {
        let waiting_for = BTreeMap::new();
        let mut facts = Facts {
            uptime_seconds: 30.0,
            roles,
            was_ready: true,
            waiting_for: &waiting_for,
            database_away: false,
            books_differ: false,
            lag_messages: Some(9),
            history,
            command: "finstream",
        };
        change(&mut facts);
        Verdict::of(&facts)
    }

    #[test]
    fn all_well_is_one_line_with_rate_latency_and_lag() {
        let verdict = judge(&history(20, |_, _| {}), ALL, |_| {});
        assert_eq!(verdict.text, "Healthy: 20,140 tx/s, p99 8.1 ms, 0.2 s behind");
        assert_eq!((verdict.state, verdict.fault, verdict.cure), (State::Healthy, None, None));
    }

    #[test]
    fn the_worst_fault_is_named_with_its_cure() {
        let growing = history(20, |second, column| column.lag_seconds = Some(second as f64));
        let late = history(20, |_, column| (column.sent, column.late) = (10_000, 90_000));
        let refused = history(20, |second, column| column.dead_letters = u64::from(second == 3));
        for (history, expected) in
            [(&growing, Fault::LagGrowing), (&late, Fault::ProducerBehind), (&refused, Fault::DeadLetters)]
        {
            let verdict = judge(history, ALL, |_| {});
            assert_eq!((verdict.state, verdict.fault), (State::Degraded, Some(expected)));
            assert!(verdict.cure.is_some(), "{verdict:?}");
        }
        let away = judge(&growing, ALL, |facts| facts.database_away = true);
        assert_eq!((away.state, away.fault), (State::Broken, Some(Fault::DatabaseAway)));
        let differ = judge(&growing, ALL, |facts| (facts.database_away, facts.books_differ) = (true, true));
        assert_eq!((differ.state, differ.fault), (State::Broken, Some(Fault::BooksDiffer)));
        assert!(differ.cure.is_some_and(|cure| cure.contains("finstream verify")));
        let falling = history(20, |second, column| column.lag_seconds = Some(40.0 - second as f64));
        let catching_up = judge(&falling, ALL, |_| {});
        assert_eq!((catching_up.state, catching_up.fault), (State::Degraded, None));
        let stalled = judge(&history(20, |_, column| column.stored = 0), ALL, |_| {});
        assert_eq!((stalled.state, stalled.fault), (State::Broken, Some(Fault::LagGrowing)));
    }

    #[test]
    fn messages_that_take_longer_than_the_objective_are_told_of() {
        let slow = judge(&history_at(212_000, 20, |_, _| {}), ALL, |_| {});
        assert_eq!((slow.state, slow.fault), (State::Degraded, Some(Fault::Slow)));
        assert!(slow.text.starts_with("Slow: p99 21") && slow.text.contains("the objective is 50 ms"), "{}", slow.text);
        assert_eq!(judge(&history_at(40_000, 20, |_, _| {}), ALL, |_| {}).fault, None);
    }

    #[test]
    fn waiting_is_a_start_at_first_and_a_fault_later() {
        let history = History::default();
        let mut waiting_for = BTreeMap::from([("consumer", "its partitions".to_owned())]);
        let start = judge(&history, ALL, |_| {}).state;
        assert_eq!(start, State::Idle);
        let verdict = |facts: (f64, bool), waiting_for: &BTreeMap<&'static str, String>| {
            Verdict::of(&Facts {
                uptime_seconds: facts.0,
                roles: ALL,
                was_ready: facts.1,
                waiting_for,
                database_away: false,
                books_differ: false,
                lag_messages: None,
                history: &history,
                command: "finstream",
            })
        };
        assert_eq!(verdict((3.0, false), &waiting_for).state, State::Starting);
        assert_eq!(verdict((3.0, true), &waiting_for).fault, Some(Fault::Waiting));
        assert_eq!(verdict((90.0, false), &waiting_for).state, State::Degraded);
        waiting_for.insert("producer", "disk space".to_owned());
        assert_eq!(verdict((90.0, true), &waiting_for).fault, Some(Fault::DiskFull));
    }

    #[test]
    fn nothing_that_comes_is_idle_and_after_a_while_a_fault_that_says_how_to_start_a_producer() {
        let silent = history(12, |_, column| {
            *column = Column { length: Duration::from_secs(1), lag_seconds: Some(0.0), ..Column::default() };
        });
        let verdict = judge(&silent, &["consumer"], |facts| facts.lag_messages = Some(0));
        assert_eq!((verdict.state, verdict.fault), (State::Idle, Some(Fault::NoData)));
        assert!(verdict.cure.is_some_and(|cure| cure.contains("--role producer")));
        assert_eq!(judge(&silent, &["broker"], |facts| facts.lag_messages = None).state, State::Healthy);
    }
}
