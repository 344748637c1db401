//! The rules of the house: which room may import which, and which crates stay out of which room.

/// A room, the rooms that it may import, and why no others.
pub struct Room {
    /// Module path; the longest match wins, so `broker::log` is not `broker`.
    pub name: &'static str,
    pub may_import: &'static [&'static str],
    pub because: &'static str,
}

const fn room(name: &'static str, may_import: &'static [&'static str], because: &'static str) -> Room {
    Room { name, may_import, because }
}

/// Every room of `src/lib.rs`, in reading order. A room may always import itself.
pub const ROOMS: &[Room] = &[
    room("transaction", &["clock"], "the business event is pure: it knows time, and nothing of where it travels"),
    room("clock", &[], "time is handed in, it asks nobody"),
    room("metrics", &[], "names and units only"),
    room("progress", &["clock"], "roles add and viewers read; it knows neither"),
    room("seam", &[], "places where a test breaks the process, whatever goes on around them"),
    room("shutdown", &[], "a signal, handed in"),
    room(
        "broker",
        &[
            "broker::handlers",
            "broker::group",
            "broker::txn",
            "broker::catalog",
            "broker::internal_topic",
            "broker::producer_ids",
            "broker::topic_config",
            "broker::log",
            "clock",
            "config",
            "metrics",
            "shutdown",
        ],
        "the embedded broker is reached over TCP and knows no transaction, no database and no other role",
    ),
    room(
        "broker::handlers",
        &[
            "broker",
            "broker::group",
            "broker::txn",
            "broker::catalog",
            "broker::internal_topic",
            "broker::producer_ids",
            "broker::topic_config",
            "broker::log",
            "clock",
            "config",
            "metrics",
            "shutdown",
        ],
        "the only place that maps between protocol messages and the rest",
    ),
    room(
        "broker::internal_topic",
        &["broker::catalog", "broker::log", "broker::topic_config", "config"],
        "how coordinators keep records in the log, whatever these say",
    ),
    room(
        "broker::group",
        &["broker::internal_topic", "broker::log", "clock", "metrics", "shutdown"],
        "a state machine, without sockets or handlers",
    ),
    room(
        "broker::txn",
        &[
            "broker::group",
            "broker::catalog",
            "broker::internal_topic",
            "broker::producer_ids",
            "broker::log",
            "clock",
            "metrics",
            "shutdown",
        ],
        "a state machine, without sockets or handlers; it ends transactions in partitions and in groups",
    ),
    room("broker::producer_ids", &["broker::log"], "numbers that are given out once"),
    room(
        "broker::catalog",
        &["broker::log", "broker::topic_config", "clock", "config", "metrics"],
        "topics and their configs, stored in the log's state",
    ),
    room("broker::topic_config", &["broker::log", "config"], "what a topic may be told, as values"),
    room("broker::log", &["clock", "metrics"], "bytes on disk: no protocol, no sockets, no topics"),
    room("source", &["clock", "config", "transaction"], "makes transactions, whoever publishes them"),
    room("ledger", &["clock", "transaction"], "outside of the system under test: it must not share its faults"),
    room(
        "producer",
        &["clock", "config", "kafka", "ledger", "metrics", "progress", "shutdown", "source", "transaction"],
        "reaches the broker over TCP, as it would reach Redpanda",
    ),
    room("aggregate", &["clock", "transaction"], "a batch of transactions becomes deltas: pure"),
    room(
        "consumer",
        &[
            "aggregate",
            "clock",
            "config",
            "kafka",
            "metrics",
            "postgres",
            "progress",
            "seam",
            "shutdown",
            "sink",
            "transaction",
        ],
        "reaches the broker over TCP, as it would reach Redpanda",
    ),
    room(
        "postgres",
        &["clock", "config", "data_dir", "metrics", "shutdown"],
        "finds or starts a database, whatever is stored in it",
    ),
    room(
        "sink",
        &["aggregate", "clock", "config", "metrics", "postgres", "progress", "seam", "shutdown", "transaction"],
        "one database transaction a micro-batch; it knows offsets, and no Kafka client",
    ),
    room(
        "audit",
        &["aggregate", "clock", "config", "kafka", "ledger", "postgres", "progress", "shutdown", "transaction"],
        "compares ledger, log and database; it shares no code with what it judges but the event and the arithmetic",
    ),
    room("kafka", &["clock", "config", "metrics"], "what the Kafka clients of several roles share: properties, topics"),
    room("cli", &["transaction"], "clap types, and the value types that they parse into"),
    room(
        "config",
        &["broker::log", "cli", "clock", "transaction"],
        "settings; of the log it knows the durability only",
    ),
    room("data_dir", &["clock"], "locks, endpoints and the format of the data directory, for whoever owns it"),
    room(
        "http",
        &["clock", "http::reads", "metrics", "progress", "shutdown"],
        "windows: they look, and cannot touch a role",
    ),
    room("http::reads", &["clock", "postgres"], "what windows read of PostgreSQL, in sessions that can only read"),
    room(
        "run",
        &[
            "aggregate",
            "audit",
            "broker",
            "broker::log",
            "cli",
            "clock",
            "config",
            "consumer",
            "data_dir",
            "http",
            "http::reads",
            "kafka",
            "ledger",
            "metrics",
            "postgres",
            "producer",
            "progress",
            "seam",
            "shutdown",
            "sink",
            "source",
            "transaction",
        ],
        "starts the chosen roles and stops them in order",
    ),
    room("testing", &["broker", "broker::log", "config"], "the embedded broker alone, for tests of other programs"),
    room(
        "main",
        &["audit", "cli", "config", "data_dir", "http", "metrics", "postgres", "run", "shutdown"],
        "parses, runs one command, maps to an exit code",
    ),
];

/// Roles: they meet on the wire and in the database, never in code.
pub const ROLES: &[&str] = &["broker", "producer", "consumer"];

/// Names that must not occur in a room (and in the rooms below it).
pub struct Ban {
    pub names: &'static [&'static str],
    pub rooms: &'static [&'static str],
    /// Files that may all the same.
    pub except: &'static [&'static str],
    pub because: &'static str,
}

