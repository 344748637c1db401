//! The books are broken by hand, and the audit must find and name each break.
//!
//! The log is librdkafka's mock cluster, the rows and totals are written as the sink writes them, PostgreSQL is real.
#![allow(clippy::unwrap_used, clippy::expect_used)]

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
use finstream::transaction::{Currency, Detail, HEADER_RUN, HEADER_SEQUENCE, RunId, RunInfo, Side, Transaction};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rust_decimal::Decimal;
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

const PARTITIONS: i32 = 3;
const TOPIC: &str = "finance.transactions";
const MESSAGES: i64 = 60;

/// A ledger, a log and a database whose books balance until someone breaks them.
struct World {
    _home: tempfile::TempDir,
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: FutureProducer,
    cluster: PrivateCluster,
    database: Database,
    ledger_dir: PathBuf,
    run: RunId,
    /// What the log holds and should be applied: (partition, offset, identity, transaction).
    applied: Vec<(i32, i64, Option<(RunId, i64)>, Transaction<'static>)>,
}

fn transaction(number: i64) -> Transaction<'static> {
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
    }
}

impl World {
    async fn empty() -> World {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o711)).unwrap();
        let data = DataDir::open(home.path().join("data")).unwrap();
        let cluster = PrivateCluster::ensure(&data, PgSettings::default()).await.unwrap();
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
    async fn balanced() -> World {
        let mut world = World::empty().await;
        let mut ledger = world.ledger();
        for number in 0..MESSAGES {
            world.send_recorded(&mut ledger, number).await;
        }
        ledger.finish(true).unwrap();
        world.apply().await;
        world
    }

    fn ledger(&self) -> LedgerWriter {
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

    async fn send_recorded(&mut self, ledger: &mut LedgerWriter, number: i64) {
        let transaction = transaction(number);
        ledger.intend(number, &transaction.user_id, transaction.currency, transaction.amount).unwrap();
        ledger.flush_intents().unwrap();
        let (partition, offset) = self.send(Some((self.run, number)), &transaction).await;
        ledger.acknowledged(number, partition, offset).unwrap();
    }

    async fn send(&mut self, id: Option<(RunId, i64)>, transaction: &Transaction<'static>) -> (i32, i64) {
        let (partition, offset) = self.send_unapplied(id, transaction).await;
        self.applied.push((partition, offset, id, transaction.clone()));
        (partition, offset)
    }

    async fn send_unapplied(&self, id: Option<(RunId, i64)>, transaction: &Transaction<'_>) -> (i32, i64) {
        let mut payload = Vec::new();
        transaction.encode_into(&mut payload);
        let user: i32 = transaction.user_id.rsplit('-').next().unwrap().parse().unwrap();
        self.send_bytes(id, user % PARTITIONS, &payload).await
    }

    async fn send_bytes(&self, id: Option<(RunId, i64)>, partition: i32, payload: &[u8]) -> (i32, i64) {
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

    fn kafka(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.mock.bootstrap_servers(),
            properties: Vec::new(),
            topic_prefix: "finance.".to_owned(),
            partitions: PARTITIONS,
            replication_factor: None,
        }
    }

    fn cluster_id(&self) -> String {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.mock.bootstrap_servers()).create().unwrap();
        consumer.client().fetch_cluster_id(Duration::from_secs(10)).unwrap_or_else(|| "none".to_owned())
    }

    /// Rows and totals as the sink would have them.
    async fn apply(&mut self) {
        let mut connection = self.database.connect().await.unwrap();
        let mut sql = format!("insert into streams (cluster_id, topic) values ('{}', '{TOPIC}');", self.cluster_id());
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
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn sql(&self, sql: &str) {
        let mut connection = self.database.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn audit(&self) -> AuditReport {
        let settings = AuditSettings {
            kafka: self.kafka(),
            database: self.database.clone(),
            ledger_dirs: vec![self.ledger_dir.clone()],
        };
        let report = verify(settings, |_, _| {}).await.unwrap();
        eprintln!("{report}");
        serde_json::to_string(&report).unwrap();
        report
    }

    /// The one difference that there must be.
    async fn only(&self, kind: DifferenceKind) -> Difference {
        let report = self.audit().await;
        assert_eq!(report.verdict, Verdict::Differences);
        assert_eq!(report.difference_counts.into_iter().collect::<Vec<_>>(), [(kind, 1)]);
        report.differences.into_iter().next().unwrap()
    }

    async fn end(self) {
        assert!(self.cluster.leave().await.unwrap());
    }

    fn place(&self, sequence: i64) -> (i32, i64) {
        let found = self.applied.iter().find(|(_, _, id, _)| *id == Some((self.run, sequence))).unwrap();
        (found.0, found.1)
    }
}

/// What the sink's upsert adds for one message.
fn upsert(partition: i32, offset: i64, transaction: &Transaction<'_>) -> String {
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
    sql
}

#[tokio::test]
async fn books_that_nobody_touched_balance() {
    let world = World::balanced().await;
    let report = world.audit().await;
    assert_eq!(report.verdict, Verdict::Balanced);
    assert_eq!(report.exit_code(), 0);
    let counts = report.counts;
    assert_eq!((counts.intended, counts.acknowledged, counts.in_log, counts.rows), (60, 60, 60, 60));
    assert!(counts.user_totals >= 5 && counts.symbol_totals >= 1);
    world.end().await;
}

#[tokio::test]
async fn a_deleted_row_is_named() {
    let world = World::balanced().await;
    let (partition, offset) = world.place(17);
    world.sql(&format!("delete from messages where partition = {partition} and \"offset\" = {offset}")).await;
    let found = world.only(DifferenceKind::NotStored).await;
    assert_eq!((found.run, found.sequence), (Some(world.run), Some(17)));
    assert_eq!((found.partition, found.offset), (Some(partition), Some(offset)));
    assert!(found.subject.unwrap().starts_with("user-2 "));
    world.end().await;
}

#[tokio::test]
async fn an_added_cent_is_named() {
    let world = World::balanced().await;
    world.sql("update user_aggregates set spend = spend + 0.01 where user_id = 'user-3'").await;
    let found = world.only(DifferenceKind::WrongTotal).await;
    assert_eq!((found.subject.as_deref(), found.field), (Some("user user-3 USD"), Some("spend")));
    let cents = |text: Option<String>| text.unwrap().parse::<Decimal>().unwrap();
    assert_eq!(cents(found.found) - cents(found.expected), Decimal::new(1, 2));
    world.end().await;
}

#[tokio::test]
async fn each_field_of_a_total_is_watched() {
    let world = World::balanced().await;
    world
        .sql("update symbol_aggregates set quantity = quantity - 1, last_price = last_price + 1 where partition = 1")
        .await;
    world.sql("update user_aggregates set refunds = refunds + 1, last_event = last_event + '1 us' where user_id = 'user-0'").await;
    world.sql("delete from user_aggregates where user_id = 'user-1'").await;
    world.sql("insert into user_aggregates select 'ghost', currency, topic_ref, partition, 1, 5, 0, 0, 0, 0, first_event, last_event, 0, 1 from user_aggregates where user_id = 'user-2'").await;
    let report = world.audit().await;
    let mut fields: Vec<_> =
        report.differences.iter().map(|found| (found.subject.clone().unwrap(), found.field)).collect();
    fields.sort();
    let wanted = [
        ("symbol EA USD", Some("last_price")),
        ("symbol EA USD", Some("quantity")),
        ("user ghost USD", Some("purchases")),
        ("user ghost USD", Some("spend")),
        ("user user-0 USD", Some("last_event")),
        ("user user-0 USD", Some("refunds")),
        ("user user-1 USD", None),
    ];
    assert_eq!(fields, wanted.map(|(subject, field)| (subject.to_owned(), field)));
    world.end().await;
}

#[tokio::test]
async fn a_message_twice_in_the_log_is_named_even_if_postgresql_agrees_with_the_log() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    for number in 0..MESSAGES {
        world.send_recorded(&mut ledger, number).await;
    }
    let id = Some((world.run, 23));
    let again = world.send(id, &transaction(23)).await;
    ledger.finish(true).unwrap();
    world.apply().await;
    let found = world.only(DifferenceKind::StoredTwice).await;
    assert_eq!((found.sequence, found.partition, found.offset), (Some(23), Some(again.0), Some(again.1)));
    world.end().await;
}

