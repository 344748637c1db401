//! What the threads of one consumer share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::ConsumerError;
use super::assignment::Assignment;
use super::client::SESSION;
use super::lanes::Lanes;
use crate::clock::SharedClock;
use crate::metrics::{
    CONSUMER_FENCED_TOTAL, CONSUMER_LAG_MESSAGES, CONSUMER_OWNED_PARTITIONS, CONSUMER_PARTITION_LAG_MESSAGES,
    CONSUMER_PARTITION_LAG_SECONDS, CONSUMER_PENDING_MESSAGES, PARTITION_SERIES_MAX,
};
use crate::progress::{PartitionSeen, Progress};
use crate::sink::Claimed;

/// How the polling thread is to behave; later ones are more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// Read on.
    Run = 0,
    /// Note where the partitions end now, read up to there, then stop.
    DrainToEnds = 1,
    /// Take no more messages, store what was taken, leave the group.
    Stop = 2,
    /// Leave at once; what was taken and not stored is read again by the next start.
    Now = 3,
}

/// What the threads of one consumer share.
pub(super) struct Shared {
    pub topic: String,
    pub lanes: Lanes,
    pub progress: Arc<Progress>,
    pub clock: SharedClock,
    /// The epoch under which this process owns partition 0, and so publishes the totals.
    pub partition_zero: watch::Sender<Option<i64>>,
    /// Rings when a thread has failed.
    pub failed: Notify,
    mode: AtomicU8,
    is_recreated: AtomicBool,
    has_joined: AtomicBool,
    polled_at: Mutex<Instant>,
    assignment: Mutex<Assignment>,
    applied: Mutex<BTreeMap<i32, i64>>,
    fenced: Mutex<Vec<i32>>,
    /// Partitions whose fetching was paused because they were fenced. librdkafka keeps that over a rebalance.
    silenced: Mutex<BTreeSet<i32>>,
    log_ends: Mutex<BTreeMap<i32, i64>>,
    log_starts: Mutex<BTreeMap<i32, i64>>,
    failure: Mutex<Option<ConsumerError>>,
}

impl Shared {
    pub(super) fn new(topic: String, lanes: Lanes, progress: Arc<Progress>, clock: SharedClock) -> Self {
        Shared {
            assignment: Mutex::new(Assignment::new(topic.clone())),
            topic,
            lanes,
            progress,
            clock,
            partition_zero: watch::channel(None).0,
            failed: Notify::new(),
            mode: AtomicU8::new(Mode::Run as u8),
            is_recreated: AtomicBool::new(false),
            has_joined: AtomicBool::new(false),
            polled_at: Mutex::new(Instant::now()),
            applied: Mutex::default(),
            fenced: Mutex::default(),
            silenced: Mutex::default(),
            log_ends: Mutex::default(),
            log_starts: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            0 => Mode::Run,
            1 => Mode::DrainToEnds,
            2 => Mode::Stop,
            _ => Mode::Now,
        }
    }

    /// Raises the mode; a less urgent one is ignored.
    pub(super) fn raise(&self, mode: Mode) {
        self.mode.fetch_max(mode as u8, Ordering::AcqRel);
    }

    /// Whether the topic has got another id while this consumer was reading it.
    pub(super) fn is_recreated(&self) -> bool {
        self.is_recreated.load(Ordering::Acquire)
    }

    pub(super) fn set_recreated(&self, is_recreated: bool) {
        self.is_recreated.store(is_recreated, Ordering::Release);
    }

    /// Whether the group has let this consumer in, once at least.
    pub(super) fn has_joined(&self) -> bool {
        self.has_joined.load(Ordering::Acquire)
    }

    pub(super) fn set_joined(&self, has_joined: bool) {
        self.has_joined.store(has_joined, Ordering::Release);
    }

    /// The polling thread is at work. Says so when it was not for longer than the group waits.
    pub(super) fn polls(&self) {
        let silence = self.rest();
        if silence > SESSION {
            tracing::warn!(
                "this process was stopped for {:.1} s, longer than its session in the group; if the group has not heard of it, \
                 it is fenced: its partitions are others' now",
                silence.as_secs_f64()
            );
        }
    }

