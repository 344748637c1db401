//! The write path on a real PostgreSQL: exact totals, progress, fencing, dead letters.

use crate::sink_support::{Schema, message, patience, purchase, purchases, trade};
use finstream::sink::{
    Batch, LifeStart, ResetError, SinkError, claim_schema, open_new_life, open_stream, progress, reset_forward,
};

#[tokio::test]
async fn a_batch_becomes_rows_totals_and_progress_in_one_transaction() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(2).await;
    let mut worker = schema.worker(topic_ref, "i", &[0, 1]).await;
    let mut batch = purchases(0, 0..3, "ann");
    batch.push_transaction(message(1, 0), &trade("bob", "EA", 4, 1250, 5));
    batch.push_dead_letter(message(1, 1), "no \0 amount");
    let committed = worker.store(&batch, &mut patience().1).await.unwrap();
    assert_eq!(committed.next_offsets, [(0, 3), (1, 2)]);
    assert_eq!((committed.parts.len(), committed.parts[0].messages, committed.parts[0].dead_letters), (1, 4, 1));

    assert_eq!(
        schema.rows("select user_id, currency, purchases, spend, trades, traded from user_totals order by 1").await,
        ["ann USD 3 4.50 0 0", "bob USD 0 0 1 50.00"]
    );
    assert_eq!(
        schema.rows("select symbol, trades, quantity, notional, last_price from symbol_totals").await,
        ["EA 1 4 50.00 12.50"]
    );
    assert_eq!(
        schema.rows("select partition, next_offset, messages, dead_letters, owner_instance from partition_offsets order by 1").await,
        ["0 3 3 0 i", "1 2 1 1 i"]
    );
    assert_eq!(
        schema.rows("select partition, \"offset\", reason, sequence, encode(key, 'escape') from dead_letters").await,
        ["1 1 no \\0 amount 1 key"]
    );
    assert_eq!(
        schema.rows("select partition, user_ids, user_currencies, symbols from aggregate_changes order by 1").await,
        [r#"0 ["ann"] ["USD"] []"#, r#"1 ["bob"] ["USD"] ["EA"]"#]
    );
    assert_eq!(schema.rows("select run_id from runs").await, ["00000000-0000-0000-0000-000000000007"]);
    assert_eq!(
        schema.rows("select count(*), count(run_ref), min(sequence), extract(epoch from min(scheduled_at))::bigint from messages").await,
        ["4 4 0 1700000000"]
    );
}

#[tokio::test]
async fn the_commit_time_is_written_with_the_next_transaction_or_at_the_end() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    let committed = "select count(*), count(committed_at), bool_and(committed_at >= processed_at) from batches";
    worker.store(&purchases(0, 0..1, "ann"), &mut patience().1).await.unwrap();
    assert_eq!(schema.rows(committed).await, ["1 0"]);
    worker.store(&purchases(0, 1..2, "ann"), &mut patience().1).await.unwrap();
    assert_eq!(schema.rows(committed).await, ["2 1 true"]);
    worker.close().await.unwrap();
    assert_eq!(schema.rows(committed).await, ["2 2 true"]);
}

#[tokio::test]
async fn a_zombie_is_fenced_and_stores_nothing_but_keeps_what_it_still_owns() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(2).await;
    let mut zombie = schema.worker(topic_ref, "zombie", &[0, 1]).await;
    let mut heir = schema.worker(topic_ref, "heir", &[0]).await;
    let mut batch = purchases(0, 0..5, "ann");
    for offset in 0..5 {
        batch.push_transaction(message(1, offset), &purchase("bob", 100));
    }
    let committed = zombie.store(&batch, &mut patience().1).await.unwrap();
    assert_eq!(committed.fenced, [0]);
    assert_eq!(committed.next_offsets, [(1, 5)]);
    assert_eq!(schema.rows("select user_id, purchases from user_totals").await, ["bob 5"]);
    heir.store(&purchases(0, 0..5, "ann"), &mut patience().1).await.unwrap();
    let committed = zombie.store(&purchases(0, 5..6, "ann"), &mut patience().1).await.unwrap();
    assert!(committed.parts.is_empty());
    assert_eq!(schema.rows("select user_id, purchases from user_totals order by 1").await, ["ann 5", "bob 5"]);
}