#[tokio::test]
async fn a_message_that_the_log_lost_is_named() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    for number in 0..MESSAGES {
        if number == 31 {
            let lost = transaction(31);
            ledger.intend(31, &lost.user_id, lost.currency, lost.amount).unwrap();
            ledger.acknowledged(31, 1, 9999).unwrap();
        } else {
            world.send_recorded(&mut ledger, number).await;
        }
    }
    ledger.finish(true).unwrap();
    world.apply().await;
    let found = world.only(DifferenceKind::Lost).await;
    assert_eq!((found.run, found.sequence), (Some(world.run), Some(31)));
    assert_eq!((found.partition, found.offset), (Some(1), Some(9999)));
    assert!(found.subject.unwrap().starts_with("user-1 "));
    world.end().await;
}

#[tokio::test]
async fn a_row_too_many_and_a_row_of_another_message_are_named() {
    let world = World::balanced().await;
    world
        .sql("insert into messages (\"offset\", sequence, received_at, topic_ref, partition, run_ref) values (5000, 7, now(), 1, 0, 1)")
        .await;
    let report = world.audit().await;
    let kinds: Vec<_> = report.difference_counts.keys().copied().collect();
    assert_eq!(kinds, [DifferenceKind::CountedTwice, DifferenceKind::ExtraRow]);
    world.sql("delete from messages where \"offset\" = 5000").await;
    let (partition, offset) = world.place(11);
    world
        .sql(&format!("update messages set sequence = 12 where partition = {partition} and \"offset\" = {offset}"))
        .await;
    let report = world.audit().await;
    assert_eq!(report.difference_counts[&DifferenceKind::WrongIdentity], 1);
    let found = report.differences.iter().find(|found| found.kind == DifferenceKind::WrongIdentity).unwrap();
    assert_eq!((found.partition, found.offset), (Some(partition), Some(offset)));
    assert!(found.found.as_ref().unwrap().ends_with("message 12"));
    world.end().await;
}

