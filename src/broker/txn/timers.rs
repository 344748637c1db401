//! Ends transactions that take too long, carries on ends that were decided and not done, and forgets ids that nobody
//! has used for a week.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::codec;
use super::coordinator::{Inner, unavailable};
use super::ids::Due;
use super::metadata::{TransactionState, TxnError};

/// Between two looks, at most: the wall clock may be set, and ids grow old.
const LOOK_PAUSE_MS_MAX: i64 = 10_000;
/// Before something that failed is tried again.
const RETRY_PAUSE_MS: i64 = 100;

impl Inner {
    /// There is something to do at that time.
    pub fn deadline(&self, at_ms: Option<i64>) {
        // Transactions of the same length end in the order in which they began: as a rule there is nobody to wake.
        if at_ms.is_some_and(|at_ms| at_ms < self.next_look_ms.load(Ordering::Acquire)) {
            self.deadlines_changed.notify_one();
        }
    }

    /// Does what is due. Returns when to look next.
    fn look(self: &Arc<Self>) -> i64 {
        let now_ms = self.now_ms();
        let mut ids = self.lock();
        let Due { overdue, unfinished, expired, next_ms } = ids.due(now_ms);
        let is_busy = !unfinished.is_empty() || !overdue.is_empty();
        for (id, fenced) in overdue {
            let (producer_id, timeout_ms) = (fenced.producer.id, fenced.timeout_ms);
            match self.end(&mut ids, &id, fenced) {
                Ok(_) => tracing::info!(
                    transactional_id = id,
                    producer_id,
                    "a transaction took longer than its {timeout_ms} ms and is aborted"
                ),
                Err(error) => tracing::debug!(transactional_id = id, "a transaction is not aborted yet: {error}"),
            }
        }
        for (id, prepared) in unfinished {
            if let Err(error) = self.end(&mut ids, &id, prepared) {
                tracing::debug!(transactional_id = id, "a transaction's end is not carried out yet: {error}");
            }
        }
        drop(ids);
        if !expired.is_empty() {
            let inner = self.clone();
            tokio::spawn(async move { inner.forget(expired).await });
        }
        let retry = is_busy.then_some(now_ms + RETRY_PAUSE_MS);
        let next = next_ms.into_iter().map(|at| at.max(now_ms + 1)).chain(retry);
        next.chain([now_ms + LOOK_PAUSE_MS_MAX]).min().unwrap_or(now_ms)
    }

    /// Forgets idle ids, so that new ones find room. False when there are none.
    pub async fn make_room(self: &Arc<Self>) -> bool {
        let idle = self.lock().idle(self.now_ms());
        let (inner, is_some) = (self.clone(), !idle.is_empty());
        let task = tokio::spawn(async move { inner.forget(idle).await });
        is_some && task.await.is_ok_and(|forgotten| forgotten.is_ok_and(|count| count > 0))
    }

    /// Writes tombstones; what is in use meanwhile stays. Returns how many are gone.
    async fn forget(self: Arc<Self>, idle: Vec<String>) -> Result<usize, TxnError> {
        let (dying, appended) = {
            let mut ids = self.lock();
            let dying: Vec<String> = idle
                .into_iter()
                .filter(|id| ids.settled(id).is_ok_and(|metadata| metadata.expires_at_ms().is_some()))
                .collect();
            let tombstones: Vec<_> = dying.iter().filter_map(|id| Some((codec::encode_key(id)?, None))).collect();
            if tombstones.is_empty() {
                return Ok(0);
            }
            let appended = self.topic.append(&tombstones, self.now_ms()).map_err(|error| unavailable("", &error))?;
            dying.iter().for_each(|id| ids.begin(id, TransactionState::Dead));
            (dying, appended)
        };
        let durable = self.topic.durable(&appended).await;
        let mut ids = self.lock();
        for id in &dying {
            ids.end(id);
            if durable.is_ok() {
                ids.remove(id);
            }
        }
        durable.map(|()| dying.len()).map_err(|error| unavailable("", &error))
    }
}

/// Looks whenever something is due, until the broker stops.
pub(super) async fn keep_time(inner: Arc<Inner>) {
    loop {
        // Before it looks: what is told meanwhile is not missed.
        inner.next_look_ms.store(i64::MAX, Ordering::Release);
        let next_ms = inner.look();
        inner.next_look_ms.store(next_ms, Ordering::Release);
        let pause = u64::try_from(next_ms - inner.now_ms()).unwrap_or(0);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            () = inner.deadlines_changed.notified() => {}
            () = inner.stopped.notified() => return,
        }
    }
}
