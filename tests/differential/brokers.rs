//! The two brokers: ours and Apache Kafka, each fresh, as child processes that end with this one.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, FindCoordinatorRequest, InitProducerIdRequest, OffsetFetchRequest, TransactionalId,
};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::server::{self, Server};
use super::session::{Served, Session, text};

/// Longest wait for a broker to start: Apache Kafka may be fetched first.
const START_PATIENCE: Duration = Duration::from_secs(300);
/// What kafka-protocol 0.18 can say, where a broker may serve more. (Below 3 Produce is advertised only.)
const ENCODABLE: [(ApiKey, RangeInclusive<i16>); 6] = [
    (ApiKey::Produce, 3..=12),
    (ApiKey::Fetch, 4..=17),
    (ApiKey::ListOffsets, 1..=10),
    (ApiKey::OffsetCommit, 2..=9),
    (ApiKey::OffsetFetch, 1..=9),
    (ApiKey::InitProducerId, 0..=5),
];
/// Names the test that becomes a broker, and carries its command line.
const TASK: &str = "FINSTREAM_DIFFERENTIAL_BECOMES";

/// What both are told, so that only what is built in differs. Records of 2023 are kept; one partition of each internal
/// topic is loaded quickly.
const KAFKA_PROPERTIES: [&str; 4] = [
    "auto.create.topics.enable=false",
    "log.retention.ms=315360000000",
    "offsets.topic.num.partitions=1",
    "transaction.state.log.num.partitions=1",
];
const OUR_ARGUMENTS: [&str; 14] = [
    "--auto-create-topics",
    "false",
    "--role",
    "broker",
    "--kafka-listen",
    "127.0.0.1:0",
    "--http",
    "127.0.0.1:0",
    "--partitions",
    "6",
    "--retention",
    "87600h",
    "--retention-bytes",
    "1TiB",
];

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    Kafka,
    Ours,
    /// Another build of ours.
    Program(String),
}

pub struct Broker {
    pub address: SocketAddr,
    pub version: String,
    server: Server,
}

impl Broker {
    /// Starts Apache Kafka and `other` on folders below `dir`, and waits until both serve groups.
    pub fn start_both(other: Side, dir: &Path) -> (Broker, Broker) {
        // By this thread: a child ends with the thread that started it.
        let mut kafka = Broker::launch(Side::Kafka, &dir.join("oracle"));
        let mut ours = Broker::launch(other, &dir.join("other"));
        kafka.await_ready();
        ours.await_ready();
        (kafka, ours)
    }

    /// Starts one of them.
    pub fn start(side: Side, dir: &Path) -> Broker {
        let mut broker = Broker::launch(side, dir);
        broker.await_ready();
        broker
    }

    fn launch(side: Side, dir: &Path) -> Broker {
        std::fs::create_dir_all(dir).unwrap();
        let server = Server::spawn(become_later(&command_line(side, dir)), dir);
        Broker { address: ([0, 0, 0, 0], 0).into(), version: String::new(), server }
    }

    fn await_ready(&mut self) {
        let ready = self.server.wait_ready(START_PATIENCE);
        self.address = ready.address.parse().unwrap();
        self.version = ready.version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
        self.await_coordinator();
    }

    /// The first question about a group makes Apache Kafka create its internal topic.
    fn await_coordinator(&self) {
        let served = self.served();
        let mut session = Session::new(self.address, &served, "start", &[]);
        session.until("groups are served", |session| {
            let find = FindCoordinatorRequest::default().with_key(text("warm-up"));
            let found = session.ask_at(3, find).error_code == 0;
            let transactions = FindCoordinatorRequest::default().with_key(text("warm-up")).with_key_type(1);
            let found = found && session.ask_at(3, transactions).error_code == 0;
            let fetch = OffsetFetchRequest::default().with_group_id(text("warm-up").into()).with_topics(None);
            let loaded = |session: &mut Session| {
                let init =
                    InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("warm-up"))));
                session.ask_at(4, init.with_transaction_timeout_ms(60_000)).error_code == 0
            };
            let has_transactions = served.contains_key(&(ApiKey::EndTxn as i16));
            found && session.ask_at(7, fetch).error_code == 0 && (!has_transactions || loaded(session))
        });
    }

    /// Which versions it serves of what this crate can decode.
    pub fn served(&self) -> Served {
        let only = Served::from([(ApiKey::ApiVersions as i16, 0..=0)]);
        let mut session = Session::new(self.address, &only, "versions", &[]);
        let answer = session.ask(ApiVersionsRequest::default());
        let row = |api: kafka_protocol::messages::api_versions_response::ApiVersion| {
            (api.api_key, api.min_version..=api.max_version)
        };
        answer.api_keys.into_iter().map(row).collect()
    }
}

/// Versions that both serve.
pub fn common(kafka: &Served, ours: &Served) -> Served {
    let both = |(key, kafka): (&i16, &RangeInclusive<i16>)| {
        let ours = ours.get(key)?;
        let common = *kafka.start().max(ours.start())..=*kafka.end().min(ours.end());
        let encodable =
            ENCODABLE.iter().find(|(api, _)| *api as i16 == *key).map_or(0..=i16::MAX, |(_, most)| most.clone());
        let common = *common.start().max(encodable.start())..=*common.end().min(encodable.end());
        (!common.is_empty()).then_some((*key, common))
    };
    kafka.iter().filter_map(both).collect()
}

fn command_line(side: Side, folder: &Path) -> Vec<String> {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mut line = match side {
        Side::Kafka => {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka/run.sh").to_owned();
            let properties =
                KAFKA_PROPERTIES.iter().flat_map(|property| ["--property".to_owned(), (*property).to_owned()]);
            [script, "--dir".to_owned(), path(folder)].into_iter().chain(properties).collect::<Vec<_>>()
        }
        Side::Ours | Side::Program(_) => {
            let ours = env!("CARGO_BIN_EXE_finstream").to_owned();
            let program = if let Side::Program(program) = side { program } else { ours };
            let arguments = OUR_ARGUMENTS.iter().map(|argument| (*argument).to_owned());
            let data = ["--data-dir".to_owned(), path(&folder.join("data"))];
            [program].into_iter().chain(arguments).chain(data).collect()
        }
    };
    line.extend(["--ready-file".to_owned(), path(&Server::ready_file(folder))]);
    line
}

/// This test binary once more, which becomes the program. It gets SIGTERM when we end, however we end.
fn become_later(line: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    server::without_settings(&mut command);
    command
        .args(["--exact", "a_child_becomes_a_broker_and_is_no_test_by_itself", "--nocapture", "--test-threads=1"])
        .env(TASK, serde_json::to_string(line).unwrap());
    command
}

/// Becomes the program that this process is there for, if it is.
pub fn become_now() {
    use std::os::unix::process::CommandExt;
    let Ok(line) = std::env::var(TASK) else { return };
    set_parent_process_death_signal(Some(Signal::TERM)).unwrap();
    let line: Vec<String> = serde_json::from_str(&line).unwrap();
    let error = Command::new(&line[0]).args(&line[1..]).env_remove(TASK).exec();
    panic!("cannot start {}: {error}", line[0]);
}
