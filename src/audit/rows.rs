//! Rows of PostgreSQL as the audit reads them, and the queries that give them.

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgRow;

/// A row or a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredMessage {
    pub offset: i64,
    /// 0: no run.
    pub run_ref: i32,
    pub sequence: i64,
}

/// A row of `user_aggregates`; sums as the server wrote them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredUser {
    pub user_id: String,
    pub currency: String,
    /// purchases, refunds, trades, declines
    pub counts: [i64; 4],
    /// spend, refunded, traded
    pub sums: [String; 3],
    /// first and last event, in microseconds
    pub events: [i64; 2],
}

/// A row of `symbol_aggregates`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredSymbol {
    pub symbol: String,
    pub currency: String,
    pub trades: i64,
    /// quantity, notional, last price
    pub sums: [String; 3],
    /// Event time in microseconds and offset of the last price.
    pub last: (i64, i64),
}

/// A row of `category_window_aggregates`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredCategoryWindow {
    /// Start in microseconds, category, currency.
    pub key: (i64, String, String),
    /// purchases, refunds
    pub counts: [i64; 2],
    /// spend, refunded
    pub sums: [String; 2],
    /// The smallest and the largest purchase.
    pub range: Option<[String; 2]>,
    /// How many were late, and by how many microseconds at most.
    pub late: [i64; 2],
}

/// A row of `symbol_window_aggregates`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredSymbolWindow {
    /// Start in microseconds, symbol, currency.
    pub key: (i64, String, String),
    pub trades: i64,
    /// quantity, notional
    pub sums: [String; 2],
    /// open, high, low, close
    pub prices: [String; 4],
    /// How many were late, and by how many microseconds at most.
    pub late: [i64; 2],
}

/// A total over all partitions and lives, as `finance.aggregates` should have it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredTotal {
    /// Its key in the topic.
    pub key: String,
    pub version: i64,
    /// Its fields, parted by blanks: counts, amounts, times in microseconds; `-` for nothing.
    pub fields: String,
}

pub(super) const DEAD_LETTERS: &str =
    "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from dead_letters
    where topic_ref = $1 and partition = $2 order by \"offset\"";
/// At the offsets $3; of packs those that end within [$4, $5).
pub(super) const ROWS_OF_LETTERS: &str = "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from messages
    where topic_ref = $1 and partition = $2 and \"offset\" = any($3)
    union all select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from unpacked_messages
    where topic_ref = $1 and partition = $2 and \"offset\" = any($3) and pack_last_offset >= $4 and pack_last_offset < $5
    order by 1";
pub(super) const EARLIER_ROWS: &str = "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from messages
    where topic_ref = $1
    union all select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from unpacked_messages
    where topic_ref = $1";
pub(super) const EARLIER_DEAD_LETTERS: &str =
    "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from dead_letters
    where topic_ref = $1";
pub(super) const USERS: &str =
    "select user_id, currency, purchases, refunds, trades, spend::text, refunded::text, traded::text,
    (extract(epoch from first_event) * 1000000)::bigint, (extract(epoch from last_event) * 1000000)::bigint, declines
    from user_aggregates where topic_ref = $1 and partition = $2";
pub(super) const SYMBOLS: &str = "select symbol, currency, trades, quantity::text, notional::text, last_price::text,
    (extract(epoch from last_price_event) * 1000000)::bigint, last_price_offset
    from symbol_aggregates where topic_ref = $1 and partition = $2";

pub(super) const CATEGORY_WINDOWS: &str =
    "select (extract(epoch from window_start) * 1000000)::bigint, category, currency,
    purchases, refunds, spend::text, refunded::text, purchase_min::text, purchase_max::text, late, late_us_max
    from category_window_aggregates where topic_ref = $1 and partition = $2";
pub(super) const SYMBOL_WINDOWS: &str = "select (extract(epoch from window_start) * 1000000)::bigint, symbol, currency,
    trades, quantity::text, notional::text, open_price::text, high_price::text, low_price::text, close_price::text,
    late, late_us_max
    from symbol_window_aggregates where topic_ref = $1 and partition = $2";

pub(super) fn message(row: &PgRow) -> Result<StoredMessage, sqlx::Error> {
    Ok(StoredMessage { offset: row.try_get(0)?, run_ref: row.try_get(1)?, sequence: row.try_get(2)? })
}

pub(super) fn user(row: &PgRow) -> Result<StoredUser, sqlx::Error> {
    Ok(StoredUser {
        user_id: row.try_get(0)?,
        currency: row.try_get(1)?,
        counts: [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(10)?],
        sums: [row.try_get(5)?, row.try_get(6)?, row.try_get(7)?],
        events: [row.try_get(8)?, row.try_get(9)?],
    })
}

