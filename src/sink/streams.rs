//! Streams: a topic of one cluster in one life, and whose schema this is.

use sqlx::{Connection, PgConnection, Row};

use super::error::SinkError;
use crate::aggregate::WindowLength;

/// The current life of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// What offset-keyed rows lead with.
    pub topic_ref: i32,
    /// From 1; `finstream reset` opens the next.
    pub life: i32,
    /// Kafka's id of the cluster.
    pub cluster_id: String,
}

/// How far a partition has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProgress {
    pub partition: i32,
    /// Last applied or dead-lettered data record + 1.
    pub next_offset: i64,
    /// Of the record at `next_offset - 1`; none when nothing was applied yet, or after a skip.
    pub fingerprint: Option<Vec<u8>>,
}

/// Makes the schema this group's, with windows of this length, or refuses when it is another's; the length of its windows.
///
/// # Errors
/// [`SinkError::OtherGroup`], [`SinkError::OtherWindow`].
pub async fn claim_schema(
    connection: &mut PgConnection,
    group: &str,
    window: Option<WindowLength>,
) -> Result<WindowLength, SinkError> {
    sqlx::query(
        "insert into schema_owner (consumer_group, window_us) values ($1, $2) on conflict (singleton) do nothing",
    )
    .bind(group)
    .bind(window.unwrap_or(WindowLength::DEFAULT).micros())
    .execute(&mut *connection)
    .await?;
    let owner: String =
        sqlx::query_scalar("select consumer_group from schema_owner").fetch_one(&mut *connection).await?;
    if owner != group {
        return Err(SinkError::OtherGroup { owner, group: group.to_owned() });
    }
    let known = window_length(connection).await?;
    match window.filter(|asked| *asked != known) {
        Some(asked) => Err(SinkError::OtherWindow { known, asked }),
        None => Ok(known),
    }
}

/// The length of the schema's windows.
pub async fn window_length(connection: &mut PgConnection) -> Result<WindowLength, SinkError> {
    let window_us: Option<i64> =
        sqlx::query_scalar("select window_us from schema_owner").fetch_optional(connection).await?;
    Ok(window_us.and_then(WindowLength::from_micros).unwrap_or(WindowLength::DEFAULT))
}

/// The current life of a topic on any cluster; none when the topic is new here, or was reset.
pub async fn current_stream(connection: &mut PgConnection, topic: &str) -> Result<Option<Stream>, SinkError> {
    let row = sqlx::query("select topic_ref, life, cluster_id from streams where topic = $1 and retired_at is null")
        .bind(topic)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Stream { topic_ref: row.try_get(0)?, life: row.try_get(1)?, cluster_id: row.try_get(2)? }))
}

/// Finds the current life of a topic, or opens its first one.
///
/// A new life gets its partitions' rows at once, at the log's start each (`log_starts`: partition, offset): a partition
/// that has no row later is then known to be new, and begins at 0.
///
/// # Errors
/// [`SinkError::OtherCluster`] when the current life is another cluster's.
pub async fn open_stream(
    connection: &mut PgConnection,
    cluster_id: &str,
    topic: &str,
    log_starts: &[(i32, i64)],
) -> Result<Stream, SinkError> {
    if current_stream(connection, topic).await?.is_none() {
        let mut transaction = connection.begin().await?;
        insert_life(&mut transaction, cluster_id, topic, log_starts).await?;
        transaction.commit().await?;
    }
    let Some(stream) = current_stream(connection, topic).await? else {
        return Err(SinkError::Broken { topic_ref: 0, what: format!("the life of topic {topic} was retired at once") });
    };
    if stream.cluster_id == cluster_id {
        return Ok(stream);
    }
    Err(SinkError::OtherCluster { topic: topic.to_owned(), known: stream.cluster_id, found: cluster_id.to_owned() })
}

/// Inserts the next life of a topic with its partitions, unless another process was first; its number, or none.
pub(super) async fn insert_life(
    connection: &mut PgConnection,
    cluster_id: &str,
    topic: &str,
    log_starts: &[(i32, i64)],
) -> Result<Option<i32>, SinkError> {
    let topic_ref: Option<i32> = sqlx::query_scalar(
        "insert into streams (cluster_id, topic, life)
         select $1, $2, coalesce(max(life), 0) + 1 from streams where topic = $2
         on conflict do nothing
         returning topic_ref",
    )
    .bind(cluster_id)
    .bind(topic)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(topic_ref) = topic_ref else { return Ok(None) };
    let (partitions, starts): (Vec<i32>, Vec<i64>) = log_starts.iter().copied().unzip();
    sqlx::query(
        "insert into partition_offsets (topic_ref, partition, first_offset, next_offset)
         select $1, partition, next_offset, next_offset
         from unnest($2::integer[], $3::bigint[]) as p(partition, next_offset)",
    )
    .bind(topic_ref)
    .bind(&partitions)
    .bind(&starts)
    .execute(connection)
    .await?;
    Ok(Some(topic_ref))
}

/// How far each partition of a stream has been applied, by whoever owns it.
pub async fn progress(connection: &mut PgConnection, topic_ref: i32) -> Result<Vec<PartitionProgress>, SinkError> {
    let rows = sqlx::query(
        "select partition, next_offset, fingerprint from partition_offsets where topic_ref = $1 order by partition",
    )
    .bind(topic_ref)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(PartitionProgress {
                partition: row.try_get(0)?,
                next_offset: row.try_get(1)?,
                fingerprint: row.try_get(2)?,
            })
        })
        .collect()
}
