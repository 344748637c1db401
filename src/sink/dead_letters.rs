//! Dead letters: what they are, and how one is put through after a fix.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{Connection, Executor, PgConnection, Row};
use uuid::Uuid;

use super::batch::{Batch, Message};
use super::columns::insert_changes;
use super::error::{Class, SinkError};
use super::ownership::Owned;
use super::prepare::{MoveColumns, Part, Prepared, prepare};
use super::runs::Runs;
use super::upsert::upsert_totals;
use super::write::{Failure, expect_rows};
use crate::aggregate::WindowLength;
use crate::clock::Micros;
use crate::config::LatencyLayout;
use crate::transaction::{MessageId, RunId, Transaction};

/// Letters read at once.
const PAGE: i64 = 500;

/// A message that could not be read, or that PostgreSQL refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub topic_ref: i32,
    pub partition: i32,
    pub offset: i64,
    /// When the consumer got it.
    pub received_at: Micros,
    pub reason: String,
    /// None of a foreign message.
    pub identity: Option<MessageId>,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    watermark: Option<Micros>,
}

/// What became of one that was put through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It is a row and in the totals now.
    Applied,
    /// It cannot be read, or is refused, still: why.
    Refused(String),
    /// Somebody else has put it through.
    Gone,
}

/// The next letters of a topic, over all its lives, behind `after` (topic_ref, partition, offset); some at a time.
pub async fn dead_letters(
    connection: &mut PgConnection,
    topic: &str,
    after: Option<(i32, i32, i64)>,
) -> Result<Vec<DeadLetter>, SinkError> {
    let (topic_ref, partition, offset) = after.unwrap_or((i32::MIN, i32::MIN, i64::MIN));
    let rows = sqlx::query(
        "select d.topic_ref, d.partition, d.\"offset\", d.received_at, d.reason, r.run_id, d.sequence, d.key, d.payload,
             d.watermark
         from dead_letters d
         join streams s using (topic_ref)
         left join runs r using (run_ref)
         where s.topic = $1 and (d.topic_ref, d.partition, d.\"offset\") > ($2, $3, $4)
         order by d.topic_ref, d.partition, d.\"offset\"
         limit $5",
    )
    .bind(topic)
    .bind(topic_ref)
    .bind(partition)
    .bind(offset)
    .bind(PAGE)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(letter(row)?)).collect()
}

fn letter(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    let micros = |time: DateTime<Utc>| Micros(time.timestamp_micros());
    let (run, sequence): (Option<Uuid>, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
    Ok(DeadLetter {
        topic_ref: row.try_get(0)?,
        partition: row.try_get(1)?,
        offset: row.try_get(2)?,
        received_at: micros(row.try_get(3)?),
        reason: row.try_get(4)?,
        identity: run.zip(sequence).map(|(run, sequence)| MessageId { run: RunId(run), sequence }),
        key: row.try_get(7)?,
        payload: row.try_get(8)?,
        watermark: row.try_get::<Option<DateTime<Utc>>, _>(9)?.map(micros),
    })
}

/// Puts a letter through: in one transaction it is a dead letter no more, but a row and part of the totals.
///
/// It may run beside consumers. Its row has no times but `received_at`: how long the repair took is no latency of the
/// pipeline. Whether it is late is judged by its place in the log.
///
/// # Errors
/// PostgreSQL is out of reach, or rows are there that cannot be; nothing was changed then.
pub async fn replay(
    connection: &mut PgConnection,
    letter: &DeadLetter,
    window_length: WindowLength,
) -> Result<Replay, SinkError> {
    let decoded = match &letter.payload {
        Some(payload) => Transaction::decode(payload).map_err(|error| error.to_string()),
        None => Err("the message has no value".to_owned()),
    };
    let transaction = match decoded {
        Ok(transaction) => Transaction { scheduled_at: None, sent_at: None, ..transaction },
        Err(reason) => return Ok(Replay::Refused(reason)),
    };
    let mut runs = Runs::default();
    runs.register(connection, letter.identity.iter().map(|id| id.run).collect()).await?;
    let mut batch = Batch::new();
    batch.push_transaction(letter.message(), &transaction);
    let part = Part { batch: &batch, items: batch.items().iter().collect(), refused: None };
    let owned = Owned { epoch: 0, next_offset: letter.offset, watermark: letter.watermark };
    let owned = BTreeMap::from([(letter.partition, owned)]);
    let mut prepared = match prepare(&part, letter.topic_ref, LatencyLayout::Rows, &owned, window_length, &runs) {
        Ok(prepared) => prepared,
        Err(refused) => return Ok(Replay::Refused(refused.to_string())),
    };
    // Its totals are ahead of it, as they should be: the guard against that is for batches.
    prepared.move_columns =
        MoveColumns { partitions: vec![letter.partition], first_offsets: vec![i64::MAX], ..MoveColumns::default() };
    match write(connection, letter, &mut prepared).await {
        Ok(true) => Ok(Replay::Applied),
        Ok(false) => Ok(Replay::Gone),
        Err(Failure::Database(error)) => {
            let error = SinkError::from(error);
            if error.class() == Class::Data { Ok(Replay::Refused(error.to_string())) } else { Err(error) }
        }
        Err(Failure::Broken(what)) => Err(SinkError::Broken { topic_ref: letter.topic_ref, what }),
        Err(Failure::Moved) => {
            let what = format!("partition {} has dead letters and no row in partition_offsets", letter.partition);
            Err(SinkError::Broken { topic_ref: letter.topic_ref, what })
        }
    }
}

impl DeadLetter {
    fn message(&self) -> Message<'_> {
        Message {
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: None,
            received_at: self.received_at,
            identity: self.identity,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
        }
    }
}

