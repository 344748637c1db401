//! A lane leads from the polling thread to one writing thread; each partition has its lane.
//!
//! Writers own disjoint partitions and a connection each, so that one prepares a batch while PostgreSQL works on another's.
//! Whoever waits here waits for all lanes that it asked, together within one time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::handoff::{Handoff, Limits};
use crate::sink::{Batch, Claimed, Unstored};

/// Writers of one consumer, at most: two keep two cores busy; more were not measured.
const LANES_MAX: usize = 2;

/// All lanes of one consumer.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Handoff>);

impl Lanes {
    /// As many as are of use for a topic of so many partitions on this machine.
    pub(super) fn for_topic(partitions: usize, limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(partitions.min(cores).clamp(1, LANES_MAX), limits)
    }

    pub(super) fn new(lanes: usize, limits: Limits) -> Self {
        Lanes((0..lanes).map(|_| Handoff::new(limits)).collect())
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The lane of a writer.
    pub(super) fn lane(&self, number: usize) -> &Handoff {
        &self.0[number]
    }

    /// Adds to the batch that fills in the partition's lane; whether it is full now.
    pub(super) fn push(&self, partition: i32, add: impl FnOnce(&mut Batch)) -> bool {
        self.0[self.number_of(partition)].push(add)
    }

    /// Waits until every lane takes more; false when one still does not after `timeout`.
    pub(super) fn wait_for_room(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        self.0.iter().all(|lane| lane.wait_for_room(until(deadline)))
    }

    /// Waits until everything pushed so far is stored; false when it is not after `timeout`.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        self.0.iter().for_each(Handoff::begin_flush);
        // Each, also behind one that did not end: what was begun is ended.
        let unstored = self.0.iter().filter(|lane| !lane.end_flush(until(deadline))).count();
        unstored == 0
    }

    /// Drops messages of these partitions that no writer has taken.
    pub(super) fn remove(&self, partitions: &[i32]) {
        self.0.iter().for_each(|lane| lane.remove(partitions));
    }

    /// Has the writers claim partitions; without those whose writer could not.
    pub(super) fn claim(&self, partitions: &[i32]) -> Vec<Claimed> {
        let asked: Vec<_> = self.shares(partitions).map(|(lane, share)| lane.claim(share)).collect();
        asked.into_iter().filter_map(|answer| answer.recv().ok()).flatten().collect()
    }

    /// Has the writers forget partitions.
    pub(super) fn release(&self, partitions: &[i32]) {
        self.shares(partitions).for_each(|(lane, share)| lane.release(share));
    }

    /// Lets the writers end once they have stored what is there.
    pub(super) fn close(&self) {
        self.0.iter().for_each(Handoff::close);
    }

    /// Messages that are not stored yet.
    pub(super) fn pending(&self) -> usize {
        self.0.iter().map(Handoff::pending).sum()
    }

    /// The log's timestamp, in milliseconds, of the oldest message that is not stored yet.
    pub(super) fn oldest_timestamp_ms(&self) -> Option<i64> {
        self.0.iter().filter_map(Handoff::oldest_timestamp_ms).min()
    }

    /// What is not stored yet of each partition.
    pub(super) fn unstored(&self) -> BTreeMap<i32, Unstored> {
        self.0.iter().flat_map(Handoff::unstored).map(|unstored| (unstored.partition, unstored)).collect()
    }

    fn number_of(&self, partition: i32) -> usize {
        partition.unsigned_abs() as usize % self.0.len()
    }

    fn shares(&self, partitions: &[i32]) -> impl Iterator<Item = (&Handoff, Vec<i32>)> {
        self.0.iter().enumerate().filter_map(|(number, lane)| {
            let share: Vec<i32> =
                partitions.iter().copied().filter(|partition| self.number_of(*partition) == number).collect();
            (!share.is_empty()).then_some((lane, share))
        })
    }
}

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Micros;
    use crate::consumer::handoff::{Request, Work};
    use crate::sink::Message;

    const LONG: Duration = Duration::from_secs(60);

    fn lanes(batch_messages_max: usize) -> Lanes {
        Lanes::new(2, Limits { batch_messages_max, batch_wait: LONG })
    }

    fn push(lanes: &Lanes, partition: i32, timestamp_ms: i64) -> bool {
        let message = Message {
            partition,
            offset: 0,
            timestamp_ms: Some(timestamp_ms),
            received_at: Micros(0),
            identity: None,
            key: None,
            payload: None,
        };
        lanes.push(partition, |batch| batch.push_dead_letter(message, "test"))
    }

    #[test]
    fn partitions_keep_to_their_lanes_and_one_full_lane_is_no_room() {
        let lanes = lanes(2);
        assert!(!push(&lanes, 0, 5));
        assert!(!push(&lanes, 1, 4));
        assert!(push(&lanes, 2, 6));
        assert!(!lanes.wait_for_room(Duration::ZERO));
        assert_eq!((lanes.pending(), lanes.oldest_timestamp_ms()), (3, Some(4)));
        assert!(matches!(lanes.lane(0).next_work(LONG), Work::Batch(batch) if batch.len() == 2));
        assert!(lanes.wait_for_room(Duration::ZERO));
        assert_eq!(lanes.lane(1).pending(), 1);
    }

    #[test]
    fn a_flush_is_whole_when_every_lane_has_stored() {
        let lanes = lanes(10);
        push(&lanes, 0, 1);
        push(&lanes, 1, 1);
        std::thread::scope(|scope| {
            let flusher = scope.spawn(|| lanes.flush(LONG));
            for number in 0..2 {
                assert!(matches!(lanes.lane(number).next_work(LONG), Work::Batch(_)));
                assert!(!flusher.is_finished());
                lanes.lane(number).next_work(Duration::ZERO);
            }
            assert!(flusher.join().unwrap());
        });
    }

    #[test]
    fn a_claim_goes_to_the_writers_of_its_partitions_and_lacks_those_of_one_that_has_ended() {
        let lanes = lanes(10);
        lanes.lane(1).abandon();
        std::thread::scope(|scope| {
            let claimer = scope.spawn(|| lanes.claim(&[3, 2, 0]));
            let Work::Request(Request::Claim(partitions, answer)) = lanes.lane(0).next_work(LONG) else {
                panic!("no claim");
            };
            assert_eq!(partitions, [2, 0]);
            let claimed = Claimed { partition: 2, epoch: 1, next_offset: 0, fingerprint: None, watermark: None };
            answer.send(vec![claimed.clone()]).unwrap();
            assert_eq!(claimer.join().unwrap(), [claimed]);
        });
        lanes.release(&[3, 2]);
        assert!(
            matches!(lanes.lane(0).next_work(LONG), Work::Request(Request::Release(partitions)) if partitions == [2])
        );
    }
}
