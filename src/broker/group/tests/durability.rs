//! What groups keep in the log: over restarts, compaction and open transactions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::super::committer::Committer;
use super::super::coordinator::Coordinator;
use super::super::offsets::{CommittedOffset, OffsetKey};
use super::super::store::StoreError;
use super::super::terms::GroupError;
use crate::broker::catalog::Catalog;
use crate::broker::internal_topic::{CONSUMER_OFFSETS, InternalTopic};
use crate::broker::log::{
    AppendError, Compaction, Durability, EndTransaction, Log, LogSettings, Marker, Partition, PartitionConfig,
};
use crate::clock::{Clock, Micros};
use crate::config::BrokerSettings;

const START_MS: i64 = 1_700_000_000_000;
const DAY_MS: i64 = 24 * 3600 * 1000;

struct StepClock(AtomicI64);

impl Clock for StepClock {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::Relaxed) * 1000)
    }
}

/// A log with its groups.
pub(super) struct Life {
    pub(super) log: Log,
    catalog: Catalog,
    pub(super) groups: Coordinator,
    clock: Arc<StepClock>,
}

impl Life {
    pub(super) async fn begin(dir: &Path) -> Life {
        Life::begin_at(dir, START_MS).await
    }

    async fn begin_at(dir: &Path, now_ms: i64) -> Life {
        let (log, catalog) = open_log(dir).await;
        let clock = Arc::new(StepClock(AtomicI64::new(now_ms)));
        let topic = InternalTopic::open(catalog.clone(), CONSUMER_OFFSETS);
        let groups = Coordinator::open(&log, topic, Duration::ZERO, clock.clone()).await.unwrap();
        Life { log, catalog, groups, clock }
    }

    pub(super) async fn again(self, dir: &Path) -> Life {
        let now_ms = self.clock.0.load(Ordering::Relaxed);
        self.end().await;
        Life::begin_at(dir, now_ms).await
    }

    pub(super) async fn end(self) {
        self.groups.stop();
        self.log.close().await.unwrap();
    }

    pub(super) fn partition(&self) -> Partition {
        self.catalog.topic(CONSUMER_OFFSETS).unwrap().partition(0).unwrap().clone()
    }

    pub(super) async fn commit(&self, group: &str, partition: i32, offset: i64) {
        self.groups.commit(group, Committer::outside(), vec![(key(partition), self.committed(offset))]).await.unwrap();
    }

    async fn stage(&self, group: &str, producer_id: i64, partition: i32, offset: i64) {
        let offsets = vec![(key(partition), self.committed(offset))];
        self.groups.stage_offsets(group, Committer::outside(), (producer_id, 0), offsets).await.unwrap();
    }

    async fn end_transaction(&self, producer_id: i64, marker: Marker) {
        let end = EndTransaction { producer_id, producer_epoch: 0, marker, coordinator_epoch: 0 };
        self.groups.end_transaction(end, None).unwrap().await.unwrap();
    }

    pub(super) fn offset(&self, group: &str, partition: i32) -> Option<i64> {
        self.groups
            .describe(group, |group| group.offsets.get(&key(partition)).map(|found| found.offset))
            .unwrap_or_default()
    }

    pub(super) fn committed(&self, offset: i64) -> CommittedOffset {
        let commit_timestamp_ms = self.clock.0.load(Ordering::Relaxed);
        let metadata = "about it".to_owned();
        CommittedOffset { offset, leader_epoch: 0, metadata, commit_timestamp_ms, expire_timestamp_ms: None }
    }

    async fn compact(&self) {
        let partition = self.partition();
        let config = partition.config();
        let compaction = Compaction { dirty_ppm_min: 0, delete_retention_ms: 0, ..Compaction::default() };
        let rolls = PartitionConfig { segment_age_ms_max: -1, compaction: Some(compaction), ..config.clone() };
        partition.set_config(rolls);
        self.log.enforce_retention(START_MS);
        self.log.put_state(vec![(Bytes::from("settled"), None)]).await.unwrap();
        while self.log.compact_one(START_MS) {}
        partition.set_config(config);
    }
}

