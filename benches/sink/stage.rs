//! What all subjects share: a broker in a process of its own with its backlogs, and a private PostgreSQL as the product
//! starts it, held open from the first round to the last.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use finstream::data_dir::DataDir;
use finstream::postgres::{Database, PgSettings, PrivateCluster};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio::runtime::Runtime;

use crate::support::server::{self, Server, without_settings};
use crate::support::usage::Usage;

/// Longest wait for a broker or PostgreSQL to start.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Messages in a topic of their own, named by its prefix.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    pub name: &'static str,
    pub messages: u64,
}

impl Backlog {
    pub fn topic_prefix(&self) -> String {
        format!("{}.", self.name)
    }

    pub fn topic(&self) -> String {
        format!("{}.transactions", self.name)
    }

    /// The schema that holds what this backlog comes to.
    pub fn reference(&self) -> String {
        format!("reference_{}", self.name)
    }
}

/// The running servers; ended by [`Stage::end`].
pub struct Stage {
    pub broker_address: String,
    pub version: String,
    /// Further flags of our consumer.
    pub flags: Vec<String>,
    data: PathBuf,
    broker: Server,
    broker_pid: u32,
    cluster: PrivateCluster,
    runtime: Runtime,
    connection: PgConnection,
    /// The backend of `connection`, whose work is not the subjects'.
    own_backend: u32,
}

impl Stage {
    /// Starts both on `dir`, which may hold the backlogs of an earlier run.
    pub fn set(dir: &Path, flags: Vec<String>) -> Stage {
        let mut broker = Server::spawn(server::finstream(dir), dir);
        let ready = broker.wait_ready(START_PATIENCE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let data = dir.join("data");
        let opened = DataDir::open(&data).unwrap();
        let cluster = runtime.block_on(PrivateCluster::ensure(&opened, PgSettings::from_environment())).unwrap();
        let database = cluster.database("public_to_nobody").unwrap();
        let (connection, own_backend) = runtime.block_on(async {
            let mut connection = database.connect().await.unwrap();
            let version = sqlx::query("select pg_backend_pid(), current_setting('server_version')");
            let row = version.fetch_one(&mut connection).await.unwrap();
            (connection, row)
        });
        Stage {
            broker_address: ready.address,
            version: own_backend.get::<String, _>(1).split(' ').next().unwrap().to_owned(),
            flags,
            data,
            broker,
            broker_pid: ready.pid,
            cluster,
            runtime,
            connection,
            own_backend: own_backend.get::<i32, _>(0).cast_unsigned(),
        }
    }

    /// Ends both. What was filled stays where it is.
    pub fn end(self) {
        drop(self.broker);
        self.runtime.block_on(async {
            self.connection.close().await.unwrap();
            self.cluster.leave().await.unwrap();
        });
    }

    /// Ends a PostgreSQL that an interrupted run has left behind, and removes what it stored.
    pub fn clear(dir: &Path) {
        let data = dir.join("data");
        if data.exists() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(PrivateCluster::destroy(&DataDir::open(&data).unwrap())).unwrap();
        }
        let _ = std::fs::remove_dir_all(dir);
    }

    /// Our binary on this data directory.
    pub fn finstream(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finstream"));
        without_settings(&mut command);
        command.arg("--data-dir").arg(&self.data).args(["--http", "127.0.0.1:0"]).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Has our own producer write a backlog.
    pub fn fill(&self, backlog: Backlog) {
        let (count, prefix) = (backlog.messages.to_string(), backlog.topic_prefix());
        let mut command = self.finstream(&["--role", "producer", "--count", &count, "--rate", "max"]);
        // The rivals know no declined attempts.
        command.args(["--topic-prefix", &prefix, "--source", "synthetic", "--declines", "0", "--fraud", "0"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The private PostgreSQL with that schema first.
    pub fn database(&self, schema: &str) -> Database {
        self.cluster.database(schema).unwrap()
    }

    pub fn execute(&mut self, sql: &str) {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection);
        self.runtime.block_on(done).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The one number that a query returns; none where the query fails, as it does before its tables are there.
    pub fn number(&mut self, sql: &str) -> Option<i64> {
        let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&mut self.connection);
        self.runtime.block_on(row).ok()?.try_get(0).ok()
    }

    /// A schema made anew, with tables.
    pub fn make_schema(&mut self, schema: &str, tables: &str) {
        self.drop_schema(schema);
        self.execute(&format!("create schema {schema}; set search_path to {schema}; {tables}; reset search_path"));
    }

    pub fn drop_schema(&mut self, schema: &str) {
        self.execute(&format!("drop schema if exists {schema} cascade"));
    }

    /// What others left to be written is written before anything is measured.
    pub fn settle(&mut self) {
        self.execute("checkpoint");
        rustix::fs::sync();
    }

    /// CPU time so far of all that takes part, with `consumer` as the process that reads.
    pub fn usage(&self, consumer: Option<u32>) -> Usage {
        let pid_file = std::fs::read_to_string(self.cluster.cluster_path().join("postmaster.pid")).unwrap();
        let postmaster = pid_file.lines().next().unwrap().trim().parse().unwrap();
        Usage::now(consumer, self.broker_pid, postmaster, self.own_backend)
    }

    /// How many users' totals in one schema differ from those in another; by our tables' names, which both have.
    pub fn differences(&mut self, one: &str, other: &str) -> i64 {
        let totals = |schema: &str| {
            format!(
                "select user_id, currency, sum(purchases) as purchases, sum(spend) as spend, sum(refunds) as refunds,
                     sum(refunded) as refunded, sum(trades) as trades, sum(traded) as traded,
                     min(first_event) as first_event, max(last_event) as last_event
                 from {schema}.user_aggregates group by user_id, currency"
            )
        };
        let sql = format!(
            "select count(*) from ({}) a full join ({}) b using (user_id, currency)
             where (a.purchases, a.spend, a.refunds, a.refunded, a.trades, a.traded, a.first_event, a.last_event)
                 is distinct from
                   (b.purchases, b.spend, b.refunds, b.refunded, b.trades, b.traded, b.first_event, b.last_event)",
            totals(one),
            totals(other)
        );
        self.number(&sql).unwrap()
    }
}
