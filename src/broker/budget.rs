//! Bytes in memory that all connections share, for what would otherwise grow with their number: large requests that
//! arrive, and records on their way out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Others than Produce are small, and some of them wait long: they get a part of their own, this one of the whole.
const OTHERS_PART: usize = 4;
/// A Produce request up to this part of the whole is an ordinary one, which shall not stand behind huge ones.
const ORDINARY_PART: usize = 256;
/// Buffers of this size are kept for the next request. Smaller ones the allocator has at hand.
const SPARE_BYTES_MIN: usize = 256 * 1024;
const SPARE_BYTES_MAX: usize = 2 << 20;
/// So many of them, at most.
const SPARES_MAX: usize = 6;

/// Room for copies of records in answers. Nobody waits for it: when little is left, records stay in their files.
#[derive(Debug)]
pub(crate) struct AnswerBudget {
    bytes_max: usize,
    used: AtomicUsize,
}

impl AnswerBudget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(AnswerBudget { bytes_max, used: AtomicUsize::new(0) })
    }

    /// What is left, `wanted` at most.
    pub(crate) fn take(self: &Arc<Self>, wanted: usize) -> Share {
        let mut taken = 0;
        let take = |used: usize| {
            taken = wanted.min(self.bytes_max.saturating_sub(used));
            Some(used + taken)
        };
        // The closure never refuses.
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        Share { budget: self.clone(), bytes: taken }
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<AnswerBudget>,
    bytes: usize,
}

impl Share {
    /// How much may be held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How much is held: less, or one batch that was larger.
    pub(crate) fn settle(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::AcqRel);
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Room for large requests. A connection waits for the room of a whole request before it reads on: two that hold half
/// of what they need would wait for each other.
#[derive(Clone, Debug)]
pub(crate) struct RequestBudget {
    ordinary: Pool,
    huge: Pool,
    others: Pool,
    spares: Arc<SpareBuffers>,
}

/// Room that a request has until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
    spares: Arc<SpareBuffers>,
}

impl Room {
    /// Keeps the memory behind a request's bytes for the next one, if nothing else lies in it.
    pub(crate) fn spare(&self, bytes: Bytes) {
        if let Ok(buffer) = bytes.try_into_mut() {
            self.spares.keep(buffer);
        }
    }
}

/// Buffers of requests that are done. Memory that is mapped anew for each costs a page fault every 4 KiB.
#[derive(Debug, Default)]
struct SpareBuffers(Mutex<VecDeque<BytesMut>>);

impl SpareBuffers {
    fn lock(&self) -> MutexGuard<'_, VecDeque<BytesMut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, mut buffer: BytesMut) {
        buffer.clear();
        // What was cut off in front of the bytes comes back.
        let _ = buffer.try_reclaim(buffer.capacity() + 1);
        if !(SPARE_BYTES_MIN..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            return;
        }
        let mut spares = self.lock();
        // Those that nobody asks for any more go first.
        let oldest = if spares.len() >= SPARES_MAX { spares.pop_front() } else { None };
        spares.push_back(buffer);
        drop((spares, oldest));
    }

    fn take(&self, bytes: usize) -> Option<BytesMut> {
        if !(SPARE_BYTES_MIN..=SPARE_BYTES_MAX).contains(&bytes) {
            return None;
        }
        let mut spares = self.lock();
        let at = spares.iter().rposition(|spare| spare.capacity() >= bytes)?;
        spares.remove(at)
    }
}

#[derive(Clone, Debug)]
struct Pool {
    bytes_max: usize,
    room: Arc<Semaphore>,
}

impl Pool {
    fn new(bytes_max: usize) -> Self {
        // More than u32 counts is as good as no limit.
        let bytes_max = bytes_max.min(u32::MAX as usize);
        Pool { bytes_max, room: Arc::new(Semaphore::new(bytes_max)) }
    }
}

impl RequestBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (half, part) = (bytes_max / 2, bytes_max / OTHERS_PART);
        let spares = Arc::default();
        RequestBudget { ordinary: Pool::new(half), huge: Pool::new(half), others: Pool::new(part), spares }
    }

    /// A spare buffer for so many bytes, if they are a large request's and there is one.
    pub(crate) fn take_spare(&self, bytes: usize) -> Option<BytesMut> {
        self.spares.take(bytes)
    }

    /// Room for a request; one that is larger than all of it gets all of it.
    pub(crate) async fn room(&self, is_produce: bool, bytes: usize) -> Option<Room> {
        let pool = match is_produce {
            false => &self.others,
            true if bytes <= self.ordinary.bytes_max * 2 / ORDINARY_PART => &self.ordinary,
            true => &self.huge,
        };
        let permits = u32::try_from(bytes.min(pool.bytes_max)).unwrap_or(u32::MAX);
        // Never closed.
        let permit = pool.room.clone().acquire_many_owned(permits).await.ok()?;
        Some(Room { _permit: permit, spares: self.spares.clone() })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn shares_never_promise_more_than_there_is_and_come_back() {
        let budget = AnswerBudget::new(100);
        let mut first = budget.take(80);
        let second = budget.take(80);
        assert_eq!((first.bytes(), second.bytes(), budget.take(1).bytes()), (80, 20, 0));
        first.settle(90);
        assert_eq!(budget.take(1).bytes(), 0);
        first.settle(10);
        assert_eq!(budget.take(80).bytes(), 70);
        drop((first, second));
        assert_eq!(budget.take(200).bytes(), 100);
    }

    #[tokio::test]
    async fn the_memory_of_a_request_serves_the_next_one_unless_something_else_lies_in_it() {
        let budget = RequestBudget::new(1 << 30);
        let Some(room) = budget.room(true, SPARE_BYTES_MIN).await else { panic!("no room") };
        let request = |bytes| BytesMut::zeroed(bytes).split_off(4).freeze();
        let (first, second) = (request(SPARE_BYTES_MIN + 4), request(SPARE_BYTES_MIN + 4));
        let slice = second.slice(..1);
        room.spare(first);
        room.spare(second);
        drop(slice);
        let spare = budget.take_spare(SPARE_BYTES_MIN + 4);
        assert!(spare.is_some_and(|spare| spare.is_empty()), "with the four bytes in front");
        assert!(budget.take_spare(SPARE_BYTES_MIN).is_none());
        for _ in 0..2 * SPARES_MAX {
            room.spare(request(SPARE_BYTES_MAX));
            room.spare(request(SPARE_BYTES_MIN - 1));
            room.spare(request(SPARE_BYTES_MAX + 5));
        }
        let kept = std::iter::from_fn(|| budget.take_spare(SPARE_BYTES_MIN)).count();
        assert_eq!(kept, SPARES_MAX);
    }

    #[tokio::test]
    async fn a_request_larger_than_the_whole_budget_gets_all_of_it_and_others_wait() {
        let budget = RequestBudget::new(100);
        let room = budget.room(true, 1000).await;
        assert!(budget.room(true, 1).now_or_never().is_none());
        assert!(budget.room(false, 25).await.is_some(), "small requests have a part of their own");
        drop(room);
        assert!(budget.room(true, 1).await.is_some());
    }
}
