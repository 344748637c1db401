//! Latency rows go when they are old or too many, on record; totals stay.

use std::time::Duration;

use crate::sink_support::{Schema, patience, purchases};
use finstream::config::LatencyLayout;
use finstream::sink::{Deadlines, Worker, WorkerSettings, cut, excess};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn old_rows_and_packs_are_found_and_removed_and_totals_stay() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(2).await;
    for table in ["messages", "batches"] {
        schema.execute(&format!("alter table {table} set (autovacuum_enabled = off)")).await;
    }
    let mut offset = 0;
    for layout in [LatencyLayout::Rows, LatencyLayout::Packed, LatencyLayout::Rows, LatencyLayout::Packed] {
        let settings = WorkerSettings { latency_layout: layout, ..schema.worker_settings(topic_ref, "i") };
        let mut worker = Worker::connect(settings, Deadlines::default()).await.unwrap();
        worker.claim(&[0, 1], &mut patience().1).await.unwrap();
        for _ in 0..5 {
            let mut batch = purchases(0, offset..offset + 10, "ann");
            if offset < 50 {
                batch = purchases(1, offset..offset + 10, "bob");
                worker.store(&batch, &mut patience().1).await.unwrap();
                batch = purchases(0, offset..offset + 10, "ann");
            }
            worker.store(&batch, &mut patience().1).await.unwrap();
            offset += 10;
        }
        worker.close().await.unwrap();
    }
    let mut connection = schema.connect().await;
    let spans = async |connection: &mut sqlx::PgConnection, age, bytes| {
        let excess = excess(connection, topic_ref, age, bytes).await.unwrap();
        excess.into_iter().map(|part| (part.partition, part.from, part.to, part.next_offset)).collect::<Vec<_>>()
    };
    assert_eq!(spans(&mut connection, HOUR, u64::MAX).await, [(0, 0, 0, 200), (1, 0, 0, 50)]);
    let age = async |before: i64| {
        for table in ["batches", "message_packs"] {
            schema
                .execute(&format!(
                    "update {table} set processed_at = now() - interval '2 hours' where last_offset < {before}"
                ))
                .await;
        }
    };
    age(80).await;
    assert_eq!(spans(&mut connection, HOUR, u64::MAX).await, [(0, 0, 80, 200), (1, 0, 50, 50)]);
    // 150 rows of 125 bytes and 100 packed messages of 30 are 21,750 bytes.
    assert_eq!(spans(&mut connection, 9 * HOUR, 21_750).await, [(0, 0, 0, 200), (1, 0, 0, 50)]);
    assert_eq!(spans(&mut connection, 9 * HOUR, 10_875).await, [(0, 0, 100, 200), (1, 0, 25, 50)]);
    assert_eq!(spans(&mut connection, HOUR, 10_875).await, [(0, 0, 100, 200), (1, 0, 50, 50)]);
    // Small batches take room, too, as soon as PostgreSQL knows how many there are: 15 for 150 rows make 148 bytes a row.
    schema.execute("analyze").await;
    assert_eq!(spans(&mut connection, 9 * HOUR, 25_200).await, [(0, 0, 0, 200), (1, 0, 0, 50)]);
    assert_eq!(spans(&mut connection, 9 * HOUR, 12_600).await, [(0, 0, 100, 200), (1, 0, 25, 50)]);

    assert_eq!(cut(&mut connection, topic_ref, 0, (0, 80)).await.unwrap(), 50 + 5 + 3);
    assert_eq!(cut(&mut connection, topic_ref, 1, (0, 50)).await.unwrap(), 50 + 5);
    assert_eq!(
        schema.rows("select partition, min(\"offset\"), count(*) from message_latencies group by 1").await,
        ["0 80 120"]
    );
    assert_eq!(schema.rows("select partition, cut_before from retention_cuts order by 1").await, ["0 80", "1 50"]);
    assert_eq!(schema.rows("select user_id, purchases from user_totals order by 1").await, ["ann 200", "bob 50"]);
    assert_eq!(spans(&mut connection, HOUR, u64::MAX).await, [(0, 80, 80, 200), (1, 50, 50, 50)]);
    age(120).await;
    assert_eq!(spans(&mut connection, HOUR, u64::MAX).await, [(0, 80, 120, 200), (1, 50, 50, 50)]);
}