    /// The polling thread was busy with what takes its time, while librdkafka sent heartbeats; for how long.
    pub(super) fn rest(&self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut *lock(&self.polled_at), now)
    }

    pub(super) fn assignment(&self) -> MutexGuard<'_, Assignment> {
        lock(&self.assignment)
    }

    /// Keeps the first failure, and ends the run.
    pub(super) fn fail(&self, error: ConsumerError) {
        lock(&self.failure).get_or_insert(error);
        self.raise(Mode::Stop);
        self.failed.notify_one();
    }

    pub(super) fn take_failure(&self) -> Option<ConsumerError> {
        lock(&self.failure).take()
    }

    /// From where a partition is applied that is owned from now on.
    pub(super) fn begin_applied(&self, partition: i32, next_offset: i64) {
        lock(&self.applied).insert(partition, next_offset);
        self.update_lag();
    }

    /// What the writer has committed, for the group's offsets and the lag. It may be of a partition given away since.
    pub(super) fn set_applied(&self, next_offsets: &[(i32, i64)]) {
        let mut applied = lock(&self.applied);
        for (partition, next_offset) in next_offsets {
            if let Some(known) = applied.get_mut(partition) {
                *known = *next_offset;
            }
        }
    }

    pub(super) fn applied(&self) -> BTreeMap<i32, i64> {
        lock(&self.applied).clone()
    }

    /// Partitions that the writer found fenced, for the polling thread to give up.
    pub(super) fn push_fenced(&self, partitions: &[i32]) {
        metrics::counter!(CONSUMER_FENCED_TOTAL).increment(partitions.len() as u64);
        lock(&self.fenced).extend_from_slice(partitions);
    }

    /// A fence that was found before these were claimed again is of an ownership that is over.
    pub(super) fn forget_fences(&self, claimed: &[Claimed]) {
        lock(&self.fenced).retain(|partition| claimed.iter().all(|claimed| claimed.partition != *partition));
    }

    pub(super) fn take_fenced(&self) -> Vec<i32> {
        std::mem::take(&mut *lock(&self.fenced))
    }

    /// Fetching of these is paused until they are assigned again.
    pub(super) fn silence(&self, partitions: &[i32]) {
        lock(&self.silenced).extend(partitions);
    }

    /// Those of these whose fetching is paused; it is to be resumed.
    pub(super) fn take_silenced(&self, partitions: &[i32]) -> Vec<i32> {
        let mut silenced = lock(&self.silenced);
        partitions.iter().copied().filter(|partition| silenced.remove(partition)).collect()
    }

    /// Forgets what is known of partitions that are not owned any more.
    pub(super) fn forget(&self, partitions: &[i32]) {
        self.assignment().remove(partitions);
        lock(&self.applied).retain(|partition, _| !partitions.contains(partition));
        lock(&self.log_ends).retain(|partition, _| !partitions.contains(partition));
        if partitions.contains(&0) {
            self.partition_zero.send_replace(None);
        }
        partitions.iter().for_each(|partition| self.show_partition(*partition, f64::NAN, f64::NAN));
        self.show_partitions(&self.update_lag());
    }

    /// Where the log ends, as librdkafka's statistics say.
    pub(super) fn set_log_ends(&self, ends: impl IntoIterator<Item = (i32, i64)>) {
        lock(&self.log_ends).extend(ends);
        self.show_partitions(&self.update_lag());
    }

    /// Where the log begins, for viewers only.
    pub(super) fn set_log_starts(&self, starts: impl IntoIterator<Item = (i32, i64)>) {
        lock(&self.log_starts).extend(starts);
    }

    /// The owned partitions, for viewers; asked for once a second.
    pub(super) fn partitions_seen(&self) -> Vec<PartitionSeen> {
        // What is applied first: what is stored meanwhile is not unstored any more, and then nothing is counted twice.
        let (applied, unstored) = (self.applied(), self.lanes.unstored());
        let (ends, starts) = (lock(&self.log_ends), lock(&self.log_starts));
        let now_ms = self.clock.now().as_millis();
        let seen = applied.into_iter().map(|(partition, committed)| {
            let unstored = unstored.get(&partition).filter(|unstored| unstored.next_offset > committed);
            // Statistics tell of a log's end now and then: what has been read was in it for certain.
            let read = unstored.map_or(committed, |unstored| unstored.next_offset);
            let log_end = ends.get(&partition).map(|end| *end.max(&read).max(&committed));
            let oldest_us = match unstored {
                Some(unstored) => unstored.oldest_ms.map(|oldest_ms| (now_ms - oldest_ms).max(0).saturating_mul(1_000)),
                None => (log_end == Some(committed)).then_some(0),
            };
            PartitionSeen { partition, log_start: starts.get(&partition).copied(), log_end, committed, oldest_us }
        });
        seen.collect()
    }

    /// Works the lag out anew, after something was stored, read, taken over or given away; what it was worked out from.
    pub(super) fn update_lag(&self) -> Vec<PartitionSeen> {
        let seen = self.partitions_seen();
        let messages = messages_behind(&seen);
        let oldest_us = match (messages, self.lanes.oldest_timestamp_ms()) {
            (_, Some(oldest_ms)) => oldest_ms.saturating_mul(1_000),
            (0, None) => i64::MAX,
            // Something is in the log that was not read yet: how old it is nobody here knows.
            (_, None) => -1,
        };
        self.progress.lag_messages.store(messages, Ordering::Relaxed);
        self.progress.oldest_unapplied_us.store(oldest_us, Ordering::Relaxed);
        self.progress.lag_us.store(self.progress.lag_us_at(self.clock.now().0).unwrap_or(-1), Ordering::Relaxed);
        self.progress.pending.store(self.lanes.pending() as i64, Ordering::Relaxed);
        seen
    }

    /// The gauges of the partitions and of their sum, as often as librdkafka tells where the log ends: all at one moment.
    fn show_partitions(&self, seen: &[PartitionSeen]) {
        let messages = messages_behind(seen);
        metrics::gauge!(CONSUMER_LAG_MESSAGES).set(if messages < 0 { f64::NAN } else { messages as f64 });
        metrics::gauge!(CONSUMER_OWNED_PARTITIONS).set(seen.len() as f64);
        metrics::gauge!(CONSUMER_PENDING_MESSAGES).set(self.lanes.pending() as f64);
        for seen in seen {
            let messages = seen.log_end.map_or(f64::NAN, |end| (end - seen.committed) as f64);
            let seconds = seen.oldest_us.map_or(f64::NAN, |age_us| age_us as f64 / 1e6);
            self.show_partition(seen.partition, messages, seconds);
        }
    }

    fn show_partition(&self, partition: i32, messages: f64, seconds: f64) {
        if partition >= PARTITION_SERIES_MAX {
            return;
        }
        let labels = [("topic", self.topic.clone()), ("partition", partition.to_string())];
        metrics::gauge!(CONSUMER_PARTITION_LAG_MESSAGES, &labels).set(messages);
        metrics::gauge!(CONSUMER_PARTITION_LAG_SECONDS, &labels).set(seconds);
    }
}

