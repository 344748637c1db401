//! The broker that is killed: the real binary, always on the same directory and the same port.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};

use super::child::Task;
use super::figures::Sample;
use super::support::Sandbox;

/// A broker that is not ready by then never will be; slow machines replay for long.
const READY_MAX: Duration = Duration::from_secs(120);
/// Below the ports that clients get, so that no client's connection takes the port while the broker is away.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

pub struct Broker {
    sandbox: Sandbox,
    address: String,
    child: Child,
    began: Instant,
    ready: Instant,
    /// From each start to ready.
    pub starts: Vec<Duration>,
    /// From each SIGTERM to the end.
    pub stops: Vec<Duration>,
}

fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| rand::rng().random_range(PORTS));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

fn spawn(sandbox: &Sandbox, address: &str) -> Child {
    let _ = std::fs::remove_file(ready_file(sandbox));
    let ready_file = ready_file(sandbox).display().to_string();
    // A topic that is deleted under its producers must stay away.
    let arguments =
        ["--role", "broker", "--auto-create-topics", "false", "--durability", "fsync", "--kafka-listen", address];
    let wanted = sandbox.command(&[arguments.as_slice(), &["--ready-file", &ready_file]].concat());
    let text = |word: &std::ffi::OsStr| word.to_str().unwrap().to_owned();
    let program = text(wanted.get_program());
    let arguments = wanted.get_args().map(text).collect();
    let mut command = Task::Become { program, arguments }.command();
    for (name, value) in wanted.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let log = std::fs::File::options().append(true).create(true).open(log_file(sandbox)).unwrap();
    command.current_dir(sandbox.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

fn ready_file(sandbox: &Sandbox) -> PathBuf {
    sandbox.path().join("ready.json")
}

fn log_file(sandbox: &Sandbox) -> PathBuf {
    sandbox.path().join("broker.log")
}

impl Broker {
    pub fn start() -> Broker {
        let (sandbox, address) = (Sandbox::new(), format!("127.0.0.1:{}", free_port()));
        let child = spawn(&sandbox, &address);
        let now = Instant::now();
        let (starts, stops) = (Vec::new(), Vec::new());
        let mut broker = Broker { sandbox, address, child, began: now, ready: now, starts, stops };
        broker.wait_ready();
        broker
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// A directory for what has to do with this broker, beside its data.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.sandbox.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// What it has printed in all its lives.
    fn output(&self) -> String {
        std::fs::read_to_string(log_file(&self.sandbox)).unwrap_or_default()
    }

    pub fn panics(&self) -> Vec<String> {
        self.output().lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }

    pub fn warnings(&self) -> usize {
        self.output().lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count()
    }

    /// kill -9 and a start, which is not waited for.
    pub fn kill_and_start(&mut self) {
        self.assert_alive();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.begin();
    }

    /// SIGTERM; it must end cleanly, and is started again.
    pub fn stop_and_start(&mut self) {
        self.stop();
        self.begin();
    }

    /// SIGTERM; it must end cleanly.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(asked.elapsed() < READY_MAX, "SIGTERM does not end the broker:\n{}", self.last_words());
            std::thread::park_timeout(Duration::from_millis(5));
        };
        self.stops.push(asked.elapsed());
        assert_eq!(status.code(), Some(0), "the broker did not stop cleanly:\n{}", self.last_words());
    }

    fn begin(&mut self) {
        self.child = spawn(&self.sandbox, &self.address);
        self.began = Instant::now();
    }

    pub fn wait_ready(&mut self) {
        while !ready_file(&self.sandbox).exists() {
            self.assert_alive();
            assert!(self.began.elapsed() < READY_MAX, "the broker does not get ready:\n{}", self.last_words());
            std::thread::park_timeout(Duration::from_millis(2));
        }
        self.ready = Instant::now();
        self.starts.push(self.ready - self.began);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// It never ends by itself.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the broker ended by itself with {status}:\n{}", self.last_words());
        }
    }

    /// What it holds now; None where there is no /proc.
    pub fn sample(&self) -> Option<Sample> {
        Sample::of(self.child.id(), self.ready.elapsed())
    }

    fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("the broker printed last:\n{}", self.last_words());
            if let Some(keep) = std::env::var_os("FINSTREAM_TORTURE_KEEP") {
                println!("kept in {}: {:?}", keep.display(), std::fs::rename(self.sandbox.path(), &keep));
            }
        }
    }
}
