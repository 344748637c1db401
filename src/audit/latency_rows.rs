//! The latency rows of one partition in the order of their offsets, whether they are stored one by one or packed.
//!
//! Rows come out of the primary key in order; packs are unpacked and sorted a window of offsets at a time, so that
//! neither side is ever held as a whole. COPY carries them, which costs both sides less than rows of a query.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::PgConnection;

use super::AuditError;
use super::rows::StoredMessage;
use crate::postgres::answered;

/// Offsets that are read at a time, and the packed ones of them sorted.
const WINDOW: i64 = 262_144;
/// Rows that the server has to send within the deadline.
const ROWS_PER_DEADLINE: usize = 4096;
/// A pack ends less than this behind any of its offsets: the check constraint of `message_packs`.
pub(super) const PACK_SPAN: i64 = 65_536;
/// COPY's binary form: signature and flags, then the length of an extension that no version of PostgreSQL writes.
const HEADER_BYTES: usize = 19;
/// Of a row: how many columns, and each with its length.
const ROW_BYTES: usize = 2 + (4 + 8) + (4 + 4) + (4 + 8);

/// The first row at or behind an offset, and the end of the first pack there.
const NEXT: &str = "
select (select min(\"offset\") from messages where topic_ref = $1 and partition = $2 and \"offset\" >= $3),
       (select min(last_offset) from message_packs where topic_ref = $1 and partition = $2 and last_offset >= $3)";

/// Rows within a range of offsets of a partition. Each window is a statement of its own.
pub(super) struct LatencyRows {
    pub topic_ref: i32,
    pub partition: i32,
    /// The first offset that was not read.
    pub from: i64,
    /// Where they end.
    pub to: i64,
    /// Longest wait for the next answer.
    pub row_deadline: Duration,
}

impl LatencyRows {
    /// The rows of the next window, all of those before `from` of now; none at the end.
    pub(super) async fn next(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Option<Vec<StoredMessage>>, AuditError> {
        let LatencyRows { topic_ref, partition, from, to: end, row_deadline } = *self;
        let next = sqlx::query_as(NEXT).bind(topic_ref).bind(partition).bind(from).fetch_one(&mut *connection);
        let (row, pack_end): (Option<i64>, Option<i64>) = answered(row_deadline, next).await?;
        // A pack that ends later begins here at the earliest.
        let pack = pack_end.map(|last| (last - PACK_SPAN + 1).max(from));
        let Some(first) = row.into_iter().chain(pack).min().filter(|first| *first < end) else {
            self.from = end;
            return Ok(None);
        };
        let mut to = first.saturating_add(WINDOW).min(end);
        let place = format!("where topic_ref = {topic_ref} and partition = {partition}");
        let rows = "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from messages";
        let packed = "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from unpacked_messages";
        let query = match pack {
            Some(pack) if pack <= first => {
                let within = format!("{place} and \"offset\" >= {first} and \"offset\" < {to}");
                let last = to.saturating_add(PACK_SPAN);
                let ends = format!("pack_last_offset >= {first} and pack_last_offset < {last}");
                format!("{rows} {within} union all {packed} {within} and {ends} order by 1")
            }
            // Nothing but rows up to the pack: the index has them in order.
            _ => {
                to = to.min(pack.unwrap_or(to));
                format!("{rows} {place} and \"offset\" >= {first} and \"offset\" < {to} order by \"offset\"")
            }
        };
        let found = copy_out(connection, row_deadline, &query).await?;
        self.from = to;
        Ok(Some(found))
    }
}

/// What a query of three columns gives.
async fn copy_out(
    connection: &mut PgConnection,
    row_deadline: Duration,
    query: &str,
) -> Result<Vec<StoredMessage>, AuditError> {
    let statement = format!("copy ({query}) to stdout with (format binary)");
    let mut stream = answered(row_deadline, connection.copy_out_raw(&statement)).await?;
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    let mut is_begun = false;
    loop {
        // One deadline for many rows: each looks at the clock, and the server sends rows one by one.
        let filling = async {
            for _ in 0..ROWS_PER_DEADLINE {
                let Some(bytes) = stream.try_next().await? else { return Ok(true) };
                unread.extend_from_slice(&bytes);
                if !is_begun && unread.len() < HEADER_BYTES {
                    continue;
                }
                let mut at = if is_begun { 0 } else { HEADER_BYTES };
                is_begun = true;
                while let Some(row) = unread.get(at..at + ROW_BYTES) {
                    found.push(stored_message(row)?);
                    at += ROW_BYTES;
                }
                unread.drain(..at);
            }
            Ok::<bool, sqlx::Error>(false)
        };
        if answered(row_deadline, filling).await? {
            return Ok(found);
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
