//! Where groups are remembered: records in `__consumer_offsets`, in the order in which they were queued.
//!
//! Owns: what becomes one batch, and when it is durable. Must not know what groups may do.

use bytes::Bytes;

use super::codec::{self, GroupRecord, Key, TextTooLong};
use super::offsets::{CommittedOffset, OffsetKey};
use super::terms::GroupError;
use crate::broker::internal_topic::{Entry, InternalTopic, LoadError};
use crate::broker::log::{AppendError, Appended, EndTransaction};
use crate::clock::SharedClock;

/// Records of one batch where nothing needs to be written at once.
const BATCH_RECORDS_MAX: usize = 1000;

/// A write that failed, or was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// The log did not take it, or could not make it durable.
    #[error("cannot write to the topic of groups and offsets: {0}")]
    Append(#[from] AppendError),
    /// The first write makes the topic.
    #[error("cannot make the topic of groups and offsets: {0}")]
    Topic(String),
    /// It cannot be said in the format.
    #[error(transparent)]
    Text(#[from] TextTooLong),
    /// An earlier transaction of the producer is being ended.
    #[error("an earlier transaction of the producer is being ended; try again")]
    Concurrent,
    /// Whoever commits is not, or no longer, of the group's present generation.
    #[error(transparent)]
    Member(#[from] GroupError),
    /// It would be too much, or comes too late.
    #[error("{0}")]
    Refused(&'static str),
}

/// Key and value of a record; none is a tombstone.
pub(super) type Record = (Bytes, Option<Bytes>);

/// A producer in a transaction: its id and epoch.
pub(crate) type Producer = (i64, i16);

/// The groups' log.
pub(super) struct Store {
    topic: InternalTopic,
    clock: SharedClock,
}

impl Store {
    pub(super) fn new(topic: InternalTopic, clock: SharedClock) -> Store {
        Store { topic, clock }
    }

    /// Wall clock.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now().as_millis()
    }

    /// Writes what is remembered of a group's members.
    pub(super) async fn put_group(&self, group: &str, record: &GroupRecord) -> Result<(), StoreError> {
        self.put(vec![group_record(group, record)?]).await.map(drop)
    }

    /// Writes commits as one batch: all of them hold, or none. Returns where the first one lies.
    pub(super) async fn put_offsets(
        &self,
        group: &str,
        offsets: &[(OffsetKey, CommittedOffset)],
    ) -> Result<i64, StoreError> {
        self.put(offset_records(group, offsets)?).await
    }

    /// Queues commits within a producer's transaction, as one batch; `make` must have been called.
    pub(super) fn queue_staged(
        &self,
        (producer_id, producer_epoch): Producer,
        group: &str,
        offsets: &[(OffsetKey, CommittedOffset)],
    ) -> Result<Appended, StoreError> {
        let records = offset_records(group, offsets)?;
        Ok(self.topic.append_in_transaction(producer_id, producer_epoch, &records, self.now_ms())?)
    }

    /// Queues the end of a producer's transaction, never without what it lies behind; none when nothing was ever written.
    pub(super) fn queue_marker(
        &self,
        end: EndTransaction,
        behind: Option<&Appended>,
    ) -> Result<Option<Appended>, AppendError> {
        match self.topic.partition() {
            Some(_) => self.topic.write_marker(end, behind, self.now_ms()).map(Some),
            None => Ok(None),
        }
    }

    /// Resolves Ok when what was queued is durable.
    pub(super) async fn durable(&self, appended: &Appended) -> Result<(), AppendError> {
        self.topic.durable(appended).await
    }

    /// Writes tombstones, in this order; after an error some of them may hold.
    pub(super) async fn forget(&self, keys: &[Key]) -> Result<(), StoreError> {
        if self.topic.partition().is_none() {
            return Ok(());
        }
        let tombstone = |key: &Key| {
            let key = match key {
                Key::Offset { group, key } => codec::offset_key(group, key)?,
                Key::Group(group) => codec::group_key(group)?,
                Key::Other(_) => return Ok(None),
            };
            Ok(Some((key, None)))
        };
        let records: Result<Vec<Option<Record>>, TextTooLong> = keys.iter().map(tombstone).collect();
        self.put_many(&records?.into_iter().flatten().collect::<Vec<_>>()).await
    }

    /// Writes any number of records, in this order; after an error some of them may hold.
    pub(super) async fn put_many(&self, records: &[Record]) -> Result<(), StoreError> {
        self.make().await?;
        for batch in records.chunks(BATCH_RECORDS_MAX) {
            let appended = self.topic.append(batch, self.now_ms())?;
            self.topic.durable(&appended).await?;
        }
        Ok(())
    }

    /// Hands over all that the topic holds, in order. Blocking file reads.
    pub(super) fn read_all(&self, take: impl FnMut(Entry)) -> Result<(), LoadError> {
        self.topic.read_all(take)
    }

    async fn put(&self, records: Vec<Record>) -> Result<i64, StoreError> {
        self.make().await?;
        let appended = self.topic.append(&records, self.now_ms())?;
        self.topic.durable(&appended).await?;
        Ok(appended.base_offset)
    }

    /// Makes sure that there is something to write to.
    pub(super) async fn make(&self) -> Result<(), StoreError> {
        self.topic.make().await.map_err(|error| StoreError::Topic(error.to_string()))
    }
}

pub(super) fn group_record(group: &str, record: &GroupRecord) -> Result<Record, TextTooLong> {
    Ok((codec::group_key(group)?, Some(codec::group_value(record)?)))
}

pub(super) fn offset_record(group: &str, key: &OffsetKey, committed: &CommittedOffset) -> Result<Record, TextTooLong> {
    Ok((codec::offset_key(group, key)?, Some(codec::offset_value(committed)?)))
}

fn offset_records(group: &str, offsets: &[(OffsetKey, CommittedOffset)]) -> Result<Vec<Record>, TextTooLong> {
    offsets.iter().map(|(key, committed)| offset_record(group, key, committed)).collect()
}