#[tokio::test]
async fn one_symbol_on_six_partitions_is_exact_in_every_order_of_commits() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(6).await;
    let mut worker = schema.worker(topic_ref, "i", &[0, 1, 2, 3, 4, 5]).await;
    let mut next = [0i64; 6];
    let orders = permutations(6);
    assert_eq!(orders.len(), 720);
    for (number, order) in orders.iter().enumerate() {
        let symbol = format!("S{number}");
        for partition in order {
            let mut batch = Batch::new();
            // Partition 4 has the latest event, with a lower offset than other trades of the partition.
            for (event_us, quantity) in [(if *partition == 4 { 99 } else { 10 + i64::from(*partition) }, 3), (5, 2)] {
                let offset = &mut next[*partition as usize];
                let price = 100 * i64::from(*partition) + event_us;
                batch.push_transaction(message(*partition, *offset), &trade("u", &symbol, quantity, price, event_us));
                *offset += 1;
            }
            worker.store(&batch, &mut patience().1).await.unwrap();
        }
    }
    // Partition p trades 3 at 100p + event cents and 2 at 100p + 5 cents.
    let notional: i64 = (0..6).map(|p| 3 * (100 * p + if p == 4 { 99 } else { 10 + p }) + 2 * (100 * p + 5)).sum();
    let expected = format!("12 30 {}.{:02} 4.99 720", notional / 100, notional % 100);
    assert_eq!(
        schema
            .rows("select trades, quantity, notional, last_price, count(*) from symbol_totals group by 1, 2, 3, 4")
            .await,
        [expected]
    );
}

fn permutations(length: i32) -> Vec<Vec<i32>> {
    if length == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(length - 1) {
        for place in 0..=shorter.len() {
            let mut longer = shorter.clone();
            longer.insert(place, length - 1);
            all.push(longer);
        }
    }
    all
}

#[tokio::test]
async fn a_user_in_two_partitions_is_added_up() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut first = schema.worker(topic_ref, "a", &[0]).await;
    // Partition 5 has no row: it is new in this stream and begins at 0.
    let mut second = schema.worker(topic_ref, "b", &[5]).await;
    first.store(&purchases(0, 0..7, "ann"), &mut patience().1).await.unwrap();
    second.store(&purchases(5, 0..4, "ann"), &mut patience().1).await.unwrap();
    first.store(&purchases(0, 7..9, "ann"), &mut patience().1).await.unwrap();
    assert_eq!(schema.rows("select user_id, purchases, spend from user_totals").await, ["ann 13 19.50"]);
    assert_eq!(
        schema.rows("select partition, version, last_offset from user_aggregates order by 1").await,
        ["0 2 8", "5 1 3"]
    );
}

#[tokio::test]
async fn windows_add_up_over_partitions_and_late_messages_count_in_their_own() {
    const MINUTE: i64 = 60_000_000;
    let schema = Schema::create().await;
    let topic_ref = schema.stream(2).await;
    let mut worker = schema.worker(topic_ref, "i", &[0, 1]).await;
    let at = |event_us| finstream::transaction::Transaction {
        event_time: finstream::clock::Micros(event_us),
        ..purchase("ann", 100 + event_us % 7)
    };
    let mut batch = Batch::new();
    // Partition 1 is late by nothing: it is its own watermark.
    for (partition, offset, event_us) in [(0, 0, MINUTE), (0, 1, 1), (1, 0, 2), (0, 2, 3 * MINUTE + 5), (1, 1, 3)] {
        batch.push_transaction(message(partition, offset), &at(event_us));
    }
    worker.store(&batch, &mut patience().1).await.unwrap();
    let mut trades = Batch::new();
    for (partition, offset, event_us, cents) in [(0, 3, 7, 500), (1, 2, 6, 900), (0, 4, 8, 100), (1, 3, 8, 300)] {
        trades.push_transaction(message(partition, offset), &trade("bob", "EA", 2, cents, event_us));
    }
    worker.store(&trades, &mut patience().1).await.unwrap();
    drop(worker);
    // Whoever takes over knows how far event time has come.
    let mut successor = schema.worker(topic_ref, "j", &[0, 1]).await;
    let mut last = Batch::new();
    last.push_transaction(message(0, 5), &at(2 * MINUTE));
    successor.store(&last, &mut patience().1).await.unwrap();

    let columns = "extract(epoch from window_start)::int as start, extract(epoch from window_end)::int as end";
    let query = format!(
        "select {columns}, category, purchases, spend, purchase_min, purchase_max, late, late_by_max from category_windows order by 1"
    );
    assert_eq!(
        schema.rows(&query).await,
        [
            "0 60 c 3 3.06 1.01 1.03 1 00:00:00",
            "60 120 c 1 1.04 1.04 1.04 0 00:00:00",
            "120 180 c 1 1.01 1.01 1.01 1 00:00:00.000005",
            "180 240 c 1 1.03 1.03 1.03 0 00:00:00"
        ]
    );
    let query = format!(
        "select {columns}, symbol, trades, quantity, notional, open, high, low, close, vwap, late, late_by_max from symbol_windows"
    );
    assert_eq!(schema.rows(&query).await, ["0 60 EA 4 8 36.00 9.00 9.00 1.00 3.00 4.50000000 2 00:02:00.000005"]);
}

