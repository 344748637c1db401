//! One broker and one PostgreSQL for many runs, and a lane for each that must not meet another: topic, schema, group and
//! data directory of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use finstream::clock::Micros;
use finstream::data_dir::DataDir;
use finstream::ledger::{LedgerWriter, RunRecord, SourceRecord};
use finstream::postgres::{PgSettings, PrivateCluster};
use finstream::seam::{ALLOW_FAILPOINTS, FAILPOINTS, Failpoint};
use finstream::transaction::{
    CardInfo, Currency, Detail, HEADER_RUN, HEADER_SEQUENCE, RunId, RunInfo, Side, Transaction,
};
use futures_util::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rust_decimal::Decimal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::support::{Running, Sandbox, kafka};

/// No user and no symbol keeps to one of them.
pub const PARTITIONS: i32 = 3;
const USERS: i64 = 5;
/// Of a run; a small batch, so that a run has several.
const BATCH_MAX: &str = "50";
const RIVALS_BATCH_MAX: &str = "35";
/// So long that a batch has records of all partitions, where there are so many.
const BATCH_WAIT: &str = "50ms";
const SEND_MAX: Duration = Duration::from_secs(30);
/// Between two looks at what other processes do.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What every lane uses. The order of the fields is that of their end.
pub struct World {
    _broker: Running,
    pub brokers: String,
    pub socket_dir: PathBuf,
    _cluster: PrivateCluster,
    _server: Sandbox,
    _sandbox: Sandbox,
}

impl World {
    pub fn start() -> World {
        let (sandbox, server) = (Sandbox::new(), Sandbox::new());
        let mut broker = sandbox.spawn(&["--role", "broker"]);
        let data = DataDir::open(server.data()).unwrap();
        let runtime = runtime();
        let cluster = runtime.block_on(PrivateCluster::ensure(&data, PgSettings::from_environment())).unwrap();
        World {
            brokers: broker.wait_ready()["kafka"].as_str().unwrap().to_owned(),
            _broker: broker,
            socket_dir: cluster.socket_dir().to_owned(),
            _cluster: cluster,
            _server: server,
            _sandbox: sandbox,
        }
    }

    pub fn socket_url(&self) -> String {
        format!("postgresql://finstream@localhost/postgres?host={}", self.socket_dir.display())
    }
}

/// Books of their own, and everything that is needed to fill and to audit them.
pub struct Lane {
    pub name: String,
    pub brokers: String,
    sandbox: Sandbox,
    /// For the questions of the test.
    url: String,
    runtime: Runtime,
    connection: RefCell<PgConnection>,
    producer: FutureProducer,
    /// Of each partition, so many records were acknowledged.
    ends: HashMap<i32, i64>,
    /// Of these, so many cannot be read.
    pub poison: i64,
    sent: i64,
}

