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
    let (world, partition, offset, late) = World::with_dead_letter().await;
    let mut connection = world.database.connect().await.unwrap();
    // Between the snapshot and the comparison, the log is asked again.
    world.mock.broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
    let meddle = async {
        until_it_reads_rows(&mut connection).await;
        assert_eq!(cut(&mut connection, 1, partition, (0, 5)).await.unwrap(), 0);
        world.put_through(partition, offset, &late).await;
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
