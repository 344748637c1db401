//! Skipping on record, and starting a topic over: what `finstream reset` does to the tables.

use sqlx::{Connection, PgConnection, Row};

use super::changes::change_all;
use super::error::SinkError;
use super::fingerprint::Fingerprint;
use super::streams::{PartitionProgress, Stream, current_stream, insert_life};

/// Where a partition begins in a new life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifeStart {
    pub partition: i32,
    pub next_offset: i64,
    /// Of the record at `next_offset - 1`, where that record still is the one that was applied last.
    pub fingerprint: Option<Fingerprint>,
    /// Set where records from this offset to `next_offset` are left out.
    pub skipped_from: Option<i64>,
}

/// Why a reset was not done.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// Nothing of the topic is in this database.
    #[error("topic {topic} has no totals in this database yet: there is nothing to reset")]
    UnknownTopic { topic: String },
    /// The partition is not known.
    #[error("partition {partition} of topic {topic} is not known in this database")]
    UnknownPartition { topic: String, partition: i32 },
    /// A life is never rewound.
    #[error(
        "partition {partition} of topic {topic} has applied everything before offset {next_offset}; --to {to} is not \
             beyond it, and a life is never rewound: this needs a new life"
    )]
    NotForward { topic: String, partition: i32, next_offset: i64, to: i64 },
    /// What was compared is not how it is any more.
    #[error(
        "a consumer goes on with topic {topic} at this moment: stop it, then type the same again; nothing was changed"
    )]
    Moved { topic: String },
    /// PostgreSQL's answer.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl From<sqlx::Error> for ResetError {
    fn from(error: sqlx::Error) -> Self {
        ResetError::Sink(error.into())
    }
}

/// Skips `[next_offset, to)` of a partition, on record; returns the offset where the skipped range begins.
///
/// A consumer that runs is fenced, so that it cannot write the skipped range after all.
///
/// # Errors
/// [`ResetError::NotForward`] when `to` is not beyond `next_offset`: open a new life instead.
pub async fn reset_forward(
    connection: &mut PgConnection,
    topic: &str,
    partition: i32,
    to: i64,
) -> Result<i64, ResetError> {
    let stream = known_stream(connection, topic).await?;
    let mut transaction = connection.begin().await?;
    let row =
        sqlx::query("select next_offset from partition_offsets where topic_ref = $1 and partition = $2 for update")
            .bind(stream.topic_ref)
            .bind(partition)
            .fetch_optional(&mut *transaction)
            .await?;
    let Some(row) = row else { return Err(ResetError::UnknownPartition { topic: topic.to_owned(), partition }) };
    let next_offset: i64 = row.try_get(0)?;
    if to <= next_offset {
        return Err(ResetError::NotForward { topic: topic.to_owned(), partition, next_offset, to });
    }
    insert_skipped(&mut transaction, stream.topic_ref, partition, next_offset, to).await?;
    sqlx::query(
        "update partition_offsets
         set next_offset = $3, fingerprint = null, owner_epoch = owner_epoch + 1, updated_at = now()
         where topic_ref = $1 and partition = $2",
    )
    .bind(stream.topic_ref)
    .bind(partition)
    .bind(to)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(next_offset)
}

/// Retires the current life of a topic and opens the next one; returns its `topic_ref`.
///
/// Old rows stay and keep counting. Consumers of the old life are fenced. `applied` is the progress by which `starts` were
/// chosen.
///
/// # Errors
/// [`ResetError::UnknownTopic`] when the topic has no current life, [`ResetError::Moved`] when it went on since.
pub async fn open_new_life(
    connection: &mut PgConnection,
    cluster_id: &str,
    topic: &str,
    applied: &[PartitionProgress],
    starts: &[LifeStart],
) -> Result<i32, ResetError> {
    let old = known_stream(connection, topic).await?;
    let mut transaction = connection.begin().await?;
    // The rows first: a batch of the old life that is being written is waited for, the next one is fenced.
    let now: Vec<(i32, i64)> = sqlx::query_as(
        "update partition_offsets set owner_epoch = owner_epoch + 1 where topic_ref = $1 returning partition, next_offset",
    )
    .bind(old.topic_ref)
    .fetch_all(&mut *transaction)
    .await?;
    let has_moved = |(partition, next_offset): &(i32, i64)| {
        !applied.iter().any(|known| known.partition == *partition && known.next_offset == *next_offset)
    };
    if now.iter().any(has_moved) {
        return Err(ResetError::Moved { topic: topic.to_owned() });
    }
    sqlx::query("update streams set retired_at = now() where topic_ref = $1")
        .bind(old.topic_ref)
        .execute(&mut *transaction)
        .await?;
    let log_starts: Vec<(i32, i64)> = starts.iter().map(|start| (start.partition, start.next_offset)).collect();
    let Some(topic_ref) = insert_life(&mut transaction, cluster_id, topic, &log_starts).await? else {
        let what = format!("another process opened a life of topic {topic} at the same moment");
        return Err(SinkError::Broken { topic_ref: old.topic_ref, what }.into());
    };
    for start in starts {
        if let Some(from) = start.skipped_from {
            insert_skipped(&mut transaction, topic_ref, start.partition, from, start.next_offset).await?;
            sqlx::query("update partition_offsets set first_offset = $3 where topic_ref = $1 and partition = $2")
                .bind(topic_ref)
                .bind(start.partition)
                .bind(from)
                .execute(&mut *transaction)
                .await?;
        }
        let Some(fingerprint) = start.fingerprint else { continue };
        sqlx::query("update partition_offsets set fingerprint = $3 where topic_ref = $1 and partition = $2")
            .bind(topic_ref)
            .bind(start.partition)
            .bind(fingerprint.as_slice())
            .execute(&mut *transaction)
            .await?;
    }
    // A log that is not the one that was applied may have taken published totals with it.
    change_all(&mut transaction, topic_ref).await?;
    transaction.commit().await?;
    Ok(topic_ref)
}

async fn insert_skipped(
    connection: &mut PgConnection,
    topic_ref: i32,
    partition: i32,
    from: i64,
    to: i64,
) -> Result<(), SinkError> {
    sqlx::query("insert into skipped_ranges (topic_ref, partition, from_offset, to_offset) values ($1, $2, $3, $4)")
        .bind(topic_ref)
        .bind(partition)
        .bind(from)
        .bind(to)
        .execute(connection)
        .await?;
    Ok(())
}

async fn known_stream(connection: &mut PgConnection, topic: &str) -> Result<Stream, ResetError> {
    current_stream(connection, topic).await?.ok_or_else(|| ResetError::UnknownTopic { topic: topic.to_owned() })
}
