//! Which totals have changed, and what they are now: read in one snapshot, deleted once they are published.

use sqlx::{Connection, PgConnection, Row};

use super::error::SinkError;

/// Change rows read at once, at most; a row names the totals of one batch and partition.
const CHANGES_MAX: i64 = 96;

/// One total as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// `user/ID/CUR` or `symbol/S`.
    pub key: String,
    /// JSON with the total, its version and the offsets that it includes.
    pub value: String,
}

/// Changed totals, with the change rows that they settle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Current values of everything that changed; a key occurs once.
    pub totals: Vec<Total>,
    rows: Vec<(i32, i32, i64)>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

const CHANGED: &str = "
select topic_ref, partition, last_offset, user_ids, user_currencies, symbols
from (
    select c.*, row_number() over (partition by c.topic_ref, c.partition order by c.last_offset) as place
    from aggregate_changes c
    where c.topic_ref in (select topic_ref from streams where topic = (select topic from streams where topic_ref = $1))
) in_offset_order
order by place
limit $2";

const USERS: &str = "
select 'user/' || a.user_id || '/' || a.currency, json_build_object(
    'user_id', a.user_id, 'currency', a.currency,
    'purchases', sum(a.purchases), 'spend', sum(a.spend)::text,
    'refunds', sum(a.refunds), 'refunded', sum(a.refunded)::text,
    'trades', sum(a.trades), 'traded', sum(a.traded)::text,
    'first_event', to_char(min(a.first_event) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'last_event', to_char(max(a.last_event) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'version', sum(a.version),
    'offsets', coalesce(json_object_agg(a.partition, p.next_offset - 1) filter (where a.topic_ref = $3), '{}'))::text
from unnest($1::text[], $2::text[]) as changed(user_id, currency)
join user_aggregates a on a.user_id = changed.user_id and a.currency = changed.currency
join partition_offsets p on p.topic_ref = a.topic_ref and p.partition = a.partition
group by a.user_id, a.currency";

const SYMBOLS: &str = "
select 'symbol/' || per_currency.symbol, json_build_object(
    'symbol', per_currency.symbol,
    'totals', json_object_agg(per_currency.currency, per_currency.total),
    'version', sum(per_currency.version),
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
    group by a.symbol, a.currency
) per_currency
group by per_currency.symbol";

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
    for row in sqlx::query(CHANGED).bind(topic_ref).bind(CHANGES_MAX).fetch_all(&mut *snapshot).await? {
        changes.rows.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let (user_ids, currencies): (Vec<String>, Vec<String>) = (row.try_get(3)?, row.try_get(4)?);
        users.extend(user_ids.into_iter().zip(currencies));
        symbols.extend(row.try_get::<Vec<String>, _>(5)?);
    }
    users.sort_unstable();
    users.dedup();
    symbols.sort_unstable();
    symbols.dedup();
    if !users.is_empty() {
        let (user_ids, currencies): (Vec<String>, Vec<String>) = users.into_iter().unzip();
        let rows = sqlx::query(USERS).bind(user_ids).bind(currencies).bind(topic_ref).fetch_all(&mut *snapshot).await?;
        changes.totals.extend(totals(rows)?);
    }
    if !symbols.is_empty() {
        let rows = sqlx::query(SYMBOLS).bind(symbols).bind(topic_ref).fetch_all(&mut *snapshot).await?;
        changes.totals.extend(totals(rows)?);
    }
    snapshot.commit().await?;
    Ok(Some(changes))
}

/// Deletes the change rows that were read: their totals, or later ones, are published.
pub async fn settle_changes(connection: &mut PgConnection, changes: &Changes) -> Result<(), SinkError> {
    let (mut topic_refs, mut partitions, mut last_offsets) = (Vec::new(), Vec::new(), Vec::new());
    for (topic_ref, partition, last_offset) in &changes.rows {
        topic_refs.push(*topic_ref);
        partitions.push(*partition);
        last_offsets.push(*last_offset);
    }
    sqlx::query(
        "delete from aggregate_changes c
         using unnest($1::integer[], $2::integer[], $3::bigint[]) as settled(topic_ref, partition, last_offset)
         where c.topic_ref = settled.topic_ref and c.partition = settled.partition
             and c.last_offset = settled.last_offset",
    )
    .bind(topic_refs)
    .bind(partitions)
    .bind(last_offsets)
    .execute(connection)
    .await?;
    Ok(())
}

fn totals(rows: Vec<sqlx::postgres::PgRow>) -> Result<Vec<Total>, SinkError> {
    rows.into_iter().map(|row| Ok(Total { key: row.try_get(0)?, value: row.try_get(1)? })).collect()
}
