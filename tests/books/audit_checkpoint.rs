//! A checkpoint stands for what was cut, and for no more than that.

use std::fs;

use crate::audit_support::{MESSAGES, World, transaction};
use finstream::audit::{AuditSettings, DifferenceKind, Verdict, covered, verify};
use finstream::ledger::LedgerWriter;
use finstream::sink;
use rust_decimal::Decimal;

/// Rows before everything that the checkpoint covers are removed.
async fn cut_all(world: &World) {
    let covered = covered(&world.ledger_dir, world.books_id().await, crate::audit_support::TOPIC).unwrap().unwrap();
    assert_eq!((covered.topic_ref, covered.offsets.values().sum::<i64>()), (1, MESSAGES));
    let mut connection = world.database.connect().await.unwrap();
    for (partition, offset) in covered.offsets {
        sink::cut(&mut connection, covered.topic_ref, partition, (0, offset)).await.unwrap();
    }
}

/// Balanced books of `MESSAGES` messages that were cut behind a checkpoint, and `more` messages since.
async fn cut_and_continued(more: i64) -> World {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    for number in 0..MESSAGES {
        world.send_recorded(&mut ledger, number).await;
    }
    ledger.flush_outcomes().unwrap();
    world.apply().await;
    assert_eq!(world.audit_and_keep(true).await.verdict, Verdict::Balanced);
    cut_all(&world).await;
    for number in MESSAGES..MESSAGES + more {
        world.send_recorded(&mut ledger, number).await;
    }
    ledger.finish(true).unwrap();
    world.apply_since(MESSAGES as usize).await;
    world
}

/// Messages, of which two were meant and never sent.
async fn send_all_but(world: &mut World, ledger: &mut LedgerWriter, unsent: [i64; 2]) {
    for number in 0..MESSAGES {
        if unsent.contains(&number) {
            let meant = transaction(number);
            ledger.intend(number, &meant.user_id, meant.currency, meant.amount).unwrap();
        } else {
            world.send_recorded(ledger, number).await;
        }
    }
}

#[tokio::test]
async fn an_audit_begins_at_the_checkpoint_and_is_still_exact_to_the_cent_and_the_message() {
    let mut world = cut_and_continued(30).await;
    let report = world.audit().await;
    assert_eq!(report.verdict, Verdict::Balanced);
    let counts = report.counts;
    assert_eq!((counts.in_log, counts.rows, counts.intended, counts.acknowledged), (30, 30, 90, 90));
    assert_eq!((counts.unknown_stored, counts.foreign), (0, 0));
    let checkpoint = report.checkpoint.clone().unwrap();
    assert_eq!((checkpoint.messages, checkpoint.partitions.values().sum::<i64>()), (60, 60));
    assert!(report.to_string().contains("60  messages were proven up to the checkpoint of 20"), "{report}");

    // What came before the checkpoint cannot be changed unnoticed.
    world.sql("update user_aggregates set spend = spend + 0.01 where user_id = 'user-3'").await;
    let found = world.only(DifferenceKind::WrongTotal).await;
    let cents = |text: Option<String>| text.unwrap().parse::<Decimal>().unwrap();
    assert_eq!(cents(found.found) - cents(found.expected), Decimal::new(1, 2));
    world.sql("update user_aggregates set spend = spend - 0.01 where user_id = 'user-3'").await;
    world.sql("update symbol_aggregates set quantity = quantity - 1 where partition = 1").await;
    assert_eq!(world.only(DifferenceKind::WrongTotal).await.field, Some("quantity"));
    world.sql("update symbol_aggregates set quantity = quantity + 1 where partition = 1").await;

    // A second checkpoint upon the first one.
    assert_eq!(world.audit_and_keep(true).await.verdict, Verdict::Balanced);
    let report = world.audit().await;
    assert_eq!((report.verdict, report.counts.in_log, report.counts.intended), (Verdict::Balanced, 0, 90));
    assert_eq!(report.checkpoint.unwrap().messages, 90);

    // A copy of a message from before is known.
    let count = world.applied.len();
    world.send(Some((world.run, 5)), &transaction(5)).await;
    world.apply_since(count).await;
    let found = world.only(DifferenceKind::StoredTwice).await;
    assert_eq!((found.run, found.sequence), (Some(world.run), Some(5)));
    world.end().await;
}

#[tokio::test]
async fn what_was_cut_cannot_be_decided_on_without_its_checkpoint() {
    let world = cut_and_continued(5).await;
    let file = world.checkpoint_file();
    let bytes = fs::read(&file).unwrap();
    for at in [3, bytes.len() / 2, bytes.len() - 4] {
        let mut rotten = bytes.clone();
        rotten[at] ^= 1;
        fs::write(&file, rotten).unwrap();
        let settings = AuditSettings {
            kafka: world.kafka(),
            database: world.database.clone(),
            ledger_dirs: vec![world.ledger_dir.clone()],
            make_checkpoint: false,
        };
        let error = verify(settings, |_| {}).await.unwrap_err().to_string();
        assert!(error.contains("jsonl is damaged"), "{error}");
    }
    fs::remove_file(&file).unwrap();
    let report = world.audit_and_keep(true).await;
    assert_eq!(report.verdict, Verdict::Undecided);
    assert!(report.undecided[0].contains("--ledger"), "{report}");
    assert!(!file.exists(), "books that cannot be decided on leave no checkpoint");
    fs::write(&file, bytes).unwrap();
    assert_eq!(world.audit().await.verdict, Verdict::Balanced);
    // Rows that are gone behind the checkpoint are missed.
    let (partition, offset) = world.place(62);
    world.sql(&format!("delete from messages where partition = {partition} and \"offset\" = {offset}")).await;
    assert_eq!(world.only(DifferenceKind::NotStored).await.sequence, Some(62));
    world.end().await;
}

