//! PostgreSQL's side: one repeatable-read snapshot, taken down as fast as the server gives it, and ended.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::AuditError;
use super::feed::{Feeder, PIECES_MAX, PartitionRows, Stop, send, send_all};
use super::latency_rows::{LatencyRows, PACK_SPAN};
use super::order::joined;
use super::rows::{
    CATEGORY_WINDOWS, DEAD_LETTERS, ROWS_OF_LETTERS, SYMBOL_WINDOWS, SYMBOLS, StoredMessage, TOTALS, USERS, WAITING,
    category_window, message, symbol, symbol_window, total, user,
};
use super::spool::{self, Piece};
use crate::postgres::{Database, LOCK_ROWS_FOR_READING, answered};
use crate::transaction::RunId;

/// Longest wait for the answer to a small question.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for the next row: the server may have to sort or to look through all of a large table first.
const ROW_DEADLINE: Duration = Duration::from_secs(600);
/// Nothing is stored under it.
const NO_LIFE: i32 = 0;

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

/// An open snapshot. Latency rows are not removed as long as its connection lives.
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
        // Of the session: it outlives the snapshot.
        sqlx::query(LOCK_ROWS_FOR_READING).execute(&mut *connection).await?;
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

    /// Takes down all but the latency rows, and ends the snapshot. What is applied in a partition is read by the feeder, from
    /// `from` on: such rows do not change any more, nor are they removed while it reads.
    pub(super) async fn take_down(
        mut self,
        partitions: &[i32],
        from: &HashMap<i32, i64>,
    ) -> Result<Feeder, AuditError> {
        let ranges = partitions.iter().map(|partition| {
            let to = self.overview.partitions.get(partition).map_or(0, |state| state.next_offset);
            PartitionRows { partition: *partition, from: from.get(partition).copied().unwrap_or(0), to }
        });
        let ranges: Vec<PartitionRows> = ranges.collect();
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let writing = tokio::task::spawn_blocking(move || spool::write_down(pieces));
        let taken = self.take_all(&ranges, &sender).await;
        drop(sender);
        let written = joined(writing.await);
        match taken {
            Err(Stop::Error(error)) => return Err(error),
            // The writer's error says why.
            Err(Stop::Unheard) | Ok(()) => {}
        }
        let file = written?;
        answered(ANSWER_DEADLINE, self.connection.execute("commit")).await?;
        let (sender, kept) = mpsc::channel(PIECES_MAX);
        tokio::task::spawn_blocking(move || spool::read_back(file, &sender));
        let topic_ref = self.overview.topic_ref.unwrap_or(NO_LIFE);
        let (connection, row_deadline, earlier) = (self.connection, self.row_deadline, self.overview.earlier);
        Ok(Feeder { connection, row_deadline, topic_ref, earlier, partitions: ranges, kept })
    }

    async fn take_all(&mut self, ranges: &[PartitionRows], pieces: &mpsc::Sender<Piece>) -> Result<(), Stop> {
        for rows in ranges {
            self.partition(rows, pieces).await?;
        }
        for sql in TOTALS {
            let totals = sqlx::query(sql).bind(self.overview.lives());
            send_all(&mut self.connection, self.row_deadline, totals, pieces, total, Piece::Totals).await?;
        }
        send(pieces, Piece::End).await
    }

    async fn partition(&mut self, rows: &PartitionRows, pieces: &mpsc::Sender<Piece>) -> Result<(), Stop> {
        let PartitionRows { partition, from, to } = *rows;
        let (connection, row_deadline) = (&mut self.connection, self.row_deadline);
        let topic_ref = self.overview.topic_ref.unwrap_or(NO_LIFE);
        let of_partition = |sql: &'static str| sqlx::query(sql).bind(topic_ref).bind(partition);
        let letters = answered(row_deadline, of_partition(DEAD_LETTERS).fetch_all(&mut *connection)).await?;
        let letters = letters.iter().map(message).collect::<Result<Vec<_>, _>>()?;
        let applied = letters.iter().map(|letter| letter.offset).filter(|offset| (from..to).contains(offset));
        let of_letters = rows_at(connection, row_deadline, (topic_ref, partition), applied.collect()).await?;
        send(pieces, Piece::DeadLetters(letters)).await?;
        send(pieces, Piece::Rows(of_letters)).await?;
        // There should be none.
        let mut beyond = LatencyRows { topic_ref, partition, from: to.max(from), to: i64::MAX, row_deadline };
        while let Some(rows) = beyond.next(connection).await? {
            send(pieces, Piece::Rows(rows)).await?;
        }
        send(pieces, Piece::RowsEnd).await?;
        send_all(connection, row_deadline, of_partition(USERS), pieces, user, Piece::Users).await?;
        send_all(connection, row_deadline, of_partition(SYMBOLS), pieces, symbol, Piece::Symbols).await?;
        let windows = of_partition(CATEGORY_WINDOWS);
        send_all(connection, row_deadline, windows, pieces, category_window, Piece::CategoryWindows).await?;
        let windows = of_partition(SYMBOL_WINDOWS);
        send_all(connection, row_deadline, windows, pieces, symbol_window, Piece::SymbolWindows).await?;
        send(pieces, Piece::PartitionEnd).await
    }
}

/// The rows at the offsets of dead letters, by offset: one that is put through later moves from there to the rows.
async fn rows_at(
    connection: &mut PgConnection,
    row_deadline: Duration,
    (topic_ref, partition): (i32, i32),
    offsets: Vec<i64>,
) -> Result<Vec<StoredMessage>, AuditError> {
    let (Some(first), Some(last)) = (offsets.first().copied(), offsets.last().copied()) else { return Ok(Vec::new()) };
    let rows = sqlx::query(ROWS_OF_LETTERS).bind(topic_ref).bind(partition).bind(offsets);
    let rows = rows.bind(first).bind(last.saturating_add(PACK_SPAN)).fetch_all(connection);
    let rows = answered(row_deadline, rows).await?;
    Ok(rows.iter().map(message).collect::<Result<_, _>>()?)
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
        let error = snapshot.take_down(&[0], &HashMap::new()).await.map(drop).unwrap_err();
        assert!(matches!(error, AuditError::Postgres(PostgresError::Sql(sqlx::Error::Io(_)))), "{error:?}");
        assert!(error.to_string().contains("no answer within"), "{error}");
    }
}
