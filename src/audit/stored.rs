//! PostgreSQL's side: one repeatable-read snapshot, handed over piece by piece in the order of the comparison.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sqlx::postgres::PgRow;
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::rows::{
    CATEGORY_WINDOWS, DEAD_LETTERS, EARLIER_DEAD_LETTERS, EARLIER_ROWS, SYMBOL_WINDOWS, SYMBOLS, StoredCategoryWindow,
    StoredMessage, StoredSymbol, StoredSymbolWindow, StoredTotal, StoredUser, TOTALS, USERS, WAITING, category_window,
    message, symbol, symbol_window, total, user,
};
use super::{AuditError, latency_rows};
use crate::postgres::{Database, answered};
use crate::transaction::RunId;

/// Longest wait for the answer to a small question.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for the next row: the server may have to sort or to look through all of a large table first.
const ROW_DEADLINE: Duration = Duration::from_secs(600);
/// Rows of one piece.
pub(super) const PIECE_ROWS: usize = 4096;
/// Pieces that wait for the comparison, at most.
pub(super) const PIECES_MAX: usize = 8;

/// What the feeder sends, in this order for each partition: dead letters (one piece), rows, `RowsEnd`, totals of all
/// kinds, `PartitionEnd`. Messages of earlier lives come before all partitions.
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
    CategoryWindows(Vec<StoredCategoryWindow>),
    SymbolWindows(Vec<StoredSymbolWindow>),
    /// No more of this partition.
    PartitionEnd,
    /// Totals over all partitions, as they should be published; behind all partitions.
    Totals(Vec<StoredTotal>),
    /// No more at all.
    End,
}

/// How far a partition was applied, and what a person agreed to skip in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionState {
    /// Where this life begins.
    pub first_offset: i64,
    pub next_offset: i64,
    /// Messages that were counted into the totals in this life.
    pub messages: i64,
    /// Windows count from this offset on.
    pub windows_from: i64,
    /// [from, to)
    pub skipped: Vec<(i64, i64)>,
    /// Offsets of dead letters that were put through.
    pub replayed: HashSet<i64>,
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
    /// Length of the windows in microseconds; 0 where no consumer was yet.
    pub window_us: i64,
    /// Keys of totals that have changed since they were published.
    pub waiting: HashSet<String>,
}

impl Overview {
    /// All lives of the topic.
    fn lives(&self) -> Vec<i32> {
        self.earlier.iter().copied().chain(self.topic_ref).collect()
    }
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
        let offsets: Vec<(i32, i64, i64, i64, i64)> = sqlx::query_as(
            "select partition, first_offset, next_offset, messages, windows_from
             from partition_offsets where topic_ref = $1",
        )
        .bind(overview.topic_ref)
        .fetch_all(&mut *connection)
        .await?;
        for (partition, first_offset, next_offset, messages, windows_from) in offsets {
            let known =
                PartitionState { first_offset, next_offset, messages, windows_from, ..PartitionState::default() };
            overview.partitions.insert(partition, known);
        }
        let replayed: Vec<(i32, i64)> =
            sqlx::query_as("select partition, \"offset\" from replayed_letters where topic_ref = $1")
                .bind(overview.topic_ref)
                .fetch_all(&mut *connection)
                .await?;
        for (partition, offset) in replayed {
            overview.partitions.entry(partition).or_default().replayed.insert(offset);
        }
        let window_us: Option<i64> =
            sqlx::query_scalar("select window_us from schema_owner").fetch_optional(&mut *connection).await?;
        overview.window_us = window_us.unwrap_or_default();
        let waiting: Vec<String> =
            sqlx::query_scalar(WAITING).bind(overview.lives()).fetch_all(&mut *connection).await?;
        overview.waiting = waiting.into_iter().collect();
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
            latency_rows::feed(&mut self.connection, self.row_deadline, (topic_ref, *partition), from, pieces).await?;
            send(pieces, Piece::RowsEnd).await?;
            self.pieces_of(USERS, topic_ref, *partition, pieces, user, Piece::Users).await?;
            self.pieces_of(SYMBOLS, topic_ref, *partition, pieces, symbol, Piece::Symbols).await?;
            let (category_windows, symbol_windows) = (Piece::CategoryWindows, Piece::SymbolWindows);
            self.pieces_of(CATEGORY_WINDOWS, topic_ref, *partition, pieces, category_window, category_windows).await?;
            self.pieces_of(SYMBOL_WINDOWS, topic_ref, *partition, pieces, symbol_window, symbol_windows).await?;
            send(pieces, Piece::PartitionEnd).await?;
        }
        for sql in TOTALS {
            let rows = sqlx::query(sql).bind(self.overview.lives()).fetch(&mut self.connection);
            Self::pieces(self.row_deadline, rows, pieces, total, Piece::Totals).await?;
        }
        send(pieces, Piece::End).await
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
        let rows = sqlx::query(sql).bind(topic_ref).bind(partition).fetch(&mut self.connection);
        Self::pieces(self.row_deadline, rows, pieces, read, wrap).await
    }

    async fn pieces<T>(
        row_deadline: Duration,
        mut rows: BoxStream<'_, Result<PgRow, sqlx::Error>>,
        pieces: &mpsc::Sender<Piece>,
        read: fn(&PgRow) -> Result<T, sqlx::Error>,
        wrap: fn(Vec<T>) -> Piece,
    ) -> Result<(), Stop> {
        let mut piece = Vec::with_capacity(PIECE_ROWS);
        while let Some(row) = answered(row_deadline, rows.try_next()).await? {
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
