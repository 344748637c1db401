//! Who waits for bytes in any of several partitions, and is woken when there are enough: once, not at every batch.
//!
//! A partition holds those who wait for it; waking one costs the same however many partitions it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::lock;
use super::partition::Partition;

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

/// Those who listen to one partition.
#[derive(Default)]
pub(super) struct Listeners {
    all: BTreeMap<u64, Arc<Arrivals>>,
    next_key: u64,
}

impl Listeners {
    pub fn add(&mut self, arrivals: &Arc<Arrivals>) -> u64 {
        self.next_key += 1;
        self.all.insert(self.next_key, arrivals.clone());
        self.next_key
    }

    pub fn remove(&mut self, key: u64) {
        self.all.remove(&key);
    }

    /// Counts what came for all of them, and returns those that have enough.
    pub fn count(&self, bytes: u64) -> Vec<Arc<Arrivals>> {
        self.all.values().filter(|arrivals| arrivals.add(bytes)).cloned().collect()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.all.values().for_each(|arrivals| arrivals.close());
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
        let key = self.listeners(|listeners| listeners.add(arrivals))?;
        Some(Listening { partition: self.clone(), key })
    }

    fn listeners<T>(&self, change: impl FnOnce(&mut Listeners) -> T) -> Option<T> {
        lock(&self.0.watches).as_mut().map(|watches| change(&mut watches.listeners))
    }
}