#[tokio::test]
async fn a_payload_that_is_not_what_was_meant_is_named() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    for number in 0..MESSAGES {
        if number == 14 {
            let mut forged = transaction(14);
            ledger.intend(14, &forged.user_id, forged.currency, forged.amount).unwrap();
            forged.amount += Decimal::ONE;
            let (partition, offset) = world.send(Some((world.run, 14)), &forged).await;
            ledger.acknowledged(14, partition, offset).unwrap();
        } else {
            world.send_recorded(&mut ledger, number).await;
        }
    }
    ledger.finish(true).unwrap();
    world.apply().await;
    let found = world.only(DifferenceKind::WrongAmount).await;
    assert_eq!(found.sequence, Some(14));
    assert_eq!(
        (found.expected.as_deref(), found.found.as_deref()),
        (Some("user-4 20.13 USD"), Some("user-4 21.13 USD"))
    );
    world.end().await;
}

#[tokio::test]
async fn a_ledger_without_its_last_block_is_named() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    let intents = world.ledger_dir.join(world.run.to_string()).join("intents");
    let mut length = 0;
    for number in 0..MESSAGES {
        if number == MESSAGES - 1 {
            length = fs::metadata(&intents).unwrap().len();
        }
        let transaction = transaction(number);
        ledger.intend(number, &transaction.user_id, transaction.currency, transaction.amount).unwrap();
        ledger.flush_intents().unwrap();
        world.send(Some((world.run, number)), &transaction).await;
    }
    ledger.finish(true).unwrap();
    world.apply().await;
    fs::OpenOptions::new().write(true).open(&intents).unwrap().set_len(length).unwrap();
    let found = world.only(DifferenceKind::NotInLedger).await;
    assert_eq!(found.sequence, Some(MESSAGES - 1));
    // A bad block in the middle is not a difference: the ledger cannot be believed.
    let mut bytes = fs::read(&intents).unwrap();
    bytes[length as usize / 2] ^= 0xff;
    fs::write(&intents, bytes).unwrap();
    let report = world.audit().await;
    assert_eq!((report.verdict, report.exit_code()), (Verdict::Undecided, 3));
    assert!(report.undecided[0].contains("is damaged at byte"), "{:?}", report.undecided);
    world.end().await;
}

