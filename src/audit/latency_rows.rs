//! The latency rows of one partition in the order of their offsets, whether they are stored one by one or packed.
//!
//! Rows come out of the primary key in order; packs are unpacked and sorted a window of offsets at a time, so that
//! neither side is ever held as a whole. COPY carries them, which costs both sides less than rows of a query.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::rows::StoredMessage;
use super::stored::{PIECE_ROWS, Piece, Stop, send};
use crate::postgres::answered;

/// Offsets that are unpacked and sorted at a time.
const WINDOW: i64 = 262_144;
/// A pack ends less than this behind any of its offsets: the check constraint of `message_packs`.
const PACK_SPAN: i64 = 65_536;
/// COPY's binary form: signature and flags, then the length of an extension that no version of PostgreSQL writes.
const HEADER_BYTES: usize = 19;
/// Of a row: how many columns, and each with its length.
const ROW_BYTES: usize = 2 + (4 + 8) + (4 + 4) + (4 + 8);

/// The first row at or behind an offset, and the end of the first pack there.
const NEXT: &str = "
select (select min(\"offset\") from messages where topic_ref = $1 and partition = $2 and \"offset\" >= $3),
       (select min(last_offset) from message_packs where topic_ref = $1 and partition = $2 and last_offset >= $3)";

/// Sends all rows of a partition from `from` on, as pieces.
pub(super) async fn feed(
    connection: &mut PgConnection,
    row_deadline: Duration,
    (topic_ref, partition): (i32, i32),
    mut from: i64,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Stop> {
    loop {
        let next = sqlx::query_as(NEXT).bind(topic_ref).bind(partition).bind(from).fetch_one(&mut *connection);
        let (row, pack_end): (Option<i64>, Option<i64>) = answered(row_deadline, next).await?;
        // A pack that ends later begins here at the earliest.
        let pack = pack_end.map(|end| (end - PACK_SPAN + 1).max(from));
        let rows = "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from messages";
        let packed = "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from unpacked_messages";
        let place = format!("where topic_ref = {topic_ref} and partition = {partition}");
        let (query, to) = match (row, pack) {
            (None, None) => return Ok(()),
            // Nothing but rows up to there: the index has them in order.
            (Some(row), pack) if pack.is_none_or(|pack| pack > row) => {
                let to = pack.unwrap_or(i64::MAX);
                (format!("{rows} {place} and \"offset\" >= {from} and \"offset\" < {to} order by \"offset\""), to)
            }
            (_, pack) => {
                let start = pack.unwrap_or(from);
                let to = start.saturating_add(WINDOW);
                let within = format!("{place} and \"offset\" >= {start} and \"offset\" < {to}");
                let last = to.saturating_add(PACK_SPAN);
                let ends = format!("pack_last_offset >= {start} and pack_last_offset < {last}");
                (format!("{rows} {within} union all {packed} {within} and {ends} order by 1"), to)
            }
        };
        copy_out(connection, row_deadline, &query, pieces).await?;
        if to == i64::MAX {
            return Ok(());
        }
        from = to;
    }
}

/// Sends what a query of three columns gives.
async fn copy_out(
    connection: &mut PgConnection,
    row_deadline: Duration,
    query: &str,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Stop> {
    let statement = format!("copy ({query}) to stdout with (format binary)");
    let mut stream = answered(row_deadline, connection.copy_out_raw(&statement)).await?;
    let mut unread: Vec<u8> = Vec::new();
    let mut is_begun = false;
    loop {
        let mut piece = Vec::with_capacity(PIECE_ROWS);
        let filling = async {
            while piece.len() < PIECE_ROWS {
                let Some(bytes) = stream.try_next().await? else { return Ok(true) };
                unread.extend_from_slice(&bytes);
                if !is_begun && unread.len() < HEADER_BYTES {
                    continue;
                }
                let mut at = if is_begun { 0 } else { HEADER_BYTES };
                is_begun = true;
                while let Some(row) = unread.get(at..at + ROW_BYTES) {
                    piece.push(stored_message(row)?);
                    at += ROW_BYTES;
                }
                unread.drain(..at);
            }
            Ok::<bool, sqlx::Error>(false)
        };
        let is_ended = answered(row_deadline, filling).await?;
        if !piece.is_empty() {
            send(pieces, Piece::Rows(piece)).await?;
        }
        if is_ended {
            return Ok(());
        }
    }
}

fn stored_message(row: &[u8]) -> Result<StoredMessage, sqlx::Error> {
    let unexpected = || sqlx::Error::Protocol("COPY sent a row of another form than was asked for".to_owned());
    let int8 = |at: usize| row.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes);
    let int4 = |at: usize| row.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
    let is_expected = row.starts_with(&[0, 3]) && int4(2) == Some(8) && int4(14) == Some(4) && int4(22) == Some(8);
    if !is_expected {
        return Err(unexpected());
    }
    Ok(StoredMessage {
        offset: int8(6).ok_or_else(unexpected)?,
        run_ref: int4(18).ok_or_else(unexpected)?,
        sequence: int8(26).ok_or_else(unexpected)?,
    })
}