/// Crates and paths that stay out of rooms.
pub const BANS: &[Ban] = &[
    Ban {
        names: &["tokio", "rdkafka", "sqlx", "axum", "kafka_protocol"],
        rooms: &["transaction", "aggregate", "ledger", "clock"],
        except: &[],
        because: "these rooms are pure of runtime, Kafka and SQL",
    },
    Ban {
        names: &["kafka_protocol", "tokio::net", "std::net", "std::os::unix::net", "axum", "rdkafka", "sqlx"],
        rooms: &["broker::log"],
        except: &[],
        because: "the log knows no protocol and no sockets",
    },
    Ban {
        names: &["std::fs"],
        rooms: &["broker::log"],
        except: &["broker/log/disk.rs"],
        because: "what goes past the `Disk` trait is not seen by the simulated disk",
    },
    Ban {
        names: &["tokio::net", "std::net", "std::os::unix::net", "axum"],
        rooms: &["broker::group", "broker::txn", "broker::catalog"],
        except: &[],
        because: "coordinators know no sockets",
    },
    Ban {
        names: &["rdkafka", "sqlx"],
        rooms: &["broker"],
        except: &[],
        because: "the broker is a server: it needs no client and no database",
    },
    Ban {
        names: &["kafka_protocol"],
        rooms: &["producer", "consumer", "sink", "audit", "source", "postgres", "http", "kafka"],
        except: &[],
        because: "only the embedded broker speaks the protocol by itself; the others are clients through librdkafka",
    },
    Ban {
        names: &["rdkafka"],
        rooms: &["source", "sink", "postgres", "http", "data_dir", "config"],
        except: &[],
        because: "what is stored or shown does not depend on how it travelled",
    },
    Ban {
        names: &["sqlx"],
        rooms: &["source", "producer", "http", "data_dir", "config"],
        except: &[
            "http/reads/mod.rs",
            "http/reads/letters.rs",
            "http/reads/partitions.rs",
            "http/reads/pool.rs",
            "http/reads/symbols.rs",
            "http/reads/users.rs",
            "http/reads/windows.rs",
        ],
        because: "these rooms know no SQL",
    },
    Ban {
        names: &["yfinance_rs"],
        rooms: &["source", "config", "producer", "run"],
        except: &["source/yahoo/client.rs"],
        because: "the crate may change or be replaced: one file says in our own words what Yahoo answers",
    },
];

/// Kafka's error codes are decided in one place; these files, besides `broker::handlers`, have to answer before a handler
/// is known.
pub const ERROR_CODE_FILES: &[&str] = &["broker/dispatch.rs", "broker/versions.rs", "broker/connection.rs"];

/// What names Kafka's error codes.
pub const ERROR_CODE_NAMES: &[&str] = &["ResponseError", "kafka_protocol::error"];

/// Lines in a source file, at most, tests included.
pub const FILE_LINES_MAX: usize = 500;
