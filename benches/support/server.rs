//! A broker as a child process on a folder of its own, ours or Apache Kafka's: started, waited for, ended with its value.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Between two looks whether it is ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// What a server says of itself once it is ready.
pub struct Ready {
    /// HOST:PORT.
    pub address: String,
    /// Apache Kafka's; ours is this crate's.
    pub version: Option<String>,
    /// The server itself, where the child is a script around it.
    pub pid: u32,
}

/// A server in the background; it ends with this value.
pub struct Server {
    child: Child,
    folder: PathBuf,
}

impl Server {
    /// Where a server on that folder is to say that it is ready: the value of its `--ready-file`.
    pub fn ready_file(folder: &Path) -> PathBuf {
        folder.join("ready.json")
    }

    /// Starts it on a folder that is there, and may hold the data of an earlier start.
    pub fn spawn(mut command: Command, folder: &Path) -> Server {
        let _ = std::fs::remove_file(Server::ready_file(folder));
        let output = File::options().create(true).append(true).open(folder.join("output.txt")).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Server { child: command.spawn().unwrap(), folder: folder.to_owned() }
    }

    /// Waits until it says that it is ready, at most for `patience`: Apache Kafka may be fetched first.
    pub fn wait_ready(&mut self, patience: Duration) -> Ready {
        let began = Instant::now();
        let text = loop {
            if let Ok(text) = std::fs::read_to_string(Server::ready_file(&self.folder)) {
                break text;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                let output = std::fs::read_to_string(self.folder.join("output.txt")).unwrap_or_default();
                panic!("{} ended with {status} before it was ready:\n{output}", self.folder.display());
            }
            assert!(began.elapsed() < patience, "{}: not ready", self.folder.display());
            std::thread::sleep(LOOK_INTERVAL);
        };
        let ready: Value = serde_json::from_str(&text).unwrap();
        let text = |name: &str| ready[name].as_str().map(str::to_owned);
        Ready {
            address: text("kafka").or(text("bootstrap")).unwrap(),
            version: text("version"),
            pid: u32::try_from(ready["pid"].as_u64().unwrap()).unwrap(),
        }
    }

    /// Where its data and its output are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not SIGKILL: the script around Apache Kafka has to end its server.
        if self.is_running() {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Our binary, as a broker with its data below `folder`, on free ports.
pub fn finstream(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finstream"));
    without_settings(&mut command);
    command.args(["--role", "broker", "--kafka-listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(folder.join("data")).arg("--ready-file").arg(Server::ready_file(folder));
    command
}

/// Apache Kafka with its data below `folder`, on free ports.
pub fn kafka<'a>(folder: &Path, properties: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka/run.sh"));
    command.arg("--dir").arg(folder).arg("--ready-file").arg(Server::ready_file(folder));
    properties.into_iter().for_each(|property| _ = command.args(["--property", property]));
    command
}

/// Takes from a command what whoever runs this has set for `finstream`.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FINSTREAM_")) {
        command.env_remove(name);
    }
}
