//! Starts the real binary on a temporary data directory, and takes everything down again, also after a failed test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

pub mod child;
pub mod kafka;
pub mod notes;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Names a cluster on which tests run the pipeline in place of the embedded broker (`make test-kafka`).
pub const TEST_BROKERS: &str = "FINSTREAM_TEST_BROKERS";

/// A number that the environment may set.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A data directory of its own; whatever PostgreSQL runs on it ends with it.
pub struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    pub fn new() -> Sandbox {
        let dir = tempfile::Builder::new().prefix("finstream-test-").tempdir().unwrap();
        // The private PostgreSQL may run as another user, who must be able to traverse to its cluster.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Sandbox { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `finstream --data-dir DATA ARGS…`, with free ports where a role listens; `--ephemeral` has no data directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finstream"));
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("FINSTREAM_") && name != "FINSTREAM_PG_BIN")
        {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).env("TMPDIR", self.path());
        if !arguments.contains(&"--ephemeral") {
            command.arg("--data-dir").arg(self.data());
        }
        command.args(arguments);
        command.env("FINSTREAM_HTTP", "127.0.0.1:0").stdin(Stdio::null());
        match std::env::var(TEST_BROKERS) {
            Ok(brokers) => {
                // One cluster for all tests: each sandbox has topics and a group of its own there.
                let own = self.dir.path().file_name().unwrap().to_str().unwrap();
                command.env("FINSTREAM_TOPIC_PREFIX", format!("{own}.")).env("FINSTREAM_GROUP", own);
                if !arguments.contains(&"--brokers") {
                    command.env("FINSTREAM_BROKERS", brokers);
                }
            }
            Err(_) if !arguments.contains(&"--kafka-listen") && !arguments.contains(&"--brokers") => {
                command.env("FINSTREAM_KAFKA_LISTEN", "127.0.0.1:0");
            }
            Err(_) => {}
        }
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        println!("$ finstream {}\n-> {}", arguments.join(" "), output.status);
        println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs to the end and expects exit code `code`; stdout.
    pub fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "finstream {}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The single value that a query returns.
    pub fn sql(&self, query: &str) -> String {
        self.sql_at(&[], query)
    }

    /// The same of another database than the private one.
    pub fn sql_at(&self, database: &[&str], query: &str) -> String {
        let mut arguments = vec!["sql", "--json", query];
        arguments.extend(database);
        let text = self.expect(0, &arguments);
        let row: Value = text.lines().next().map_or(Value::Null, |line| serde_json::from_str(line).unwrap());
        match row.as_object().and_then(|row| row.values().next()) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        }
    }

    /// The process id of the private PostgreSQL, if one runs.
    pub fn postmaster_pid_now(&self) -> Option<u32> {
        Self::postmaster_of(&self.data())
    }

    /// The process id of the private PostgreSQL of a data directory, if one runs.
    pub fn postmaster_of(data: &Path) -> Option<u32> {
        let record = std::fs::read_to_string(data.join("postgres.json")).ok()?;
        let record: Value = serde_json::from_str(&record).ok()?;
        let pid_file = Path::new(record["cluster"].as_str()?).join("postmaster.pid");
        std::fs::read_to_string(pid_file).ok()?.lines().next()?.trim().parse().ok()
    }

    /// The process id of the private PostgreSQL.
    pub fn postmaster_pid(&self) -> u32 {
        self.postmaster_pid_now().expect("a private PostgreSQL runs")
    }

    /// Starts in the background; ready when its ready file is there.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut running = self.spawn(arguments);
        running.wait_ready();
        running
    }

    /// Starts in the background without waiting.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        self.spawn_with(arguments, &[])
    }

    /// The same with environment variables.
    pub fn spawn_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let unique = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let ready_file = self.dir.path().join(format!("ready-{unique}.json"));
        let log_file = self.dir.path().join(format!("log-{unique}.txt"));
        let log = std::fs::File::create(&log_file).unwrap();
        let mut command = self.command(arguments);
        command.arg("--ready-file").arg(&ready_file).stdout(log.try_clone().unwrap()).stderr(log);
        command.envs(environment.iter().copied());
        let child = command.spawn().unwrap();
        println!("$ finstream {} & [{}]", arguments.join(" "), child.id());
        Running { child, ready_file, log_file }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Only a test that killed its finstream leaves a PostgreSQL behind: `reset --yes` stops it and removes the data.
        if self.data().exists() {
            let _ = self.command(&["reset", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// A finstream in the background; killed when dropped.
pub struct Running {
    child: Child,
    ready_file: PathBuf,
    log_file: PathBuf,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        let mut text = String::new();
        std::fs::File::open(&self.log_file).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    pub fn wait_ready(&mut self) -> Value {
        let started = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&self.ready_file)
                && let Ok(ready) = serde_json::from_str(&text)
            {
                return ready;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("finstream ended with {status} before it was ready:\n{}", self.output());
            }
            assert!(started.elapsed() < PATIENCE, "not ready:\n{}", self.output());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Whether all of its roles are ready, by `/readyz`: a consumer when it has its partitions.
    pub fn is_ready(&self) -> bool {
        let Ok(text) = std::fs::read_to_string(&self.ready_file) else { return false };
        let Ok(ready) = serde_json::from_str::<Value>(&text) else { return false };
        let address = ready["http"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/');
        let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
        let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has printed `text`.
    pub fn wait_for(&mut self, text: &str) {
        wait_until(&format!("{text:?} in the output"), || self.output().contains(text));
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }

    /// SIGTERM, then its exit code and everything that it printed.
    pub fn stop(mut self) -> (Option<i32>, String) {
        self.signal(Signal::TERM);
        let code = self.wait();
        (code, self.output())
    }

    pub fn wait(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "still running:\n{}", self.output());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("[{}] printed:\n{}", self.child.id(), self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls a condition that another process brings about.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// `kill -9`, for a process that is not our child. (The command of that name is not on every machine.)
pub fn kill_by_id(id: u32) {
    kill_process(pid(id), Signal::KILL).unwrap();
}

/// Whether a process is there.
pub fn is_alive(id: u32) -> bool {
    test_kill_process(pid(id)).is_ok()
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}
