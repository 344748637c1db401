//! Ends of transactions of which the log refuses a part for a while.
#![allow(clippy::unwrap_used)]

use super::super::metadata::*;
use super::recovery::{ID, World, end_of};
use crate::broker::internal_topic::CONSUMER_OFFSETS;

/// Ends of partitions: `t-0`, `t-1`, groups and transactions.
fn ends(world: &World) -> [i64; 4] {
    let groups = world.catalog.topic(CONSUMER_OFFSETS).unwrap().partition(0).unwrap().clone();
    let ids = world.transactions.0.topic.partition().unwrap().clone();
    [world.partition(0), world.partition(1), groups, ids].map(|partition| partition.high_watermark())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_whose_decision_was_refused_has_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let producer = world.begin().await;
    let (prepared, before) = (world.prepared(End::Commit), ends(&world));
    let inner = &world.transactions.0;
    let queued = {
        let held = world.log.held();
        let decision = inner.append(ID, &prepared).unwrap();
        // The disk is full for a moment, and there is room again before the markers are queued.
        held.refuse_waiting();
        inner.queue_behind(Some(decision), Partitions::new(), ID, &prepared)
    };
    assert_eq!(inner.carry_out(ID, prepared, queued).await, Err(TxnError::NotAvailable));
    assert_eq!((ends(&world), world.known().state), (before, TransactionState::Ongoing));
    let world = world.restart(dir.path()).await;
    assert_eq!((ends(&world), world.known().state), (before, TransactionState::Ongoing));
    assert_eq!(world.transactions.end(ID, producer, End::Commit).await, Ok(()));
    world.is_over(End::Commit);
    world.log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_marker_gets_no_second_one_when_the_end_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let producer = world.begin().await;
    let (prepared, before) = (world.prepared(End::Commit), ends(&world));
    let writing = {
        let held = world.log.held();
        // While this is on its way, groups take no other end of the producer's.
        let first = world.groups.end_transaction(end_of(&prepared), None).unwrap();
        let inner = &world.transactions.0;
        let ending = inner.end(&mut inner.lock(), ID, prepared).unwrap();
        drop(held);
        first.await.unwrap();
        ending
    };
    writing.0.await.unwrap().unwrap();
    world.reaches(TransactionState::CompleteCommit).await;
    world.is_over(End::Commit);
    let added: Vec<i64> = ends(&world).into_iter().zip(before).map(|(end, before)| end - before).collect();
    // A marker each, but for the one of ours; a decision and a note.
    assert_eq!(added, [1, 1, 2, 2]);
    assert_eq!(world.transactions.end(ID, producer, End::Commit).await, Ok(()));
    world.log.close().await.unwrap();
}
