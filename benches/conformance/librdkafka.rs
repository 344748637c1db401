//! Runs librdkafka's own test suite, a process for each test, and reads the report that it writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use crate::process;
use crate::report::{Outcome, Row};
use crate::suite::{Plan, Test};
use crate::support::first_line;

/// The suite's tests end by themselves within minutes; what does not is stuck.
const LIMIT: Duration = Duration::from_secs(400);
/// Below the folder for logs: where the tests are run.
const RUN_IN: &str = "tests";
/// The version that the suite takes the broker for.
const BROKER_VERSION: &str = "4.0.0";

/// What a test says that was built where the headers of RapidJSON (Debian: rapidjson-dev) were not.
const NO_RAPIDJSON: &str = "RapidJSON >=1.1.0 not available";

/// The built suite, and a folder for what it writes.
pub struct Suite {
    tests: PathBuf,
    work: PathBuf,
    is_quick: bool,
}

impl Suite {
    /// Builds it where that was not done yet. `work`: logs and reports go there.
    pub fn find(work: &Path, is_quick: bool) -> Suite {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/librdkafka.sh");
        let tests = PathBuf::from(first_line(script, &["tests"]));
        assert!(tests.is_dir(), "librdkafka's tests cannot be built: run scripts/librdkafka.sh tests");
        // The tests look for these from the folder that they are run in, and leave files there.
        let run_in = work.join(RUN_IN);
        std::fs::create_dir_all(&run_in).unwrap();
        std::os::unix::fs::symlink(tests.join("fixtures"), run_in.join("fixtures")).unwrap();
        std::os::unix::fs::symlink(tests.with_file_name("src"), work.join("src")).unwrap();
        let bin = work.join("kafka/bin");
        std::fs::create_dir_all(&bin).unwrap();
        let tool = bin.join("kafka-topics.sh");
        let program = std::env::current_exe().unwrap();
        std::fs::write(&tool, format!("#!/bin/sh\nexec '{}' kafka-topics \"$@\"\n", program.display())).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&tool, executable).unwrap();
        Suite { tests, work: work.to_owned(), is_quick }
    }

    /// Runs all of `tests`, `jobs` at once, against a broker; rows in the order of `tests`.
    pub fn run(&self, tests: &[&Test], address: &str, jobs: usize) -> Vec<Row> {
        // One process serves all names of a number.
        let mut numbers: Vec<Vec<&Test>> = Vec::new();
        for test in tests {
            match numbers.last_mut() {
                Some(same) if same[0].number() == test.number() => same.push(test),
                _ => numbers.push(vec![test]),
            }
        }
        let next = Mutex::new(numbers.iter().enumerate());
        let done: Mutex<Vec<Option<Vec<Row>>>> = Mutex::new(vec![None; numbers.len()]);
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let Some((at, tests)) = next.lock().unwrap().next() else { return };
                        let rows = self.run_number(tests, address);
                        rows.iter().for_each(Row::tell);
                        done.lock().unwrap()[at] = Some(rows);
                    }
                });
            }
        });
        done.into_inner().unwrap().into_iter().flatten().flatten().collect()
    }

    fn run_number(&self, tests: &[&Test], address: &str) -> Vec<Row> {
        let first = tests[0];
        let parts: Vec<Option<&str>> = match first.plan {
            Plan::Parts(parts, _) => parts.iter().map(|part| Some(*part)).collect(),
            _ => vec![None],
        };
        let mut rows: Vec<Row> = tests.iter().map(|test| Row::new(test.name)).collect();
        for part in parts {
            let mut outcomes = self.outcomes(tests, part, address);
            // Some tests are about time, and the machine has other things to do. What failed at first is told.
            if let Some(Outcome::Failed(why)) = outcomes.iter().find(|outcome| outcome.is_failed()).cloned() {
                outcomes = self.outcomes(tests, part, address);
                rows.iter_mut().for_each(|row| row.retried.push(why.clone()));
            }
            rows.iter_mut().zip(outcomes).for_each(|(row, outcome)| row.add(outcome));
        }
        for (row, test) in rows.iter_mut().zip(tests) {
            if let Plan::Parts(_, note) | Plan::As(_, note) = test.plan {
                row.note = note.to_string();
            }
        }
        rows
    }

    /// What becomes of tests of one number, or of that part of them.
    fn outcomes(&self, tests: &[&Test], part: Option<&str>, address: &str) -> Vec<Outcome> {
        let report = self.run_process(tests[0], part, address);
        tests.iter().map(|test| report.of(test.name, part)).collect()
    }

    fn run_process(&self, test: &Test, part: Option<&str>, address: &str) -> Report {
        let label = match part {
            Some(part) => format!("{}-{part}", test.name),
            None => test.name.to_string(),
        };
        let file = |extension: &str| self.work.join(format!("{label}.{extension}"));
        // A part that is run alone has the suite's 30 s; in a whole test, those before it have set more.
        let patience = if part.is_some() { "test.timeout.multiplier=4\n" } else { "" };
        std::fs::write(file("conf"), format!("bootstrap.servers={address}\n{patience}")).unwrap();
        let _ = std::fs::remove_file(file("json"));
        let mut command = Command::new(self.tests.join("test-runner"));
        // -L: no tests without a broker; -p1: one at a time; -Q: fewer messages, and not all parts.
        command.args(["-L", "-p1"]).args(self.is_quick.then_some("-Q")).current_dir(self.work.join(RUN_IN));
        command.env("TESTS", test.number()).env("TEST_REPORT", file("json")).env("RDKAFKA_TEST_CONF", file("conf"));
        command.env("TEST_SCENARIO", if test.without_auto_creation { "noautocreate" } else { "default" });
        let version = if let Plan::As(version, _) = test.plan { version } else { BROKER_VERSION };
        command.env("TEST_KAFKA_VERSION", version).env("KAFKA_PATH", self.work.join("kafka")).env("BROKERS", address);
        let libraries = self.tests.with_file_name("src").into_os_string();
        let libraries = [libraries, ":".into(), self.tests.with_file_name("src-cpp").into_os_string()];
        command.env("LD_LIBRARY_PATH", libraries.into_iter().collect::<std::ffi::OsString>());
        command.env_remove("SUBTESTS");
        if let Some(part) = part {
            command.env("SUBTESTS", part);
        }
        let ended = process::run(&mut command, Stdio::null(), &file("log"), LIMIT);
        let report = std::fs::read_to_string(file("json")).ok().and_then(|text| serde_json::from_str(&text).ok());
        Report { ended, tests: report.unwrap_or(Value::Null), log: file("log") }
    }
}

