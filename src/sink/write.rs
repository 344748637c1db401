//! The one transaction that writes a part of a batch.

use sqlx::{Connection, PgConnection, Row};

use super::copy::COPY_MESSAGES;
use super::prepare::{ChangeColumns, DeadLetterColumns, MoveColumns, Prepared, SymbolColumns, UserColumns};
use super::values::Time;
use crate::seam::{self, Seam};

/// Why a part was not written; nothing of it was, unless the connection broke at COMMIT.
#[derive(Debug)]
pub(super) enum Failure {
    /// The compare-and-set did not find every partition at its epoch and offset.
    Moved,
    /// PostgreSQL's answer, to be classified.
    Database(sqlx::Error),
    /// Rows were there that cannot be.
    Broken(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Failure::Database(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Database(sqlx::Error::Io(error))
    }
}

/// A batch row whose commit has been seen since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenCommit {
    pub partition: i32,
    pub last_offset: i64,
    pub committed_at: Time,
}

const COMPARE_AND_SET: &str = "
update partition_offsets p
set next_offset = m.next_offset, fingerprint = m.fingerprint, messages = p.messages + m.messages,
    dead_letters = p.dead_letters + m.dead_letters, updated_at = now()
from unnest($2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $7::integer[], $8::integer[])
    as m(partition, epoch, expected, next_offset, fingerprint, messages, dead_letters)
where p.topic_ref = $1 and p.partition = m.partition and p.owner_epoch = m.epoch and p.next_offset = m.expected";

const UPSERT_USERS: &str = "
insert into user_aggregates as t (user_id, currency, topic_ref, partition, purchases, spend, refunds, refunded, trades,
    traded, first_event, last_event, last_offset, version)
select user_id, currency, $1, partition, purchases, spend, refunds, refunded, trades, traded, first_event, last_event,
    last_offset, 1
from unnest($2::text[], $3::text[], $4::integer[], $5::bigint[], $6::numeric[], $7::bigint[], $8::numeric[],
    $9::bigint[], $10::numeric[], $11::timestamptz[], $12::timestamptz[], $13::bigint[])
    as d(user_id, currency, partition, purchases, spend, refunds, refunded, trades, traded, first_event, last_event,
    last_offset)
on conflict (user_id, currency, topic_ref, partition) do update
set purchases = t.purchases + excluded.purchases, spend = t.spend + excluded.spend,
    refunds = t.refunds + excluded.refunds, refunded = t.refunded + excluded.refunded,
    trades = t.trades + excluded.trades, traded = t.traded + excluded.traded,
    first_event = least(t.first_event, excluded.first_event), last_event = greatest(t.last_event, excluded.last_event),
    last_offset = excluded.last_offset, version = t.version + 1
where t.last_offset < ($15::bigint[])[array_position($14::integer[], t.partition)]";

const UPSERT_SYMBOLS: &str = "
insert into symbol_aggregates as t (symbol, currency, topic_ref, partition, trades, quantity, notional, last_price,
    last_price_event, last_price_offset, last_offset, version)
select symbol, currency, $1, partition, trades, quantity, notional, last_price, last_price_event, last_price_offset,
    last_offset, 1
from unnest($2::text[], $3::text[], $4::integer[], $5::bigint[], $6::numeric[], $7::numeric[], $8::numeric[],
    $9::timestamptz[], $10::bigint[], $11::bigint[])
    as d(symbol, currency, partition, trades, quantity, notional, last_price, last_price_event, last_price_offset,
    last_offset)
on conflict (symbol, currency, topic_ref, partition) do update
set trades = t.trades + excluded.trades, quantity = t.quantity + excluded.quantity,
    notional = t.notional + excluded.notional,
    last_price = case when (excluded.last_price_event, excluded.last_price_offset)
        > (t.last_price_event, t.last_price_offset) then excluded.last_price else t.last_price end,
    last_price_offset = case when (excluded.last_price_event, excluded.last_price_offset)
        > (t.last_price_event, t.last_price_offset) then excluded.last_price_offset else t.last_price_offset end,
    last_price_event = greatest(t.last_price_event, excluded.last_price_event),
    last_offset = excluded.last_offset, version = t.version + 1
where t.last_offset < ($13::bigint[])[array_position($12::integer[], t.partition)]";

