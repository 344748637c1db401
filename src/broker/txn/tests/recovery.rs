//! The coordinator on a log of its own, with a clock of the test's: what a crash may leave behind, put there on purpose,
//! and what time brings.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use super::super::coordinator::{Coordinator, GROUPS_PARTITION};
use super::super::ending::{COORDINATOR_EPOCH, marker};
use super::super::metadata::*;
use crate::broker::catalog::Catalog;
use crate::broker::group::{self, CommittedOffset, Committer};
use crate::broker::internal_topic::{CONSUMER_OFFSETS, InternalTopic};
use crate::broker::log::{Durability, EndTransaction, Log, LogSettings, Partition};
use crate::broker::producer_ids::ProducerIds;
use crate::broker::topic_config::Overrides;
use crate::clock::{Clock, Micros};
use crate::config::BrokerSettings;

const PATIENCE: Duration = Duration::from_secs(20);
const START_MS: i64 = 1_700_000_000_000;
pub(super) const ID: &str = "id";
const GROUP: &str = "g";

#[derive(Default)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> Micros {
        Micros((START_MS + self.0.load(Ordering::Acquire)) * 1000)
    }
}

/// A coordinator with what it works on.
pub(super) struct World {
    pub(super) log: Log,
    pub(super) catalog: Catalog,
    pub(super) groups: group::Coordinator,
    clock: Arc<HandClock>,
    pub(super) transactions: Coordinator,
}

impl World {
    pub(super) async fn open(dir: &Path) -> World {
        let log_settings = LogSettings { durability: Durability::Fsync, journal_bytes_max: 1 << 20 };
        let (log, _) = Log::open(dir, log_settings).unwrap();
        let settings = BrokerSettings::limited(dir.to_owned());
        let catalog = Catalog::open(log.clone(), &settings).await.unwrap();
        // Already there after a restart.
        let _ = catalog.create("t".to_owned(), 2, Overrides::new(), false).await;
        let (clock, ids) = (Arc::new(HandClock::default()), Arc::new(ProducerIds::open(log.clone())));
        let groups_topic = InternalTopic::open(catalog.clone(), CONSUMER_OFFSETS);
        let groups = group::Coordinator::open(&log, groups_topic, Duration::ZERO, clock.clone()).await.unwrap();
        let transactions = Coordinator::open(catalog.clone(), groups.clone(), ids, clock.clone()).await.unwrap();
        World { log, catalog, groups, clock, transactions }
    }

    /// As a crash leaves it: nothing is carried on, everything that was awaited is durable.
    pub(super) async fn restart(self, dir: &Path) -> World {
        self.transactions.stop();
        self.groups.stop();
        self.log.close().await.unwrap();
        drop(self);
        World::open(dir).await
    }

    pub(super) fn partition(&self, index: i32) -> Partition {
        self.catalog.topic("t").unwrap().partition(index).unwrap().clone()
    }

    /// A transaction with a record in each partition and an offset of a group.
    pub(super) async fn begin(&self) -> ProducerIdEpoch {
        let producer = self.transactions.init(ID, None, 60_000).await.unwrap();
        let both = Partitions::from([("t".to_owned(), [0, 1].into())]);
        self.transactions.add_partitions(ID, producer, &both).await.unwrap();
        self.transactions.add_offsets(ID, producer).await.unwrap();
        for index in [0, 1] {
            self.write(producer, index, 0).await;
        }
        let offsets = vec![(("t".to_owned(), 0), offset())];
        self.transactions.commit_offsets(ID, producer, GROUP, Committer::outside(), offsets).await.unwrap();
        producer
    }

    async fn write(&self, producer: ProducerIdEpoch, index: i32, sequence: i32) {
        let partition = self.partition(index);
        let appended = partition.append_transactional(batch(producer, sequence), 0, START_MS).unwrap();
        partition.durable(&appended).await.unwrap();
    }

