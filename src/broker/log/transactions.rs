//! What the transaction coordinator asks of a partition: transactional batches, markers, and what was aborted.
//!
//! Must not know: who may write to which transaction, and when one ends. That is the coordinator's.

use bytes::Bytes;

use super::batch::Transactional;
use super::open_transactions::AbortedTransaction;
use super::partition::Partition;
use super::producer_state::ActiveProducer;
use super::queue::Origin;
use super::{AppendError, Appended, EndTransaction, Found, Isolation, ReadError, lock};

impl Partition {
    /// As [`Partition::append`], for a producer whose transaction the coordinator knows: transactional batches are
    /// taken, too. The first one opens the transaction in this partition.
    ///
    /// # Errors
    /// Those of `append`; `InvalidTransaction` for a plain batch of a producer that is in a transaction.
    pub fn append_transactional(
        &self,
        batches: Bytes,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.append_in_transaction(batches, leader_epoch, now_ms, |_| Ok(()))
    }

    /// As [`Partition::append_transactional`], if `enter` agrees once it hears of the producers (ids and epochs) of
    /// transactional batches. What it returns is held until the batches have their place in the log.
    ///
    /// # Errors
    /// Those of `append_transactional`, and those of `enter`: nothing is appended then.
    pub fn append_in_transaction<G, E: From<AppendError>>(
        &self,
        batches: Bytes,
        leader_epoch: i32,
        now_ms: i64,
        enter: impl FnOnce(&[(i64, i16)]) -> Result<G, E>,
    ) -> Result<Appended, E> {
        let checked = self.check(&batches, Transactional::Allowed, Origin::Client, now_ms)?;
        let transactional = checked.iter().map(|batch| &batch.header).filter(|header| header.is_transactional());
        let mut producers: Vec<_> = transactional.map(|header| (header.producer_id, header.producer_epoch)).collect();
        producers.dedup();
        let entered = enter(&producers)?;
        let appended = self.append_checked(checked, Origin::Client, leader_epoch, now_ms)?;
        drop(entered);
        self.wake_writer_for(&appended);
        Ok(appended)
    }

    /// As [`Partition::append_transactional`], for what a coordinator remembers: a disk that is behind or full keeps it out
    /// later than what clients append. `behind`: it is queued only if that still waits or is written, and is then written
    /// only if that is.
    ///
    /// # Errors
    /// Those of `append_transactional`; `Storage`, worth a retry of both, when `behind` was refused.
    pub fn append_as_coordinator(
        &self,
        batches: Bytes,
        behind: Option<&Appended>,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let origin = coordinator(behind);
        let appended = self.check_and_append(batches, Transactional::Allowed, origin, leader_epoch, now_ms)?;
        self.wake_writer_for(&appended);
        Ok(appended)
    }

    /// Ends a producer's transaction by a control batch, which takes one offset. It holds once it is durable. To end
    /// what is not open does no harm: a coordinator may try again.
    ///
    /// # Errors
    /// `InvalidProducerEpoch` for an epoch older than the producer's; `CoordinatorFenced` for an older coordinator.
    /// Nothing was written then. `Busy`, `TooManyOpen` and a full disk's `Storage` are worth a retry.
    pub fn write_marker(&self, end: EndTransaction, leader_epoch: i32, now_ms: i64) -> Result<Appended, AppendError> {
        self.write_marker_behind(end, None, leader_epoch, now_ms)
    }

    /// As [`Partition::write_marker`], behind something as of [`Partition::append_as_coordinator`].
    ///
    /// # Errors
    /// Those of both.
    pub fn write_marker_behind(
        &self,
        end: EndTransaction,
        behind: Option<&Appended>,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        if end.producer_id < 0 || end.producer_epoch < 0 {
            let EndTransaction { producer_id, producer_epoch, .. } = end;
            return Err(AppendError::Corrupt(format!("producer {producer_id} with epoch {producer_epoch} cannot be")));
        }
        let appended = self.append_checked(vec![end.batch(now_ms)], coordinator(behind), leader_epoch, now_ms)?;
        self.wake_writer_for(&appended);
        Ok(appended)
    }

    /// Where this producer's transaction begins in this partition, if it is in one; as appended, not as durable.
    pub fn open_transaction(&self, producer_id: i64) -> Option<i64> {
        lock(&self.0.front).producers.open().of(producer_id)
    }

    /// The sequence that the next batch of this producer must begin with; as appended, not as durable.
    pub fn next_sequence(&self, producer_id: i64, producer_epoch: i16) -> i32 {
        lock(&self.0.front).producers.next_sequence(producer_id, producer_epoch)
    }

