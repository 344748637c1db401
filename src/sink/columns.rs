//! The arrays that a part's totals travel in, one element a row.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use super::prepare::Move;
use super::values::{Numeric, Time, text_array_literal};
use crate::aggregate::{Deltas, NotExact};
use crate::clock::Micros;
use crate::transaction::Currency;

/// Arrays of the upsert of `user_aggregates`.
#[derive(Debug, Default)]
pub(super) struct UserColumns<'a> {
    pub user_ids: Vec<&'a str>,
    pub currencies: Vec<String>,
    pub partitions: Vec<i32>,
    pub purchases: Vec<i64>,
    pub spend: Vec<Numeric>,
    pub refunds: Vec<i64>,
    pub refunded: Vec<Numeric>,
    pub trades: Vec<i64>,
    pub traded: Vec<Numeric>,
    pub declines: Vec<i64>,
    pub first_events: Vec<Time>,
    pub last_events: Vec<Time>,
    pub last_offsets: Vec<i64>,
}

/// Arrays of the upsert of `symbol_aggregates`.
#[derive(Debug, Default)]
pub(super) struct SymbolColumns<'a> {
    pub symbols: Vec<&'a str>,
    pub currencies: Vec<String>,
    pub partitions: Vec<i32>,
    pub trades: Vec<i64>,
    pub quantities: Vec<Numeric>,
    pub notionals: Vec<Numeric>,
    pub last_prices: Vec<Numeric>,
    pub last_price_events: Vec<Time>,
    pub last_price_offsets: Vec<i64>,
    pub last_offsets: Vec<i64>,
}

/// Arrays of the upsert of `category_window_aggregates`.
#[derive(Debug, Default)]
pub(super) struct CategoryWindowColumns<'a> {
    pub starts: Vec<Time>,
    pub categories: Vec<&'a str>,
    pub currencies: Vec<String>,
    pub partitions: Vec<i32>,
    pub purchases: Vec<i64>,
    pub spend: Vec<Numeric>,
    pub purchase_mins: Vec<Option<Numeric>>,
    pub purchase_maxs: Vec<Option<Numeric>>,
    pub refunds: Vec<i64>,
    pub refunded: Vec<Numeric>,
    pub late: Vec<i64>,
    pub late_us_max: Vec<i64>,
    pub last_offsets: Vec<i64>,
}

/// Arrays of the upsert of `symbol_window_aggregates`.
#[derive(Debug, Default)]
pub(super) struct SymbolWindowColumns<'a> {
    pub starts: Vec<Time>,
    pub symbols: Vec<&'a str>,
    pub currencies: Vec<String>,
    pub partitions: Vec<i32>,
    pub trades: Vec<i64>,
    pub quantities: Vec<Numeric>,
    pub notionals: Vec<Numeric>,
    pub open_prices: Vec<Numeric>,
    pub open_events: Vec<Time>,
    pub open_offsets: Vec<i64>,
    pub high_prices: Vec<Numeric>,
    pub low_prices: Vec<Numeric>,
    pub close_prices: Vec<Numeric>,
    pub close_events: Vec<Time>,
    pub close_offsets: Vec<i64>,
    pub late: Vec<i64>,
    pub late_us_max: Vec<i64>,
    pub last_offsets: Vec<i64>,
}

/// Arrays of `aggregate_changes`, one element a partition; all but the first two hold array literals.
#[derive(Debug, Default)]
pub(super) struct ChangeColumns {
    pub partitions: Vec<i32>,
    pub last_offsets: Vec<i64>,
    pub user_ids: Vec<String>,
    pub user_currencies: Vec<String>,
    pub symbols: Vec<String>,
    pub category_windows: Vec<String>,
    pub symbol_windows: Vec<String>,
}

/// Inserts [`ChangeColumns`] as `c`, whose arrays are $2 to $8; $1 is the stream.
macro_rules! insert_changes {
    () => {
        "insert into aggregate_changes as c (topic_ref, partition, last_offset, user_ids, user_currencies, symbols,
    category_windows, symbol_windows)
select $1, n.partition, n.last_offset, n.user_ids::text[], n.user_currencies::text[], n.symbols::text[],
    n.category_windows::text[], n.symbol_windows::text[]
from unnest($2::integer[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
    as n(partition, last_offset, user_ids, user_currencies, symbols, category_windows, symbol_windows)"
    };
}
pub(super) use insert_changes;

impl ChangeColumns {
    /// Binds the arrays of [`insert_changes`].
    pub(super) fn bind_to<'q>(
        &'q self,
        statement: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        statement
            .bind(&self.partitions)
            .bind(&self.last_offsets)
            .bind(&self.user_ids)
            .bind(&self.user_currencies)
            .bind(&self.symbols)
            .bind(&self.category_windows)
            .bind(&self.symbol_windows)
    }
}

/// Sorted by key over all partitions: rows are locked in one order everywhere, so that a replay cannot deadlock.
pub(super) fn user_columns<'a>(deltas: &[(i32, Deltas<'a>)]) -> UserColumns<'a> {
    let mut sorted: Vec<_> =
        deltas.iter().flat_map(|(partition, deltas)| deltas.users.iter().map(move |user| (*partition, user))).collect();
    sorted.sort_unstable_by_key(|(partition, user)| (user.user_id, user.currency, *partition));
    let mut columns = UserColumns::default();
    for (partition, user) in sorted {
        columns.user_ids.push(user.user_id);
        columns.currencies.push(user.currency.to_string());
        columns.partitions.push(partition);
        columns.purchases.push(user.purchases);
        columns.spend.push(user.spend.into());
        columns.refunds.push(user.refunds);
        columns.refunded.push(user.refunded.into());
        columns.trades.push(user.trades);
        columns.traded.push(user.traded.into());
        columns.declines.push(user.declines);
        columns.first_events.push(Time(user.first_event));
        columns.last_events.push(Time(user.last_event));
        columns.last_offsets.push(user.last_offset);
    }
    columns
}