#[tokio::test]
async fn windows_of_another_length_are_refused_with_the_cure() {
    use finstream::aggregate::WindowLength;
    let schema = Schema::create().await;
    let mut connection = schema.connect().await;
    let hour = WindowLength::from_micros(3_600_000_000);
    assert_eq!(claim_schema(&mut connection, "g", hour).await.unwrap(), hour.unwrap());
    assert_eq!(claim_schema(&mut connection, "g", None).await.unwrap(), hour.unwrap());
    let error = claim_schema(&mut connection, "g", Some(WindowLength::DEFAULT)).await.unwrap_err().to_string();
    assert!(error.contains("1h") && error.contains("1m") && error.contains("--db-schema"), "{error}");
}

#[tokio::test]
async fn messages_that_postgresql_refuses_become_dead_letters_and_the_rest_is_stored() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(2).await;
    schema.execute("alter table messages add constraint poison check (transaction_id <> 'poison')").await;
    let mut worker = schema.worker(topic_ref, "i", &[0, 1]).await;
    let mut batch = Batch::new();
    for offset in 0..50 {
        for partition in [0, 1] {
            let mut transaction = purchase("ann", 100);
            if (partition, offset) == (0, 17) || (partition, offset) == (1, 49) {
                transaction.transaction_id = "poison".into();
            }
            if (partition, offset) == (1, 0) {
                // Beyond the range of a timestamptz: SQLSTATE class 22.
                transaction.event_time = finstream::clock::Micros(i64::MIN);
            }
            batch.push_transaction(message(partition, offset), &transaction);
        }
    }
    let committed = worker.store(&batch, &mut patience().1).await.unwrap();
    assert_eq!(committed.parts.iter().map(|part| part.messages).sum::<u64>(), 97);
    assert_eq!(committed.next_offsets, [(0, 50), (1, 50)]);
    assert_eq!(
        schema.rows("select partition, \"offset\" from dead_letters order by 1, 2").await,
        ["0 17", "1 0", "1 49"]
    );
    assert_eq!(
        schema.rows("select count(*) from dead_letters where reason like 'refused by PostgreSQL: %'").await,
        ["3"]
    );
    assert_eq!(schema.rows("select purchases from user_totals").await, ["97"]);
    assert_eq!(schema.rows("select count(*) from messages").await, ["97"]);
    assert_eq!(schema.rows("select sum(messages), sum(dead_letters) from partition_offsets").await, ["97 3"]);
}

#[tokio::test]
async fn a_total_that_is_ahead_of_its_partition_stops_the_sink_and_stores_nothing() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    worker.store(&purchases(0, 0..2, "ann"), &mut patience().1).await.unwrap();
    schema.execute("update user_aggregates set last_offset = 1000").await;
    let mut batch = purchases(0, 2..3, "ann");
    batch.push_transaction(message(0, 3), &purchase("bob", 100));
    let error = worker.store(&batch, &mut patience().1).await.unwrap_err();
    assert!(matches!(&error, SinkError::Broken { what, .. } if what.contains("user_aggregates")), "{error}");
    assert_eq!(schema.rows("select next_offset from partition_offsets").await, ["2"]);
    assert_eq!(schema.rows("select count(*) from messages").await, ["2"]);
}

