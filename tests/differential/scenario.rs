//! Runs scenarios at both brokers, and says what differs.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::compare::{Unequal, differing};
use super::facts::Fact;
use super::session::{Served, Session};

/// Calls whose answers must be the same at both brokers.
pub struct Scenario {
    /// What it asks; topics and groups are named after it.
    pub name: &'static str,
    pub steps: fn(&mut Session),
    /// Fields of answers that may differ here, besides those that always may.
    pub masks: &'static [&'static str],
}

/// A scenario without further masks.
pub const fn scenario(name: &'static str, steps: fn(&mut Session)) -> Scenario {
    Scenario { name, steps, masks: &[] }
}

impl Scenario {
    pub const fn masking(self, masks: &'static [&'static str]) -> Scenario {
        Scenario { masks, ..self }
    }
}

/// What all scenarios came to.
#[derive(Default)]
pub struct Outcome {
    pub scenarios: usize,
    pub calls: usize,
    pub facts: usize,
    pub unequal: Vec<Unequal>,
    /// Scenarios that could not be carried out.
    pub broken: Vec<String>,
}

type Run = Result<(Vec<Fact>, usize), String>;

/// Families run side by side, each at both brokers at once; the scenarios of one family run one after the other.
pub fn run_all(
    families: &[&'static [Scenario]],
    chosen: &str,
    kafka: SocketAddr,
    ours: SocketAddr,
    served: &Served,
) -> Outcome {
    let mut outcome = Outcome::default();
    std::thread::scope(|scope| {
        let run_family = |family: &'static [Scenario], address| {
            let chosen = family.iter().filter(|scenario| scenario.name.contains(chosen));
            chosen.map(|scenario| (scenario, run(scenario, address, served))).collect::<Vec<_>>()
        };
        let start = |family: &'static [Scenario], address| scope.spawn(move || run_family(family, address));
        let running: Vec<_> = families.iter().map(|family| (start(family, kafka), start(family, ours))).collect();
        for (kafka, ours) in running {
            for ((scenario, kafka), (_, ours)) in kafka.join().unwrap().into_iter().zip(ours.join().unwrap()) {
                outcome.add(scenario, kafka, ours);
            }
        }
    });
    outcome
}

fn run(scenario: &'static Scenario, address: SocketAddr, served: &Served) -> Run {
    let mut session = Session::new(address, served, scenario.name, scenario.masks);
    let ended = catch_unwind(AssertUnwindSafe(|| (scenario.steps)(&mut session)));
    let words = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    };
    ended.map(|()| session.finish()).map_err(words)
}

impl Outcome {
    /// Both together.
    pub fn and(mut self, other: Outcome) -> Outcome {
        self.scenarios += other.scenarios;
        self.calls += other.calls;
        self.facts += other.facts;
        self.unequal.extend(other.unequal);
        self.broken.extend(other.broken);
        self
    }

    fn add(&mut self, scenario: &'static Scenario, kafka: Run, ours: Run) {
        self.scenarios += 1;
        match (kafka, ours) {
            (Ok((kafka, calls)), Ok((ours, _))) => {
                self.calls += calls;
                self.facts += kafka.len();
                if kafka.is_empty() {
                    self.broken.push(format!("{}: it compares nothing", scenario.name));
                }
                self.unequal.extend(differing(scenario.name, &kafka, &ours));
            }
            (kafka, ours) => {
                let words = |who: &str, run: Run| run.err().map(|words| format!("{}: {who}: {words}", scenario.name));
                self.broken.extend(words("Apache Kafka", kafka).into_iter().chain(words("ours", ours)));
            }
        }
    }
}
