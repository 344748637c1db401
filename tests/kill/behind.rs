//! How far PostgreSQL is behind the log, asked from outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use tokio::runtime::Runtime;

use super::support::Sandbox;

pub const PARTITIONS: i32 = 6;
const TOPIC: &str = "finance.transactions";
const ANSWER_MAX: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks at log and table; both may be away.
pub struct Behind {
    runtime: Runtime,
    broker: BaseConsumer,
    database: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Behind {
    pub fn new(sandbox: &Sandbox, brokers: &str) -> Behind {
        let record = std::fs::read_to_string(sandbox.data().join("postgres.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let database = PgConnectOptions::new_without_pgpass()
            .socket(record["socket_dir"].as_str().unwrap())
            .username("finstream")
            .database("postgres")
            .options([("search_path", "finstream")]);
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "50");
        Behind {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            broker: config.create().unwrap(),
            database,
            connection: None,
        }
    }

    /// The ends of the log, once the broker answers.
    pub fn ends(&self) -> Option<BTreeMap<i32, i64>> {
        let end = |partition| Some((partition, self.broker.fetch_watermarks(TOPIC, partition, ANSWER_MAX).ok()?.1));
        (0..PARTITIONS).map(end).collect()
    }

    /// The next offsets, once PostgreSQL answers.
    pub fn applied(&mut self) -> Option<BTreeMap<i32, i64>> {
        let connection = self.connection.take();
        let (database, runtime) = (&self.database, &self.runtime);
        let (rows, connection) = runtime.block_on(async {
            let mut connection = match connection {
                Some(connection) => connection,
                None => PgConnection::connect_with(database).await.ok()?,
            };
            let rows = sqlx::query("select partition, next_offset from partition_offsets").fetch_all(&mut connection);
            Some((rows.await.ok()?, connection))
        })?;
        self.connection = Some(connection);
        Some(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Waits until PostgreSQL has all that the log had when this was called (or when the broker was back), and is no more
    /// than `messages` behind what has come since.
    pub fn until_caught_up(&mut self, messages: i64) {
        let began = Instant::now();
        let mut noted = None;
        loop {
            if let (Some(ends), Some(applied)) = (self.ends(), self.applied()) {
                let noted = noted.get_or_insert_with(|| ends.clone());
                let of = |partition: &i32| applied.get(partition).copied().unwrap_or(0);
                let has_noted = noted.iter().all(|(partition, end)| of(partition) >= *end);
                let behind: i64 = ends.iter().map(|(partition, end)| (end - of(partition)).max(0)).sum();
                if has_noted && behind <= messages {
                    return;
                }
            }
            assert!(began.elapsed() < PATIENCE, "PostgreSQL does not catch up with the log");
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}
