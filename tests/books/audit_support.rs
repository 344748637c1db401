//! A world whose books balance until a test breaks them.
//!
//! The log is librdkafka's mock cluster, the rows and totals are written as the sink writes them, PostgreSQL is real.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use finstream::audit::{AuditReport, AuditSettings, Difference, DifferenceKind, Verdict, verify};
use finstream::clock::Micros;
use finstream::config::KafkaSettings;
use finstream::data_dir::DataDir;
use finstream::ledger::{LedgerWriter, RunRecord, SourceRecord};
use finstream::postgres::{Database, PgSettings, PrivateCluster};
use finstream::sink::change_all;
use finstream::transaction::{
    CardInfo, Currency, Detail, HEADER_RUN, HEADER_SEQUENCE, RunId, RunInfo, Side, Transaction,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rust_decimal::Decimal;
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

pub const PARTITIONS: i32 = 3;
pub const TOPIC: &str = "finance.transactions";
pub const MESSAGES: i64 = 60;

/// Partition, offset, identity, transaction.
pub type Applied = (i32, i64, Option<(RunId, i64)>, Transaction<'static>);

/// A ledger, a log and a database whose books balance until someone breaks them.
pub struct World {
    pub _home: tempfile::TempDir,
    pub mock: MockCluster<'static, DefaultProducerContext>,
    pub producer: FutureProducer,
    pub cluster: PrivateCluster,
    pub database: Database,
    pub ledger_dir: PathBuf,
    pub run: RunId,
    /// What the log holds and should be applied.
    pub applied: Vec<Applied>,
}

pub fn transaction(number: i64) -> Transaction<'static> {
    let (merchant, category) = ("shop".into(), "food".into());
    let (amount, detail) = match number % 4 {
        0 => (Decimal::new(1000 + number, 2), Detail::Refund { merchant, category }),
        1 => {
            let price = Decimal::new(2500 + number, 2);
            (price * Decimal::from(3), Detail::Trade { symbol: "EA".into(), side: Side::Buy, quantity: 3, price })
        }
        _ => (Decimal::new(1999 + number, 2), Detail::Purchase { merchant, category }),
    };
    Transaction {
        transaction_id: format!("t-{number}").into(),
        user_id: format!("user-{}", number % 5).into(),
        amount,
        currency: Currency::USD,
        event_time: Micros(1_700_000_000_000_000 + (number * 7919) % 100_000),
        scheduled_at: None,
        sent_at: None,
        detail,
        card: CardInfo::default(),
    }
}

impl World {
    pub async fn empty() -> World {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o711)).unwrap();
        let data = DataDir::open(home.path().join("data")).unwrap();
        let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
        let database = cluster.database("finstream").unwrap();
        database.prepare().await.unwrap();
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(TOPIC, PARTITIONS, 1).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .unwrap();
        let ledger_dir = data.path().join("ledger");
        let run = RunId(Uuid::now_v7());
        World { _home: home, mock, producer, cluster, database, ledger_dir, run, applied: Vec::new() }
    }

    /// 60 messages, all acknowledged, all applied.
    pub async fn balanced() -> World {
        let mut world = World::empty().await;
        let mut ledger = world.ledger();
        for number in 0..MESSAGES {
            world.send_recorded(&mut ledger, number).await;
        }
        ledger.finish(true).unwrap();
        world.apply().await;
        world
    }

    pub fn ledger(&self) -> LedgerWriter {
        let record = RunRecord {
            run: self.run,
            info: RunInfo::default(),
            topic: TOPIC.to_owned(),
            cluster_id: None,
            source: SourceRecord::default(),
            finished: false,
        };
        LedgerWriter::create(&self.ledger_dir, &record).unwrap()
    }

    /// The ledger of a producer that goes on with its run.
    pub fn ledger_again(&self) -> LedgerWriter {
        LedgerWriter::continue_run(&self.ledger_dir, self.run).unwrap()
    }

    pub async fn send_recorded(&mut self, ledger: &mut LedgerWriter, number: i64) {
        let transaction = transaction(number);
        ledger.intend(number, &transaction.user_id, transaction.currency, transaction.amount).unwrap();
        ledger.flush_intents().unwrap();
        let (partition, offset) = self.send(Some((self.run, number)), &transaction).await;
        ledger.acknowledged(number, partition, offset).unwrap();
    }

    pub async fn send(&mut self, id: Option<(RunId, i64)>, transaction: &Transaction<'static>) -> (i32, i64) {
        let (partition, offset) = self.send_unapplied(id, transaction).await;
        self.applied.push((partition, offset, id, transaction.clone()));
        (partition, offset)
    }

    pub async fn send_unapplied(&self, id: Option<(RunId, i64)>, transaction: &Transaction<'_>) -> (i32, i64) {
        let mut payload = Vec::new();
        transaction.encode_into(&mut payload);
        let user: i32 = transaction.user_id.rsplit('-').next().unwrap().parse().unwrap();
        self.send_bytes(id, user % PARTITIONS, &payload).await
    }

    pub async fn send_bytes(&self, id: Option<(RunId, i64)>, partition: i32, payload: &[u8]) -> (i32, i64) {
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(TOPIC).partition(partition).payload(payload);
        if let Some((run, sequence)) = id {
            let headers = OwnedHeaders::new()
                .insert(Header { key: HEADER_RUN, value: Some(&run.to_string()) })
                .insert(Header { key: HEADER_SEQUENCE, value: Some(&sequence.to_string()) });
            record = record.headers(headers);
        }
        let delivery = self.producer.send(record, Duration::from_secs(10)).await.unwrap();
        (delivery.partition, delivery.offset)
    }

    pub fn kafka(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.mock.bootstrap_servers(),
            properties: Vec::new(),
            topic_prefix: "finance.".to_owned(),
            partitions: PARTITIONS,
            replication_factor: None,
        }
    }

    pub fn cluster_id(&self) -> String {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.mock.bootstrap_servers()).create().unwrap();
        consumer.client().fetch_cluster_id(Duration::from_secs(10)).unwrap_or_else(|| "none".to_owned())
    }

    /// Rows and totals as the sink would have them.
    pub async fn apply(&mut self) {
        let mut connection = self.database.connect().await.unwrap();
        let mut sql = "insert into schema_owner (consumer_group) values ('g');".to_owned();
        sql += &format!("insert into streams (cluster_id, topic) values ('{}', '{TOPIC}');", self.cluster_id());
        let runs: std::collections::BTreeSet<_> =
            self.applied.iter().filter_map(|(_, _, id, _)| Some(id.as_ref()?.0)).collect();
        for run in &runs {
            sql += &format!("insert into runs (run_id) values ('{run}');");
        }
        for partition in 0..PARTITIONS {
            sql += &format!(
                "insert into partition_offsets (topic_ref, partition, next_offset, messages) values (1, {partition}, {}, {});",
                self.applied
                    .iter()
                    .filter(|(at, ..)| *at == partition)
                    .map(|(_, offset, ..)| offset + 1)
                    .max()
                    .unwrap_or(0),
                self.applied.iter().filter(|(at, ..)| *at == partition).count(),
            );
        }
        for (partition, offset, id, transaction) in &self.applied {
            let (run, sequence) = match id {
                Some((run, sequence)) => {
                    (format!("(select run_ref from runs where run_id = '{run}')"), sequence.to_string())
                }
                None => ("null".to_owned(), "null".to_owned()),
            };
            sql += &format!(
                "insert into messages (\"offset\", sequence, received_at, topic_ref, partition, run_ref)
                 values ({offset}, {sequence}, now(), 1, {partition}, {run});"
            );
            sql += &upsert(*partition, *offset, transaction);
        }
        let mut transaction = connection.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.unwrap();
        change_all(&mut transaction, 1).await.unwrap();
        transaction.commit().await.unwrap();
        connection.close().await.unwrap();
    }

    /// Applies what was sent since the first `count` messages were.
    pub async fn apply_since(&self, count: usize) {
        let mut sql = String::new();
        for (partition, offset, id, transaction) in &self.applied[count..] {
            let (run, sequence) = id.unwrap();
            sql += &format!(
                "insert into runs (run_id) values ('{run}') on conflict do nothing;
                 insert into messages (\"offset\", sequence, received_at, topic_ref, partition, run_ref)
                 select {offset}, {sequence}, now(), 1, {partition}, run_ref from runs where run_id = '{run}';
                 update partition_offsets set next_offset = {offset} + 1, messages = messages + 1 where partition = {partition};"
            );
            sql += &upsert(*partition, *offset, transaction);
        }
        self.sql(&sql).await;
    }

    /// All messages applied, and one more that became a dead letter: where it lies, and what it is. Its ledger is finished.
    pub async fn with_dead_letter() -> (World, i32, i64, Transaction<'static>) {
        let mut world = World::empty().await;
        let mut ledger = world.ledger();
        for number in 0..MESSAGES {
            world.send_recorded(&mut ledger, number).await;
        }
        world.apply().await;
        let late = transaction(MESSAGES);
        ledger.intend(MESSAGES, &late.user_id, late.currency, late.amount).unwrap();
        ledger.flush_intents().unwrap();
        let (partition, offset) = world.send_unapplied(Some((world.run, MESSAGES)), &late).await;
        ledger.acknowledged(MESSAGES, partition, offset).unwrap();
        ledger.finish(true).unwrap();
        world
            .sql(&format!(
                "insert into dead_letters (topic_ref, partition, \"offset\", received_at, reason, run_ref, sequence)
                 values (1, {partition}, {offset}, now(), 'refused', 1, {MESSAGES});
                 update partition_offsets set next_offset = {offset} + 1, dead_letters = 1 where partition = {partition}"
            ))
            .await;
        (world, partition, offset, late)
    }

    /// Puts that dead letter through, as `finstream dead-letters --replay` does.
    pub async fn put_through(&self, partition: i32, offset: i64, late: &Transaction<'_>) {
        self.sql(&format!(
            "delete from dead_letters;
             insert into replayed_letters (topic_ref, partition, \"offset\", reason) values (1, {partition}, {offset}, 'refused');
             update partition_offsets set dead_letters = 0, messages = messages + 1 where partition = {partition};
             insert into messages (\"offset\", sequence, received_at, topic_ref, partition, run_ref)
             values ({offset}, {MESSAGES}, now(), 1, {partition}, 1);{}",
            upsert(partition, offset, late)
        ))
        .await;
    }

    /// Whose books these are.
    pub async fn books_id(&self) -> Uuid {
        let mut connection = self.database.connect().await.unwrap();
        sqlx::query_scalar("select books_id from schema_owner").fetch_one(&mut connection).await.unwrap()
    }

    /// The one checkpoint in the ledger's folder.
    pub fn checkpoint_file(&self) -> PathBuf {
        let files = fs::read_dir(&self.ledger_dir).unwrap().map(|entry| entry.unwrap().path());
        let mut checkpoints = files.filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"));
        let found = checkpoints.next().unwrap();
        assert!(checkpoints.next().is_none());
        found
    }

    pub async fn sql(&self, sql: &str) {
        let mut connection = self.database.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Whether published or not, all totals are noted as waiting for it.
    pub async fn audit(&self) -> AuditReport {
        self.audit_and_keep(false).await
    }

    /// As `audit`; books that balance leave a checkpoint if asked to.
    pub async fn audit_and_keep(&self, make_checkpoint: bool) -> AuditReport {
        let mut connection = self.database.connect().await.unwrap();
        sqlx::query("delete from aggregate_changes").execute(&mut connection).await.unwrap();
        change_all(&mut connection, 1).await.unwrap();
        connection.close().await.unwrap();
        self.audit_as(make_checkpoint).await
    }

    pub async fn audit_as_it_is(&self) -> AuditReport {
        self.audit_as(false).await
    }

    async fn audit_as(&self, make_checkpoint: bool) -> AuditReport {
        let settings = AuditSettings {
            kafka: self.kafka(),
            database: self.database.clone(),
            ledger_dirs: vec![self.ledger_dir.clone()],
            make_checkpoint,
        };
        let report = verify(settings, |_| {}).await.unwrap();
        eprintln!("{report}");
        serde_json::to_string(&report).unwrap();
        report
    }

    /// The one difference that there must be.
    pub async fn only(&self, kind: DifferenceKind) -> Difference {
        let report = self.audit().await;
        assert_eq!(report.verdict, Verdict::Differences);
        assert_eq!(report.difference_counts.into_iter().collect::<Vec<_>>(), [(kind, 1)]);
        report.differences.into_iter().next().unwrap()
    }

    pub async fn end(self) {
        assert!(self.cluster.leave().await.unwrap());
    }

    pub fn place(&self, sequence: i64) -> (i32, i64) {
        let found = self.applied.iter().find(|(_, _, id, _)| *id == Some((self.run, sequence))).unwrap();
        (found.0, found.1)
    }
}

/// What the sink's upsert adds for one message.
pub fn upsert(partition: i32, offset: i64, transaction: &Transaction<'_>) -> String {
    let Transaction { user_id, amount, .. } = transaction;
    let time = transaction.event_time;
    let kind = match transaction.detail {
        Detail::Purchase { .. } => 0,
        Detail::Refund { .. } => 1,
        Detail::Trade { .. } => 2,
    };
    let counts: Vec<String> =
        (0..3).map(|at| if at == kind { format!("1, {amount}") } else { "0, 0".to_owned() }).collect();
    let mut sql = format!(
        "insert into user_aggregates as t values ('{user_id}', 'USD', 1, {partition}, {}, '{time}', '{time}', {offset}, 1)
         on conflict (user_id, currency, topic_ref, partition) do update set
         purchases = t.purchases + excluded.purchases, spend = t.spend + excluded.spend,
         refunds = t.refunds + excluded.refunds, refunded = t.refunded + excluded.refunded,
         trades = t.trades + excluded.trades, traded = t.traded + excluded.traded,
         first_event = least(t.first_event, excluded.first_event), last_event = greatest(t.last_event, excluded.last_event);",
        counts.join(", ")
    );
    if let Detail::Trade { symbol, quantity, price, .. } = &transaction.detail {
        sql += &format!(
            "insert into symbol_aggregates as t values ('{symbol}', 'USD', 1, {partition}, 1, {quantity}, {amount}, {price}, '{time}', {offset}, {offset}, 1)
             on conflict (symbol, currency, topic_ref, partition) do update set trades = t.trades + 1,
             quantity = t.quantity + excluded.quantity, notional = t.notional + excluded.notional,
             last_price = case when (excluded.last_price_event, excluded.last_price_offset) > (t.last_price_event, t.last_price_offset)
                 then excluded.last_price else t.last_price end,
             last_price_offset = case when (excluded.last_price_event, excluded.last_price_offset) > (t.last_price_event, t.last_price_offset)
                 then excluded.last_price_offset else t.last_price_offset end,
             last_price_event = greatest(t.last_price_event, excluded.last_price_event);"
        );
    }
    sql + &upsert_windows(partition, offset, transaction)
}

/// All within one window, and none late: `transaction` lays them into a tenth of a second.
fn upsert_windows(partition: i32, offset: i64, transaction: &Transaction<'_>) -> String {
    let (amount, time) = (transaction.amount, transaction.event_time);
    let start = Micros(time.0 - time.0.rem_euclid(60_000_000));
    let (purchase, category) = match &transaction.detail {
        Detail::Trade { symbol, quantity, price, .. } => {
            return format!(
                "insert into symbol_window_aggregates as t values ('{start}', '{symbol}', 'USD', 1, {partition}, 1, {quantity},
                     {amount}, {price}, '{time}', {offset}, {price}, {price}, {price}, '{time}', {offset}, 0, 0, {offset}, 1)
                 on conflict (window_start, symbol, currency, topic_ref, partition) do update set trades = t.trades + 1,
                 quantity = t.quantity + excluded.quantity, notional = t.notional + excluded.notional,
                 open_price = case when (excluded.open_event, excluded.open_offset) < (t.open_event, t.open_offset)
                     then excluded.open_price else t.open_price end,
                 close_price = case when (excluded.close_event, excluded.close_offset) > (t.close_event, t.close_offset)
                     then excluded.close_price else t.close_price end,
                 open_event = least(t.open_event, excluded.open_event),
                 close_event = greatest(t.close_event, excluded.close_event),
                 high_price = greatest(t.high_price, excluded.high_price),
                 low_price = least(t.low_price, excluded.low_price);"
            );
        }
        Detail::Purchase { category, .. } => (true, category),
        Detail::Refund { category, .. } => (false, category),
    };
    let [spend, min, max, refunded] =
        if purchase { [Some(amount), Some(amount), Some(amount), None] } else { [None, None, None, Some(amount)] };
    let or =
        |amount: Option<Decimal>, other: &str| amount.map_or_else(|| other.to_owned(), |amount| amount.to_string());
    format!(
        "insert into category_window_aggregates as t values ('{start}', '{category}', 'USD', 1, {partition}, {}, {}, {}, {},
             {}, {}, 0, 0, {offset}, 1)
         on conflict (window_start, category, currency, topic_ref, partition) do update set
         purchases = t.purchases + excluded.purchases, spend = t.spend + excluded.spend,
         purchase_min = least(t.purchase_min, excluded.purchase_min),
         purchase_max = greatest(t.purchase_max, excluded.purchase_max),
         refunds = t.refunds + excluded.refunds, refunded = t.refunded + excluded.refunded;",
        i32::from(purchase),
        or(spend, "0"),
        or(min, "null"),
        or(max, "null"),
        i32::from(!purchase),
        or(refunded, "0"),
    )
}