/// False when the letter is not there any more. Rows are locked in the order in which a batch locks them.
async fn write(
    connection: &mut PgConnection,
    letter: &DeadLetter,
    prepared: &mut Prepared<'_>,
) -> Result<bool, Failure> {
    let DeadLetter { topic_ref, partition, offset, .. } = *letter;
    let mut transaction = connection.begin().await?;
    // Whoever is suspended here must not keep the partition from its consumer.
    transaction.execute("set local idle_in_transaction_session_timeout = '5s'").await?;
    let windows_from: Option<i64> = sqlx::query_scalar(
        "update partition_offsets set messages = messages + 1, dead_letters = dead_letters - 1, updated_at = now()
         where topic_ref = $1 and partition = $2
         returning windows_from",
    )
    .bind(topic_ref)
    .bind(partition)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(windows_from) = windows_from else { return Err(Failure::Moved) };
    if offset < windows_from {
        prepared.leave_out_windows();
    }
    let deleted = sqlx::query(
        "with gone as (
             delete from dead_letters where topic_ref = $1 and partition = $2 and \"offset\" = $3 returning *
         )
         insert into replayed_letters (topic_ref, partition, \"offset\", reason)
         select topic_ref, partition, \"offset\", reason from gone",
    )
    .bind(topic_ref)
    .bind(partition)
    .bind(offset)
    .execute(&mut *transaction)
    .await?;
    if deleted.rows_affected() != 1 {
        return Ok(false);
    }
    let rows = &prepared.rows;
    let mut copy = transaction.copy_in_raw(rows.statement).await?;
    copy.send(rows.bytes.as_slice()).await?;
    expect_rows(rows.table, rows.rows, copy.finish().await?)?;
    upsert_totals(&mut transaction, topic_ref, prepared).await?;
    prepared.changes.bind_to(sqlx::query(NOTE_CHANGES).bind(topic_ref)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Has the changed totals published: with those of the batch that ended here, if they are not settled yet.
const NOTE_CHANGES: &str = concat!(
    insert_changes!(),
    "
on conflict (topic_ref, partition, last_offset) do update
set user_ids = c.user_ids || excluded.user_ids, user_currencies = c.user_currencies || excluded.user_currencies,
    symbols = c.symbols || excluded.symbols, category_windows = c.category_windows || excluded.category_windows,
    symbol_windows = c.symbol_windows || excluded.symbol_windows"
);