    /// What the coordinator would write next, and nothing behind it.
    async fn write_only(&self, metadata: &Metadata) {
        let inner = &self.transactions.0;
        let appended = inner.append(ID, metadata).unwrap();
        inner.topic.durable(&appended).await.unwrap();
    }

    async fn mark(&self, metadata: &Metadata, index: i32) {
        let partition = self.partition(index);
        let appended = partition.write_marker(end_of(metadata), 0, START_MS).unwrap();
        partition.durable(&appended).await.unwrap();
    }

    pub(super) fn known(&self) -> Metadata {
        self.transactions.describe(ID).unwrap()
    }

    /// What the transaction that is ongoing becomes when it ends so.
    pub(super) fn prepared(&self, end: End) -> Metadata {
        let known = self.known();
        let Ok(Ending::Prepare(prepared)) = known.end(known.producer, end, START_MS) else { panic!("{known:?}") };
        prepared
    }

    pub(super) async fn reaches(&self, state: TransactionState) {
        let began = Instant::now();
        while self.known().state != state {
            assert!(began.elapsed() < PATIENCE, "{:?} does not become {state:?}", self.known());
            tokio::task::yield_now().await;
        }
    }

    fn offset(&self) -> Option<i64> {
        let offset = |group: &group::Group| group.offsets.get(&("t".to_owned(), 0)).map(|found| found.offset);
        self.groups.describe(GROUP, offset).flatten()
    }

    /// Whether all of it is over: as committed, or as aborted.
    pub(super) fn is_over(&self, end: End) {
        for index in [0, 1] {
            let partition = self.partition(index);
            assert_eq!(partition.last_stable_offset(), partition.high_watermark(), "partition {index}");
            let aborted = partition.aborted_transactions(0, partition.high_watermark()).unwrap().len();
            assert_eq!(aborted, usize::from(end == End::Abort), "partition {index}");
        }
        assert_eq!(self.offset(), (end == End::Commit).then_some(5));
        assert!(self.groups.producers_in_transactions().is_empty());
    }
}

fn offset() -> CommittedOffset {
    CommittedOffset { offset: 5, commit_timestamp_ms: START_MS, ..CommittedOffset::none() }
}

pub(super) fn end_of(metadata: &Metadata) -> EndTransaction {
    let (producer_id, producer_epoch) = (metadata.producer.id, metadata.producer.epoch);
    let marker = marker(metadata.ending().unwrap());
    EndTransaction { producer_id, producer_epoch, marker, coordinator_epoch: COORDINATOR_EPOCH }
}