#[tokio::test]
async fn a_message_row_that_is_already_there_is_a_broken_invariant_not_a_dead_letter() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    schema
        .execute(&format!(
            "insert into messages (\"offset\", received_at, topic_ref, partition) values (1, now(), {topic_ref}, 0)"
        ))
        .await;
    let error = worker.store(&purchases(0, 0..3, "ann"), &mut patience().1).await.unwrap_err();
    assert!(matches!(error, SinkError::Broken { .. }), "{error}");
    assert_eq!(schema.rows("select count(*) from dead_letters").await, ["0"]);
}

#[tokio::test]
async fn another_group_or_another_cluster_is_refused_with_the_cure() {
    let schema = Schema::create().await;
    schema.stream(1).await;
    let mut connection = schema.connect().await;
    let error = claim_schema(&mut connection, "other", None).await.unwrap_err().to_string();
    assert!(error.contains("\"g\"") && error.contains("--db-schema"), "{error}");
    let error = open_stream(&mut connection, "elsewhere", "t", &[(0, 0)]).await.unwrap_err().to_string();
    assert!(
        error.contains("elsewhere") && error.contains("finstream reset") && error.contains("--db-schema"),
        "{error}"
    );
}

#[tokio::test]
async fn two_processes_that_see_a_new_topic_at_once_agree_on_one_life() {
    let schema = Schema::create().await;
    let (mut one, mut two) = (schema.connect().await, schema.connect().await);
    let (one, two) = tokio::join!(
        open_stream(&mut one, "c", "new", &[(0, 5), (1, 0)]),
        open_stream(&mut two, "c", "new", &[(0, 5), (1, 0)])
    );
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(schema.rows("select partition, next_offset from partition_offsets order by 1").await, ["0 5", "1 0"]);
}

#[tokio::test]
async fn a_reset_forward_records_the_gap_and_fences_who_runs() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    worker.store(&purchases(0, 0..10, "ann"), &mut patience().1).await.unwrap();
    let mut connection = schema.connect().await;
    let error = reset_forward(&mut connection, "t", 0, 10).await.unwrap_err();
    assert!(matches!(error, ResetError::NotForward { next_offset: 10, .. }), "{error}");
    assert_eq!(reset_forward(&mut connection, "t", 0, 25).await.unwrap(), 10);
    assert_eq!(schema.rows("select from_offset, to_offset from skipped_ranges").await, ["10 25"]);
    assert_eq!(worker.store(&purchases(0, 10..11, "ann"), &mut patience().1).await.unwrap().fenced, [0]);
    let partitions = progress(&mut connection, topic_ref).await.unwrap();
    assert_eq!((partitions[0].next_offset, &partitions[0].fingerprint), (25, &None));
}

#[tokio::test]
async fn a_new_life_keeps_the_old_totals_and_fences_its_consumers() {
    let schema = Schema::create().await;
    let old = schema.stream(2).await;
    let mut worker = schema.worker(old, "i", &[0, 1]).await;
    worker.store(&purchases(0, 0..10, "ann"), &mut patience().1).await.unwrap();
    let mut connection = schema.connect().await;
    let starts = [
        LifeStart { partition: 0, next_offset: 0, fingerprint: None, skipped_from: None },
        LifeStart { partition: 1, next_offset: 3, fingerprint: Some([9; 16]), skipped_from: None },
    ];
    let applied = progress(&mut connection, old).await.unwrap();
    let mut stale = applied.clone();
    stale[0].next_offset -= 1;
    let moved = open_new_life(&mut connection, "c", "t", &stale, &starts).await.unwrap_err();
    assert!(matches!(moved, ResetError::Moved { .. }), "{moved}");
    let new = open_new_life(&mut connection, "c", "t", &applied, &starts).await.unwrap();
    assert_eq!(worker.store(&purchases(0, 10..11, "ann"), &mut patience().1).await.unwrap().fenced, [0]);
    let stream = open_stream(&mut connection, "c", "t", &[]).await.unwrap();
    assert_eq!((stream.topic_ref, stream.life), (new, 2));
    let mut worker = schema.worker(new, "i", &[0]).await;
    worker.store(&purchases(0, 0..5, "ann"), &mut patience().1).await.unwrap();
    assert_eq!(schema.rows("select purchases from user_totals").await, ["15"]);
    assert_eq!(progress(&mut connection, new).await.unwrap()[1].fingerprint.as_deref(), Some([9; 16].as_slice()));
}
