//! Whether a record of the log is in the tables already, told by what it is and not only by its offset.

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::error::SinkError;
use crate::transaction::MessageId;

/// What a record is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub partition: i32,
    pub offset: i64,
    /// Of a producer's run; none for foreign records.
    pub identity: Option<MessageId>,
    /// Its business id, if it can be read.
    pub transaction_id: Option<String>,
    pub payload: Option<Vec<u8>>,
}

/// Whether this record was stored, or refused, at this offset in any life of its topic.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn is_counted(connection: &mut PgConnection, topic: &str, record: &Known) -> Result<bool, SinkError> {
    let stored = sqlx::query(
        r#"with stored as (
               select topic_ref, partition, "offset", run_ref, sequence, transaction_id from messages
               union all
               select topic_ref, partition, "offset", run_ref, sequence, transaction_id from unpacked_messages
               where pack_last_offset between $3 and $3 + 65535
           )
           select r.run_id, m.sequence, m.transaction_id
           from stored m left join runs r using (run_ref)
           where m.topic_ref in (select topic_ref from streams where topic = $1)
             and m.partition = $2 and m."offset" = $3"#,
    )
    .bind(topic)
    .bind(record.partition)
    .bind(record.offset)
    .fetch_all(&mut *connection)
    .await?;
    for row in stored {
        let (run, sequence): (Option<Uuid>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let transaction_id: Option<String> = row.try_get(2)?;
        let is_same = match record.identity {
            Some(id) => run == Some(id.run.0) && sequence == Some(id.sequence),
            None => run.is_none() && transaction_id.is_some() && transaction_id == record.transaction_id,
        };
        if is_same {
            return Ok(true);
        }
    }
    let refused = sqlx::query_scalar(
        r#"select exists (
               select from dead_letters
               where topic_ref in (select topic_ref from streams where topic = $1)
                 and partition = $2 and "offset" = $3 and payload is not distinct from $4)"#,
    );
    let refused = refused.bind(topic).bind(record.partition).bind(record.offset).bind(&record.payload);
    Ok(refused.fetch_one(connection).await?)
}

/// Where the range begins that was skipped on record up to `to_offset`; none where no range ends there.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn skipped_from(
    connection: &mut PgConnection,
    topic_ref: i32,
    partition: i32,
    to_offset: i64,
) -> Result<Option<i64>, SinkError> {
    let from = sqlx::query_scalar(
        "select max(from_offset) from skipped_ranges where topic_ref = $1 and partition = $2 and to_offset = $3",
    );
    Ok(from.bind(topic_ref).bind(partition).bind(to_offset).fetch_one(connection).await?)
}