pub(super) fn symbol_columns<'a>(deltas: &[(i32, Deltas<'a>)]) -> Result<SymbolColumns<'a>, NotExact> {
    let mut sorted: Vec<_> = deltas
        .iter()
        .flat_map(|(partition, deltas)| deltas.symbols.iter().map(move |symbol| (*partition, symbol)))
        .collect();
    sorted.sort_unstable_by_key(|(partition, symbol)| (symbol.symbol, symbol.currency, *partition));
    let mut columns = SymbolColumns::default();
    for (partition, symbol) in sorted {
        let last_price = symbol.last_price;
        columns.symbols.push(symbol.symbol);
        columns.currencies.push(symbol.currency.to_string());
        columns.partitions.push(partition);
        columns.trades.push(symbol.trades);
        columns.quantities.push(Numeric::integer(symbol.quantity));
        columns.notionals.push(symbol.notional.into());
        columns.last_prices.push(Numeric::exact(last_price.price)?);
        columns.last_price_events.push(Time(last_price.event_time));
        columns.last_price_offsets.push(last_price.offset);
        columns.last_offsets.push(symbol.last_offset);
    }
    Ok(columns)
}

pub(super) fn change_columns(moves: &[Move], deltas: &[(i32, Deltas<'_>)]) -> ChangeColumns {
    let mut columns = ChangeColumns::default();
    for (step, (partition, deltas)) in moves.iter().zip(deltas) {
        if deltas.users.is_empty() {
            continue;
        }
        columns.partitions.push(*partition);
        columns.last_offsets.push(step.last_offset);
        columns.user_ids.push(text_array_literal(deltas.users.iter().map(|user| user.user_id)));
        columns.user_currencies.push(text_array_literal(deltas.users.iter().map(|user| user.currency.as_str())));
        let mut symbols: Vec<&str> = deltas.symbols.iter().map(|symbol| symbol.symbol).collect();
        symbols.dedup();
        columns.symbols.push(text_array_literal(symbols));
        columns.category_windows.push(window_names(
            deltas.category_windows.iter().map(|window| (window.start, window.currency, window.category)),
        ));
        columns.symbol_windows.push(window_names(
            deltas.symbol_windows.iter().map(|window| (window.start, window.currency, window.symbol)),
        ));
    }
    columns
}

/// Sorted likewise.
pub(super) fn category_window_columns<'a>(deltas: &[(i32, Deltas<'a>)]) -> Result<CategoryWindowColumns<'a>, NotExact> {
    let mut sorted: Vec<_> = deltas
        .iter()
        .flat_map(|(partition, deltas)| deltas.category_windows.iter().map(move |window| (*partition, window)))
        .collect();
    sorted.sort_unstable_by_key(|(partition, window)| (window.start, window.category, window.currency, *partition));
    let mut columns = CategoryWindowColumns::default();
    for (partition, window) in sorted {
        let (min, max) = window.purchase_range.unzip();
        columns.starts.push(Time(window.start));
        columns.categories.push(window.category);
        columns.currencies.push(window.currency.to_string());
        columns.partitions.push(partition);
        columns.purchases.push(window.purchases);
        columns.spend.push(window.spend.into());
        columns.purchase_mins.push(min.map(Numeric::exact).transpose()?);
        columns.purchase_maxs.push(max.map(Numeric::exact).transpose()?);
        columns.refunds.push(window.refunds);
        columns.refunded.push(window.refunded.into());
        columns.late.push(window.late.messages);
        columns.late_us_max.push(window.late.us_max);
        columns.last_offsets.push(window.last_offset);
    }
    Ok(columns)
}

/// Sorted likewise.
pub(super) fn symbol_window_columns<'a>(deltas: &[(i32, Deltas<'a>)]) -> Result<SymbolWindowColumns<'a>, NotExact> {
    let mut sorted: Vec<_> = deltas
        .iter()
        .flat_map(|(partition, deltas)| deltas.symbol_windows.iter().map(move |window| (*partition, window)))
        .collect();
    sorted.sort_unstable_by_key(|(partition, window)| (window.start, window.symbol, window.currency, *partition));
    let mut columns = SymbolWindowColumns::default();
    for (partition, window) in sorted {
        columns.starts.push(Time(window.start));
        columns.symbols.push(window.symbol);
        columns.currencies.push(window.currency.to_string());
        columns.partitions.push(partition);
        columns.trades.push(window.trades);
        columns.quantities.push(Numeric::integer(window.quantity));
        columns.notionals.push(window.notional.into());
        columns.open_prices.push(Numeric::exact(window.open.price)?);
        columns.open_events.push(Time(window.open.event_time));
        columns.open_offsets.push(window.open.offset);
        columns.high_prices.push(Numeric::exact(window.high)?);
        columns.low_prices.push(Numeric::exact(window.low)?);
        columns.close_prices.push(Numeric::exact(window.close.price)?);
        columns.close_events.push(Time(window.close.event_time));
        columns.close_offsets.push(window.close.offset);
        columns.late.push(window.late.messages);
        columns.late_us_max.push(window.late.us_max);
        columns.last_offsets.push(window.last_offset);
    }
    Ok(columns)
}

/// The names of windows as `aggregate_changes` keeps them.
fn window_names<'a>(windows: impl Iterator<Item = (Micros, Currency, &'a str)>) -> String {
    let names: Vec<String> = windows.map(|(start, currency, name)| format!("{} {currency} {name}", start.0)).collect();
    text_array_literal(names.iter().map(String::as_str))
}
