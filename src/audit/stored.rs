//! PostgreSQL's side: one repeatable-read snapshot, handed over piece by piece in the order of the comparison.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{AuditError, rows};
use crate::postgres::{Database, answered};
use crate::transaction::RunId;

/// Longest wait for the answer to a small question.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for the next row: the server may have to sort or to look through all of a large table first.
const ROW_DEADLINE: Duration = Duration::from_secs(600);
/// Rows of one piece.
const PIECE_ROWS: usize = 4096;
/// Pieces that wait for the comparison, at most.
pub(super) const PIECES_MAX: usize = 8;

/// A row or a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredMessage {
    pub offset: i64,
    /// 0: no run.
    pub run_ref: i32,
    pub sequence: i64,
}

/// A row of `user_aggregates`; sums as the server wrote them.
#[derive(Clone, Debug)]
pub(super) struct StoredUser {
    pub user_id: String,
    pub currency: String,
    /// purchases, refunds, trades
    pub counts: [i64; 3],
    /// spend, refunded, traded
    pub sums: [String; 3],
    /// first and last event, in microseconds
    pub events: [i64; 2],
}

/// A row of `symbol_aggregates`.
#[derive(Clone, Debug)]
pub(super) struct StoredSymbol {
    pub symbol: String,
    pub currency: String,
    pub trades: i64,
    /// quantity, notional, last price
    pub sums: [String; 3],
    /// Event time in microseconds and offset of the last price.
    pub last: (i64, i64),
}

/// What the feeder sends, in this order for each partition: dead letters (one piece), rows, `RowsEnd`, users and symbols,
/// `PartitionEnd`. Messages of earlier lives come before all partitions.
#[derive(Debug)]
pub(super) enum Piece {
    /// Rows of earlier lives of the topic.
    EarlierRows(Vec<StoredMessage>),
    /// Dead letters of earlier lives.
    EarlierDeadLetters(Vec<StoredMessage>),
    /// All dead letters of a partition, by offset.
    DeadLetters(Vec<StoredMessage>),
    /// Rows of a partition, by offset.
    Rows(Vec<StoredMessage>),
    /// No more rows of this partition.
    RowsEnd,
    Users(Vec<StoredUser>),
    Symbols(Vec<StoredSymbol>),
    /// No more of this partition.
    PartitionEnd,
}

/// How far a partition was applied, and what a person agreed to skip in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionState {
    /// Where this life begins.
    pub first_offset: i64,
    pub next_offset: i64,
    /// Messages that were counted into the totals in this life.
    pub messages: i64,
    /// [from, to)
    pub skipped: Vec<(i64, i64)>,
}

/// The snapshot's small things.
#[derive(Clone, Debug, Default)]
pub(super) struct Overview {
    /// The topic's current life.
    pub topic_ref: Option<i32>,
    pub cluster_id: Option<String>,
    /// Lives before, also of other clusters.
    pub earlier: Vec<i32>,
    pub partitions: HashMap<i32, PartitionState>,
    pub runs: HashMap<i32, RunId>,
}

/// An open snapshot.
pub(super) struct Snapshot {
    connection: PgConnection,
    row_deadline: Duration,
    pub overview: Overview,
}

/// Offsets applied now, for waiting; empty when the topic is not known yet.
pub(super) async fn applied(database: &Database, topic: &str) -> Result<HashMap<i32, i64>, AuditError> {
    let mut connection = database.named("finstream verify").connect().await?;
    let rows = sqlx::query_as(
        "select p.partition, p.next_offset from partition_offsets p join streams s using (topic_ref)
         where s.topic = $1 and s.retired_at is null",
    )
    .bind(topic)
    .fetch_all(&mut connection);
    let rows: Vec<(i32, i64)> = answered(ANSWER_DEADLINE, rows).await?;
    answered(ANSWER_DEADLINE, connection.close()).await?;
    Ok(rows.into_iter().collect())
}

impl Snapshot {
    pub(super) async fn open(database: &Database, topic: &str) -> Result<Snapshot, AuditError> {
        let mut connection = database.named("finstream verify").connect().await?;
        let overview = answered(ANSWER_DEADLINE, Self::look_over(&mut connection, topic)).await?;
        Ok(Snapshot { connection, row_deadline: ROW_DEADLINE, overview })
    }