pub(super) fn symbol(row: &PgRow) -> Result<StoredSymbol, sqlx::Error> {
    Ok(StoredSymbol {
        symbol: row.try_get(0)?,
        currency: row.try_get(1)?,
        trades: row.try_get(2)?,
        sums: [row.try_get(3)?, row.try_get(4)?, row.try_get(5)?],
        last: (row.try_get(6)?, row.try_get(7)?),
    })
}

pub(super) fn category_window(row: &PgRow) -> Result<StoredCategoryWindow, sqlx::Error> {
    let (min, max): (Option<String>, Option<String>) = (row.try_get(7)?, row.try_get(8)?);
    Ok(StoredCategoryWindow {
        key: (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?),
        counts: [row.try_get(3)?, row.try_get(4)?],
        sums: [row.try_get(5)?, row.try_get(6)?],
        range: min.zip(max).map(|(min, max)| [min, max]),
        late: [row.try_get(9)?, row.try_get(10)?],
    })
}

pub(super) fn symbol_window(row: &PgRow) -> Result<StoredSymbolWindow, sqlx::Error> {
    Ok(StoredSymbolWindow {
        key: (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?),
        trades: row.try_get(3)?,
        sums: [row.try_get(4)?, row.try_get(5)?],
        prices: [row.try_get(6)?, row.try_get(7)?, row.try_get(8)?, row.try_get(9)?],
        late: [row.try_get(10)?, row.try_get(11)?],
    })
}

/// Queries of [`StoredTotal`]s, one a kind; the parameter is all lives of the topic.
pub(super) const TOTALS: [&str; 4] = [
    "select 'user/' || user_id || '/' || currency, sum(version)::bigint,
        concat_ws(' ', sum(purchases), sum(spend), sum(refunds), sum(refunded), sum(trades), sum(traded),
            (extract(epoch from min(first_event)) * 1000000)::bigint,
            (extract(epoch from max(last_event)) * 1000000)::bigint, sum(declines))
    from user_aggregates where topic_ref = any($1) group by user_id, currency",
    "select 'symbol/' || symbol, sum(version)::bigint,
        string_agg(concat_ws(' ', currency, trades, quantity, notional, last_price, last_event), ' ' order by currency)
    from (
        select symbol, currency, sum(version) as version, sum(trades) as trades, sum(quantity) as quantity,
            sum(notional) as notional,
            (array_agg(last_price order by last_price_event desc, topic_ref desc, partition desc,
                last_price_offset desc))[1] as last_price,
            (extract(epoch from max(last_price_event)) * 1000000)::bigint as last_event
        from symbol_aggregates where topic_ref = any($1) group by symbol, currency
    ) per_currency
    group by symbol",
    "select concat_ws('/', 'window/category', to_char(window_start at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
            currency, category), sum(version)::bigint,
        concat_ws(' ', sum(purchases), sum(spend), coalesce(min(purchase_min)::text, '-'),
            coalesce(max(purchase_max)::text, '-'), sum(refunds), sum(refunded), sum(late), max(late_us_max))
    from category_window_aggregates where topic_ref = any($1) group by window_start, currency, category",
    "select concat_ws('/', 'window/symbol', to_char(window_start at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
            currency, symbol), sum(version)::bigint,
        concat_ws(' ', sum(trades), sum(quantity), sum(notional),
            (array_agg(open_price order by open_event, topic_ref, partition, open_offset))[1],
            max(high_price), min(low_price),
            (array_agg(close_price order by close_event desc, topic_ref desc, partition desc, close_offset desc))[1],
            sum(late), max(late_us_max))
    from symbol_window_aggregates where topic_ref = any($1) group by window_start, currency, symbol",
];

/// Keys whose totals have changed since they were published; of all lives of the topic.
pub(super) const WAITING: &str = "
select 'user/' || u.id || '/' || u.currency
from aggregate_changes c, unnest(c.user_ids, c.user_currencies) as u(id, currency)
where c.topic_ref = any($1)
union
select 'symbol/' || s.symbol from aggregate_changes c, unnest(c.symbols) as s(symbol)
where c.topic_ref = any($1)
union
select concat_ws('/', w.kind,
    to_char(to_timestamp(split_part(w.name, ' ', 1)::numeric / 1000000) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    split_part(w.name, ' ', 2), substr(w.name, strpos(w.name, ' ') + 5))
from (
    select 'window/category' as kind, unnest(category_windows) as name from aggregate_changes where topic_ref = any($1)
    union all
    select 'window/symbol', unnest(symbol_windows) from aggregate_changes where topic_ref = any($1)
) w";

pub(super) fn total(row: &PgRow) -> Result<StoredTotal, sqlx::Error> {
    Ok(StoredTotal { key: row.try_get(0)?, version: row.try_get(1)?, fields: row.try_get(2)? })
}
