//! How long to wait for PostgreSQL to come back.

use std::time::Duration;

use tokio::time::Instant;

use crate::shutdown::{Shutdown, Stage};

/// First wait.
const WAIT_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two attempts: a database that is back is noticed within this.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Waits for as long as the process runs; once it is to drain, for a bounded time only.
#[derive(Clone, Debug)]
pub struct Patience {
    shutdown: Shutdown,
    drain_timeout: Duration,
    wait: Duration,
    drain_deadline: Option<Instant>,
}

impl Patience {
    /// Patience of a worker that stops with `shutdown`, and waits `drain_timeout` after it was asked to drain.
    pub fn new(shutdown: Shutdown, drain_timeout: Duration) -> Self {
        Patience { shutdown, drain_timeout, wait: WAIT_MIN, drain_deadline: None }
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

    /// The next trouble starts with short waits again.
    pub fn reset(&mut self) {
        self.wait = WAIT_MIN;
    }
}
