//! How far each partition has been applied, by whoever owns it.

use serde::Serialize;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;

use super::{ReadError, Reads, cell, time};

/// A row of `pipeline_progress`, of a topic's present life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PartitionRow {
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Offset behind the last record that was applied.
    pub next_offset: i64,
    /// Messages applied.
    pub messages: i64,
    /// Messages refused.
    pub dead_letters: i64,
    /// Who applies it.
    pub owner_instance: Option<String>,
    /// Raised with each new owner.
    pub owner_epoch: i64,
    /// When it moved last.
    #[schema(format = DateTime)]
    pub updated_at: String,
}

impl Reads {
    /// Every partition of every topic that is current.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn partitions(&self) -> Result<Vec<PartitionRow>, ReadError> {
        let question = sqlx::query(
            "select topic, partition, next_offset, messages, dead_letters, owner_instance, owner_epoch, updated_at
             from pipeline_progress
             where current
             order by topic, partition",
        );
        self.pool.rows(question).await?.iter().map(partition).collect()
    }
}

fn partition(row: &PgRow) -> Result<PartitionRow, ReadError> {
    Ok(PartitionRow {
        topic: cell(row, 0)?,
        partition: cell(row, 1)?,
        next_offset: cell(row, 2)?,
        messages: cell(row, 3)?,
        dead_letters: cell(row, 4)?,
        owner_instance: cell(row, 5)?,
        owner_epoch: cell(row, 6)?,
        updated_at: time(row, 7)?,
    })
}
