//! The packed layout on a real PostgreSQL: the same numbers through the same views, in a fifth of the room.

use crate::sink_support::{Schema, message, patience, purchase, purchases, run};
use finstream::clock::Micros;
use finstream::config::LatencyLayout;
use finstream::sink::{Batch, Deadlines, Known, Merger, Message, Worker, is_counted};
use finstream::transaction::{MessageId, Transaction, derived_transaction_id};
use rand::{RngExt, SeedableRng};

const LATENCIES: &str = "select run_id, sequence, transaction_id, partition, \"offset\", scheduled_at, sent_at, received_at, \
                         processed_at is null as unprocessed, committed_at is null as uncommitted, scheduled_to_sent_ms, \
                         sent_to_received_ms from message_latencies order by partition, \"offset\"";
const STAGES: &str =
    "select run_id, stage, messages, missing, negative, p50_ms, p99_ms, max_ms from stage_latency_percentiles
                      where stage in ('scheduled -> sent', 'sent -> received') order by run_id, stage";
const REPEATED: &str = "select * from repeated_transactions order by 1";

async fn worker(schema: &Schema, topic_ref: i32, layout: LatencyLayout) -> Worker {
    let settings = finstream::sink::WorkerSettings { latency_layout: layout, ..schema.worker_settings(topic_ref, "i") };
    let mut worker = Worker::connect(settings, Deadlines::default()).await.unwrap();
    worker.claim(&[0, 1], &mut patience().1).await.unwrap();
    worker
}

/// What a message says of itself, at random: gaps, foreign messages, business ids, clocks that are absent or far away.
fn fill(batch: &mut Batch, random: &mut rand::rngs::StdRng, next: &mut [i64; 2]) {
    for _ in 0..random.random_range(1..40) {
        let partition = random.random_range(0..2);
        let offset = next[partition];
        next[partition] += if random.random_ratio(1, 20) { random.random_range(2..90_000) } else { 1 };
        let bits = if random.random_ratio(1, 30) { 40 } else { 20 };
        let identity = random.random_ratio(9, 10).then(|| MessageId {
            run: run(random.random_range(1..3)),
            sequence: random.random_range(0..1_i64 << bits),
        });
        let far: i64 = if random.random_ratio(1, 30) { 1 << 36 } else { 1 };
        let mut time = |absent| {
            (!random.random_ratio(absent, 10))
                .then(|| Micros(1_700_000_000_000_000 + random.random_range(0..1_000_000) * far))
        };
        let (scheduled_at, sent_at, received_at) = (time(1), time(1), time(0).unwrap());
        let message = Message { identity, received_at, ..message(partition as i32, offset) };
        let id = match identity {
            Some(identity) if random.random_ratio(4, 5) => derived_transaction_id(identity),
            _ => format!("business-{}", random.random_range(0..50)),
        };
        let transaction = Transaction { transaction_id: id.into(), scheduled_at, sent_at, ..purchase("ann", 150) };
        match random.random_ratio(1, 40) {
            true => batch.push_dead_letter(message, "unreadable"),
            false => batch.push_transaction(message, &transaction),
        }
    }
}