    /// The producers that are remembered, as far as they are durable, by id.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        lock(&self.0.store).producers.active()
    }

    /// Those of them that are in a transaction here.
    pub fn producers_in_transactions(&self) -> Vec<ActiveProducer> {
        lock(&self.0.store).producers.in_transactions()
    }

    /// As [`Partition::find`], with the aborted transactions that a reader of committed records must skip in it; none for
    /// other readers. Both are of one moment: compaction takes aborted records out of the log, and then their
    /// transactions are told of no longer.
    ///
    /// # Errors
    /// Those of `find`.
    pub fn find_with_aborted(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
        copied_bytes_max: usize,
        isolation: Isolation,
    ) -> Result<(Found, Vec<AbortedTransaction>), ReadError> {
        loop {
            let replacements = lock(&self.0.store).replacements;
            let found = self.find(offset, max_bytes, at_least_one, copied_bytes_max, isolation)?;
            if isolation == Isolation::Uncommitted || found.batches.is_empty() {
                return Ok((found, Vec::new()));
            }
            let aborted = self.aborted_transactions(offset, found.end_offset)?;
            if lock(&self.0.store).replacements == replacements {
                return Ok((found, aborted));
            }
        }
    }

    /// The aborted transactions that a reader of the offsets from `from` up to `to` must skip, in the order of their
    /// markers. Complete for a `to` up to the last stable offset. Blocking file read (page cache) if need be. With
    /// compaction only [`Partition::find_with_aborted`] tells what belongs together.
    ///
    /// # Errors
    /// `Storage` when a file cannot be read.
    pub fn aborted_transactions(&self, from: i64, to: i64) -> Result<Vec<AbortedTransaction>, ReadError> {
        let mut found = Vec::new();
        if from >= to {
            return Ok(found);
        }
        let segments = lock(&self.0.store).all_from(from);
        for segment in segments {
            let complete = segment
                .collect_aborted(from, to, &mut found)
                .map_err(|error| ReadError::Storage(format!("{}: {error}", segment.log_path().display())))?;
            if complete {
                break;
            }
        }
        Ok(found)
    }
}

