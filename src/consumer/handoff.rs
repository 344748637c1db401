//! Where the polling thread leaves messages and a writing thread takes them: one batch that fills, bounded.
//!
//! The writer pulls: while it is busy the batch grows up to its bound, when it is free it takes what has waited for
//! `batch_wait`, which is short. So batches are as small as one when little comes, and as large as they may be when much
//! comes.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sink::{Batch, Claimed, Unstored};

/// What the writer is asked to do beside writing.
#[derive(Debug)]
pub(super) enum Request {
    /// Claim partitions; the answer goes back over the channel, a dropped channel means that it was not done.
    Claim(Vec<i32>, SyncSender<Vec<Claimed>>),
    /// Forget partitions.
    Release(Vec<i32>),
}

/// What the writer does next.
#[derive(Debug)]
pub(super) enum Work {
    Request(Request),
    Batch(Batch),
    /// Nothing came for a while.
    Idle,
    /// No more will come.
    Closed,
}

/// When a batch is ripe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub batch_messages_max: usize,
    pub batch_wait: Duration,
}

/// The place between the polling thread and one writing thread.
#[derive(Debug)]
pub(super) struct Handoff {
    limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    filling: Batch,
    /// The memory of the batch that was stored last: what fills the next one need not ask the system for it.
    spare: Batch,
    first_at: Option<Instant>,
    /// Messages that the writer has taken and not yet stored, and what they are of each partition.
    in_flight: usize,
    in_flight_unstored: Vec<Unstored>,
    requests: VecDeque<Request>,
    /// Someone waits for everything to be stored: do not wait for the batch to fill.
    flushing: usize,
    closed: bool,
    /// The writer has ended: nobody will take anything any more.
    abandoned: bool,
}