pub(super) async fn open_log(dir: &Path) -> (Log, Catalog) {
    let log_settings = LogSettings { durability: Durability::Fsync, journal_bytes_max: 1 << 20 };
    let (log, _) = Log::open(dir, log_settings).unwrap();
    let settings = BrokerSettings::limited(dir.to_owned());
    let catalog = Catalog::open(log.clone(), &settings).await.unwrap();
    (log, catalog)
}

pub(super) fn key(partition: i32) -> OffsetKey {
    ("t".to_owned(), partition)
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_offsets_wait_for_their_transaction_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path()).await;
    life.commit("g", 0, 1).await;
    life.stage("g", 7, 0, 2).await;
    life.stage("new", 7, 0, 3).await;
    life.stage("g", 8, 1, 4).await;
    assert!(life.groups.has_pending("g", &key(0)) && life.groups.has_pending("new", &key(0)));
    assert_eq!((life.offset("g", 0), life.offset("new", 0), life.offset("g", 1)), (Some(1), None, None));
    let life = life.again(dir.path()).await;
    assert_eq!(life.groups.producers_in_transactions().len(), 2);
    assert!(life.groups.has_pending("g", &key(0)) && life.groups.has_pending("g", &key(1)));
    assert_eq!(life.offset("g", 0), Some(1));
    life.end_transaction(7, Marker::Commit).await;
    life.end_transaction(8, Marker::Abort).await;
    // A coordinator that does not know whether it came so far says it again.
    life.end_transaction(7, Marker::Commit).await;
    for life in [life.again(dir.path()).await] {
        assert_eq!((life.offset("g", 0), life.offset("new", 0), life.offset("g", 1)), (Some(2), Some(3), None));
        assert!(!life.groups.has_pending("g", &key(0)) && life.groups.producers_in_transactions().is_empty());
        assert_eq!(life.partition().last_stable_offset(), life.partition().high_watermark());
        life.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_was_fenced_stages_nothing_and_one_of_a_newer_epoch_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path()).await;
    for offset in 0..3 {
        life.stage("g", 7, 0, offset).await;
    }
    let fence = EndTransaction { producer_id: 7, producer_epoch: 1, marker: Marker::Abort, coordinator_epoch: 0 };
    life.groups.end_transaction(fence, None).unwrap().await.unwrap();
    let late = life.groups.stage_offsets("g", Committer::outside(), (7, 0), vec![(key(0), life.committed(9))]).await;
    assert!(matches!(late, Err(StoreError::Append(AppendError::InvalidProducerEpoch { .. }))), "{late:?}");
    assert!(!life.groups.has_pending("g", &key(0)));
    life.groups.stage_offsets("g", Committer::outside(), (7, 1), vec![(key(0), life.committed(5))]).await.unwrap();
    let end = EndTransaction { marker: Marker::Commit, ..fence };
    life.groups.end_transaction(end, None).unwrap().await.unwrap();
    assert_eq!(life.offset("g", 0), Some(5));
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_stays_deleted_with_what_transactions_staged_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path()).await;
    life.commit("g", 0, 1).await;
    life.stage("g", 7, 1, 2).await;
    life.groups.delete("g").await.unwrap();
    let life = life.again(dir.path()).await;
    life.end_transaction(7, Marker::Commit).await;
    assert!(life.groups.list().is_empty() && life.groups.producers_in_transactions().is_empty());
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_generation_is_over_when_its_turn_comes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path()).await;
    let joined = life.groups.join("g", super::states::request("", None)).await.unwrap();
    let by = |generation: i32| Committer::new(&joined.member_id, None, generation, |_| true);
    let offsets = || vec![(key(0), life.committed(1))];
    let late = life.groups.commit("g", by(joined.generation - 1), offsets()).await;
    assert!(matches!(late, Err(StoreError::Member(GroupError::IllegalGeneration))), "{late:?}");
    let late = life.groups.stage_offsets("g", by(joined.generation - 1), (7, 0), offsets()).await;
    assert!(matches!(late, Err(StoreError::Member(GroupError::IllegalGeneration))), "{late:?}");
    assert_eq!(life.offset("g", 0), None);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_for_a_topic_that_was_deleted_before_its_turn_leaves_nothing_for_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path()).await;
    let by = Committer::new("", None, -1, |(_, partition)| *partition == 0);
    let offsets = vec![(key(0), life.committed(1)), (key(1), life.committed(1))];
    life.groups.commit("g", by, offsets).await.unwrap();
    assert_eq!((life.offset("g", 0), life.offset("g", 1)), (Some(1), None));
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_left_without_a_commit_is_shown_as_empty_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path()).await;
    let joined = life.groups.join("g", super::states::request("", None)).await.unwrap();
    let left = life.groups.leave("g", &[(&joined.member_id, None)]);
    assert!(left[0].is_ok());
    life.groups.forget_empty().await;
    assert_eq!(life.groups.list().len(), 1);
    life.clock.0.fetch_add(DAY_MS, Ordering::Relaxed);
    // That it is empty must be written first.
    while !life.groups.list().is_empty() {
        life.groups.forget_empty().await;
        tokio::task::yield_now().await;
    }
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_an_empty_group_are_forgotten_after_seven_days_and_then_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path()).await;
    life.commit("g", 0, 1).await;
    life.clock.0.fetch_add(DAY_MS, Ordering::Relaxed);
    life.commit("g", 1, 1).await;
    life.groups.expire_offsets().await;
    let days = async |life: &Life, days: i64| {
        life.clock.0.store(START_MS + days * DAY_MS, Ordering::Relaxed);
        life.groups.expire_offsets().await;
        life.groups.forget_empty().await;
        (life.offset("g", 0), life.offset("g", 1), life.groups.list().len())
    };
    assert_eq!(days(&life, 6).await, (Some(1), Some(1), 1));
    assert_eq!(days(&life, 7).await, (None, Some(1), 1));
    let life = life.again(dir.path()).await;
    assert_eq!(days(&life, 7).await, (None, Some(1), 1));
    assert_eq!(days(&life, 8).await, (None, None, 0));
    let life = life.again(dir.path()).await;
    assert!(life.groups.list().is_empty());
    life.end().await;
}

