//! Hands over what PostgreSQL has, piece by piece in the order of the comparison: what the snapshot took down, and between it
//! the latency rows, a window of offsets in a statement.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Connection, Executor, PgConnection, Postgres};
use tokio::sync::mpsc;

use super::AuditError;
use super::compare::out_of_order;
use super::latency_rows::LatencyRows;
use super::rows::{EARLIER_DEAD_LETTERS, EARLIER_ROWS, StoredMessage, message};
use super::spool::Piece;
use super::stored::ANSWER_DEADLINE;
use crate::postgres::answered;

/// Rows of one piece.
const PIECE_ROWS: usize = 4096;
/// Pieces that wait for the comparison, at most.
pub(super) const PIECES_MAX: usize = 8;

/// What has been taken down, and the connection on which the rest is read.
pub(super) struct Feeder {
    pub connection: PgConnection,
    pub row_deadline: Duration,
    /// The topic's current life.
    pub topic_ref: i32,
    /// Lives before.
    pub earlier: Vec<i32>,
    /// In the order of the pieces that were taken down.
    pub partitions: Vec<PartitionRows>,
    /// What was taken down.
    pub kept: mpsc::Receiver<Result<Piece, AuditError>>,
}

/// Offsets of the latency rows that are read later.
pub(super) struct PartitionRows {
    pub partition: i32,
    /// The first that is to be compared.
    pub from: i64,
    /// Where the snapshot had got to.
    pub to: i64,
}

impl Feeder {
    /// Sends everything; ends early, without an error, when nobody listens any more.
    pub(super) async fn feed(mut self, pieces: mpsc::Sender<Piece>) -> Result<(), AuditError> {
        match self.feed_all(&pieces).await {
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::Unheard) => Ok(()),
            Ok(()) => {
                // The server may take its time to see that a connection is closed.
                let unlock = self.connection.execute("select pg_advisory_unlock_all()");
                answered(ANSWER_DEADLINE, unlock).await?;
                Ok(answered(ANSWER_DEADLINE, self.connection.close()).await?)
            }
        }
    }

    async fn feed_all(&mut self, pieces: &mpsc::Sender<Piece>) -> Result<(), Stop> {
        for topic_ref in std::mem::take(&mut self.earlier) {
            let (connection, row_deadline) = (&mut self.connection, self.row_deadline);
            let rows = sqlx::query(EARLIER_ROWS).bind(topic_ref);
            send_all(connection, row_deadline, rows, pieces, message, Piece::EarlierRows).await?;
            let letters = sqlx::query(EARLIER_DEAD_LETTERS).bind(topic_ref);
            send_all(connection, row_deadline, letters, pieces, message, Piece::EarlierDeadLetters).await?;
        }
        for rows in std::mem::take(&mut self.partitions) {
            let (Piece::DeadLetters(letters), Piece::Rows(of_letters)) =
                (self.taken_down().await?, self.taken_down().await?)
            else {
                return Err(out_of_order().into());
            };
            let offsets: HashSet<i64> = letters.iter().map(|letter| letter.offset).collect();
            send(pieces, Piece::DeadLetters(letters)).await?;
            self.rows(rows, offsets, of_letters, pieces).await?;
            loop {
                let piece = self.taken_down().await?;
                let is_end = matches!(piece, Piece::PartitionEnd);
                send(pieces, piece).await?;
                if is_end {
                    break;
                }
            }
        }
        loop {
            let piece = self.taken_down().await?;
            let is_end = matches!(piece, Piece::End);
            send(pieces, piece).await?;
            if is_end {
                return Ok(());
            }
        }
    }

    /// The rows that the snapshot had applied. At the offsets of its dead letters they are those of then.
    async fn rows(
        &mut self,
        PartitionRows { partition, from, to }: PartitionRows,
        letters: HashSet<i64>,
        of_letters: Vec<StoredMessage>,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), Stop> {
        let (topic_ref, row_deadline) = (self.topic_ref, self.row_deadline);
        let mut rows = LatencyRows { topic_ref, partition, from, to, row_deadline };
        let mut of_letters = of_letters.into_iter().peekable();
        while let Some(mut window) = rows.next(&mut self.connection).await? {
            if !letters.is_empty() {
                window.retain(|row| !letters.contains(&row.offset));
                while let Some(row) = of_letters.next_if(|row| row.offset < rows.from) {
                    window.push(row);
                }
                window.sort_by_key(|row| row.offset);
            }
            for piece in window.chunks(PIECE_ROWS) {
                send(pieces, Piece::Rows(piece.to_vec())).await?;
            }
        }
        send(pieces, Piece::Rows(of_letters.collect())).await
    }

    async fn taken_down(&mut self) -> Result<Piece, Stop> {
        let cut_short = || AuditError::CutShort("what PostgreSQL had was taken down in part only".to_owned());
        Ok(self.kept.recv().await.ok_or_else(cut_short)??)
    }
}

/// Sends all rows of a query, some thousand in a piece.
pub(super) async fn send_all<T>(
    connection: &mut PgConnection,
    row_deadline: Duration,
    query: sqlx::query::Query<'_, Postgres, PgArguments>,
    pieces: &mpsc::Sender<Piece>,
    read: fn(&PgRow) -> Result<T, sqlx::Error>,
    wrap: fn(Vec<T>) -> Piece,
) -> Result<(), Stop> {
    let mut rows = query.fetch(connection);
    let mut piece = Vec::with_capacity(PIECE_ROWS);
    while let Some(row) = answered(row_deadline, rows.try_next()).await? {
        piece.push(read(&row)?);
        if piece.len() == PIECE_ROWS {
            send(pieces, wrap(std::mem::replace(&mut piece, Vec::with_capacity(PIECE_ROWS)))).await?;
        }
    }
    if piece.is_empty() { Ok(()) } else { send(pieces, wrap(piece)).await }
}

pub(super) async fn send(pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<(), Stop> {
    pieces.send(piece).await.map_err(|_| Stop::Unheard)
}

/// Why feeding ended early.
pub(super) enum Stop {
    Error(AuditError),
    /// Whoever listened has ended, with an error of its own.
    Unheard,
}

impl From<AuditError> for Stop {
    fn from(error: AuditError) -> Self {
        Stop::Error(error)
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Stop::Error(error.into())
    }
}