fn coordinator(behind: Option<&Appended>) -> Origin {
    Origin::Coordinator { behind: behind.map(|appended| appended.refusals_anywhere) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::{Duration, Instant};

    use bytes::BytesMut;
    use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::error::KafkaError;
    use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
    use uuid::Uuid;

    use super::super::disk::OsDisk;
    use super::super::journal::Journal;
    use super::super::queue::Completion;
    use super::super::records::{Change, PartitionRecord};
    use super::super::{Arrivals, Durability, LogSettings, Marker, PartitionConfig, PartitionId, recovery, writer};
    use super::*;
    use crate::broker::Broker;
    use crate::broker::topic_config::Overrides;
    use crate::config::BrokerSettings;

    const PATIENCE: Duration = Duration::from_secs(20);
    const NOW_MS: i64 = 1_700_000_000_000;

    fn batch(producer_id: i64, sequence: i32, value: &str) -> Bytes {
        let record = Record {
            transactional: true,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id,
            producer_epoch: 0,
            timestamp_type: TimestampType::Creation,
            offset: 0,
            sequence,
            timestamp: NOW_MS,
            key: None,
            value: Some(Bytes::from(value.to_owned())),
            headers: Default::default(),
        };
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut out, [&record], &options).unwrap();
        out.freeze()
    }

    #[tokio::test]
    async fn a_transaction_that_ends_within_a_large_group_is_heard_of_though_another_stays_open() {
        let dir = tempfile::tempdir().unwrap();
        let settings = LogSettings { durability: Durability::Fsync, journal_bytes_max: 1 << 20 };
        let (jobs, _to_do) = mpsc::channel();
        let (core, _) = recovery::recover(Arc::new(OsDisk), dir.path(), settings, jobs).unwrap();
        let mut journal = Journal::new(&core.journal_files, core.sequence());
        let mut write = || assert!(writer::serve(&core, &mut journal, core.queue.take()));
        let config = PartitionConfig {
            segment_bytes_max: 1 << 20,
            segment_age_ms_max: i64::MAX,
            retention_bytes: None,
            retention_ms: None,
            batch_bytes_max: 1 << 20,
            log_append_time: false,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: i64::MAX,
            compaction: None,
        };
        let id = PartitionId { topic_id: Uuid::from_u128(7), partition: 0 };
        let record = PartitionRecord { number: 1, id, directory: "t-0".to_owned(), config };
        core.queue.push_change(Change::Create(record), Completion::Nobody);
        write();
        let partition = core.all_partitions().remove(0);
        let append = |producer_id, sequence| {
            partition.append_transactional(batch(producer_id, sequence, "value"), 0, NOW_MS).unwrap();
        };
        append(1, 0);
        append(2, 0);
        write();
        let (committed, all) = (Arrivals::new(), Arrivals::new());
        let _listening =
            [partition.listen_isolated(&committed, Isolation::Committed).unwrap(), partition.listen(&all).unwrap()];
        append(2, 1);
        write();
        assert_eq!((partition.last_stable_offset(), committed.bytes()), (0, 0));
        // One group: the end of the older transaction, and much of the other one.
        let end = EndTransaction { producer_id: 1, producer_epoch: 0, marker: Marker::Commit, coordinator_epoch: 0 };
        partition.write_marker(end, 0, NOW_MS).unwrap();
        (2..50).for_each(|sequence| append(2, sequence));
        write();
        assert_eq!((partition.last_stable_offset(), partition.high_watermark()), (1, 52));
        // Whatever it waits for is worth a look.
        committed.reach(1 << 30).await;
        assert!(all.bytes() < 1 << 20, "whoever reads all heard of each batch when it came");
        // A transaction that ends in the group that it began in holds nothing back before.
        let came = committed.bytes();
        partition.write_marker(EndTransaction { producer_id: 2, ..end }, 0, NOW_MS).unwrap();
        write();
        append(3, 0);
        partition.write_marker(EndTransaction { producer_id: 3, ..end }, 0, NOW_MS).unwrap();
        let released = committed.bytes();
        write();
        assert_eq!(partition.last_stable_offset(), partition.high_watermark());
        assert!(released > came + (1 << 29) && committed.bytes() < released + 1000);
    }

    fn consumer(broker: &Broker, isolation: &str, from: i64, wait_ms: u32) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.address().to_string()).set("group.id", "g");
        config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("isolation.level", isolation).set("fetch.wait.max.ms", wait_ms.to_string());
        let consumer: BaseConsumer = config.create().unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset("t", 0, Offset::Offset(from)).unwrap();
        consumer.assign(&assignment).unwrap();
        consumer
    }

    /// What comes up to the end of the partition, as (offset, value).
    fn up_to_the_end(consumer: &BaseConsumer) -> Vec<(i64, String)> {
        let began = Instant::now();
        let mut found = Vec::new();
        loop {
            assert!(began.elapsed() < PATIENCE, "only {found:?} came");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Err(KafkaError::PartitionEOF(_))) => return found,
                Some(message) => {
                    let message = message.unwrap();
                    let value = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
                    found.push((message.offset(), value));
                }
                None => {}
            }
        }
    }

    fn expected(committed: &[(i64, &str)]) -> Vec<(i64, String)> {
        committed.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_real_client_reads_exactly_what_was_committed() {
        let dir = tempfile::tempdir().unwrap();
        let settings = BrokerSettings::limited(dir.path().to_owned());
        let broker = Broker::start(settings).await.unwrap();
        broker.node.catalog.create("t".to_owned(), 1, Overrides::new(), false).await.unwrap();
        let (id, _) = broker.node.log.partitions()[0];
        let partition = broker.node.log.partition(id).unwrap();
        let write = async |producer_id, sequence, value| {
            let batch = batch(producer_id, sequence, value);
            let appended = partition.append_transactional(batch, 0, NOW_MS).unwrap();
            partition.durable(&appended).await.unwrap();
        };
        let end = async |producer_id, marker| {
            let end = EndTransaction { producer_id, producer_epoch: 0, marker, coordinator_epoch: 0 };
            let appended = partition.write_marker(end, 0, NOW_MS).unwrap();
            partition.durable(&appended).await.unwrap();
        };
        write(1, 0, "committed 1").await;
        write(2, 0, "aborted 2").await;
        write(1, 1, "committed 3").await;
        end(2, Marker::Abort).await;
        end(1, Marker::Commit).await;
        write(2, 1, "open 5").await;
        write(3, 0, "committed 6").await;
        end(3, Marker::Commit).await;
        let committed = consumer(&broker, "read_committed", 0, 100);
        let uncommitted = consumer(&broker, "read_uncommitted", 0, 100);
        assert_eq!(up_to_the_end(&committed), expected(&[(0, "committed 1"), (2, "committed 3")]));
        assert_eq!(up_to_the_end(&uncommitted).len(), 5);
        assert_eq!(committed.fetch_watermarks("t", 0, PATIENCE).unwrap(), (0, 5));
        assert_eq!(uncommitted.fetch_watermarks("t", 0, PATIENCE).unwrap(), (0, 8));
        // One that waits is woken by the last stable offset; else it would not be answered in time.
        let waiting = consumer(&broker, "read_committed", 5, 60_000);
        assert!(waiting.poll(Duration::from_millis(500)).is_none());
        end(2, Marker::Abort).await;
        assert_eq!(waiting.poll(PATIENCE).unwrap().unwrap().offset(), 6);
        assert_eq!(up_to_the_end(&committed), expected(&[(6, "committed 6")]));
        write(2, 2, "committed 9").await;
        end(2, Marker::Commit).await;
        assert_eq!(up_to_the_end(&committed), expected(&[(9, "committed 9")]));
        assert_eq!(committed.fetch_watermarks("t", 0, PATIENCE).unwrap(), (0, 11));
        drop((committed, uncommitted, waiting));
        broker.stop().await.unwrap();
    }
}