/// What a process of the suite said.
struct Report {
    ended: process::Ended,
    tests: Value,
    log: PathBuf,
}

impl Report {
    /// What became of one test. A test that the report does not name did not pass.
    fn of(&self, name: &str, part: Option<&str>) -> Outcome {
        let test = &self.tests["tests"][name];
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let seconds = test["duration"].as_f64().unwrap_or_default();
        // A part that matches nothing runs nothing, and passes.
        let begins = |part: &str| log.lines().any(|line| line.contains("[ ") && line.contains(part));
        let is_empty = part.is_some_and(|part| !begins(part));
        match test["state"].as_str() {
            Some("PASSED") if is_empty => Outcome::Failed(format!("{}: no part ran", part.unwrap_or_default())),
            Some("PASSED") => Outcome::Passed(Some(seconds)),
            Some("SKIPPED") if log.contains(NO_RAPIDJSON) => {
                Outcome::Skipped("was built without RapidJSON".to_string())
            }
            Some("SKIPPED") => Outcome::Failed("was not run".to_string()),
            _ => Outcome::Failed(format!("{}{}", self.ended.describe(), first_failure(&log))),
        }
    }
}

/// What the suite says of the first thing that failed.
fn first_failure(log: &str) -> String {
    let plain = |line: &str| without_colours(line).trim_matches(['#', ' ', '\t', ':']).to_string();
    let mut lines = log.lines().skip_while(|line| !line.contains("failed at"));
    match (lines.next(), lines.next()) {
        (Some(place), Some(reason)) => format!(": {}: {}", plain(place), plain(reason)),
        _ => String::new(),
    }
}

/// Terminals' commands begin with ESC [ and end with a letter.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| {
        text + part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest)
    })
}