impl Lane {
    pub fn new(world: &World, name: &str) -> Lane {
        let sandbox = Sandbox::new();
        DataDir::open(sandbox.data()).unwrap();
        let topic = format!("{name}.transactions");
        let topics = [NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1))];
        kafka::create_topics(&world.brokers, &topics);
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&world.socket_dir)
            .username("finstream")
            .database("postgres")
            .options([("search_path", name)]);
        let runtime = runtime();
        let connection = RefCell::new(runtime.block_on(PgConnection::connect_with(&options)).unwrap());
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &world.brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .create()
            .unwrap();
        Lane {
            name: name.to_owned(),
            brokers: world.brokers.clone(),
            sandbox,
            url: world.socket_url(),
            runtime,
            connection,
            producer,
            ends: HashMap::new(),
            poison: 0,
            sent: 0,
        }
    }

    /// Starts a consumer that reaches PostgreSQL at `url`, or as the test does; it breaks itself as it is told.
    pub fn consumer(&self, url: Option<&str>, failpoints: &[Failpoint]) -> Running {
        self.consumer_of(BATCH_MAX, url, failpoints)
    }

    /// The same with smaller batches. Where two write the same batch to the row, it does not matter who does.
    pub fn rival(&self, url: Option<&str>, failpoints: &[Failpoint]) -> Running {
        self.consumer_of(RIVALS_BATCH_MAX, url, failpoints)
    }

    fn consumer_of(&self, batch_max: &str, url: Option<&str>, failpoints: &[Failpoint]) -> Running {
        let mut arguments = self.arguments(url.unwrap_or(&self.url));
        let consumer = ["--role", "consumer", "--batch-max", batch_max, "--batch-wait", BATCH_WAIT];
        arguments.extend(consumer.map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let failpoints: Vec<String> = failpoints.iter().map(Failpoint::to_string).collect();
        let failpoints = failpoints.join(",");
        self.sandbox.spawn_with(&arguments, &[(FAILPOINTS, &failpoints), (ALLOW_FAILPOINTS, "yes")])
    }

    fn arguments(&self, url: &str) -> Vec<String> {
        let prefix = format!("{}.", self.name);
        let partitions = PARTITIONS.to_string();
        let arguments = [
            ["--brokers", &self.brokers],
            ["--database-url", url],
            ["--db-schema", &self.name],
            ["--group", &self.name],
            ["--topic-prefix", &prefix],
            ["--partitions", &partitions],
        ];
        arguments.concat().into_iter().map(str::to_owned).collect()
    }

    /// Sends messages as a producer does, with a ledger, and one more that nobody can read; waits until all are stored.
    pub fn send(&mut self, count: i64) {
        let run = RunId(Uuid::now_v7());
        let record = RunRecord {
            run,
            info: RunInfo::default(),
            topic: format!("{}.transactions", self.name),
            cluster_id: None,
            source: SourceRecord::default(),
            finished: false,
        };
        let mut ledger = LedgerWriter::create(&self.sandbox.data().join("ledger"), &record).unwrap();
        let messages: Vec<Transaction<'_>> = (0..count).map(|sequence| transaction(self.sent + sequence)).collect();
        for (sequence, message) in (0..).zip(&messages) {
            ledger.intend(sequence, &message.user_id, message.currency, message.amount).unwrap();
        }
        ledger.flush_intents().unwrap();
        let first = self.sent;
        let sends = (0..).zip(&messages).map(|(sequence, message)| {
            let mut payload = Vec::new();
            message.encode_into(&mut payload);
            self.send_one(first + sequence, Some((run, sequence)), payload)
        });
        let stored = self.runtime.block_on(join_all(sends));
        for (sequence, (partition, offset)) in (0..).zip(stored) {
            ledger.acknowledged(sequence, partition, offset).unwrap();
            self.note(partition, offset);
        }
        ledger.finish(true).unwrap();
        self.sent += count;
        let poison = self.send_one(self.sent, None, b"{\"amount\": }".to_vec());
        let (partition, offset) = self.runtime.block_on(poison);
        self.note(partition, offset);
        self.poison += 1;
    }

    fn note(&mut self, partition: i32, offset: i64) {
        let end = self.ends.entry(partition).or_default();
        *end = (*end).max(offset + 1);
    }

    async fn send_one(&self, number: i64, id: Option<(RunId, i64)>, payload: Vec<u8>) -> (i32, i64) {
        let topic = format!("{}.transactions", self.name);
        let partition = (number % i64::from(PARTITIONS)) as i32;
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&topic).partition(partition).payload(&payload);
        if let Some((run, sequence)) = id {
            let headers = OwnedHeaders::new()
                .insert(Header { key: HEADER_RUN, value: Some(&run.to_string()) })
                .insert(Header { key: HEADER_SEQUENCE, value: Some(&sequence.to_string()) });
            record = record.headers(headers);
        }
        let delivery = self.producer.send(record, SEND_MAX).await.unwrap();
        (delivery.partition, delivery.offset)
    }

    /// The rows of a query, as text, columns joined by a space; none while there is no such table.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        let sql = format!(
            "select concat_ws(' ', variadic array(select e.value from json_each_text(row_to_json(q)) e)) from ({sql}) q"
        );
        let mut connection = self.connection.borrow_mut();
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *connection);
        match self.runtime.block_on(rows) {
            Ok(rows) => rows.into_iter().map(|row| row.get(0)).collect(),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether everything that was acknowledged is applied.
    pub fn is_applied(&self) -> bool {
        let rows = self.rows("select partition, next_offset from partition_offsets");
        let applied = |(partition, end): (&i32, &i64)| rows.contains(&format!("{partition} {end}"));
        self.ends.iter().all(applied)
    }

    /// Whether every changed total is in the topic of totals.
    /// How many consumers have partitions.
    pub fn owners(&self) -> usize {
        self.rows("select owner_instance from partition_offsets where owner_instance is not null group by 1").len()
    }

    pub fn is_published(&self) -> bool {
        self.rows("select count(*) from aggregate_changes") == ["0"]
    }

    /// `finstream verify`, and what it does not look at yet: dead letters by count.
    pub fn audit(&self) -> Result<(), String> {
        let mut arguments = vec!["verify".to_owned()];
        arguments.extend(self.arguments(&self.url));
        let output = self.sandbox.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        if output.status.code() != Some(0) {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            return Err(format!("the audit ended with {}: {text}", output.status));
        }
        let dead = self.rows("select count(*) from dead_letters");
        if dead != [self.poison.to_string()] {
            return Err(format!("{} messages cannot be read, {dead:?} are dead letters", self.poison));
        }
        Ok(())
    }
}

/// Waits for what other processes bring about.
///
/// # Errors
/// It does not come within `limit`, or `condition` says that it never will.
pub fn until(limit: Duration, what: &str, mut condition: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let began = Instant::now();
    while !condition()? {
        if began.elapsed() > limit {
            return Err(format!("waited {limit:?} for {what}"));
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Users and the symbol go round in other steps than partitions do, so each is in all of them.
fn transaction(number: i64) -> Transaction<'static> {
    let (merchant, category) = ("shop".into(), "food".into());
    let (amount, detail) = match number % 4 {
        0 => (Decimal::new(1_000 + number % 977, 2), Detail::Refund { merchant, category }),
        1 => {
            let price = Decimal::new(2_500 + number % 977, 2);
            (price * Decimal::from(3), Detail::Trade { symbol: "EA".into(), side: Side::Buy, quantity: 3, price })
        }
        _ => (Decimal::new(1_999 + number % 977, 2), Detail::Purchase { merchant, category }),
    };
    Transaction {
        transaction_id: format!("t-{number}").into(),
        user_id: format!("user-{}", number % USERS).into(),
        amount,
        currency: Currency::USD,
        event_time: Micros(1_700_000_000_000_000 + (number * 7_919) % 100_000),
        scheduled_at: None,
        sent_at: None,
        detail,
        card: CardInfo::default(),
    }
}
