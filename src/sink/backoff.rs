//! How long to wait for PostgreSQL to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::error::SinkError;
use crate::shutdown::{Shutdown, Stage};

/// First wait.
const WAIT_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two attempts: a database that is back is noticed within this.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// A trouble that lasts is told again this often.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// PostgreSQL does not store, though it may well answer in between: a full disk refuses each attempt anew.
#[derive(Clone, Debug)]
struct Trouble {
    began: Instant,
    told: Instant,
    attempts: u64,
}

/// Waits for as long as the process runs; once it is to drain, for a bounded time only.
#[derive(Clone, Debug)]
pub struct Patience {
    shutdown: Shutdown,
    drain_timeout: Duration,
    wait: Duration,
    drain_deadline: Option<Instant>,
    trouble: Option<Trouble>,
    /// True while PostgreSQL does not store.
    away: Arc<AtomicBool>,
}

impl Patience {
    /// Patience of a worker that stops with `shutdown`, and waits `drain_timeout` after it was asked to drain.
    pub fn new(shutdown: Shutdown, drain_timeout: Duration) -> Self {
        Patience { shutdown, drain_timeout, wait: WAIT_MIN, drain_deadline: None, trouble: None, away: Arc::default() }
    }

    /// Shows in `away` whether PostgreSQL stores at the moment.
    pub fn marking(self, away: Arc<AtomicBool>) -> Self {
        Patience { away, ..self }
    }

    /// Waits before the next attempt, longer each time; false when it is time to give up.
    pub async fn wait(&mut self) -> bool {
        if self.exhausted() {
            return false;
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(WAIT_MAX);
        !self.exhausted()
    }

    /// Whether it is time to give up.
    pub fn exhausted(&mut self) -> bool {
        match self.shutdown.stage() {
            Stage::Running => false,
            Stage::Drain => {
                let deadline = *self.drain_deadline.get_or_insert_with(|| Instant::now() + self.drain_timeout);
                Instant::now() >= deadline
            }
            Stage::Now => true,
        }
    }

    /// Does `work`, for `deadline` at most; once it is to drain, not beyond the time given for that. None when it did not
    /// end.
    pub(super) async fn within<T>(&mut self, deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut shutdown = self.shutdown.clone();
        let drained = async {
            shutdown.reached(Stage::Drain).await;
            if !shutdown.requested() {
                // The trigger is gone without a word.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.drain_timeout).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = tokio::time::sleep(deadline) => None,
            () = drained => {
                self.drain_deadline.get_or_insert_with(Instant::now);
                None
            }
        }
    }

    /// An attempt failed. Tells people when a trouble begins, and from time to time while it lasts.
    pub fn failed(&mut self, error: &SinkError) {
        let now = Instant::now();
        // The workers of a consumer meet the same trouble: one of them tells of it.
        let is_told = self.away.swap(true, Ordering::Relaxed);
        let Some(trouble) = &mut self.trouble else {
            if !is_told {
                tracing::warn!(
                    "{error}; waiting for PostgreSQL, nothing is lost: what was read stays in memory and in the log"
                );
            }
            self.trouble = Some(Trouble { began: now, told: now, attempts: 1 });
            return;
        };
        trouble.attempts += 1;
        if now - trouble.told >= TOLD_EVERY {
            trouble.told = now;
            let seconds = (now - trouble.began).as_secs();
            tracing::warn!("still waiting for PostgreSQL, {} attempts in {seconds} s: {error}", trouble.attempts);
        }
    }

    /// It works again: the next trouble is told again, and starts with short waits.
    pub fn reset(&mut self) {
        self.wait = WAIT_MIN;
        if let Some(trouble) = self.trouble.take()
            && self.away.swap(false, Ordering::Relaxed)
        {
            let seconds = trouble.began.elapsed().as_secs_f64();
            tracing::info!("PostgreSQL stores again, after {} attempts in {seconds:.1} s", trouble.attempts);
        }
    }
}
