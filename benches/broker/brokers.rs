//! The four brokers that are compared: started on fresh folders of one file system, asked for topics, stopped.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use crate::support::cpu_seconds;
use crate::support::server::{self, Server};

/// Longest wait for a broker to start: Apache Kafka may be fetched first.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// A broker is idle when it takes less of a core than this.
const IDLE_SHARE: f64 = 0.1;
/// Longest wait for a broker to become idle after a load; what it still does belongs to that load.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

/// Who is measured. The floor is no broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Os,
    Kafka,
    Fsync,
    KafkaFlush,
    Floor,
}

impl Subject {
    pub const ALL: [Subject; 5] = [Subject::Os, Subject::Kafka, Subject::Fsync, Subject::KafkaFlush, Subject::Floor];

    /// The column's head.
    pub fn title(self) -> &'static str {
        match self {
            Subject::Os => "finstream `os`",
            Subject::Kafka => "Kafka, default",
            Subject::Fsync => "finstream `fsync`",
            Subject::KafkaFlush => "Kafka, `log.flush.interval.messages=1`",
            Subject::Floor => "floor",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Subject::Os => "os",
            Subject::Kafka => "kafka",
            Subject::Fsync => "fsync",
            Subject::KafkaFlush => "kafka-flush",
            Subject::Floor => "floor",
        }
    }
}

/// A broker in the background; it ends with this value.
pub struct Broker {
    pub subject: Subject,
    /// HOST:PORT.
    pub address: String,
    pub pid: u32,
    pub version: String,
    server: Server,
}

impl Broker {
    /// Starts on the folder of that name below `dir`, which may hold the data of an earlier start.
    pub fn start(subject: Subject, dir: &Path) -> Broker {
        let folder = dir.join(subject.folder());
        std::fs::create_dir_all(&folder).unwrap();
        let command = match subject {
            Subject::Os => finstream(&folder, "os"),
            Subject::Fsync => finstream(&folder, "fsync"),
            Subject::Kafka => kafka(&folder, &[]),
            Subject::KafkaFlush => kafka(&folder, &["log.flush.interval.messages=1"]),
            Subject::Floor => unreachable!("the floor is no broker"),
        };
        let mut server = Server::spawn(command, &folder);
        let ready = server.wait_ready(START_PATIENCE);
        let version = ready.version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
        Broker { subject, address: ready.address, pid: ready.pid, version, server }
    }

    /// Where its data is.
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// CPU seconds so far, of the server alone.
    pub fn cpu_seconds(&self) -> Option<f64> {
        cpu_seconds(self.pid)
    }

    /// Waits until it has done what the last load left to do.
    pub fn settle(&self) {
        let began = Instant::now();
        let interval = Duration::from_millis(250);
        while let Some(before) = self.cpu_seconds() {
            std::thread::sleep(interval);
            let share = (self.cpu_seconds().unwrap_or(before) - before) / interval.as_secs_f64();
            if share < IDLE_SHARE || began.elapsed() > SETTLE_PATIENCE {
                return;
            }
        }
    }

    pub fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let answers = self.admin(async |admin, options| admin.create_topics([&topic], options).await);
        answers.into_iter().for_each(|answer| drop(answer.unwrap()));
    }

    pub fn delete_topic(&self, name: &str) {
        let answers = self.admin(async |admin, options| admin.delete_topics(&[name], options).await);
        answers.into_iter().for_each(|answer| drop(answer.unwrap()));
    }

    fn admin<T>(
        &self,
        ask: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> rdkafka::error::KafkaResult<T>,
    ) -> T {
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(&admin, &options)).unwrap()
    }

    /// `kill -9`; only for a broker that is our own child.
    pub fn kill(self) {
        self.server.kill();
    }
}

fn finstream(folder: &Path, durability: &str) -> Command {
    let mut command = server::finstream(folder);
    command.args(["--durability", durability]);
    command
}

fn kafka(folder: &Path, properties: &[&'static str]) -> Command {
    // A deleted topic's files go at once and not after a minute, so that five rounds fit the disk.
    server::kafka(folder, properties.iter().copied().chain(["log.segment.delete.delay.ms=1000"]))
}
