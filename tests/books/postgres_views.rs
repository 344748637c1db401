//! The views for people give the numbers that the rows mean.
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use finstream::data_dir::DataDir;
use finstream::postgres::{OutputFormat, PgSettings, PrivateCluster, write_query};

const ROWS: &str = "
insert into streams (cluster_id, topic) values ('c', 'finance.transactions');
insert into runs (run_id, first_seen) values
    ('01890000-0000-7000-8000-000000000001', '2026-01-01'), ('01890000-0000-7000-8000-000000000002', '2026-01-02');
-- A hundred messages of the first run in ten batches, sent 1..100 ms after their schedule; the last batch's commit was not seen.
insert into messages (\"offset\", sequence, scheduled_at, sent_at, received_at, topic_ref, partition, run_ref)
select g - 1, g - 1, '2026-01-01', '2026-01-01'::timestamptz + g * interval '1 ms',
       '2026-01-01'::timestamptz + g * interval '1 ms' + interval '500 us', 1, 0, 1 from generate_series(1, 100) g;
insert into batches
select 1, 0, b * 10, b * 10 + 9, 10, '2026-01-01 00:00:01', case when b < 9 then '2026-01-01 00:00:01.002'::timestamptz end
from generate_series(0, 9) b;
-- Two of the second run under one business id; one of the first run again; clocks that disagree.
insert into messages values
    (0, 0, null, '2026-01-02 00:00:01', '2026-01-02', 1, 1, 2, 'card-7'),
    (1, 1, null, null, '2026-01-02', 1, 1, 2, 'card-7'),
    (2, 5, null, null, '2026-01-02', 1, 1, 1, null),
-- Looks like the id of that message, which nobody writes so.
    (3, 6, null, null, '2026-01-02', 1, 1, 2, '01890000-0000-7000-8000-000000000001-05');
insert into batches values (1, 1, 0, 3, 4, '2026-01-02', '2026-01-02');
insert into user_aggregates values
    ('ann', 'USD', 1, 0, 2, 10.50, 1, 0.25, 0, 0, '2026-01-01', '2026-01-03', 1, 1),
    ('ann', 'USD', 1, 1, 1, 0.05, 0, 0, 3, 300, '2025-12-31', '2026-01-02', 1, 1),
    ('ann', 'EUR', 1, 1, 1, 1, 0, 0, 0, 0, '2026-01-01', '2026-01-01', 1, 1);
insert into symbol_aggregates values
    ('EA', 'USD', 1, 0, 2, 5, 500, 101, '2026-01-01 10:00', 7, 9, 1),
    ('EA', 'USD', 1, 1, 1, 1, 100, 102, '2026-01-01 11:00', 3, 3, 1),
    ('EA', 'USD', 1, 2, 1, 1, 100, 103, '2026-01-01 11:00', 1, 1, 1);
";

#[tokio::test]
async fn the_views_say_what_the_rows_mean() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o711)).unwrap();
    let data = DataDir::open(home.path().join("data")).unwrap();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let database = cluster.database("finstream").unwrap();
    database.prepare().await.unwrap();
    write_query(&database, ROWS, OutputFormat::Json, &mut Vec::new()).await.unwrap();
    let ask = async |sql: &str| {
        let mut answer = Vec::new();
        write_query(&database, sql, OutputFormat::Json, &mut answer).await.unwrap();
        String::from_utf8(answer).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };

    assert_eq!(
        ask("select transactions, spend, net_spend, trades, traded, first_event::date as first from user_totals where currency = 'USD'").await,
        [r#"{"transactions":4,"spend":10.55,"net_spend":10.30,"trades":3,"traded":300,"first":"2025-12-31"}"#]
    );
    // Of equal event times the higher partition's price counts, as everywhere.
    assert_eq!(
        ask("select trades, quantity, notional, last_price from symbol_totals").await,
        [r#"{"trades":4,"quantity":7,"notional":700,"last_price":103}"#]
    );
    // Newest run first; what is missing or negative is counted.
    assert_eq!(
        ask("select right(run_id::text, 1) as run, stage, messages as n, missing, negative, p50_ms, p99_ms, max_ms from stage_latency_percentiles
             where stage in ('scheduled -> sent', 'sent -> received', 'processed -> committed')").await,
        [
            r#"{"run":"2","stage":"scheduled -> sent","n":0,"missing":3,"negative":0,"p50_ms":null,"p99_ms":null,"max_ms":null}"#,
            r#"{"run":"2","stage":"sent -> received","n":1,"missing":2,"negative":1,"p50_ms":-1000.000,"p99_ms":-1000.000,"max_ms":-1000.000}"#,
            r#"{"run":"2","stage":"processed -> committed","n":3,"missing":0,"negative":0,"p50_ms":0.000,"p99_ms":0.000,"max_ms":0.000}"#,
            r#"{"run":"1","stage":"scheduled -> sent","n":100,"missing":1,"negative":0,"p50_ms":50.000,"p99_ms":99.000,"max_ms":100.000}"#,
            r#"{"run":"1","stage":"sent -> received","n":100,"missing":1,"negative":0,"p50_ms":0.500,"p99_ms":0.500,"max_ms":0.500}"#,
            r#"{"run":"1","stage":"processed -> committed","n":91,"missing":10,"negative":0,"p50_ms":2.000,"p99_ms":2.000,"max_ms":2.000}"#,
        ]
    );
    assert_eq!(
        ask("select transaction_id, stored from repeated_transactions order by 1").await,
        [
            r#"{"transaction_id":"01890000-0000-7000-8000-000000000001-5","stored":2}"#,
            r#"{"transaction_id":"card-7","stored":2}"#,
        ]
    );
    assert_eq!(
        ask("select transaction_id, scheduled_to_sent_ms::int as sent, processed_to_committed_ms::int as committed from message_latencies where partition = 0 and \"offset\" in (9, 99) order by 1").await,
        [
            r#"{"transaction_id":"01890000-0000-7000-8000-000000000001-9","sent":10,"committed":2}"#,
            r#"{"transaction_id":"01890000-0000-7000-8000-000000000001-99","sent":100,"committed":null}"#,
        ]
    );
    assert!(cluster.leave().await.unwrap());
}