impl Handoff {
    pub(super) fn new(limits: Limits) -> Self {
        Handoff { limits, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds to the batch that fills; whether it is full now. Cheap; wakes the writer only when that changes what it
    /// would do.
    pub(super) fn push(&self, add: impl FnOnce(&mut Batch)) -> bool {
        let mut state = self.lock();
        add(&mut state.filling);
        let is_first = state.first_at.is_none();
        if is_first {
            state.first_at = Some(Instant::now());
        }
        let is_full = state.filling.is_full(self.limits.batch_messages_max);
        if is_first || is_full {
            self.changed.notify_all();
        }
        is_full
    }

    /// Waits until the batch takes more; false when it still does not after `timeout`.
    pub(super) fn wait_for_room(&self, timeout: Duration) -> bool {
        self.wait(timeout, |state, limits| state.abandoned || !state.filling.is_full(limits.batch_messages_max))
    }

    /// Asks for everything pushed so far to be stored, without waiting for the batch to fill.
    pub(super) fn begin_flush(&self) {
        self.lock().flushing += 1;
        self.changed.notify_all();
    }

    /// Waits until everything pushed before [`Handoff::begin_flush`] is stored; false when it is not after `timeout`.
    pub(super) fn end_flush(&self, timeout: Duration) -> bool {
        let is_stored =
            self.wait(timeout, |state, _| state.abandoned || (state.filling.is_empty() && state.in_flight == 0));
        let mut state = self.lock();
        state.flushing -= 1;
        is_stored && !state.abandoned
    }

    /// Drops messages of these partitions that the writer has not taken.
    pub(super) fn remove(&self, partitions: &[i32]) {
        let mut state = self.lock();
        state.filling.remove_partitions(partitions);
        if state.filling.is_empty() {
            // The bytes of what was removed, too: they count for whether it is full.
            state.filling.clear();
            state.first_at = None;
        }
    }

    /// Has the writer claim partitions; what it claimed comes over the channel, which is closed when it could not.
    pub(super) fn claim(&self, partitions: Vec<i32>) -> Receiver<Vec<Claimed>> {
        let (answer, answered) = sync_channel(1);
        self.request(Request::Claim(partitions, answer));
        answered
    }

    /// Has the writer forget partitions.
    pub(super) fn release(&self, partitions: Vec<i32>) {
        self.request(Request::Release(partitions));
    }

    /// Lets the writer end once it has stored what is there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Messages that are not stored yet.
    pub(super) fn pending(&self) -> usize {
        let state = self.lock();
        state.filling.len() + state.in_flight
    }

    /// The log's timestamp, in milliseconds, of the oldest message that is not stored yet, over all partitions.
    pub(super) fn oldest_timestamp_ms(&self) -> Option<i64> {
        let state = self.lock();
        state.in_flight_unstored.iter().chain(state.filling.unstored()).filter_map(|unstored| unstored.oldest_ms).min()
    }

    /// What is not stored yet of each partition.
    pub(super) fn unstored(&self) -> Vec<Unstored> {
        let state = self.lock();
        let mut all = state.in_flight_unstored.clone();
        for unstored in state.filling.unstored() {
            match all.iter_mut().find(|known| known.partition == unstored.partition) {
                // What the writer has taken lies before it in the log.
                Some(known) => known.next_offset = unstored.next_offset,
                None => all.push(*unstored),
            }
        }
        all
    }

    /// A batch is stored, and its offsets are known as applied. Its memory fills the next one.
    pub(super) fn stored(&self, mut batch: Batch) {
        batch.clear();
        let mut state = self.lock();
        state.spare = batch;
        state.in_flight = 0;
        state.in_flight_unstored.clear();
        self.changed.notify_all();
    }

    /// Waits for work; `Work::Idle` after `idle_after` without any. The batch taken before counts as stored.
    pub(super) fn next_work(&self, idle_after: Duration) -> Work {
        let idle_at = Instant::now() + idle_after;
        let mut state = self.lock();
        state.in_flight = 0;
        state.in_flight_unstored.clear();
        self.changed.notify_all();
        loop {
            if let Some(request) = state.requests.pop_front() {
                return Work::Request(request);
            }
            let now = Instant::now();
            let wake_at = match state.first_at {
                Some(first_at) => {
                    let ripe_at = first_at + self.limits.batch_wait;
                    let is_full = state.filling.is_full(self.limits.batch_messages_max);
                    if is_full || state.closed || state.flushing > 0 || now >= ripe_at {
                        return Work::Batch(self.take(&mut state));
                    }
                    ripe_at
                }
                None if state.closed => return Work::Closed,
                None if now >= idle_at => return Work::Idle,
                None => idle_at,
            };
            state = self
                .changed
                .wait_timeout(state, wake_at.saturating_duration_since(now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The writer ends: whoever waits is woken, requests are dropped unanswered.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.requests.clear();
        self.changed.notify_all();
    }

    fn take(&self, state: &mut State) -> Batch {
        let empty = std::mem::take(&mut state.spare);
        let batch = std::mem::replace(&mut state.filling, empty);
        state.first_at = None;
        state.in_flight = batch.len();
        state.in_flight_unstored.clear();
        state.in_flight_unstored.extend_from_slice(batch.unstored());
        self.changed.notify_all();
        batch
    }

    fn request(&self, request: Request) {
        let mut state = self.lock();
        if !state.abandoned {
            state.requests.push_back(request);
            self.changed.notify_all();
        }
    }

    fn wait(&self, timeout: Duration, is_met: impl Fn(&State, &Limits) -> bool) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| !is_met(state, &self.limits))
            .unwrap_or_else(PoisonError::into_inner);
        is_met(&state, &self.limits)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock leaves the state half changed when it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Micros;
    use crate::sink::Message;

    const LONG: Duration = Duration::from_secs(60);

    fn handoff(batch_messages_max: usize, batch_wait: Duration) -> Arc<Handoff> {
        Arc::new(Handoff::new(Limits { batch_messages_max, batch_wait }))
    }

    fn push(handoff: &Handoff, partition: i32, offset: i64) {
        let message = Message {
            partition,
            offset,
            timestamp_ms: Some(offset),
            received_at: Micros(0),
            identity: None,
            key: None,
            payload: None,
        };
        handoff.push(|batch| batch.push_dead_letter(message, "test"));
    }

    #[test]
    fn a_full_batch_is_taken_at_once_and_makes_room() {
        let handoff = handoff(2, LONG);
        push(&handoff, 0, 1);
        push(&handoff, 0, 2);
        assert!(!handoff.wait_for_room(Duration::ZERO));
        assert!(matches!(handoff.next_work(LONG), Work::Batch(batch) if batch.len() == 2));
        assert!(handoff.wait_for_room(Duration::ZERO));
        assert_eq!((handoff.pending(), handoff.oldest_timestamp_ms()), (2, Some(1)));
        assert!(matches!(handoff.next_work(Duration::ZERO), Work::Idle));
        assert_eq!((handoff.pending(), handoff.oldest_timestamp_ms()), (0, None));
    }

    #[test]
    fn a_message_waits_no_longer_than_the_batch_wait() {
        let handoff = handoff(10, Duration::from_millis(5));
        push(&handoff, 0, 1);
        assert!(matches!(handoff.next_work(LONG), Work::Batch(batch) if batch.len() == 1));
    }

    #[test]
    fn a_flush_does_not_wait_for_the_batch_to_fill_and_returns_when_it_is_stored() {
        let handoff = handoff(10, LONG);
        push(&handoff, 0, 1);
        let flusher = std::thread::spawn({
            let handoff = handoff.clone();
            move || {
                handoff.begin_flush();
                handoff.end_flush(LONG)
            }
        });
        assert!(matches!(handoff.next_work(LONG), Work::Batch(_)));
        assert_eq!(handoff.pending(), 1);
        handoff.next_work(Duration::ZERO);
        assert!(flusher.join().unwrap());
    }

    #[test]
    fn requests_go_before_batches_and_a_closed_place_is_emptied_first() {
        let handoff = handoff(10, LONG);
        push(&handoff, 3, 1);
        push(&handoff, 4, 1);
        handoff.release(vec![9]);
        handoff.remove(&[3]);
        handoff.close();
        assert!(matches!(handoff.next_work(LONG), Work::Request(Request::Release(_))));
        assert!(matches!(handoff.next_work(LONG), Work::Batch(batch) if batch.len() == 1));
        assert!(matches!(handoff.next_work(LONG), Work::Closed));
    }

    #[test]
    fn nobody_waits_for_a_writer_that_has_ended() {
        let handoff = handoff(1, LONG);
        push(&handoff, 0, 1);
        handoff.abandon();
        assert!(handoff.wait_for_room(LONG));
        handoff.begin_flush();
        assert!(!handoff.end_flush(LONG));
        assert!(handoff.claim(vec![0]).recv().is_err());
    }
}
