//! Who may move a partition's progress: the holder of its `owner_epoch`.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Row};

use super::error::SinkError;
use crate::clock::Micros;
use crate::seam::{self, Seam};

/// Longest wait for another backend's lock on a partition's progress, before that backend is ended.
const SET_LOCK_TIMEOUT: &str = "set local lock_timeout = '500ms'";
/// SQLSTATE of a lock that was not available in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// Attempts to get one lock; each ends the backend that is recorded as the owner.
const LOCK_ATTEMPTS_MAX: u32 = 4;

/// A PostgreSQL backend, told apart from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub pid: i32,
    pub started_at: DateTime<Utc>,
}

impl Backend {
    /// The backend behind a connection.
    pub async fn of(connection: &mut PgConnection) -> Result<Self, SinkError> {
        let row = sqlx::query("select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()")
            .fetch_one(connection)
            .await?;
        Ok(Backend { pid: row.try_get(0)?, started_at: row.try_get(1)? })
    }

    /// Ends it, if it is still there. Nothing less frees a backend whose client stopped inside COPY.
    pub(super) async fn terminate(self, connection: &mut PgConnection) -> Result<(), SinkError> {
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and backend_start = $2")
            .bind(self.pid)
            .bind(self.started_at)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// A partition that this worker owns until someone else claims it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    pub epoch: i64,
    /// Last applied data record + 1.
    pub next_offset: i64,
    /// The latest event time applied so far.
    pub watermark: Option<Micros>,
}

/// What a claim of a partition returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub partition: i32,
    pub epoch: i64,
    pub next_offset: i64,
    /// The latest event time applied so far.
    pub watermark: Option<Micros>,
    /// Of the record at `next_offset - 1`.
    pub fingerprint: Option<Vec<u8>>,
}

/// Claims a partition: raises its epoch, so that whoever owned it is fenced.
///
/// A partition without a row is new in its stream, and begins at 0. If a backend keeps the row locked, the recorded
/// owner's backend is ended.
///
/// # Errors
/// [`SinkError::Locked`] when the lock cannot be had in four attempts of 500 ms.
pub(super) async fn claim(
    connection: &mut PgConnection,
    topic_ref: i32,
    partition: i32,
    instance: &str,
    backend: Backend,
) -> Result<Claimed, SinkError> {
    let mut owner = None;
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match try_claim(connection, topic_ref, partition, instance, backend).await {
            Err(SinkError::Database(error)) if is_lock_timeout(&error) => {
                owner = recorded_owner(connection, topic_ref, partition).await?;
                if let Some(owner) = owner.filter(|owner| *owner != backend) {
                    tracing::warn!(
                        partition,
                        pid = owner.pid,
                        "the partition's last owner is stuck in PostgreSQL; ending its backend"
                    );
                    owner.terminate(connection).await?;
                }
            }
            claimed => return claimed,
        }
    }
    Err(SinkError::Locked { partition, pid: owner.map(|owner| owner.pid) })
}

async fn try_claim(
    connection: &mut PgConnection,
    topic_ref: i32,
    partition: i32,
    instance: &str,
    backend: Backend,
) -> Result<Claimed, SinkError> {
    seam::reach(Seam::BeforeClaim).await?;
    let mut transaction = connection.begin().await?;
    sqlx::query(SET_LOCK_TIMEOUT).execute(&mut *transaction).await?;
    sqlx::query(
        "insert into partition_offsets (topic_ref, partition, next_offset) values ($1, $2, 0)
         on conflict (topic_ref, partition) do nothing",
    )
    .bind(topic_ref)
    .bind(partition)
    .execute(&mut *transaction)
    .await?;
    let row = sqlx::query(
        "update partition_offsets
         set owner_epoch = owner_epoch + 1, owner_instance = $3, owner_pid = $4, owner_backend_start = $5
         where topic_ref = $1 and partition = $2
         returning owner_epoch, next_offset, fingerprint, watermark",
    )
    .bind(topic_ref)
    .bind(partition)
    .bind(instance)
    .bind(backend.pid)
    .bind(backend.started_at)
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    seam::reach(Seam::AfterClaim).await?;
    let watermark: Option<DateTime<Utc>> = row.try_get(3)?;
    Ok(Claimed {
        partition,
        epoch: row.try_get(0)?,
        next_offset: row.try_get(1)?,
        watermark: watermark.map(|time| Micros(time.timestamp_micros())),
        fingerprint: row.try_get(2)?,
    })
}

/// Registers a new backend for what this worker owns, without raising an epoch.
///
/// What it does not own any more is left as it is. If this worker's own old backend still holds a lock (its connection
/// broke, its transaction lives), it is ended: from then on its last batch is either committed or gone.
pub(super) async fn renew(
    connection: &mut PgConnection,
    topic_ref: i32,
    owned: &[(i32, i64)],
    old: Backend,
    new: Backend,
) -> Result<(), SinkError> {
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match try_renew(connection, topic_ref, owned, new).await {
            Err(SinkError::Database(error)) if is_lock_timeout(&error) => old.terminate(connection).await?,
            renewed => return renewed,
        }
    }
    Err(SinkError::Locked { partition: owned.first().map_or(-1, |owned| owned.0), pid: Some(old.pid) })
}

async fn try_renew(
    connection: &mut PgConnection,
    topic_ref: i32,
    owned: &[(i32, i64)],
    new: Backend,
) -> Result<(), SinkError> {
    let (partitions, epochs): (Vec<i32>, Vec<i64>) = owned.iter().copied().unzip();
    let mut transaction = connection.begin().await?;
    sqlx::query(SET_LOCK_TIMEOUT).execute(&mut *transaction).await?;
    sqlx::query(
        "update partition_offsets p set owner_pid = $4, owner_backend_start = $5
         from unnest($2::integer[], $3::bigint[]) as mine(partition, epoch)
         where p.topic_ref = $1 and p.partition = mine.partition and p.owner_epoch = mine.epoch",
    )
    .bind(topic_ref)
    .bind(&partitions)
    .bind(&epochs)
    .bind(new.pid)
    .bind(new.started_at)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

async fn recorded_owner(
    connection: &mut PgConnection,
    topic_ref: i32,
    partition: i32,
) -> Result<Option<Backend>, SinkError> {
    let row = sqlx::query(
        "select owner_pid, owner_backend_start from partition_offsets where topic_ref = $1 and partition = $2",
    )
    .bind(topic_ref)
    .bind(partition)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (pid, started_at): (Option<i32>, Option<DateTime<Utc>>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(pid.zip(started_at).map(|(pid, started_at)| Backend { pid, started_at }))
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some(LOCK_NOT_AVAILABLE)
}
