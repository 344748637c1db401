//! The broker under test: ours or Apache Kafka, as a child process on a folder of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for a broker to start: Apache Kafka may be fetched first.
const START_PATIENCE: Duration = Duration::from_secs(180);

/// Who is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Finstream,
    Kafka,
}

/// What the tests want of it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub default_partitions: u32,
    pub auto_creation: bool,
}

/// A broker in the background; it ends with this value.
pub struct Broker {
    /// HOST:PORT.
    pub address: String,
    pub version: String,
    child: Child,
}

impl Broker {
    /// Starts on a fresh folder below `dir`.
    pub fn start(subject: Subject, settings: Settings, dir: &Path, name: &str) -> Broker {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let ready_file = folder.join("ready.json");
        let mut command = match subject {
            Subject::Finstream => finstream(settings, &folder),
            Subject::Kafka => kafka(settings, &folder),
        };
        let log = File::create(folder.join("output.txt")).unwrap();
        command.arg("--ready-file").arg(&ready_file);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        let ready = wait_ready(&mut child, &ready_file, &folder);
        let text = |name: &str| ready[name].as_str().map(str::to_string);
        Broker {
            address: text("kafka").or(text("bootstrap")).unwrap(),
            version: match text("version") {
                Some(version) => format!("Apache Kafka {version}"),
                None => format!("finstream {}", env!("CARGO_PKG_VERSION")),
            },
            child,
        }
    }

    /// Whether it says that it serves an API, by its number.
    pub fn serves(&self, key: i16) -> bool {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        // ApiVersions, version 0, correlation id 1, no client id.
        socket.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]).unwrap();
        let mut length = [0; 4];
        socket.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        socket.read_exact(&mut answer).unwrap();
        // Correlation id, error code, count; then key, lowest and highest version of each.
        answer[10..].chunks_exact(6).any(|api| api[..2] == key.to_be_bytes())
    }

    /// Whether it still runs: a test must not pass because the broker is gone.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Not SIGKILL: the script around Apache Kafka has to end its server.
        if let Ok(None) = self.child.try_wait() {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn finstream(settings: Settings, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finstream"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FINSTREAM_")) {
        command.env_remove(name);
    }
    command.args(["--role", "broker", "--kafka-listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.args(["--partitions", &settings.default_partitions.to_string()]);
    command.args(["--auto-create-topics", &settings.auto_creation.to_string()]);
    command.arg("--data-dir").arg(folder.join("data"));
    command
}

fn kafka(settings: Settings, folder: &Path) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka/run.sh"));
    command.arg("--dir").arg(folder);
    command.args(["--property", &format!("num.partitions={}", settings.default_partitions)]);
    command.args(["--property", &format!("auto.create.topics.enable={}", settings.auto_creation)]);
    command
}

fn wait_ready(child: &mut Child, ready_file: &Path, folder: &Path) -> Value {
    let began = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(ready_file) {
            return serde_json::from_str(&text).unwrap();
        }
        if let Some(status) = child.try_wait().unwrap() {
            let output = std::fs::read_to_string(folder.join("output.txt")).unwrap_or_default();
            panic!("{} ended with {status} before it was ready:\n{output}", folder.display());
        }
        assert!(began.elapsed() < START_PATIENCE, "{}: not ready", folder.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}
