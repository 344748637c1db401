//! A compacted topic of our own, of one partition, in which a coordinator keeps its state in Kafka's record formats.
//!
//! Owns: how such a topic is made, written and read back. What is appended by one caller after another lies in the log in
//! that order, and in the journal in the order of all that was queued. Must not know what the keys and values mean.

use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

pub(crate) use super::catalog::{CONSUMER_OFFSETS, TRANSACTION_STATE, is_internal};
use super::catalog::{Catalog, CatalogError, LEADER_EPOCH};
use super::log::{AppendError, Appended, EndTransaction, Marker, Partition, ReadError};

/// As Apache Kafka configures these topics, but for smaller segments; the size of a batch is bounded by who writes, not by
/// the topic's default.
const CONFIGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("compression.type", "producer"),
    ("max.message.bytes", "67108864"),
    // All of it is read at each start: small segments are compacted soon.
    ("segment.bytes", "16777216"),
];
/// Read at once when the topic is loaded.
const READ_BYTES: usize = 4 << 20;
/// What a plain batch says of its producer: id, epoch, sequence.
const NO_PRODUCER: (i64, i16, i32) = (-1, -1, -1);

/// What a record of the topic says, and in what kind of batch it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) offset: i64,
    /// -1 in a plain batch.
    pub(crate) producer_id: i64,
    /// -1 in a plain batch.
    pub(crate) producer_epoch: i16,
    /// It counts once its transaction is committed; a marker says so, or that it never will.
    pub(crate) is_transactional: bool,
    pub(crate) content: Content,
}

/// A record, or the end of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// No value: a tombstone. Records without a key are in no batch that we wrote.
    Record {
        key: Option<Bytes>,
        value: Option<Bytes>,
    },
    Marker(Marker),
}

