//! What goes on while an audit reads.

use std::time::{Duration, Instant};

use crate::audit_support::*;
use finstream::audit::Verdict;
use finstream::sink::cut;
use sqlx::PgConnection;

/// Whether an audit reads rows now: it keeps them from being removed, and no snapshot is open any more.
const READS_ROWS: &str = "
select exists (
    select from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.mode = 'ShareLock' and l.granted
        and a.application_name = 'finstream verify' and a.state = 'idle' and a.backend_xmin is null)";

async fn until_it_reads_rows(connection: &mut PgConnection) {
    let begun = Instant::now();
    while !sqlx::query_scalar::<_, bool>(READS_ROWS).fetch_one(&mut *connection).await.unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the audit never reads without a snapshot");
    }
}

#[tokio::test]
async fn no_snapshot_is_held_no_row_removed_and_a_letter_put_through_is_no_difference() {
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
    let mut connection = world.database.connect().await.unwrap();
    // Between the snapshot and the comparison, the log is asked again.
    world.mock.broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
    let meddle = async {
        until_it_reads_rows(&mut connection).await;
        assert_eq!(cut(&mut connection, 1, partition, (0, 5)).await.unwrap(), 0);
        world
            .sql(&format!(
                "delete from dead_letters;
                 insert into replayed_letters (topic_ref, partition, \"offset\", reason) values (1, {partition}, {offset}, 'refused');
                 update partition_offsets set dead_letters = 0, messages = messages + 1 where partition = {partition};
                 insert into messages (\"offset\", sequence, received_at, topic_ref, partition, run_ref)
                 values ({offset}, {MESSAGES}, now(), 1, {partition}, 1);{}",
                upsert(partition, offset, &late)
            ))
            .await;
    };
    let (report, ()) = tokio::join!(world.audit(), meddle);
    assert_eq!((report.verdict, report.counts.rows, report.counts.dead_letters), (Verdict::Balanced, 60, 1));
    world.mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let report = world.audit().await;
    assert_eq!((report.verdict, report.counts.rows, report.counts.dead_letters), (Verdict::Balanced, 61, 0));
    assert_eq!(cut(&mut connection, 1, partition, (0, 5)).await.unwrap(), 5);
    assert_eq!(world.audit().await.verdict, Verdict::Undecided, "without a checkpoint");
    world.end().await;
}