fn batch(producer: ProducerIdEpoch, sequence: i32) -> Bytes {
    let record = Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence,
        timestamp: START_MS,
        key: None,
        value: Some(Bytes::from_static(b"value")),
        headers: Default::default(),
    };
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, [&record], &options).unwrap();
    out.freeze()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_decided_is_carried_out_wherever_the_crash_came() {
    for end in [End::Commit, End::Abort] {
        for (markers, has_offsets_ended) in [(0, false), (1, false), (2, false), (2, true)] {
            let dir = tempfile::tempdir().unwrap();
            let world = World::open(dir.path()).await;
            world.begin().await;
            let prepared = world.prepared(end);
            world.write_only(&prepared).await;
            for index in 0..markers {
                world.mark(&prepared, index).await;
            }
            if has_offsets_ended {
                world.groups.end_transaction(end_of(&prepared), None).unwrap().await.unwrap();
            }
            let world = world.restart(dir.path()).await;
            world.reaches(prepared.completed(0).unwrap().state).await;
            world.is_over(end);
            // A second start finds nothing to do.
            let world = world.restart(dir.path()).await;
            world.is_over(end);
            // The client, which was told nothing, asks again.
            assert_eq!(world.transactions.end(ID, prepared.producer, end).await, Ok(()));
            world.log.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ongoing_transaction_waits_for_its_producer_or_for_its_time_to_run_out() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let producer = world.begin().await;
    let world = world.restart(dir.path()).await;
    assert_eq!((world.known().state, world.offset()), (TransactionState::Ongoing, None));
    world.clock.0.store(60_000, Ordering::Release);
    world.transactions.0.deadlines_changed.notify_one();
    world.reaches(TransactionState::CompleteAbort).await;
    world.is_over(End::Abort);
    let late = world.transactions.end(ID, producer, End::Commit).await;
    assert_eq!(late, Err(TxnError::ProducerFenced));
    let next = world.transactions.init(ID, None, 60_000).await.unwrap();
    assert_eq!((next.id, next.epoch), (producer.id, producer.epoch + 2));
    world.log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_a_power_cut_took_is_written_again_as_it_was() {
    for end in [End::Commit, End::Abort] {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(dir.path()).await;
        world.begin().await;
        let prepared = world.prepared(end);
        world.write_only(&prepared).await;
        world.mark(&prepared, 1).await;
        // Partition 0 and the group have lost theirs.
        world.write_only(&prepared.completed(START_MS).unwrap()).await;
        let world = world.restart(dir.path()).await;
        world.is_over(end);
        world.log.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_of_any_more_is_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let stranger = ProducerIdEpoch { id: 4711, epoch: 2 };
    world.write(stranger, 0, 0).await;
    world.write(stranger, 1, 0).await;
    world
        .groups
        .stage_offsets(GROUP, Committer::outside(), (4711, 2), vec![(("t".to_owned(), 0), offset())])
        .await
        .unwrap();
    let world = world.restart(dir.path()).await;
    world.is_over(End::Abort);
    world.log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_has_lost_a_part_is_aborted_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let producer = world.begin().await;
    let torn =
        Partitions::from([("t".to_owned(), [0].into()), (CONSUMER_OFFSETS.to_owned(), [GROUPS_PARTITION].into())]);
    world.write_only(&Metadata { partitions: torn, ..world.known() }).await;
    let world = world.restart(dir.path()).await;
    world.reaches(TransactionState::CompleteAbort).await;
    assert_eq!(world.transactions.end(ID, producer, End::Commit).await, Err(TxnError::ProducerFenced));
    let world = world.restart(dir.path()).await;
    world.is_over(End::Abort);
    world.log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nobody_uses_for_a_week_is_forgotten_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let producer = world.begin().await;
    assert_eq!(world.transactions.end(ID, producer, End::Commit).await, Ok(()));
    world.clock.0.store(EXPIRES_AFTER_MS, Ordering::Release);
    world.transactions.0.deadlines_changed.notify_one();
    let began = Instant::now();
    while world.transactions.describe(ID).is_some() {
        assert!(began.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    let again = world.transactions.end(ID, producer, End::Commit).await;
    assert_eq!(again, Err(TxnError::InvalidProducerIdMapping));
    let world = world.restart(dir.path()).await;
    assert_eq!(world.transactions.describe(ID), None);
    let next = world.transactions.init(ID, None, 60_000).await.unwrap();
    assert!(next.id > producer.id && next.epoch == 0);
    world.log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_to_a_partition_once_the_end_of_its_transaction_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let producer = world.begin().await;
    let enter = || world.transactions.enter(ID, &[producer], "t", 0).map(drop);
    assert_eq!(enter(), Ok(()));
    let writing = {
        let inner = &world.transactions.0;
        let mut ids = inner.lock();
        let prepared = world.known_of(&ids);
        inner.end(&mut ids, ID, prepared).unwrap()
    };
    // As soon as it is queued, whether it is durable or not.
    assert!(matches!(enter(), Err(TxnError::Concurrent | TxnError::NotInTransaction)));
    writing.0.await.unwrap().unwrap();
    assert_eq!(enter(), Err(TxnError::NotInTransaction));
    world.is_over(End::Commit);
    world.log.close().await.unwrap();
}

impl World {
    /// The transaction's commit, with the ids locked.
    fn known_of(&self, ids: &super::super::ids::Ids) -> Metadata {
        let known = ids.get(ID).unwrap();
        let Ok(Ending::Prepare(prepared)) = known.end(known.producer, End::Commit, START_MS) else { panic!() };
        prepared
    }
}