/// Of all partitions whose log's end is known; -1 where there is none.
fn messages_behind(seen: &[PartitionSeen]) -> i64 {
    let known = || seen.iter().filter_map(|seen| seen.log_end.map(|end| end - seen.committed));
    if known().next().is_none() { -1 } else { known().sum() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks is left half changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::handoff::Limits;
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_fence_of_an_ownership_that_is_over_is_forgotten_when_the_partition_is_claimed_again() {
        let limits = Limits { batch_messages_max: 1, batch_wait: std::time::Duration::ZERO };
        let shared = Shared::new(String::new(), Lanes::new(1, limits), Arc::default(), SystemClock::shared());
        shared.push_fenced(&[0, 2, 4]);
        let claimed = |partition| Claimed { partition, epoch: 3, next_offset: 7, watermark: None, fingerprint: None };
        shared.forget_fences(&[claimed(0), claimed(4), claimed(5)]);
        assert_eq!(shared.take_fenced(), [2]);
    }

    #[test]
    fn the_lag_counts_what_is_owned_and_what_was_read() {
        let limits = Limits { batch_messages_max: 10, batch_wait: std::time::Duration::ZERO };
        let progress: Arc<Progress> = Arc::default();
        let shared = Shared::new(String::new(), Lanes::new(1, limits), progress.clone(), SystemClock::shared());
        let lag = || progress.lag_messages.load(Ordering::Relaxed);
        shared.begin_applied(0, 10);
        shared.begin_applied(1, 20);
        shared.set_log_ends([(0, 15), (1, 20)]);
        assert_eq!(lag(), 5);
        shared.forget(&[0]);
        assert_eq!(lag(), 0);
        // A batch that was on its way when the partition was given away.
        shared.set_applied(&[(0, 12), (1, 21)]);
        assert_eq!(shared.applied().into_iter().collect::<Vec<_>>(), [(1, 21)]);
        // The statistics are older than what was read since.
        let message = |offset| crate::sink::Message {
            partition: 1,
            offset,
            timestamp_ms: Some(0),
            received_at: crate::clock::Micros(0),
            identity: None,
            key: None,
            payload: None,
        };
        (21..24).for_each(|offset| {
            shared.lanes.push(1, |batch| batch.push_dead_letter(message(offset), "test"));
        });
        shared.update_lag();
        assert_eq!(lag(), 3);
        let lane = shared.lanes.lane(0);
        let super::super::handoff::Work::Batch(batch) = lane.next_work(std::time::Duration::ZERO) else {
            panic!("no batch")
        };
        shared.set_applied(&[(1, 24)]);
        lane.stored(batch);
        shared.update_lag();
        assert_eq!(lag(), 0, "what is stored is not behind");
    }
}
