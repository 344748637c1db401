//! Who waits for bytes in any of several partitions, and is woken when there are enough: once, not at every batch.
//!
//! A partition holds those who wait for it; waking one costs the same however many partitions it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::partition::Partition;
use super::{Isolation, lock};

/// Bytes that have become readable since this was made, in all partitions that it listens to.
#[derive(Debug, Default)]
pub struct Arrivals {
    came: AtomicU64,
    /// Wake at so many.
    wanted: AtomicU64,
    /// A partition was deleted or poisoned: worth a look, whatever has come.
    closed: AtomicBool,
    wake: Notify,
}

impl Arrivals {
    /// For one who waits.
    pub fn new() -> Arc<Arrivals> {
        Arc::default()
    }

    /// How many bytes have come.
    pub fn bytes(&self) -> u64 {
        self.came.load(Ordering::SeqCst)
    }

    /// Resolves when so many bytes have come, and once for each partition that went away.
    pub async fn reach(&self, bytes: u64) {
        // Either this is seen by who adds bytes, or the bytes are seen here: both sides write first.
        self.wanted.store(bytes, Ordering::SeqCst);
        while self.bytes() < bytes && !self.closed.swap(false, Ordering::SeqCst) {
            self.wake.notified().await;
        }
    }

    /// Counts, and says whether it is enough.
    fn add(&self, bytes: u64) -> bool {
        let came = self.came.fetch_add(bytes, Ordering::SeqCst) + bytes;
        came >= self.wanted.load(Ordering::SeqCst)
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake();
    }
}

/// Bytes that became readable at once, about; none where nothing has.
#[derive(Clone, Copy)]
pub(super) struct Readable {
    pub uncommitted: Option<u64>,
    pub committed: Option<u64>,
}

/// Those who listen to one partition.
#[derive(Default)]
pub(super) struct Listeners {
    all: BTreeMap<u64, (Arc<Arrivals>, Isolation)>,
    next_key: u64,
}

impl Listeners {
    pub fn add(&mut self, arrivals: &Arc<Arrivals>, isolation: Isolation) -> u64 {
        self.next_key += 1;
        self.all.insert(self.next_key, (arrivals.clone(), isolation));
        self.next_key
    }

    pub fn remove(&mut self, key: u64) {
        self.all.remove(&key);
    }

    /// Counts what became readable for those who may read it, and returns those that have enough.
    pub fn count(&self, came: Readable) -> Vec<Arc<Arrivals>> {
        let has_enough = |(arrivals, isolation): &&(Arc<Arrivals>, Isolation)| {
            let bytes = match isolation {
                Isolation::Uncommitted => came.uncommitted,
                Isolation::Committed => came.committed,
            };
            bytes.is_some_and(|bytes| arrivals.add(bytes))
        };
        self.all.values().filter(has_enough).map(|(arrivals, _)| arrivals.clone()).collect()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.all.values().for_each(|(arrivals, _)| arrivals.close());
    }
}

/// Listens for as long as it is held.
#[derive(Debug)]
pub struct Listening {
    partition: Partition,
    key: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.partition.listeners(|listeners| listeners.remove(self.key));
    }
}

impl Partition {
    /// Counts into `arrivals` what becomes readable from now on. None when nothing will any more: the partition is
    /// deleted or poisoned.
    pub fn listen(&self, arrivals: &Arc<Arrivals>) -> Option<Listening> {
        self.listen_isolated(arrivals, Isolation::Uncommitted)
    }

    /// As [`Partition::listen`], for a reader of that isolation: one of committed records hears nothing as long as the
    /// last stable offset stays where it is, and of more than it may ask for when that moves over what came before.
    pub fn listen_isolated(&self, arrivals: &Arc<Arrivals>, isolation: Isolation) -> Option<Listening> {
        let key = self.listeners(|listeners| listeners.add(arrivals, isolation))?;
        Some(Listening { partition: self.clone(), key })
    }

    fn listeners<T>(&self, change: impl FnOnce(&mut Listeners) -> T) -> Option<T> {
        lock(&self.0.watches).as_mut().map(|watches| change(&mut watches.listeners))
    }
}
