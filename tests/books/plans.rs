//! How PostgreSQL plans what the sink asks: by key, however many rows are named.

use crate::sink_support::{Schema, message, patience, purchase};
use finstream::sink::{Batch, plan_by_key, read_changes};

const USERS: i64 = 5_000;

/// With the names in hand, the planner would compare each row of the table with each name.
#[tokio::test]
async fn what_has_changed_is_read_by_plans_that_know_no_names() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    let names: Vec<String> = (0..USERS).map(|number| format!("user-{number}")).collect();
    let mut batch = Batch::new();
    for (offset, name) in (0..).zip(&names) {
        batch.push_transaction(message(0, offset), &purchase(name, 150));
    }
    worker.store(&batch, &mut patience().1).await.unwrap();
    schema.execute("analyze").await;
    let epoch = schema.rows("select owner_epoch from partition_offsets").await.remove(0).parse().unwrap();

    let mut connection = schema.connect().await;
    plan_by_key(&mut connection).await.unwrap();
    let changes = read_changes(&mut connection, topic_ref, epoch).await.unwrap().unwrap();
    assert_eq!(changes.totals.len() as i64, USERS + 1, "one window beside them");
    let custom: (i64, i64) = sqlx::query_as("select sum(custom_plans)::bigint, count(*) from pg_prepared_statements")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(custom.0 == 0 && custom.1 >= 5, "{custom:?}: custom plans, statements");
}
