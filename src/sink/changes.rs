//! Which totals have changed, and what they are now: read in one snapshot, deleted once they are published.

use sqlx::{Connection, PgConnection, Row};

use super::error::SinkError;
use super::values::Time;
use crate::clock::Micros;

/// Change rows read at once, at most; a row names the totals of one batch and partition.
const CHANGES_MAX: i64 = 4_096;
/// Totals named in the change rows read at once, at most by one row more. A batch of a busy consumer names thousands, that of
/// an idle one a few: a bound on rows alone would be too many of the former or too few of the latter.
const CHANGED_TOTALS_MAX: i64 = 50_000;

/// Totals of one row when all are published again.
const TOTALS_PER_ROW: i64 = 500;

/// One total as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// `user/ID/CUR`, `symbol/S`, `window/category/START/CUR/CATEGORY` or `window/symbol/START/CUR/S`; START as
    /// 2026-11-30T12:00:00Z.
    pub key: String,
    /// JSON with the total over all lives of the topic, its version and the offsets that it includes.
    pub value: String,
}

/// Changed totals, with the change rows that they settle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Current values of everything that changed; a key occurs once.
    pub totals: Vec<Total>,
    rows: Vec<ChangeRow>,
    /// As many were read as are read at once: there may be more.
    pub is_full: bool,
}

/// A change row as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ChangeRow {
    topic_ref: i32,
    partition: i32,
    last_offset: i64,
    /// The transaction that wrote it: one that was added to since is another.
    written_by: String,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// By partition through the key: sorting all that waits would take longer than publishing it.
const CHANGED: &str = "
select topic_ref, partition, last_offset, written_by, user_ids, user_currencies, symbols, category_windows,
    symbol_windows, totals
from (
    select c.*, sum(c.totals) over (order by c.place, c.topic_ref, c.partition) as totals_so_far
    from partition_offsets p
    cross join lateral (
        select a.*, a.xmin::text as written_by, row_number() over (order by a.last_offset) as place,
            cardinality(a.user_ids) + cardinality(a.symbols) + cardinality(a.category_windows)
                + cardinality(a.symbol_windows) as totals
        from aggregate_changes a
        where a.topic_ref = p.topic_ref and a.partition = p.partition
        order by a.last_offset
        limit $2
    ) c
    where p.topic_ref = any($1)
) counted
where totals_so_far - totals < $3
order by place, topic_ref, partition
limit $2";

