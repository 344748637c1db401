//! A private PostgreSQL for one test binary, a schema for each test, and short ways to make batches.
//!
//! The cluster is a child of a shell that waits for its standard input to end: however the test binary ends, the shell
//! stops the cluster and removes its directory.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use finstream::aggregate::WindowLength;
use finstream::clock::{Micros, SystemClock};
use finstream::config::LatencyLayout;
use finstream::shutdown::{Shutdown, Trigger, channel};
use finstream::sink::{Batch, Deadlines, Message, Patience, Worker, WorkerSettings, claim_schema, open_stream};
use finstream::transaction::{CardInfo, Currency, Detail, MessageId, RunId, Side, Transaction};
use rust_decimal::Decimal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

/// Starts the cluster in a new directory, prints its path when it answers, stops it when standard input ends.
const CLUSTER: &str = r#"
set -e
dir=$(mktemp -d /tmp/finstream-test-XXXXXX)
drop=""
if [ "$(id -u)" = 0 ]; then chown postgres "$dir"; drop="setpriv --reuid=postgres --regid=postgres --clear-groups"; fi
cd "$dir"
trap 'rm -rf "$dir"' EXIT
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
$drop "$bin/initdb" -D "$dir/data" -U postgres --auth=trust --no-sync -E UTF8 --locale=C >/dev/null
$drop "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c "fsync=${FINSTREAM_TEST_FSYNC:-off}" -c max_connections=200 >"$dir/log" 2>&1 &
postgres=$!
until "$bin/pg_isready" -q -h "$dir" -U postgres; do
    kill -0 $postgres
    read -r -t 0.05 _ </dev/zero || true
done
echo "$dir"
cat >/dev/null
kill -INT $postgres
wait $postgres || true
"#;

struct Cluster {
    directory: PathBuf,
    /// Its standard input is the cluster's life line.
    _shell: Child,
}

fn cluster() -> &'static Cluster {
    static CLUSTER_OF_THIS_BINARY: OnceLock<Cluster> = OnceLock::new();
    CLUSTER_OF_THIS_BINARY.get_or_init(|| {
        let mut shell = Command::new("bash")
            .args(["-c", CLUSTER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("bash");
        let mut directory = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut directory).unwrap();
        assert!(directory.ends_with('\n'), "PostgreSQL did not start");
        Cluster { directory: PathBuf::from(directory.trim_end()), _shell: shell }
    })
}

/// All migrations, in the order of their versions.
fn migrations() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut files: Vec<(u32, PathBuf)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
            let version = name.trim_start_matches('V').split("__").next().unwrap().parse().unwrap();
            (version, entry.unwrap().path())
        })
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| std::fs::read_to_string(path).unwrap()).collect()
}

/// A schema of its own with the tables of finstream.
pub struct Schema {
    pub options: PgConnectOptions,
    pub name: String,
}

impl Schema {
    pub async fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let schema = Schema { options: Self::options_of(&name), name };
        let mut connection = schema.connect().await;
        sqlx::raw_sql(AssertSqlSafe(format!("create schema {}", schema.name))).execute(&mut connection).await.unwrap();
        for migration in migrations() {
            sqlx::raw_sql(AssertSqlSafe(migration)).execute(&mut connection).await.unwrap();
        }
        schema
    }

    fn options_of(name: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&cluster().directory)
            .username("postgres")
            .database("postgres")
            .options([("search_path", name)])
    }

    pub fn socket(&self) -> PathBuf {
        cluster().directory.join(".s.PGSQL.5432")
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.options).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }

    /// The rows of a query as text, columns joined by a space.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let mut connection = self.connect().await;
        let sql = format!(
            "select concat_ws(' ', variadic array(select e.value from json_each_text(row_to_json(q)) e)) from ({sql}) q"
        );
        sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut connection)
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.get::<String, _>(0))
            .collect()
    }

    /// Opens the stream `t` of cluster `c` with partitions that begin at 0.
    pub async fn stream(&self, partitions: i32) -> i32 {
        let mut connection = self.connect().await;
        claim_schema(&mut connection, "g", None).await.unwrap();
        let starts: Vec<(i32, i64)> = (0..partitions).map(|partition| (partition, 0)).collect();
        open_stream(&mut connection, "c", "t", &starts).await.unwrap().topic_ref
    }

    pub fn worker_settings(&self, topic_ref: i32, instance: &str) -> WorkerSettings {
        WorkerSettings {
            database: self.options.clone(),
            topic_ref,
            instance: instance.to_owned(),
            record_changes: true,
            latency_layout: LatencyLayout::Rows,
            window_length: WindowLength::DEFAULT,
            clock: Arc::new(SystemClock::new()),
        }
    }

    pub async fn worker(&self, topic_ref: i32, instance: &str, partitions: &[i32]) -> Worker {
        let mut worker =
            Worker::connect(self.worker_settings(topic_ref, instance), Deadlines::default()).await.unwrap();
        worker.claim(partitions, &mut patience().1).await.unwrap();
        worker
    }
}

/// Patience without end; the trigger must be kept.
pub fn patience() -> (Trigger, Patience) {
    let (trigger, shutdown): (Trigger, Shutdown) = channel();
    (trigger, Patience::new(shutdown, Duration::from_secs(10)))
}

pub fn run(number: u128) -> RunId {
    RunId(uuid::Uuid::from_u128(number))
}

/// A message whose sequence is its offset.
pub fn message(partition: i32, offset: i64) -> Message<'static> {
    Message {
        partition,
        offset,
        timestamp_ms: Some(1_700_000_000_000),
        received_at: Micros(1_700_000_000_000_000 + offset),
        identity: Some(MessageId { run: run(7), sequence: offset }),
        key: Some(b"key"),
        payload: Some(b"payload"),
    }
}

pub fn purchase<'a>(user_id: &'a str, cents: i64) -> Transaction<'a> {
    Transaction {
        transaction_id: "p".into(),
        user_id: user_id.into(),
        amount: Decimal::new(cents, 2),
        currency: Currency::USD,
        event_time: Micros(1_600_000_000_000_000),
        scheduled_at: Some(Micros(1_700_000_000_000_000)),
        sent_at: Some(Micros(1_700_000_000_000_001)),
        detail: Detail::Purchase { merchant: "m".into(), category: "c".into() },
        card: CardInfo::default(),
    }
}

pub fn trade<'a>(user_id: &'a str, symbol: &'a str, quantity: i64, price_cents: i64, event_us: i64) -> Transaction<'a> {
    Transaction {
        amount: Decimal::new(price_cents * quantity, 2),
        event_time: Micros(event_us),
        detail: Detail::Trade { symbol: symbol.into(), side: Side::Buy, quantity, price: Decimal::new(price_cents, 2) },
        ..purchase(user_id, 0)
    }
}

/// A batch of purchases by one user, at these offsets of one partition.
pub fn purchases(partition: i32, offsets: std::ops::Range<i64>, user_id: &str) -> Batch {
    let mut batch = Batch::new();
    for offset in offsets {
        batch.push_transaction(message(partition, offset), &purchase(user_id, 150));
    }
    batch
}