const INSERT_DEAD_LETTERS: &str = "
insert into dead_letters (topic_ref, partition, \"offset\", received_at, reason, run_ref, sequence, key, payload)
select $1, d.* from unnest($2::integer[], $3::bigint[], $4::timestamptz[], $5::text[], $6::integer[], $7::bigint[],
    $8::bytea[], $9::bytea[]) as d";

/// The batches' rows, the changed totals, and the commits seen since the last transaction: one round trip.
const BOOKKEEPING: &str = "
with changed as (
    insert into aggregate_changes (topic_ref, partition, last_offset, user_ids, user_currencies, symbols)
    select $1, c.partition, c.last_offset, c.user_ids::text[], c.user_currencies::text[], c.symbols::text[]
    from unnest($7::integer[], $8::bigint[], $9::text[], $10::text[], $11::text[])
        as c(partition, last_offset, user_ids, user_currencies, symbols)
), seen as (
    update batches b set committed_at = s.committed_at
    from unnest($12::integer[], $13::bigint[], $14::timestamptz[]) as s(partition, last_offset, committed_at)
    where b.topic_ref = $1 and b.partition = s.partition and b.last_offset = s.last_offset
)
insert into batches (topic_ref, partition, first_offset, last_offset, messages, processed_at)
select $1, b.partition, b.first_offset, b.last_offset, b.messages, $6
from unnest($2::integer[], $3::bigint[], $4::bigint[], $5::integer[]) as b(partition, first_offset, last_offset, messages)";

/// What a transaction needs beside the encoded part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub topic_ref: i32,
    pub processed_at: Time,
    pub seen: &'a [SeenCommit],
    /// Whether someone will publish, and delete, the changes.
    pub record_changes: bool,
}

/// Writes a part in one transaction.
pub(super) async fn write(
    connection: &mut PgConnection,
    prepared: &Prepared<'_>,
    context: Context<'_>,
) -> Result<(), Failure> {
    let topic_ref = context.topic_ref;
    let mut transaction = connection.begin().await?;
    seam::reach(Seam::BeforeCompareAndSet).await?;
    compare_and_set(&mut transaction, topic_ref, &prepared.move_columns).await?;
    seam::reach(Seam::AfterCompareAndSet).await?;
    if prepared.rows > 0 {
        let mut copy = transaction.copy_in_raw(COPY_MESSAGES).await?;
        copy.send(prepared.copy.as_slice()).await?;
        seam::reach(Seam::InsideCopy).await?;
        expect_rows("messages", prepared.rows, copy.finish().await?)?;
        upsert_users(&mut transaction, topic_ref, &prepared.users, &prepared.move_columns).await?;
        upsert_symbols(&mut transaction, topic_ref, &prepared.symbols, &prepared.move_columns).await?;
    }
    insert_dead_letters(&mut transaction, topic_ref, &prepared.dead_letters).await?;
    keep_books(&mut transaction, prepared, context).await?;
    seam::reach(Seam::BeforeCommit).await?;
    transaction.commit().await?;
    seam::reach(Seam::AfterCommit).await?;
    Ok(())
}

/// Writes the commits seen since the last transaction, in a transaction of their own.
pub(super) async fn write_seen_commits(
    connection: &mut PgConnection,
    topic_ref: i32,
    seen: &[SeenCommit],
) -> Result<(), sqlx::Error> {
    let (partitions, last_offsets, times) = seen_columns(seen);
    sqlx::query(
        "update batches b set committed_at = s.committed_at
         from unnest($2::integer[], $3::bigint[], $4::timestamptz[]) as s(partition, last_offset, committed_at)
         where b.topic_ref = $1 and b.partition = s.partition and b.last_offset = s.last_offset",
    )
    .bind(topic_ref)
    .bind(partitions)
    .bind(last_offsets)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}