/// By group and partition: the step, and the offset.
type Places = BTreeMap<(String, i32), (usize, i64)>;

/// What is committed, and what is pending, by a rule of its own: the number of the step in place of the log's offset.
#[derive(Default)]
struct Model {
    committed: Places,
    pending: BTreeMap<i64, Places>,
}

impl Model {
    fn end(&mut self, producer_id: i64, marker: Marker) {
        for (place, staged) in self.pending.remove(&producer_id).unwrap_or_default() {
            let is_later = self.committed.get(&place).is_none_or(|known| known.0 < staged.0);
            if marker == Marker::Commit && is_later {
                self.committed.insert(place, staged);
            }
        }
    }

    fn forget(&mut self, gone: impl Fn(&(String, i32)) -> bool) {
        self.committed.retain(|place, _| !gone(place));
        self.pending.values_mut().for_each(|staged| staged.retain(|place, _| !gone(place)));
    }

    fn check(&self, life: &Life) {
        for group in GROUPS {
            for partition in 0..PARTITIONS {
                let place = (group.to_owned(), partition);
                let expected = self.committed.get(&place).map(|(_, offset)| *offset);
                assert_eq!(life.offset(group, partition), expected, "{place:?}");
                let is_pending = self.pending.values().any(|staged| staged.contains_key(&place));
                assert_eq!(life.groups.has_pending(group, &key(partition)), is_pending, "{place:?}");
            }
        }
    }
}

