//! The books are broken by hand, and the audit must find and name each break.

use crate::audit_support::*;
use finstream::audit::{DifferenceKind, Verdict};
use rust_decimal::Decimal;

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
    world.sql("update user_aggregates set refunds = refunds + 1, declines = declines + 1, last_event = last_event + '1 us' where user_id = 'user-0'").await;
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
        ("user user-0 USD", Some("declines")),
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
async fn each_field_of_a_window_is_watched() {
    let world = World::balanced().await;
    world
        .sql(
            "update category_window_aggregates set purchase_max = purchase_max + 1, late = 1, spend = spend + 0.01
                 where partition = 1 and purchases > 0;
             update symbol_window_aggregates set open_price = 1, low_price = 2 where partition = 2;
             delete from symbol_window_aggregates where partition = 0;
             insert into category_window_aggregates select window_start + '1 min', category, currency, topic_ref, partition,
                 1, 5, 5, 5, 0, 0, 0, 0, 0, 1 from category_window_aggregates where partition = 2 limit 1",
        )
        .await;
    let report = world.audit().await;
    let mut fields: Vec<_> = report
        .differences
        .iter()
        .map(|found| {
            let subject = found.subject.clone().unwrap();
            (found.partition.unwrap(), subject.split(' ').next().unwrap().to_owned(), found.field.unwrap_or("-"))
        })
        .collect();
    fields.sort();
    fields.dedup();
    let wanted = [
        (0, "symbol", "-"),
        (1, "category", "late"),
        (1, "category", "purchase_max"),
        (1, "category", "spend"),
        (2, "category", "purchase_max"),
        (2, "category", "purchase_min"),
        (2, "category", "purchases"),
        (2, "category", "spend"),
        (2, "symbol", "low"),
        (2, "symbol", "open"),
    ];
    assert_eq!(fields, wanted.map(|(partition, kind, field)| (partition, kind.to_owned(), field)));
    world.end().await;
}

#[tokio::test]
async fn a_total_that_nobody_will_publish_is_named() {
    let world = World::balanced().await;
    assert_eq!(world.audit().await.verdict, Verdict::Balanced);
    world.sql("update aggregate_changes set symbols = '{}'").await;
    let report = world.audit_as_it_is().await;
    assert_eq!(report.difference_counts.into_iter().collect::<Vec<_>>(), [(DifferenceKind::NotPublished, 1)]);
    let found = &report.differences[0];
    assert_eq!((found.subject.as_deref(), found.found.as_deref()), (Some("symbol/EA"), Some("nothing")));
    world.end().await;
}