/// Epoch and progress of partitions, as they are committed now.
pub(super) async fn read_progress(
    connection: &mut PgConnection,
    topic_ref: i32,
    partitions: &[i32],
) -> Result<Vec<(i32, i64, i64)>, sqlx::Error> {
    let rows = sqlx::query(
        "select partition, owner_epoch, next_offset from partition_offsets
         where topic_ref = $1 and partition = any($2)",
    )
    .bind(topic_ref)
    .bind(partitions)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

async fn compare_and_set(connection: &mut PgConnection, topic_ref: i32, moves: &MoveColumns) -> Result<(), Failure> {
    let moved = sqlx::query(COMPARE_AND_SET)
        .bind(topic_ref)
        .bind(&moves.partitions)
        .bind(&moves.epochs)
        .bind(&moves.expected)
        .bind(&moves.next_offsets)
        .bind(&moves.fingerprints)
        .bind(&moves.messages)
        .bind(&moves.dead_letters)
        .execute(connection)
        .await?
        .rows_affected();
    if moved == moves.partitions.len() as u64 { Ok(()) } else { Err(Failure::Moved) }
}

async fn upsert_users(
    connection: &mut PgConnection,
    topic_ref: i32,
    users: &UserColumns<'_>,
    moves: &MoveColumns,
) -> Result<(), Failure> {
    let touched = sqlx::query(UPSERT_USERS)
        .bind(topic_ref)
        .bind(&users.user_ids)
        .bind(&users.currencies)
        .bind(&users.partitions)
        .bind(&users.purchases)
        .bind(&users.spend)
        .bind(&users.refunds)
        .bind(&users.refunded)
        .bind(&users.trades)
        .bind(&users.traded)
        .bind(&users.first_events)
        .bind(&users.last_events)
        .bind(&users.last_offsets)
        .bind(&moves.partitions)
        .bind(&moves.first_offsets)
        .execute(connection)
        .await?
        .rows_affected();
    expect_rows("user_aggregates", users.user_ids.len() as u64, touched)
}

async fn upsert_symbols(
    connection: &mut PgConnection,
    topic_ref: i32,
    symbols: &SymbolColumns<'_>,
    moves: &MoveColumns,
) -> Result<(), Failure> {
    if symbols.symbols.is_empty() {
        return Ok(());
    }
    let touched = sqlx::query(UPSERT_SYMBOLS)
        .bind(topic_ref)
        .bind(&symbols.symbols)
        .bind(&symbols.currencies)
        .bind(&symbols.partitions)
        .bind(&symbols.trades)
        .bind(&symbols.quantities)
        .bind(&symbols.notionals)
        .bind(&symbols.last_prices)
        .bind(&symbols.last_price_events)
        .bind(&symbols.last_price_offsets)
        .bind(&symbols.last_offsets)
        .bind(&moves.partitions)
        .bind(&moves.first_offsets)
        .execute(connection)
        .await?
        .rows_affected();
    expect_rows("symbol_aggregates", symbols.symbols.len() as u64, touched)
}

async fn insert_dead_letters(
    connection: &mut PgConnection,
    topic_ref: i32,
    letters: &DeadLetterColumns<'_>,
) -> Result<(), Failure> {
    if letters.offsets.is_empty() {
        return Ok(());
    }
    let inserted = sqlx::query(INSERT_DEAD_LETTERS)
        .bind(topic_ref)
        .bind(&letters.partitions)
        .bind(&letters.offsets)
        .bind(&letters.received_at)
        .bind(&letters.reasons)
        .bind(&letters.run_refs)
        .bind(&letters.sequences)
        .bind(&letters.keys)
        .bind(&letters.payloads)
        .execute(connection)
        .await?
        .rows_affected();
    expect_rows("dead_letters", letters.offsets.len() as u64, inserted)
}

async fn keep_books(
    connection: &mut PgConnection,
    prepared: &Prepared<'_>,
    context: Context<'_>,
) -> Result<(), Failure> {
    let moves = &prepared.move_columns;
    let nothing = ChangeColumns::default();
    let changes = if context.record_changes { &prepared.changes } else { &nothing };
    let (seen_partitions, seen_offsets, seen_times) = seen_columns(context.seen);
    sqlx::query(BOOKKEEPING)
        .bind(context.topic_ref)
        .bind(&moves.partitions)
        .bind(&moves.first_offsets)
        .bind(&moves.last_offsets)
        .bind(&moves.messages)
        .bind(context.processed_at)
        .bind(&changes.partitions)
        .bind(&changes.last_offsets)
        .bind(&changes.user_ids)
        .bind(&changes.user_currencies)
        .bind(&changes.symbols)
        .bind(seen_partitions)
        .bind(seen_offsets)
        .bind(seen_times)
        .execute(connection)
        .await?;
    Ok(())
}

fn seen_columns(seen: &[SeenCommit]) -> (Vec<i32>, Vec<i64>, Vec<Time>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for commit in seen {
        columns.0.push(commit.partition);
        columns.1.push(commit.last_offset);
        columns.2.push(commit.committed_at);
    }
    columns
}

/// After the compare-and-set, a row that was filtered or missing is a broken invariant, not a duplicate to swallow.
fn expect_rows(table: &str, sent: u64, touched: u64) -> Result<(), Failure> {
    if sent == touched {
        return Ok(());
    }
    Err(Failure::Broken(format!("{sent} rows were sent to {table}, {touched} were written")))
}