/// Why the topic cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its files cannot be read.
    #[error("{0}: {1}")]
    Read(&'static str, ReadError),
    /// They hold something that is no batch of records.
    #[error("{0}: the batch at offset {1} cannot be read: {2}; restore the directory from a backup")]
    Malformed(&'static str, i64, String),
}

/// The topic; made when it is first needed.
pub(crate) struct InternalTopic {
    catalog: Catalog,
    name: &'static str,
    partition: OnceLock<Partition>,
    making: tokio::sync::Mutex<()>,
    /// Held between the look at a producer's next sequence and the append of it.
    in_transaction: Mutex<()>,
}

impl InternalTopic {
    /// The topic of that name, if it was made already; else it is made by the first [`InternalTopic::make`].
    pub(crate) fn open(catalog: Catalog, name: &'static str) -> InternalTopic {
        let (making, in_transaction) = (tokio::sync::Mutex::default(), Mutex::default());
        let topic = InternalTopic { catalog, name, partition: OnceLock::new(), making, in_transaction };
        topic.look();
        topic
    }

    fn look(&self) -> Option<&Partition> {
        if self.partition.get().is_none() {
            let found = self.catalog.topic(self.name)?.partition(0).cloned()?;
            return Some(self.partition.get_or_init(|| found));
        }
        self.partition.get()
    }

    /// Its partition, once it was made.
    pub(crate) fn partition(&self) -> Option<&Partition> {
        self.partition.get()
    }

    /// Makes the topic if it is not there; to be called before the first append.
    ///
    /// # Errors
    /// The topic cannot be made durable.
    pub(crate) async fn make(&self) -> Result<(), CatalogError> {
        if self.partition().is_some() {
            return Ok(());
        }
        let _alone = self.making.lock().await;
        if self.look().is_none() {
            let overrides =
                self.catalog.overrides(CONFIGS.into_iter()).map_err(|error| CatalogError::Config(error.to_string()))?;
            self.catalog.create(self.name.to_owned(), 1, overrides, false).await?;
            self.look();
        }
        Ok(())
    }

    /// Queues one plain batch of keys and their values, at once and without waiting; no value is a tombstone. What was
    /// queued earlier lies before it.
    ///
    /// # Errors
    /// Those of [`Partition::append_as_coordinator`]; nothing is queued then. `Storage` also while the topic was not made.
    pub(crate) fn append(&self, records: &[(Bytes, Option<Bytes>)], now_ms: i64) -> Result<Appended, AppendError> {
        self.append_behind(records, None, now_ms)
    }

    /// As [`InternalTopic::append`], if what it is to lie behind was not refused: it is never written without that.
    ///
    /// # Errors
    /// Those of [`Partition::append_as_coordinator`].
    pub(crate) fn append_behind(
        &self,
        records: &[(Bytes, Option<Bytes>)],
        behind: Option<&Appended>,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let batch = encode(records, NO_PRODUCER, now_ms)?;
        self.made()?.append_as_coordinator(batch, behind, LEADER_EPOCH, now_ms)
    }

    /// As [`InternalTopic::append`], within a producer's transaction, which this begins in this topic if need be.
    ///
    /// # Errors
    /// Those of [`Partition::append_as_coordinator`].
    pub(crate) fn append_in_transaction(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        records: &[(Bytes, Option<Bytes>)],
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let partition = self.made()?;
        let _alone = self.in_transaction.lock().unwrap_or_else(PoisonError::into_inner);
        // The records are ours: the client numbers what it sends itself, and nothing of it comes here.
        let sequence = partition.next_sequence(producer_id, producer_epoch);
        let batch = encode(records, (producer_id, producer_epoch, sequence), now_ms)?;
        partition.append_as_coordinator(batch, None, LEADER_EPOCH, now_ms)
    }

    /// Queues the end of a producer's transaction in this topic, behind something as of [`InternalTopic::append_behind`].
    ///
    /// # Errors
    /// Those of [`Partition::write_marker_behind`].
    pub(crate) fn write_marker(
        &self,
        end: EndTransaction,
        behind: Option<&Appended>,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.made()?.write_marker_behind(end, behind, LEADER_EPOCH, now_ms)
    }

    /// Resolves Ok when what was appended is durable.
    ///
    /// # Errors
    /// It will not be: see [`Partition::durable`].
    pub(crate) async fn durable(&self, appended: &Appended) -> Result<(), AppendError> {
        self.made()?.durable(appended).await
    }

    /// Hands over everything that the topic holds, in order of offset: what coordinators load at start-up, before
    /// anything is appended. Blocking file reads.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what a topic of ours can hold.
    pub(crate) fn read_all(&self, mut take: impl FnMut(Entry)) -> Result<(), LoadError> {
        let Some(partition) = self.partition() else { return Ok(()) };
        let mut next = partition.log_start_offset();
        loop {
            let read = partition.read(next, READ_BYTES, true).map_err(|error| LoadError::Read(self.name, error))?;
            let Some(end) = read.end_offset() else { return Ok(()) };
            let malformed = |why: String| LoadError::Malformed(self.name, next, why);
            let sets = RecordBatchDecoder::decode_all(&mut read.batches.clone())
                .map_err(|error| malformed(error.to_string()))?;
            for record in sets.into_iter().flat_map(|set| set.records).filter(|record| record.offset >= next) {
                take(entry(record).ok_or_else(|| malformed("it holds an unknown control record".to_owned()))?);
            }
            next = end;
        }
    }

    fn made(&self) -> Result<&Partition, AppendError> {
        self.partition().ok_or_else(|| AppendError::Storage(format!("the topic {} was not made yet", self.name)))
    }
}

/// One batch; within a transaction if there is a producer.
fn encode(records: &[(Bytes, Option<Bytes>)], producer: (i64, i16, i32), now_ms: i64) -> Result<Bytes, AppendError> {
    let (producer_id, producer_epoch, base_sequence) = producer;
    let record = |(at, (key, value)): (usize, &(Bytes, Option<Bytes>))| Record {
        transactional: producer != NO_PRODUCER,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: LEADER_EPOCH,
        producer_id,
        producer_epoch,
        timestamp_type: TimestampType::Creation,
        offset: at as i64,
        // It counts on within a batch, also from "none" on.
        sequence: base_sequence.wrapping_add(at as i32),
        timestamp: now_ms,
        key: Some(key.clone()),
        value: value.clone(),
        headers: Default::default(),
    };
    let records: Vec<Record> = records.iter().enumerate().map(record).collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut batch = BytesMut::new();
    RecordBatchEncoder::encode(&mut batch, &records, &options)
        .map_err(|error| AppendError::InvalidRecord(format!("{error:#}")))?;
    Ok(batch.freeze())
}

/// None for a control record that is no marker.
fn entry(record: Record) -> Option<Entry> {
    let content = if record.control {
        // The key: version i16, then 0 for an abort and 1 for a commit.
        Content::Marker(match record.key.as_deref() {
            Some([_, _, 0, 0]) => Marker::Abort,
            Some([_, _, 0, 1]) => Marker::Commit,
            _ => return None,
        })
    } else {
        Content::Record { key: record.key, value: record.value }
    };
    let Record { offset, producer_id, producer_epoch, transactional: is_transactional, .. } = record;
    Some(Entry { offset, producer_id, producer_epoch, is_transactional, content })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {

    use super::super::log::{Durability, Log, LogSettings};
    use super::super::topic_config::Overrides;
    use super::*;
    use crate::config::BrokerSettings;

    const NOW_MS: i64 = 1_700_000_000_000;

    async fn open(dir: &std::path::Path) -> (Log, InternalTopic) {
        let log_settings = LogSettings { durability: Durability::Fsync, journal_bytes_max: 1 << 20 };
        let (log, _) = Log::open(dir, log_settings).unwrap();
        let settings = BrokerSettings::limited(dir.to_owned());
        let catalog = Catalog::open(log.clone(), &settings).await.unwrap();
        (log, InternalTopic::open(catalog, TRANSACTION_STATE))
    }

    fn all(topic: &InternalTopic) -> Vec<Entry> {
        let mut entries = Vec::new();
        topic.read_all(|entry| entries.push(entry)).unwrap();
        entries
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn coordinators_write_on_while_clients_keep_the_disk_busy() {
        let dir = tempfile::tempdir().unwrap();
        let (log, topic) = open(dir.path()).await;
        topic.make().await.unwrap();
        topic.catalog.create("t".to_owned(), 1, Overrides::new(), false).await.unwrap();
        let clients = topic.catalog.topic("t").unwrap().partition(0).unwrap().clone();
        let key = Bytes::from_static(b"key");
        let large = encode(&[(key.clone(), Some(Bytes::from(vec![7; 900_000])))], NO_PRODUCER, NOW_MS).unwrap();
        let held = log.held();
        let small = encode(&[(key.clone(), None)], NO_PRODUCER, NOW_MS).unwrap();
        for batch in [large, small] {
            while clients.append(batch.clone(), LEADER_EPOCH, NOW_MS).is_ok() {}
            assert!(matches!(clients.append(batch, LEADER_EPOCH, NOW_MS), Err(AppendError::Busy { .. })));
        }
        let plain = topic.append(&[(key.clone(), None)], NOW_MS).unwrap();
        let staged = topic.append_in_transaction(7, 0, &[(key.clone(), None)], NOW_MS).unwrap();
        let end = EndTransaction { producer_id: 7, producer_epoch: 0, marker: Marker::Commit, coordinator_epoch: 0 };
        let marker = topic.write_marker(end, Some(&staged), NOW_MS).unwrap();
        let elsewhere = clients.write_marker(end, LEADER_EPOCH, NOW_MS).unwrap();
        drop(held);
        for appended in [plain, staged, marker] {
            topic.durable(&appended).await.unwrap();
        }
        clients.durable(&elsewhere).await.unwrap();
        log.close().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_appended_is_read_back_in_order_with_transactions_and_markers_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (log, topic) = open(dir.path()).await;
        let key = Bytes::from_static(b"key");
        assert!(topic.append(&[(key.clone(), None)], NOW_MS).is_err(), "it was not made yet");
        assert_eq!(all(&topic), []);
        topic.make().await.unwrap();
        topic.make().await.unwrap();
        let long = Bytes::from(vec![7; 3 << 20]);
        topic.append(&[(key.clone(), Some(long.clone())), (key.clone(), Some(Bytes::new()))], NOW_MS).unwrap();
        topic.append(&[(key.clone(), None)], NOW_MS).unwrap();
        let end = EndTransaction { producer_id: 7, producer_epoch: 3, marker: Marker::Abort, coordinator_epoch: 0 };
        topic.write_marker(end, None, NOW_MS).unwrap();
        topic.write_marker(EndTransaction { marker: Marker::Commit, ..end }, None, NOW_MS).unwrap();
        let last = topic.append(&[(key.clone(), Some(long.clone()))], NOW_MS).unwrap();
        topic.durable(&last).await.unwrap();
        let plain = |offset, value| Entry {
            offset,
            producer_id: -1,
            producer_epoch: -1,
            is_transactional: false,
            content: Content::Record { key: Some(key.clone()), value },
        };
        let marker = |offset, marker| Entry {
            offset,
            producer_id: 7,
            producer_epoch: 3,
            is_transactional: true,
            content: Content::Marker(marker),
        };
        let expected = [
            plain(0, Some(long.clone())),
            plain(1, Some(Bytes::new())),
            plain(2, None),
            marker(3, Marker::Abort),
            marker(4, Marker::Commit),
            plain(5, Some(long)),
        ];
        assert_eq!(all(&topic), expected);
        assert!(topic.partition().unwrap().config().compaction.is_some());
        log.close().await.unwrap();
        drop((log, topic));
        let (log, topic) = open(dir.path()).await;
        assert_eq!(all(&topic), expected);
        log.close().await.unwrap();
    }
}
