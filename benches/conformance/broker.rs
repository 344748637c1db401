//! The broker under test: ours or Apache Kafka, as a child process on a folder of its own.

use std::path::Path;
use std::time::Duration;

use crate::support::server::{self, Server};

/// Longest wait for a broker to start: Apache Kafka may be fetched first.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// Apache Kafka's default, with which librdkafka's tests expect two consumers that start together to share the first
/// assignment.
const REBALANCE_DELAY_MS: u32 = 3000;

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
    server: Server,
}

impl Broker {
    /// Starts on a fresh folder below `dir`.
    pub fn start(subject: Subject, settings: Settings, dir: &Path, name: &str) -> Broker {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let command = match subject {
            Subject::Finstream => {
                let mut command = server::finstream(&folder);
                command.args(["--partitions", &settings.default_partitions.to_string()]);
                command.args(["--auto-create-topics", &settings.auto_creation.to_string()]);
                command.args(["--group-initial-rebalance-delay", &format!("{REBALANCE_DELAY_MS}ms")]);
                command
            }
            Subject::Kafka => {
                let partitions = format!("num.partitions={}", settings.default_partitions);
                let creation = format!("auto.create.topics.enable={}", settings.auto_creation);
                let delay = format!("group.initial.rebalance.delay.ms={REBALANCE_DELAY_MS}");
                server::kafka(&folder, [partitions.as_str(), creation.as_str(), delay.as_str()])
            }
        };
        let mut server = Server::spawn(command, &folder);
        let ready = server.wait_ready(START_PATIENCE);
        let version = match ready.version {
            Some(version) => format!("Apache Kafka {version}"),
            None => format!("finstream {}", env!("CARGO_PKG_VERSION")),
        };
        Broker { address: ready.address, version, server }
    }

    /// Whether it still runs: a test must not pass because the broker is gone.
    pub fn is_alive(&mut self) -> bool {
        self.server.is_running()
    }
}