#[tokio::test]
async fn packed_rows_and_merged_packs_say_what_plain_rows_say() {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let (plain, packed) = (Schema::create().await, Schema::create().await);
    for (schema, layout) in [(&plain, LatencyLayout::Rows), (&packed, LatencyLayout::Packed)] {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let topic_ref = schema.stream(2).await;
        let mut worker = worker(schema, topic_ref, layout).await;
        let mut next = [0; 2];
        for _ in 0..60 {
            let mut batch = Batch::new();
            fill(&mut batch, &mut random, &mut next);
            worker.store(&batch, &mut patience().1).await.unwrap();
        }
        worker.close().await.unwrap();
    }
    assert_eq!(packed.rows("select count(*) from messages union all select count(*) from batches").await, ["0", "0"]);
    let compare = async || {
        for question in [LATENCIES, STAGES, REPEATED] {
            let (expected, found) = (plain.rows(question).await, packed.rows(question).await);
            assert!(expected.len() > 1, "{question}");
            assert_eq!(expected, found, "seed {seed}: {question}");
        }
    };
    compare().await;
    let committed = "select \"offset\", processed_at, committed_at from message_latencies order by partition, 1";
    let times = packed.rows(committed).await;

    let packs = async || packed.rows("select count(*) from message_packs").await[0].parse::<u64>().unwrap();
    let before = packs().await;
    // Large enough that there is nothing to wait for.
    packed.execute("insert into message_packs (topic_ref, partition, first_offset, last_offset, messages, received_at, processed_at, committed_at, received_us)
        select 1, p, 1e9, 1e9, 256, now(), now(), now(), '{}' from generate_series(0, 1) p").await;
    let mut connection = packed.connect().await;
    let merged = Merger::default().merge(&mut connection, 1).await.unwrap();
    packed.execute("delete from message_packs where last_offset = 1e9").await;
    assert!(merged > before / 2 && packs().await < before, "{merged} of {before} merged into {}", packs().await);
    compare().await;
    assert_eq!(packed.rows(committed).await, times, "seed {seed}");
    assert_eq!(Merger::default().merge(&mut connection, 2).await.unwrap(), 0, "another stream has none");
}

#[tokio::test]
async fn the_layout_is_changed_at_any_start_and_both_are_read() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(2).await;
    for (round, layout) in [LatencyLayout::Rows, LatencyLayout::Packed, LatencyLayout::Rows].into_iter().enumerate() {
        let mut worker = worker(&schema, topic_ref, layout).await;
        let offsets = round as i64 * 10..round as i64 * 10 + 10;
        worker.store(&crate::sink_support::purchases(0, offsets, "ann"), &mut patience().1).await.unwrap();
        worker.close().await.unwrap();
    }
    let tables = "select (select count(*) from messages), (select sum(messages) from message_packs)";
    assert_eq!(schema.rows(tables).await, ["20 10"]);
    assert_eq!(
        schema.rows("select count(*), count(distinct \"offset\"), count(committed_at), min(run_id::text) from message_latencies").await,
        ["30 30 30 00000000-0000-0000-0000-000000000007"]
    );
    assert_eq!(schema.rows("select distinct messages, missing from stage_latency_percentiles").await, ["30 0"]);
    let mut connection = schema.connect().await;
    for offset in [5, 15, 25, 35] {
        let known = Known {
            partition: 0,
            offset,
            identity: Some(MessageId { run: run(7), sequence: offset }),
            transaction_id: None,
            payload: None,
        };
        assert_eq!(is_counted(&mut connection, "t", &known).await.unwrap(), offset < 30, "{offset}");
        let other = Known { identity: Some(MessageId { run: run(7), sequence: offset + 1 }), ..known };
        assert!(!is_counted(&mut connection, "t", &other).await.unwrap(), "{offset}");
    }
}

/// Rows of a table that were read, when PostgreSQL has told that so many were written. It tells when a backend has ended.
async fn rows_read(schema: &Schema, table: &str, inserted: i64, updated: i64) -> i64 {
    let told = format!(
        "select n_tup_ins, n_tup_upd, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
         from pg_stat_user_tables where schemaname = current_schema() and relname = '{table}'"
    );
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let told = schema.rows(&told).await.join("");
        let numbers: Vec<i64> = told.split(' ').map(|number| number.parse().unwrap()).collect();
        if numbers[0] >= inserted && numbers[1] >= updated {
            return numbers[2];
        }
        assert!(std::time::Instant::now() < give_up, "{table}: inserted, updated, read: {told}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn noting_a_commit_reads_no_more_when_more_is_stored() {
    const BATCHES: i64 = 300;
    for (layout, table) in [(LatencyLayout::Rows, "batches"), (LatencyLayout::Packed, "message_packs")] {
        let schema = Schema::create().await;
        let topic_ref = schema.stream(2).await;
        // Plans are made while the tables are empty, and nobody says since that they are not.
        schema.execute(&format!("alter table {table} set (autovacuum_enabled = off)")).await;
        let mut worker = worker(&schema, topic_ref, layout).await;
        for offset in 0..BATCHES {
            worker.store(&purchases(0, offset..offset + 1, "ann"), &mut patience().1).await.unwrap();
        }
        worker.close().await.unwrap();
        let read = rows_read(&schema, table, BATCHES, BATCHES).await;
        assert!(read <= 4 * BATCHES, "{table}: {read} rows read to note the commits of {BATCHES} batches");
    }
}

#[tokio::test]
async fn moving_partitions_reads_those_and_no_others() {
    const PARTITIONS: i32 = 200;
    const BATCHES: i64 = 20;
    let schema = Schema::create().await;
    let topic_ref = schema.stream(PARTITIONS).await;
    schema.execute("alter table partition_offsets set (autovacuum_enabled = off)").await;
    let owned: Vec<i32> = (0..PARTITIONS).collect();
    let mut worker = schema.worker(topic_ref, "i", &owned).await;
    for offset in 0..BATCHES {
        let mut batch = Batch::new();
        for partition in 0..PARTITIONS / 2 {
            batch.push_transaction(message(partition, offset), &purchase("ann", 100));
        }
        worker.store(&batch, &mut patience().1).await.unwrap();
    }
    worker.close().await.unwrap();
    let moves = BATCHES * i64::from(PARTITIONS) / 2;
    let read = rows_read(&schema, "partition_offsets", 0, moves + i64::from(PARTITIONS)).await;
    let claims = 10 * i64::from(PARTITIONS);
    assert!(read <= 4 * moves + claims, "{read} rows of partition_offsets read to move {moves}");
}