const USERS: &str = "
select 'user/' || a.user_id || '/' || a.currency, json_build_object(
    'user_id', a.user_id, 'currency', a.currency,
    'purchases', sum(a.purchases), 'spend', sum(a.spend)::text,
    'refunds', sum(a.refunds), 'refunded', sum(a.refunded)::text,
    'trades', sum(a.trades), 'traded', sum(a.traded)::text, 'declines', sum(a.declines),
    'first_event', to_char(min(a.first_event) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'last_event', to_char(max(a.last_event) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'books', (select books_id from schema_owner), 'stream', $3::integer, 'version', sum(a.version),
    'offsets', coalesce(json_object_agg(a.partition, p.next_offset - 1) filter (where a.topic_ref = $3), '{}'))::text
from unnest($1::text[], $2::text[]) as changed(user_id, currency)
join user_aggregates a on a.user_id = changed.user_id and a.currency = changed.currency
join partition_offsets p on p.topic_ref = a.topic_ref and p.partition = a.partition
where a.topic_ref = any($4)
group by a.user_id, a.currency";

const SYMBOLS: &str = "
select 'symbol/' || per_currency.symbol, json_build_object(
    'symbol', per_currency.symbol,
    'totals', json_object_agg(per_currency.currency, per_currency.total),
    'books', (select books_id from schema_owner), 'stream', $2::integer, 'version', sum(per_currency.version),
    'offsets', (
        select coalesce(json_object_agg(included.partition, included.last), '{}')
        from (
            select distinct p.partition, p.next_offset - 1 as last
            from symbol_aggregates s
            join partition_offsets p on p.topic_ref = s.topic_ref and p.partition = s.partition
            where s.symbol = per_currency.symbol and s.topic_ref = $2
        ) included
    ))::text
from (
    select a.symbol, a.currency, sum(a.version) as version, json_build_object(
        'trades', sum(a.trades), 'quantity', sum(a.quantity)::text, 'notional', sum(a.notional)::text,
        'last_price', (array_agg(a.last_price::text order by a.last_price_event desc, a.topic_ref desc,
            a.partition desc, a.last_price_offset desc))[1],
        'last_event', to_char(max(a.last_price_event) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
    ) as total
    from symbol_aggregates a
    where a.symbol = any($1)
        and a.topic_ref = any($3)
    group by a.symbol, a.currency
) per_currency
group by per_currency.symbol";

const CATEGORY_WINDOWS: &str = "
select concat_ws('/', 'window/category', to_char(w.start at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    w.currency, w.category), json_build_object(
    'category', w.category, 'currency', w.currency,
    'window_start', to_char(w.start at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'window_end', to_char(w.start at time zone 'utc' + make_interval(secs => (select window_us from schema_owner) / 1e6),
        'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'purchases', sum(a.purchases), 'spend', sum(a.spend)::text,
    'purchase_min', min(a.purchase_min)::text, 'purchase_max', max(a.purchase_max)::text,
    'refunds', sum(a.refunds), 'refunded', sum(a.refunded)::text,
    'late', sum(a.late), 'late_us_max', max(a.late_us_max),
    'books', (select books_id from schema_owner), 'stream', $4::integer, 'version', sum(a.version),
    'offsets', coalesce(json_object_agg(a.partition, p.next_offset - 1) filter (where a.topic_ref = $4), '{}'))::text
from unnest($1::timestamptz[], $2::text[], $3::text[]) as w(start, currency, category)
join category_window_aggregates a
    on a.window_start = w.start and a.category = w.category and a.currency = w.currency
join partition_offsets p on p.topic_ref = a.topic_ref and p.partition = a.partition
where a.topic_ref = any($5)
group by w.start, w.currency, w.category";

const SYMBOL_WINDOWS: &str = "
select concat_ws('/', 'window/symbol', to_char(w.start at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    w.currency, w.symbol), json_build_object(
    'symbol', w.symbol, 'currency', w.currency,
    'window_start', to_char(w.start at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'window_end', to_char(w.start at time zone 'utc' + make_interval(secs => (select window_us from schema_owner) / 1e6),
        'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'trades', sum(a.trades), 'quantity', sum(a.quantity)::text, 'notional', sum(a.notional)::text,
    'open', (array_agg(a.open_price::text order by a.open_event, a.topic_ref, a.partition, a.open_offset))[1],
    'high', max(a.high_price)::text, 'low', min(a.low_price)::text,
    'close', (array_agg(a.close_price::text order by a.close_event desc, a.topic_ref desc, a.partition desc,
        a.close_offset desc))[1],
    'vwap', round(sum(a.notional) / nullif(sum(a.quantity), 0), 8)::text,
    'late', sum(a.late), 'late_us_max', max(a.late_us_max),
    'books', (select books_id from schema_owner), 'stream', $4::integer, 'version', sum(a.version),
    'offsets', coalesce(json_object_agg(a.partition, p.next_offset - 1) filter (where a.topic_ref = $4), '{}'))::text
from unnest($1::timestamptz[], $2::text[], $3::text[]) as w(start, currency, symbol)
join symbol_window_aggregates a on a.window_start = w.start and a.symbol = w.symbol and a.currency = w.currency
join partition_offsets p on p.topic_ref = a.topic_ref and p.partition = a.partition
where a.topic_ref = any($5)
group by w.start, w.currency, w.symbol";

/// Reads what has changed, as long as partition 0 is owned under `epoch`; none when someone else owns it.
///
/// Values and offsets come from one snapshot, so a value includes exactly the offsets that it names.
pub async fn read_changes(
    connection: &mut PgConnection,
    topic_ref: i32,
    epoch: i64,
) -> Result<Option<Changes>, SinkError> {
    let mut snapshot = connection.begin_with("begin isolation level repeatable read read only").await?;
    let owner: Option<i64> =
        sqlx::query_scalar("select owner_epoch from partition_offsets where topic_ref = $1 and partition = 0")
            .bind(topic_ref)
            .fetch_optional(&mut *snapshot)
            .await?;
    if owner != Some(epoch) {
        return Ok(None);
    }
    let mut changes = Changes::default();
    let mut users: Vec<(String, String)> = Vec::new();
    let mut symbols: Vec<String> = Vec::new();
    let (mut category_windows, mut symbol_windows): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut named = 0;
    let lives = lives(&mut snapshot, topic_ref).await?;
    let changed = sqlx::query(CHANGED).bind(&lives).bind(CHANGES_MAX).bind(CHANGED_TOTALS_MAX);
    for row in changed.fetch_all(&mut *snapshot).await? {
        changes.rows.push(ChangeRow {
            topic_ref: row.try_get(0)?,
            partition: row.try_get(1)?,
            last_offset: row.try_get(2)?,
            written_by: row.try_get(3)?,
        });
        let (user_ids, currencies): (Vec<String>, Vec<String>) = (row.try_get(4)?, row.try_get(5)?);
        users.extend(user_ids.into_iter().zip(currencies));
        symbols.extend(row.try_get::<Vec<String>, _>(6)?);
        category_windows.extend(row.try_get::<Vec<String>, _>(7)?);
        symbol_windows.extend(row.try_get::<Vec<String>, _>(8)?);
        named += i64::from(row.try_get::<i32, _>(9)?);
    }
    changes.is_full = named >= CHANGED_TOTALS_MAX || changes.rows.len() as i64 >= CHANGES_MAX;
    users.sort_unstable();
    users.dedup();
    symbols.sort_unstable();
    symbols.dedup();
    if !users.is_empty() {
        let (user_ids, currencies): (Vec<String>, Vec<String>) = users.into_iter().unzip();
        let users = sqlx::query(USERS).bind(user_ids).bind(currencies).bind(topic_ref).bind(&lives);
        changes.totals.extend(totals(users.fetch_all(&mut *snapshot).await?)?);
    }
    if !symbols.is_empty() {
        let symbols = sqlx::query(SYMBOLS).bind(symbols).bind(topic_ref).bind(&lives);
        changes.totals.extend(totals(symbols.fetch_all(&mut *snapshot).await?)?);
    }
    for (sql, names) in [(CATEGORY_WINDOWS, category_windows), (SYMBOL_WINDOWS, symbol_windows)] {
        changes.totals.extend(windows(&mut snapshot, sql, names, topic_ref, &lives).await?);
    }
    snapshot.commit().await?;
    Ok(Some(changes))
}

/// Notes every total as changed: nothing of them is published any more, or was ever.
const CHANGE_ALL: &str = "
insert into aggregate_changes (topic_ref, partition, last_offset, user_ids, user_currencies, symbols, category_windows,
    symbol_windows)
select $1, 0, -1 - row_number() over (), coalesce(array_agg(name) filter (where kind = 0), '{}'),
    coalesce(array_agg(currency) filter (where kind = 0), '{}'),
    coalesce(array_agg(name) filter (where kind = 1), '{}'), coalesce(array_agg(name) filter (where kind = 2), '{}'),
    coalesce(array_agg(name) filter (where kind = 3), '{}')
from (
    select kind, name, currency, (row_number() over () - 1) / $2 as chunk
    from (
        select distinct 0 as kind, user_id as name, currency from user_aggregates where topic_ref = any($3)
        union all
        select distinct 1, symbol, null from symbol_aggregates where topic_ref = any($3)
        union all
        select distinct 2, concat_ws(' ', (extract(epoch from window_start) * 1000000)::bigint, currency, category), null
        from category_window_aggregates where topic_ref = any($3)
        union all
        select distinct 3, concat_ws(' ', (extract(epoch from window_start) * 1000000)::bigint, currency, symbol), null
        from symbol_window_aggregates where topic_ref = any($3)
    ) totals
) chunks
group by chunk";

/// Has every total published again: the topic that they were published to is not there (any more).
pub async fn change_all(connection: &mut PgConnection, topic_ref: i32) -> Result<(), SinkError> {
    let lives = lives(connection, topic_ref).await?;
    let mut transaction = connection.begin().await?;
    // What is left of another time names some of the same.
    sqlx::query("delete from aggregate_changes where topic_ref = $1 and partition = 0 and last_offset < 0")
        .bind(topic_ref)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(CHANGE_ALL).bind(topic_ref).bind(TOTALS_PER_ROW).bind(lives).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// All lives of a stream's topic.
async fn lives(connection: &mut PgConnection, topic_ref: i32) -> Result<Vec<i32>, SinkError> {
    let lives = sqlx::query_scalar(
        "select topic_ref from streams where topic = (select topic from streams where topic_ref = $1)",
    );
    Ok(lives.bind(topic_ref).fetch_all(connection).await?)
}

/// Deletes the change rows that were read: their totals, or later ones, are published. One that was added to since stays.
pub async fn settle_changes(connection: &mut PgConnection, changes: &Changes) -> Result<(), SinkError> {
    let (mut topic_refs, mut partitions, mut last_offsets, mut written_by) = (vec![], vec![], vec![], vec![]);
    for row in &changes.rows {
        topic_refs.push(row.topic_ref);
        partitions.push(row.partition);
        last_offsets.push(row.last_offset);
        written_by.push(row.written_by.as_str());
    }
    sqlx::query(
        "delete from aggregate_changes c
         using unnest($1::integer[], $2::integer[], $3::bigint[], $4::text[])
             as settled(topic_ref, partition, last_offset, written_by)
         where c.topic_ref = settled.topic_ref and c.partition = settled.partition
             and c.last_offset = settled.last_offset and c.xmin::text = settled.written_by",
    )
    .bind(topic_refs)
    .bind(partitions)
    .bind(last_offsets)
    .bind(written_by)
    .execute(connection)
    .await?;
    Ok(())
}

async fn windows(
    snapshot: &mut PgConnection,
    sql: &'static str,
    mut names: Vec<String>,
    topic_ref: i32,
    lives: &[i32],
) -> Result<Vec<Total>, SinkError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    names.sort_unstable();
    names.dedup();
    let (mut starts, mut currencies, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        let Some((start, currency, key)) = parse_window_name(name) else {
            let what = format!("aggregate_changes names a window {name:?}, which is not START CURRENCY NAME");
            return Err(SinkError::Broken { topic_ref, what });
        };
        starts.push(Time(start));
        currencies.push(currency);
        keys.push(key);
    }
    let windows = sqlx::query(sql).bind(starts).bind(currencies).bind(keys).bind(topic_ref).bind(lives);
    totals(windows.fetch_all(snapshot).await?)
}

/// As `columns` has written it.
fn parse_window_name(name: &str) -> Option<(Micros, &str, &str)> {
    let mut parts = name.splitn(3, ' ');
    let start = parts.next()?.parse().ok()?;
    Some((Micros(start), parts.next()?, parts.next()?))
}

fn totals(rows: Vec<sqlx::postgres::PgRow>) -> Result<Vec<Total>, SinkError> {
    rows.into_iter().map(|row| Ok(Total { key: row.try_get(0)?, value: row.try_get(1)? })).collect()
}