#[tokio::test]
async fn books_that_do_not_balance_leave_the_checkpoint_as_it_was() {
    let world = World::balanced().await;
    world.sql("update user_aggregates set spend = spend + 0.01 where user_id = 'user-3'").await;
    assert_eq!(world.audit_and_keep(true).await.verdict, Verdict::Differences);
    assert_eq!(covered(&world.ledger_dir, world.books_id().await, crate::audit_support::TOPIC).unwrap(), None);
    assert!(fs::read_dir(&world.ledger_dir).unwrap().all(|file| file.unwrap().path().is_dir()), "nothing is left over");
    world.sql("update user_aggregates set spend = spend - 0.01 where user_id = 'user-3'").await;
    assert_eq!(world.audit_and_keep(true).await.verdict, Verdict::Balanced);
    let before = fs::read(world.checkpoint_file()).unwrap();
    world.sql("update user_aggregates set spend = spend + 0.01 where user_id = 'user-3'").await;
    assert_eq!(world.audit_and_keep(true).await.verdict, Verdict::Differences);
    assert_eq!(fs::read(world.checkpoint_file()).unwrap(), before);
    world.end().await;
}

#[tokio::test]
async fn a_message_without_an_answer_may_come_after_the_checkpoint_once() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    send_all_but(&mut world, &mut ledger, [23, 41]).await;
    [23, 41].into_iter().for_each(|number| ledger.unknown(number).unwrap());
    ledger.finish(true).unwrap();
    world.apply().await;
    let report = world.audit_and_keep(true).await;
    assert_eq!((report.verdict, report.counts.unknown_not_stored), (Verdict::Balanced, 2));
    let covered = covered(&world.ledger_dir, world.books_id().await, crate::audit_support::TOPIC).unwrap().unwrap();
    assert_eq!(covered.runs[&world.run], MESSAGES, "its producer is gone: all is settled");
    for times in 1..=2 {
        let count = world.applied.len();
        world.send(Some((world.run, 23)), &transaction(23)).await;
        world.apply_since(count).await;
        let report = world.audit().await;
        match times {
            1 => assert_eq!((report.verdict, report.counts.unknown_stored), (Verdict::Balanced, 1)),
            _ => assert_eq!(report.difference_counts[&DifferenceKind::StoredTwice], 1),
        }
    }
    world.end().await;
}

#[tokio::test]
async fn a_dead_letter_from_before_the_checkpoint_may_be_put_through_after_it() {
    let (world, partition, offset, late) = World::with_dead_letter().await;
    let report = world.audit_and_keep(true).await;
    assert_eq!((report.verdict, report.counts.dead_letters), (Verdict::Balanced, 1));
    world.put_through(partition, offset, &late).await;
    assert_eq!(world.audit().await.verdict, Verdict::Balanced);
    let again = world.audit_and_keep(true).await;
    assert_eq!(again.verdict, Verdict::Balanced);
    assert_eq!(world.audit().await.verdict, Verdict::Balanced, "it is added once");
    world.sql(&format!("update user_aggregates set spend = spend + 0.01 where user_id = '{}'", late.user_id)).await;
    world.only(DifferenceKind::WrongTotal).await;
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_is_read_after_the_checkpoint_is_counted_once() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    for number in 0..MESSAGES {
        world.send_recorded(&mut ledger, number).await;
    }
    world.apply().await;
    // The log shows them before their outcomes are on disk.
    let counts = world.audit_and_keep(true).await.counts;
    assert_eq!((counts.intended, counts.acknowledged), (60, 0));
    ledger.flush_outcomes().unwrap();
    for _ in 0..2 {
        let report = world.audit_and_keep(true).await;
        let counts = report.counts;
        assert_eq!((report.verdict, counts.intended, counts.acknowledged), (Verdict::Balanced, 60, 60));
    }
    ledger.finish(true).unwrap();
    assert_eq!(world.audit().await.counts.acknowledged, 60);
    world.end().await;
}

#[tokio::test]
async fn a_message_that_was_absent_at_the_checkpoint_and_acknowledged_since_must_be_there() {
    let mut world = World::empty().await;
    let mut ledger = world.ledger();
    send_all_but(&mut world, &mut ledger, [23, 41]).await;
    ledger.flush_outcomes().unwrap();
    // Its producer is gone, and comes again with the rest of its run.
    drop(ledger);
    world.apply().await;
    assert_eq!(world.audit_and_keep(true).await.verdict, Verdict::Balanced);
    let mut ledger = world.ledger_again();
    let count = world.applied.len();
    let (partition, offset) = world.send(Some((world.run, 23)), &transaction(23)).await;
    ledger.acknowledged(23, partition, offset).unwrap();
    ledger.flush_outcomes().unwrap();
    world.apply_since(count).await;
    for _ in 0..2 {
        let report = world.audit_and_keep(true).await;
        assert_eq!((report.verdict, report.counts.acknowledged), (Verdict::Balanced, 59));
    }
    // The broker said yes to the other one, and the log does not have it.
    ledger.acknowledged(41, partition, offset + 1).unwrap();
    ledger.finish(true).unwrap();
    let lost = world.only(DifferenceKind::Lost).await;
    assert_eq!((lost.run, lost.sequence), (Some(world.run), Some(41)));
    world.end().await;
}