#[tokio::test]
async fn unknown_outcomes_are_settled_from_the_log_and_are_nobodys_fault() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    for number in 0..MESSAGES {
        let transaction = transaction(number);
        ledger.intend(number, &transaction.user_id, transaction.currency, transaction.amount).unwrap();
        if number % 3 != 0 {
            world.send(Some((world.run, number)), &transaction).await;
        }
        if number % 2 == 0 {
            ledger.unknown(number).unwrap();
        }
    }
    let running = {
        ledger.flush_intents().unwrap();
        ledger.flush_outcomes().unwrap();
        world.apply().await;
        world.audit().await
    };
    assert_eq!((running.counts.in_flight, running.counts.unknown_not_stored), (20, 0));
    ledger.finish(true).unwrap();
    let report = world.audit().await;
    assert_eq!(report.verdict, Verdict::Balanced);
    assert_eq!((report.counts.unknown_stored, report.counts.unknown_not_stored), (40, 20));
    world.end().await;
}

#[tokio::test]
async fn foreign_messages_are_compared_between_log_and_postgresql() {
    let mut world = World::empty().await;
    let stranger = RunId(Uuid::now_v7());
    for number in 0..20 {
        world.send(Some((stranger, number)), &transaction(number)).await;
        world.send(None, &transaction(number)).await;
    }
    world.apply().await;
    let report = world.audit().await;
    assert_eq!((report.verdict, report.counts.foreign), (Verdict::Balanced, 40));
    let (partition, offset, ..) = world.applied[3];
    world.sql(&format!("delete from messages where partition = {partition} and \"offset\" = {offset}")).await;
    world.send_unapplied(Some((stranger, 0)), &transaction(0)).await;
    let report = world.audit().await;
    let kinds: Vec<_> = report.difference_counts.keys().copied().collect();
    assert_eq!(kinds, [DifferenceKind::NotStored, DifferenceKind::StoredTwice]);
    world.end().await;
}

#[tokio::test]
async fn what_nobody_has_applied_yet_is_undecided_with_the_cure() {
    let world = World::balanced().await;
    world.send_unapplied(None, &transaction(3)).await;
    let report = world.audit().await;
    assert_eq!((report.verdict, report.exit_code()), (Verdict::Undecided, 3));
    assert!(report.undecided[0].contains("not yet applied: 1 messages; start a consumer"), "{:?}", report.undecided);
    world.end().await;
}