const GROUPS: [&str; 3] = ["a", "b", "c"];
const PARTITIONS: i32 = 3;
const STEPS: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_committed_staged_deleted_and_compacted_restarts_find_it_as_it_was() {
    let given = std::env::var("FINSTREAM_TEST_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("FINSTREAM_TEST_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(dir.path()).await;
    life.commit("a", 0, 0).await;
    let mut model = Model::default();
    model.committed.insert(("a".to_owned(), 0), (0, 0));
    for step in 1..STEPS {
        let group = *GROUPS.choose(&mut random).unwrap();
        let (partition, producer_id) = (random.random_range(0..PARTITIONS), random.random_range(1..4));
        let place = (group.to_owned(), partition);
        match random.random_range(0..20) {
            0..6 => {
                life.commit(group, partition, step as i64).await;
                model.committed.insert(place, (step, step as i64));
            }
            6..12 => {
                life.stage(group, producer_id, partition, step as i64).await;
                model.pending.entry(producer_id).or_default().insert(place, (step, step as i64));
            }
            12..16 => {
                let marker = if random.random() { Marker::Commit } else { Marker::Abort };
                life.end_transaction(producer_id, marker).await;
                model.end(producer_id, marker);
            }
            16 => {
                let which = move |(_, found): &OffsetKey| *found == partition;
                life.groups.forget_offsets(Some(group.to_owned()), which).await.unwrap();
                model.forget(|gone| *gone == place);
            }
            17 => {
                // It may be gone already.
                let _ = life.groups.delete(group).await;
                model.forget(|gone| gone.0 == group);
            }
            18 => life.compact().await,
            _ => life = life.again(dir.path()).await,
        }
        model.check(&life);
    }
    life.compact().await;
    let life = life.again(dir.path()).await;
    model.check(&life);
    life.end().await;
}

/// What is committed and pending in each place.
fn seen(life: &Life) -> Vec<(Option<i64>, bool)> {
    let places = GROUPS.into_iter().flat_map(|group| (0..PARTITIONS).map(move |partition| (group, partition)));
    places
        .map(|(group, partition)| (life.offset(group, partition), life.groups.has_pending(group, &key(partition))))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_many_do_at_once_is_after_a_restart_what_it_was_before() {
    let given = std::env::var("FINSTREAM_TEST_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("FINSTREAM_TEST_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut life = Arc::new(Life::begin(dir.path()).await);
    for round in 0..6 {
        let tasks: Vec<_> = (0..12)
            .map(|task| {
                let life = life.clone();
                let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(round * 100 + task));
                tokio::spawn(async move {
                    for step in 0..10 {
                        let group = *GROUPS.choose(&mut random).unwrap();
                        let (partition, producer_id) = (random.random_range(0..PARTITIONS), random.random_range(1..4));
                        match random.random_range(0..10) {
                            0..3 => life.commit(group, partition, (task * 100 + step) as i64).await,
                            3..6 => {
                                let offsets = vec![(key(partition), life.committed((task * 100 + step) as i64))];
                                match life
                                    .groups
                                    .stage_offsets(group, Committer::outside(), (producer_id, 0), offsets)
                                    .await
                                {
                                    // While another one ends the producer's transaction.
                                    Ok(()) | Err(StoreError::Concurrent) => {}
                                    Err(error) => panic!("{error}"),
                                }
                            }
                            6..9 => {
                                let marker = if random.random() { Marker::Commit } else { Marker::Abort };
                                let end =
                                    EndTransaction { producer_id, producer_epoch: 0, marker, coordinator_epoch: 0 };
                                // Refused while another one ends it.
                                if let Ok(ending) = life.groups.end_transaction(end, None) {
                                    ending.await.unwrap();
                                }
                            }
                            _ => {
                                let which = move |(_, found): &OffsetKey| *found == partition;
                                life.groups.forget_offsets(Some(group.to_owned()), which).await.unwrap();
                            }
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let before = seen(&life);
        let ended = Arc::into_inner(life).unwrap();
        life = Arc::new(ended.again(dir.path()).await);
        assert_eq!(seen(&life), before);
    }
    Arc::into_inner(life).unwrap().end().await;
}
