//! Runs a program to its end or to a limit of time, with its output in a file.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a program ended.
pub struct Ended {
    /// None: it did not end in time, and was ended.
    pub status: Option<ExitStatus>,
    pub took: Duration,
}

impl Ended {
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// For people: how it ended, where that was not well.
    pub fn describe(&self) -> String {
        match self.status {
            None => format!("did not end within {} s", self.took.as_secs()),
            Some(status) => format!("ended with {status}"),
        }
    }
}

/// What it writes goes to `log`; it reads `input`.
pub fn run(command: &mut Command, input: Stdio, log: &Path, limit: Duration) -> Ended {
    let output = File::create(log).unwrap();
    command.stdin(input).stdout(output.try_clone().unwrap()).stderr(output);
    wait(command, limit)
}

/// Runs a program whose input and output are set.
pub fn wait(command: &mut Command, limit: Duration) -> Ended {
    let began = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Ended { status: Some(status), took: began.elapsed() };
        }
        if began.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return Ended { status: None, took: began.elapsed() };
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
