//! The one transaction that writes a part of a batch.

use sqlx::{Connection, PgConnection, Row};

use super::columns::{ChangeColumns, insert_changes};
use super::prepare::{DeadLetterColumns, MoveColumns, Prepared};
use super::upsert::upsert_totals;
use super::values::Time;
use crate::config::LatencyLayout;
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
    pub first_offset: i64,
    pub last_offset: i64,
    pub committed_at: Time,
}

/// Rows are sent in pieces of this size.
const COPY_PIECE_BYTES: usize = 64 * 1024;

/// The rows are found by key first, as in `seen`. What is compared is compared again on the row itself: it may have
/// changed while its lock was waited for.
const COMPARE_AND_SET: &str = "
update partition_offsets p
set next_offset = m.next_offset, fingerprint = m.fingerprint, watermark = m.watermark,
    messages = p.messages + m.messages, dead_letters = p.dead_letters + m.dead_letters, updated_at = now()
from unnest($2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $7::timestamptz[], $8::integer[],
    $9::integer[]) as m(partition, epoch, expected, next_offset, fingerprint, watermark, messages, dead_letters)
cross join lateral (
    select k.ctid from partition_offsets k where k.topic_ref = $1 and k.partition = m.partition offset 0
) found
where p.ctid = found.ctid and p.owner_epoch = m.epoch and p.next_offset = m.expected";

const INSERT_DEAD_LETTERS: &str = "
insert into dead_letters (topic_ref, partition, \"offset\", received_at, reason, run_ref, sequence, key, payload, watermark)
select $1, d.* from unnest($2::integer[], $3::bigint[], $4::timestamptz[], $5::text[], $6::integer[], $7::bigint[],
    $8::bytea[], $9::bytea[], $10::timestamptz[]) as d";

/// Notes when rows of a table were seen to commit: those (k) that belong to a commit seen (s). The parameters are partitions,
/// first and last offsets, times.
///
/// Which rows they are is found by key first: joined as tables, all that is stored might be read for a few of them.
macro_rules! seen {
    ($table:literal, $belongs:literal, $parameters:literal) => {
        concat!(
            "update ",
            $table,
            " b set committed_at = s.committed_at
from unnest(",
            $parameters,
            ") as s(partition, first_offset, last_offset, committed_at)
cross join lateral (
    select k.ctid from ",
            $table,
            " k
    where k.topic_ref = $1 and k.partition = s.partition and ",
            $belongs,
            "
    offset 0
) found
where b.ctid = found.ctid"
        )
    };
}

macro_rules! seen_batches {
    ($parameters:literal) => {
        seen!("batches", "k.last_offset = s.last_offset", $parameters)
    };
}

/// Packs are batches' rows as well. One that was merged since keeps its times.
macro_rules! seen_packs {
    ($parameters:literal) => {
        seen!(
            "message_packs",
            "k.last_offset between s.first_offset and s.last_offset
        and k.first_offset >= s.first_offset and k.committed_at is null and k.committed_us is null",
            $parameters
        )
    };
}

/// The changed totals, the commits seen since the last transaction, and the batches' rows: one round trip.
const BOOKKEEPING: &str = concat!(
    "with changed as (",
    insert_changes!(),
    "), seen as (",
    seen_batches!("$9::integer[], $10::bigint[], $11::bigint[], $12::timestamptz[]"),
    ")
insert into batches (topic_ref, partition, first_offset, last_offset, messages, processed_at)
select $1, b.partition, b.first_offset, b.last_offset, b.messages, $17
from unnest($13::integer[], $14::bigint[], $15::bigint[], $16::integer[])
    as b(partition, first_offset, last_offset, messages)"
);

const BOOKKEEPING_OF_PACKS: &str = concat!(
    "with changed as (",
    insert_changes!(),
    ") ",
    seen_packs!("$9::integer[], $10::bigint[], $11::bigint[], $12::timestamptz[]")
);

const SEEN_BATCHES: &str = seen_batches!("$2::integer[], $3::bigint[], $4::bigint[], $5::timestamptz[]");
const SEEN_PACKS: &str = seen_packs!("$2::integer[], $3::bigint[], $4::bigint[], $5::timestamptz[]");

/// What a transaction needs beside the encoded part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub topic_ref: i32,
    pub processed_at: Time,
    pub layout: LatencyLayout,
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
    let rows = &prepared.rows;
    if rows.rows > 0 {
        let mut copy = transaction.copy_in_raw(rows.statement).await?;
        // In pieces: PostgreSQL takes a piece only when it has the whole of it, and then works while the next one comes.
        for piece in rows.bytes.chunks(COPY_PIECE_BYTES) {
            copy.send(piece).await?;
        }
        seam::reach(Seam::InsideCopy).await?;
        expect_rows(rows.table, rows.rows, copy.finish().await?)?;
        upsert_totals(&mut transaction, topic_ref, prepared).await?;
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
    layout: LatencyLayout,
    seen: &[SeenCommit],
) -> Result<(), sqlx::Error> {
    let seen = seen_columns(seen);
    let statement = match layout {
        LatencyLayout::Rows => SEEN_BATCHES,
        LatencyLayout::Packed => SEEN_PACKS,
    };
    sqlx::query(statement)
        .bind(topic_ref)
        .bind(seen.partitions)
        .bind(seen.first_offsets)
        .bind(seen.last_offsets)
        .bind(seen.times)
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
        .bind(&moves.watermarks)
        .bind(&moves.messages)
        .bind(&moves.dead_letters)
        .execute(connection)
        .await?
        .rows_affected();
    if moved == moves.partitions.len() as u64 { Ok(()) } else { Err(Failure::Moved) }
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
        .bind(&letters.watermarks)
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
    let seen = seen_columns(context.seen);
    let statement = sqlx::query(match context.layout {
        LatencyLayout::Rows => BOOKKEEPING,
        LatencyLayout::Packed => BOOKKEEPING_OF_PACKS,
    });
    let statement = changes
        .bind_to(statement.bind(context.topic_ref))
        .bind(seen.partitions)
        .bind(seen.first_offsets)
        .bind(seen.last_offsets)
        .bind(seen.times);
    let statement = match context.layout {
        LatencyLayout::Rows => statement
            .bind(&moves.partitions)
            .bind(&moves.first_offsets)
            .bind(&moves.last_offsets)
            .bind(&moves.messages)
            .bind(context.processed_at),
        LatencyLayout::Packed => statement,
    };
    statement.execute(connection).await?;
    Ok(())
}

/// Arrays of the commits seen.
#[derive(Debug, Default)]
struct SeenColumns {
    partitions: Vec<i32>,
    first_offsets: Vec<i64>,
    last_offsets: Vec<i64>,
    times: Vec<Time>,
}

fn seen_columns(seen: &[SeenCommit]) -> SeenColumns {
    let mut columns = SeenColumns::default();
    for commit in seen {
        columns.partitions.push(commit.partition);
        columns.first_offsets.push(commit.first_offset);
        columns.last_offsets.push(commit.last_offset);
        columns.times.push(commit.committed_at);
    }
    columns
}

/// After the compare-and-set, a row that was filtered or missing is a broken invariant, not a duplicate to swallow.
pub(super) fn expect_rows(table: &str, sent: u64, touched: u64) -> Result<(), Failure> {
    if sent == touched {
        return Ok(());
    }
    Err(Failure::Broken(format!("{sent} rows were sent to {table}, {touched} were written")))
}
