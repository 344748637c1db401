//! Which latency rows are beyond their time or their room, and their removal, a bounded number in a transaction.
//!
//! Must not decide whether they may go: what no balanced audit has covered stays, and that is for the caller to know.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::error::SinkError;
use crate::postgres::TRY_TO_LOCK_ROWS;

/// Disk of a message as a row of `messages`, with its index.
const ROW_BYTES: i64 = 125;
/// Disk of a row of `batches`, with its index. A slow stream has one for nearly each message, a fast one for thousands.
const BATCH_BYTES: f64 = 237.0;
/// Disk of a message in a pack.
const PACKED_BYTES: i64 = 30;
/// Offsets of a partition that are removed in one transaction.
const CUT_OFFSETS: i64 = 50_000;

/// Latency rows of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    pub partition: i32,
    /// Rows before this offset are gone.
    pub from: i64,
    /// Rows before this offset should go.
    pub to: i64,
    /// Everything before this offset was stored.
    pub next_offset: i64,
}

/// The first batch or pack that is young enough, and what there is of messages, packed ones among them.
const PARTITIONS: &str = "
select p.partition, coalesce(c.cut_before, p.first_offset), p.next_offset,
       least((select b.first_offset from batches b
              where b.topic_ref = p.topic_ref and b.partition = p.partition and b.last_offset >= coalesce(c.cut_before, 0)
                and b.processed_at >= now() - $2 * interval '1 microsecond'
              order by b.last_offset limit 1),
             (select m.first_offset from message_packs m
              where m.topic_ref = p.topic_ref and m.partition = p.partition and m.last_offset >= coalesce(c.cut_before, 0)
                and m.processed_at >= now() - $2 * interval '1 microsecond'
              order by m.last_offset limit 1)),
       coalesce((select sum(m.messages) from message_packs m
                 where m.topic_ref = p.topic_ref and m.partition = p.partition), 0)::bigint
from partition_offsets p
left join retention_cuts c using (topic_ref, partition)
where p.topic_ref = $1
order by p.partition";

/// Rows of `batches` for a row of `messages`, as PostgreSQL estimates them.
const BATCHES_PER_MESSAGE: &str = "
select least(greatest(b.reltuples, 0) / greatest(m.reltuples, 1), 1)::double precision
from pg_class b, pg_class m
where b.oid = 'batches'::regclass and m.oid = 'messages'::regclass";

/// Whether the last audit of a stream has found differences.
///
/// # Errors
/// PostgreSQL's answer.
pub async fn differs(connection: &mut PgConnection, topic_ref: i32) -> Result<bool, SinkError> {
    let asking = sqlx::query_scalar("select exists (select from audit_differences where topic_ref = $1)");
    Ok(asking.bind(topic_ref).fetch_one(connection).await?)
}

/// Writes down whether an audit of a stream has found differences.
///
/// # Errors
/// PostgreSQL's answer.
pub async fn set_differs(connection: &mut PgConnection, topic_ref: i32, differs: bool) -> Result<(), SinkError> {
    let statement = match differs {
        true => "insert into audit_differences (topic_ref) values ($1) on conflict do nothing",
        false => "delete from audit_differences where topic_ref = $1",
    };
    sqlx::query(statement).bind(topic_ref).execute(connection).await?;
    Ok(())
}

/// What of a stream's latency rows is older than `age_max`, or more than `bytes_max` for all of its partitions together.
///
/// Bytes are counted as messages times what one takes; rows that were removed leave room that the next ones take.
///
/// # Errors
/// PostgreSQL's answer.
pub async fn excess(
    connection: &mut PgConnection,
    topic_ref: i32,
    age_max: Duration,
    bytes_max: u64,
) -> Result<Vec<Excess>, SinkError> {
    let age_max_us = i64::try_from(age_max.as_micros()).unwrap_or(i64::MAX);
    let rows: Vec<(i32, i64, i64, Option<i64>, i64)> =
        sqlx::query_as(PARTITIONS).bind(topic_ref).bind(age_max_us).fetch_all(&mut *connection).await?;
    let batches: f64 = sqlx::query_scalar(BATCHES_PER_MESSAGE).fetch_one(connection).await?;
    let row_bytes = ROW_BYTES + (BATCH_BYTES * batches) as i64;
    let bytes = rows.iter().map(|(_, from, next_offset, _, packed)| {
        let kept = (next_offset - from).max(0);
        let packed = (*packed).min(kept);
        (kept - packed) * row_bytes + packed * PACKED_BYTES
    });
    let bytes = bytes.sum::<i64>().unsigned_abs();
    // All partitions give the same share of what they have.
    let share = (bytes.saturating_sub(bytes_max)) as f64 / bytes.max(1) as f64;
    let excess = rows.into_iter().map(|(partition, from, next_offset, young, _)| {
        let by_bytes = from + ((next_offset - from).max(0) as f64 * share) as i64;
        let to = young.unwrap_or(next_offset).max(by_bytes).clamp(from, next_offset.max(from));
        Excess { partition, from, to, next_offset }
    });
    Ok(excess.collect())
}

/// Removes the latency rows of a partition before an offset, on record; totals stay. While an audit reads rows, none are
/// removed: the caller tries again later.
///
/// # Errors
/// PostgreSQL's answer; what was removed before stays removed, and is on record.
pub async fn cut(
    connection: &mut PgConnection,
    topic_ref: i32,
    partition: i32,
    (from, to): (i64, i64),
) -> Result<u64, SinkError> {
    let (mut at, mut removed) = (from, 0);
    while at < to {
        at = to.min(at + CUT_OFFSETS);
        let mut transaction = connection.begin().await?;
        if !sqlx::query_scalar(TRY_TO_LOCK_ROWS).fetch_one(&mut *transaction).await? {
            break;
        }
        sqlx::query(
            "insert into retention_cuts as c (topic_ref, partition, cut_before) values ($1, $2, $3)
             on conflict (topic_ref, partition) do update
             set cut_before = greatest(c.cut_before, excluded.cut_before), cut_at = now()",
        )
        .bind(topic_ref)
        .bind(partition)
        .bind(at)
        .execute(&mut *transaction)
        .await?;
        for statement in [
            "delete from batches where topic_ref = $1 and partition = $2 and last_offset < $3",
            "delete from message_packs where topic_ref = $1 and partition = $2 and last_offset < $3",
            "delete from messages where topic_ref = $1 and partition = $2 and \"offset\" < $3",
        ] {
            let deleted = sqlx::query(statement).bind(topic_ref).bind(partition).bind(at);
            removed += deleted.execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
    }
    Ok(removed)
}
