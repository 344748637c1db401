//! The upserts of totals: sorted arrays in, one statement a table, guarded by offsets.
//!
//! A batch lies behind what its totals include, or nothing is written. A dead letter that is put through does not: its
//! guard is open, and the offset that totals include stays where it is.

use sqlx::PgConnection;

use super::columns::{CategoryWindowColumns, SymbolColumns, SymbolWindowColumns, UserColumns};
use super::prepare::{MoveColumns, Prepared};
use super::write::{Failure, expect_rows};

const UPSERT_USERS: &str = "
insert into user_aggregates as t (user_id, currency, topic_ref, partition, purchases, spend, refunds, refunded, trades,
    traded, declines, first_event, last_event, last_offset, version)
select user_id, currency, $1, partition, purchases, spend, refunds, refunded, trades, traded, declines, first_event,
    last_event, last_offset, 1
from unnest($2::text[], $3::text[], $4::integer[], $5::bigint[], $6::numeric[], $7::bigint[], $8::numeric[],
    $9::bigint[], $10::numeric[], $11::bigint[], $12::timestamptz[], $13::timestamptz[], $14::bigint[])
    as d(user_id, currency, partition, purchases, spend, refunds, refunded, trades, traded, declines, first_event,
    last_event, last_offset)
on conflict (user_id, currency, topic_ref, partition) do update
set purchases = t.purchases + excluded.purchases, spend = t.spend + excluded.spend,
    refunds = t.refunds + excluded.refunds, refunded = t.refunded + excluded.refunded,
    trades = t.trades + excluded.trades, traded = t.traded + excluded.traded, declines = t.declines + excluded.declines,
    first_event = least(t.first_event, excluded.first_event), last_event = greatest(t.last_event, excluded.last_event),
    last_offset = greatest(t.last_offset, excluded.last_offset), version = t.version + 1
where t.last_offset < ($16::bigint[])[array_position($15::integer[], t.partition)]";

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
    last_offset = greatest(t.last_offset, excluded.last_offset), version = t.version + 1
where t.last_offset < ($13::bigint[])[array_position($12::integer[], t.partition)]";

const UPSERT_CATEGORY_WINDOWS: &str = "
insert into category_window_aggregates as t (window_start, category, currency, topic_ref, partition, purchases, spend,
    purchase_min, purchase_max, refunds, refunded, late, late_us_max, last_offset, version)
select window_start, category, currency, $1, partition, purchases, spend, purchase_min, purchase_max, refunds, refunded,
    late, late_us_max, last_offset, 1