#[tokio::test]
async fn dead_letters_count_as_stored_and_skipped_ranges_are_named() {
    let world = World::balanced().await;
    let dead = world.send_bytes(None, 0, b"not json").await;
    let skipped = world.send_bytes(None, 1, b"{}").await;
    world
        .sql(&format!(
            "insert into dead_letters (topic_ref, partition, \"offset\", received_at, reason) values (1, 0, {}, now(), 'x');
             insert into skipped_ranges (topic_ref, partition, from_offset, to_offset) values (1, 1, {}, {});
             update partition_offsets set next_offset = next_offset + 1, dead_letters = 1 where partition < 2",
            dead.1,
            skipped.1,
            skipped.1 + 1
        ))
        .await;
    let report = world.audit().await;
    assert_eq!(report.verdict, Verdict::Balanced);
    assert_eq!((report.counts.dead_letters, report.counts.skipped), (1, 1));
    assert!(report.notes.iter().any(|note| note.contains("skipped on record")), "{:?}", report.notes);
    // A row for what cannot be read is a difference.
    world
        .sql(&format!(
            "delete from dead_letters;
             insert into messages (\"offset\", received_at, topic_ref, partition) values ({}, now(), 1, 0)",
            dead.1
        ))
        .await;
    assert_eq!(world.only(DifferenceKind::RowAndDeadLetter).await.offset, Some(dead.1));
    world.end().await;
}

#[tokio::test]
async fn offsets_that_the_log_does_not_have_are_named() {
    let world = World::balanced().await;
    world.sql("update partition_offsets set next_offset = next_offset + 7 where partition = 2").await;
    let found = world.only(DifferenceKind::LogTooShort).await;
    assert_eq!(found.partition, Some(2));
    world.sql("update streams set cluster_id = 'another'").await;
    let report = world.audit().await;
    assert_eq!(report.verdict, Verdict::Undecided);
    assert!(report.undecided[0].contains("--brokers"), "{:?}", report.undecided);
    world.end().await;
}

#[tokio::test]
async fn what_an_earlier_life_stored_is_matched_by_run_and_sequence() {
    let world = World::balanced().await;
    // The same message once more, in a life before: it is in the totals twice.
    world
        .sql(&format!(
            "insert into streams (cluster_id, topic, life, retired_at) values ('{}', '{TOPIC}', 0, now());
             insert into messages (\"offset\", sequence, received_at, topic_ref, partition, run_ref) values (3, 42, now(), 2, 0, 1)",
            world.cluster_id()
        ))
        .await;
    let found = world.only(DifferenceKind::CountedTwice).await;
    assert_eq!(found.sequence, Some(42));
    world.end().await;
}

#[tokio::test]
async fn below_the_logs_start_rows_settle_and_totals_are_proven_in_part() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    // The mock cluster keeps 5 MiB a partition: what is padded pushes the first messages out.
    let padding = format!(",\"pad\":\"{}\"}}", "x".repeat(100_000));
    for number in 0..100 {
        let mut transaction = transaction(number);
        transaction.user_id = "user-0".into();
        ledger.intend(number, "user-0", transaction.currency, transaction.amount).unwrap();
        let mut payload = Vec::new();
        transaction.encode_into(&mut payload);
        payload.pop();
        payload.extend_from_slice(padding.as_bytes());
        let id = Some((world.run, number));
        let (partition, offset) = world.send_bytes(id, 0, &payload).await;
        ledger.acknowledged(number, partition, offset).unwrap();
        world.applied.push((partition, offset, id, transaction));
    }
    ledger.finish(true).unwrap();
    world.apply().await;
    let report = world.audit().await;
    assert_eq!(report.verdict, Verdict::Balanced);
    let cut = report.partitions[0].log_start;
    assert!(cut > 0 && report.counts.below_log_start == cut as u64, "the log starts at {cut}");
    assert!(report.notes.iter().any(|note| note.contains("the log begins at offset")), "{:?}", report.notes);

    world.sql("update user_aggregates set purchases = 1; delete from messages where \"offset\" = 0").await;
    let report = world.audit().await;
    let kinds: Vec<_> = report.differences.iter().map(|found| (found.kind, found.sequence, found.field)).collect();
    let wanted = [(DifferenceKind::WrongTotal, None, Some("purchases")), (DifferenceKind::Lost, Some(0), None)];
    assert_eq!(kinds, wanted);
    world.end().await;
}

#[tokio::test]
async fn an_unreachable_broker_is_no_verdict() {
    let world = World::empty().await;
    let mut kafka = world.kafka();
    kafka.brokers = "127.0.0.1:1".to_owned();
    kafka.properties.push(("socket.connection.setup.timeout.ms".to_owned(), "1000".to_owned()));
    let settings = AuditSettings { kafka, database: world.database.clone(), ledger_dirs: Vec::new() };
    let error = tokio::time::timeout(Duration::from_secs(60), verify(settings, |_, _| {})).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("--brokers"), "{error}");
    world.end().await;
}
