//! What is nobody's fault, what cannot be decided, and what is proven only in part.

use std::fs;
use std::time::Duration;

use crate::audit_support::*;
use finstream::audit::{AuditSettings, DifferenceKind, Verdict, verify};
use finstream::transaction::RunId;
use uuid::Uuid;

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
async fn what_arrives_while_the_audit_reads_is_no_difference() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    for number in 0..MESSAGES {
        world.send_recorded(&mut ledger, number).await;
    }
    ledger.flush_outcomes().unwrap();
    let settings = AuditSettings {
        kafka: world.kafka(),
        database: world.database.clone(),
        ledger_dirs: vec![world.ledger_dir.clone()],
        make_checkpoint: false,
    };
    let audit = tokio::spawn(verify(settings, |_| {}));
    // Nothing is applied yet: the audit has noted the log's end, read the ledgers, and asks PostgreSQL again and again.
    let mut connection = world.database.connect().await.unwrap();
    let asks = "select exists (select from pg_stat_activity where application_name = 'finstream verify')";
    while !sqlx::query_scalar::<_, bool>(asks).fetch_one(&mut connection).await.unwrap() {
        tokio::task::yield_now().await;
    }
    for number in MESSAGES..MESSAGES + 10 {
        world.send_recorded(&mut ledger, number).await;
    }
    world.apply().await;
    let report = audit.await.unwrap().unwrap();
    assert_eq!(report.verdict, Verdict::Balanced, "{report}");
    assert_eq!(report.counts.in_log, 70);
    drop(connection);
    world.end().await;
}

#[tokio::test]
async fn an_unreachable_broker_is_no_verdict() {
    let world = World::empty().await;
    let mut kafka = world.kafka();
    kafka.brokers = "127.0.0.1:1".to_owned();
    kafka.properties.push(("socket.connection.setup.timeout.ms".to_owned(), "1000".to_owned()));
    let settings =
        AuditSettings { kafka, database: world.database.clone(), ledger_dirs: Vec::new(), make_checkpoint: false };
    let error = tokio::time::timeout(Duration::from_secs(60), verify(settings, |_| {})).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("--brokers"), "{error}");
    world.end().await;
}