    /// Begins the snapshot and reads the small things.
    async fn look_over(connection: &mut PgConnection, topic: &str) -> Result<Overview, AuditError> {
        connection.execute("begin isolation level repeatable read read only").await?;
        let mut overview = Overview::default();
        let lives: Vec<(i32, String, bool)> = sqlx::query_as(
            "select topic_ref, cluster_id, retired_at is null from streams where topic = $1 order by topic_ref",
        )
        .bind(topic)
        .fetch_all(&mut *connection)
        .await?;
        for (topic_ref, cluster_id, current) in lives {
            if current {
                overview.topic_ref = Some(topic_ref);
                overview.cluster_id = Some(cluster_id);
            } else {
                overview.earlier.push(topic_ref);
            }
        }
        let offsets: Vec<(i32, i64, i64, i64)> = sqlx::query_as(
            "select partition, first_offset, next_offset, messages from partition_offsets where topic_ref = $1",
        )
        .bind(overview.topic_ref)
        .fetch_all(&mut *connection)
        .await?;
        for (partition, first_offset, next_offset, messages) in offsets {
            let state = PartitionState { first_offset, next_offset, messages, skipped: Vec::new() };
            overview.partitions.insert(partition, state);
        }
        let skipped: Vec<(i32, i64, i64)> = sqlx::query_as(
            "select r.partition, r.from_offset, r.to_offset
             from skipped_ranges r
             join streams s using (topic_ref)
             join partition_offsets p on p.topic_ref = $1 and p.partition = r.partition
             where s.topic = $2 and (r.topic_ref = $1 or r.to_offset <= p.first_offset)
             order by 1, 2",
        )
        .bind(overview.topic_ref)
        .bind(topic)
        .fetch_all(&mut *connection)
        .await?;
        for (partition, from, to) in skipped {
            overview.partitions.entry(partition).or_default().skipped.push((from, to));
        }
        let runs: Vec<(i32, Uuid)> =
            sqlx::query_as("select run_ref, run_id from runs").fetch_all(&mut *connection).await?;
        overview.runs = runs.into_iter().map(|(run_ref, id)| (run_ref, RunId(id))).collect();
        Ok(overview)
    }

    /// Sends everything, rows from an offset of each partition on; ends early, without an error, when nobody listens any more.
    pub(super) async fn feed(
        mut self,
        partitions: Vec<i32>,
        from: HashMap<i32, i64>,
        pieces: mpsc::Sender<Piece>,
    ) -> Result<(), AuditError> {
        match self.feed_all(&partitions, &from, &pieces).await {
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::Unheard) => Ok(()),
            Ok(()) => {
                answered(ANSWER_DEADLINE, self.connection.execute("commit")).await?;
                answered(ANSWER_DEADLINE, self.connection.close()).await?;
                Ok(())
            }
        }
    }

    async fn feed_all(
        &mut self,
        partitions: &[i32],
        from: &HashMap<i32, i64>,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), Stop> {
        for topic_ref in self.overview.earlier.clone() {
            self.messages(EARLIER_ROWS, topic_ref, 0, pieces, Piece::EarlierRows).await?;
            self.messages(EARLIER_DEAD_LETTERS, topic_ref, 0, pieces, Piece::EarlierDeadLetters).await?;
        }
        // No life: nothing is stored under reference 0.
        let topic_ref = self.overview.topic_ref.unwrap_or(0);
        for partition in partitions {
            let letters = sqlx::query(DEAD_LETTERS).bind(topic_ref).bind(partition);
            let letters = answered(self.row_deadline, letters.fetch_all(&mut self.connection)).await?;
            let letters = letters.iter().map(message).collect::<Result<Vec<_>, _>>()?;
            send(pieces, Piece::DeadLetters(letters)).await?;
            let from = from.get(partition).copied().unwrap_or(0);
            rows::feed(&mut self.connection, self.row_deadline, (topic_ref, *partition), from, pieces).await?;
            send(pieces, Piece::RowsEnd).await?;
            self.pieces_of(USERS, topic_ref, *partition, pieces, user, Piece::Users).await?;
            self.pieces_of(SYMBOLS, topic_ref, *partition, pieces, symbol, Piece::Symbols).await?;
            send(pieces, Piece::PartitionEnd).await?;
        }
        Ok(())
    }

    async fn messages(
        &mut self,
        sql: &'static str,
        topic_ref: i32,
        partition: i32,
        pieces: &mpsc::Sender<Piece>,
        wrap: fn(Vec<StoredMessage>) -> Piece,
    ) -> Result<(), Stop> {
        self.pieces_of(sql, topic_ref, partition, pieces, message, wrap).await
    }

    async fn pieces_of<T>(
        &mut self,
        sql: &'static str,
        topic_ref: i32,
        partition: i32,
        pieces: &mpsc::Sender<Piece>,
        read: fn(&PgRow) -> Result<T, sqlx::Error>,
        wrap: fn(Vec<T>) -> Piece,
    ) -> Result<(), Stop> {
        let mut rows = sqlx::query(sql).bind(topic_ref).bind(partition).fetch(&mut self.connection);
        let mut piece = Vec::with_capacity(PIECE_ROWS);
        while let Some(row) = answered(self.row_deadline, rows.try_next()).await? {
            piece.push(read(&row)?);
            if piece.len() == PIECE_ROWS {
                send(pieces, wrap(std::mem::replace(&mut piece, Vec::with_capacity(PIECE_ROWS)))).await?;
            }
        }
        if piece.is_empty() { Ok(()) } else { send(pieces, wrap(piece)).await }
    }
}

