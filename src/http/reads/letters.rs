//! Dead letters, in the order of the log.

use serde::Serialize;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;

use super::cursor::{Page, decoded};
use super::{ReadError, Reads, cell, time};

/// The key of a letter: topic_ref, partition, offset.
type Key = (i32, i32, i64);

/// A message that could not be read, or was refused for its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetterRow {
    /// Where it lies.
    pub topic: String,
    /// Of the topic.
    pub partition: i32,
    /// In the partition.
    pub offset: i64,
    /// When the consumer got it.
    #[schema(format = DateTime)]
    pub received_at: String,
    /// Why it was refused.
    pub reason: String,
    /// Null of a foreign message.
    pub run_id: Option<String>,
    /// Its place in the run.
    pub sequence: Option<i64>,
    /// The first 512 bytes as text; what is no UTF-8 is replaced.
    pub key: Option<String>,
    /// The first 512 bytes as text; what is no UTF-8 is replaced.
    pub payload: Option<String>,
    /// How long the whole payload is.
    pub payload_bytes: Option<i64>,
}

impl Reads {
    /// Dead letters of all topics and lives.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn dead_letters(&self, limit: u32, after: Option<&str>) -> Result<Page<DeadLetterRow>, ReadError> {
        let after: Option<Key> = decoded(after)?;
        let (topic_ref, partition, offset) = after.unwrap_or((i32::MIN, i32::MIN, i64::MIN));
        let question = sqlx::query(
            "select d.topic_ref, s.topic, d.partition, d.\"offset\", d.received_at, d.reason, r.run_id::text, d.sequence,
                    substring(d.key for 512), substring(d.payload for 512), octet_length(d.payload)::bigint
             from dead_letters d
             join streams s using (topic_ref)
             left join runs r using (run_ref)
             where (d.topic_ref, d.partition, d.\"offset\") > ($1::integer, $2::integer, $3::bigint)
             order by d.topic_ref, d.partition, d.\"offset\"
             limit $4",
        );
        let question = question.bind(topic_ref).bind(partition).bind(offset).bind(i64::from(limit) + 1);
        let rows = self.pool.rows(question).await?;
        let keyed: Vec<(i32, DeadLetterRow)> = rows.iter().map(letter).collect::<Result<_, ReadError>>()?;
        let page = Page::cut(keyed, limit, |(topic_ref, row)| (*topic_ref, row.partition, row.offset));
        Ok(Page { rows: page.rows.into_iter().map(|(_, row)| row).collect(), next: page.next })
    }
}

fn letter(row: &PgRow) -> Result<(i32, DeadLetterRow), ReadError> {
    let text = |index| -> Result<Option<String>, ReadError> {
        let bytes: Option<Vec<u8>> = cell(row, index)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let letter = DeadLetterRow {
        topic: cell(row, 1)?,
        partition: cell(row, 2)?,
        offset: cell(row, 3)?,
        received_at: time(row, 4)?,
        reason: cell(row, 5)?,
        run_id: cell(row, 6)?,
        sequence: cell(row, 7)?,
        key: text(8)?,
        payload: text(9)?,
        payload_bytes: cell(row, 10)?,
    };
    Ok((cell(row, 0)?, letter))
}