from unnest($2::timestamptz[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::numeric[], $8::numeric[],
    $9::numeric[], $10::bigint[], $11::numeric[], $12::bigint[], $13::bigint[], $14::bigint[])
    as d(window_start, category, currency, partition, purchases, spend, purchase_min, purchase_max, refunds, refunded,
    late, late_us_max, last_offset)
on conflict (window_start, category, currency, topic_ref, partition) do update
set purchases = t.purchases + excluded.purchases, spend = t.spend + excluded.spend,
    purchase_min = least(t.purchase_min, excluded.purchase_min),
    purchase_max = greatest(t.purchase_max, excluded.purchase_max),
    refunds = t.refunds + excluded.refunds, refunded = t.refunded + excluded.refunded,
    late = t.late + excluded.late, late_us_max = greatest(t.late_us_max, excluded.late_us_max),
    last_offset = greatest(t.last_offset, excluded.last_offset), version = t.version + 1
where t.last_offset < ($16::bigint[])[array_position($15::integer[], t.partition)]";

const UPSERT_SYMBOL_WINDOWS: &str = "
insert into symbol_window_aggregates as t (window_start, symbol, currency, topic_ref, partition, trades, quantity,
    notional, open_price, open_event, open_offset, high_price, low_price, close_price, close_event, close_offset, late,
    late_us_max, last_offset, version)
select window_start, symbol, currency, $1, partition, trades, quantity, notional, open_price, open_event, open_offset,
    high_price, low_price, close_price, close_event, close_offset, late, late_us_max, last_offset, 1
from unnest($2::timestamptz[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::numeric[], $8::numeric[],
    $9::numeric[], $10::timestamptz[], $11::bigint[], $12::numeric[], $13::numeric[], $14::numeric[],
    $15::timestamptz[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[])
    as d(window_start, symbol, currency, partition, trades, quantity, notional, open_price, open_event, open_offset,
    high_price, low_price, close_price, close_event, close_offset, late, late_us_max, last_offset)
on conflict (window_start, symbol, currency, topic_ref, partition) do update
set trades = t.trades + excluded.trades, quantity = t.quantity + excluded.quantity,
    notional = t.notional + excluded.notional,
    open_price = case when (excluded.open_event, excluded.open_offset) < (t.open_event, t.open_offset)
        then excluded.open_price else t.open_price end,
    open_offset = case when (excluded.open_event, excluded.open_offset) < (t.open_event, t.open_offset)
        then excluded.open_offset else t.open_offset end,
    open_event = least(t.open_event, excluded.open_event),
    high_price = greatest(t.high_price, excluded.high_price), low_price = least(t.low_price, excluded.low_price),
    close_price = case when (excluded.close_event, excluded.close_offset) > (t.close_event, t.close_offset)
        then excluded.close_price else t.close_price end,
    close_offset = case when (excluded.close_event, excluded.close_offset) > (t.close_event, t.close_offset)
        then excluded.close_offset else t.close_offset end,
    close_event = greatest(t.close_event, excluded.close_event),
    late = t.late + excluded.late, late_us_max = greatest(t.late_us_max, excluded.late_us_max),
    last_offset = greatest(t.last_offset, excluded.last_offset), version = t.version + 1
where t.last_offset < ($21::bigint[])[array_position($20::integer[], t.partition)]";

/// Adds a part's deltas to all totals.
pub(super) async fn upsert_totals(
    connection: &mut PgConnection,
    topic_ref: i32,
    prepared: &Prepared<'_>,
) -> Result<(), Failure> {
    let moves = &prepared.move_columns;
    upsert_users(connection, topic_ref, &prepared.users, moves).await?;
    upsert_symbols(connection, topic_ref, &prepared.symbols, moves).await?;
    upsert_category_windows(connection, topic_ref, &prepared.category_windows, moves).await?;
    upsert_symbol_windows(connection, topic_ref, &prepared.symbol_windows, moves).await
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
        .bind(&users.declines)
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

async fn upsert_category_windows(
    connection: &mut PgConnection,
    topic_ref: i32,
    windows: &CategoryWindowColumns<'_>,
    moves: &MoveColumns,
) -> Result<(), Failure> {
    if windows.starts.is_empty() {
        return Ok(());
    }
    let touched = sqlx::query(UPSERT_CATEGORY_WINDOWS)
        .bind(topic_ref)
        .bind(&windows.starts)
        .bind(&windows.categories)
        .bind(&windows.currencies)
        .bind(&windows.partitions)
        .bind(&windows.purchases)
        .bind(&windows.spend)
        .bind(&windows.purchase_mins)
        .bind(&windows.purchase_maxs)
        .bind(&windows.refunds)
        .bind(&windows.refunded)
        .bind(&windows.late)
        .bind(&windows.late_us_max)
        .bind(&windows.last_offsets)
        .bind(&moves.partitions)
        .bind(&moves.first_offsets)
        .execute(connection)
        .await?
        .rows_affected();
    expect_rows("category_window_aggregates", windows.starts.len() as u64, touched)
}

async fn upsert_symbol_windows(
    connection: &mut PgConnection,
    topic_ref: i32,
    windows: &SymbolWindowColumns<'_>,
    moves: &MoveColumns,
) -> Result<(), Failure> {
    if windows.starts.is_empty() {
        return Ok(());
    }
    let touched = sqlx::query(UPSERT_SYMBOL_WINDOWS)
        .bind(topic_ref)
        .bind(&windows.starts)
        .bind(&windows.symbols)
        .bind(&windows.currencies)
        .bind(&windows.partitions)
        .bind(&windows.trades)
        .bind(&windows.quantities)
        .bind(&windows.notionals)
        .bind(&windows.open_prices)
        .bind(&windows.open_events)
        .bind(&windows.open_offsets)
        .bind(&windows.high_prices)
        .bind(&windows.low_prices)
        .bind(&windows.close_prices)
        .bind(&windows.close_events)
        .bind(&windows.close_offsets)
        .bind(&windows.late)
        .bind(&windows.late_us_max)
        .bind(&windows.last_offsets)
        .bind(&moves.partitions)
        .bind(&moves.first_offsets)
        .execute(connection)
        .await?
        .rows_affected();
    expect_rows("symbol_window_aggregates", windows.starts.len() as u64, touched)
}