/// Why feeding ended early.
pub(super) enum Stop {
    Error(AuditError),
    /// The comparison has ended, with an error of its own.
    Unheard,
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Stop::Error(error.into())
    }
}

pub(super) async fn send(pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<(), Stop> {
    pieces.send(piece).await.map_err(|_| Stop::Unheard)
}

const DEAD_LETTERS: &str = "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from dead_letters
    where topic_ref = $1 and partition = $2 order by \"offset\"";
// The second parameter is unused: an earlier life has any partitions.
const EARLIER_ROWS: &str = "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from messages
    where topic_ref = $1 and $2::integer is not null
    union all select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from unpacked_messages
    where topic_ref = $1";
const EARLIER_DEAD_LETTERS: &str = "select \"offset\", coalesce(run_ref, 0), coalesce(sequence, -1) from dead_letters
    where topic_ref = $1 and $2::integer is not null";
const USERS: &str = "select user_id, currency, purchases, refunds, trades, spend::text, refunded::text, traded::text,
    (extract(epoch from first_event) * 1000000)::bigint, (extract(epoch from last_event) * 1000000)::bigint
    from user_aggregates where topic_ref = $1 and partition = $2";
const SYMBOLS: &str = "select symbol, currency, trades, quantity::text, notional::text, last_price::text,
    (extract(epoch from last_price_event) * 1000000)::bigint, last_price_offset
    from symbol_aggregates where topic_ref = $1 and partition = $2";

fn message(row: &PgRow) -> Result<StoredMessage, sqlx::Error> {
    Ok(StoredMessage { offset: row.try_get(0)?, run_ref: row.try_get(1)?, sequence: row.try_get(2)? })
}

fn user(row: &PgRow) -> Result<StoredUser, sqlx::Error> {
    Ok(StoredUser {
        user_id: row.try_get(0)?,
        currency: row.try_get(1)?,
        counts: [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?],
        sums: [row.try_get(5)?, row.try_get(6)?, row.try_get(7)?],
        events: [row.try_get(8)?, row.try_get(9)?],
    })
}

fn symbol(row: &PgRow) -> Result<StoredSymbol, sqlx::Error> {
    Ok(StoredSymbol {
        symbol: row.try_get(0)?,
        currency: row.try_get(1)?,
        trades: row.try_get(2)?,
        sums: [row.try_get(3)?, row.try_get(4)?, row.try_get(5)?],
        last: (row.try_get(6)?, row.try_get(7)?),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::postgres::{PostgresError, connect, silent_server};

    #[tokio::test]
    async fn a_server_that_falls_silent_ends_the_audit_with_an_error() {
        let connection = connect(&silent_server().await, Duration::from_secs(10)).await.unwrap();
        let snapshot = Snapshot { connection, row_deadline: Duration::from_millis(20), overview: Overview::default() };
        let (sender, _pieces) = mpsc::channel(PIECES_MAX);
        let error = snapshot.feed(vec![0], HashMap::new(), sender).await.unwrap_err();
        assert!(matches!(error, AuditError::Postgres(PostgresError::Sql(sqlx::Error::Io(_)))), "{error:?}");
        assert!(error.to_string().contains("no answer within"), "{error}");
    }
}
