//! One member of a group.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::join::Joined;
use super::terms::{GroupError, Synced};

/// Where a parked answer goes.
pub(crate) type Parked<T> = oneshot::Sender<Result<T, GroupError>>;

/// A member, static when it has an instance id.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// Name and opaque metadata, in order of preference.
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    /// When the session ends unless we hear from it.
    pub(crate) deadline: Instant,
    /// Waits for the rebalance to complete; that keeps it alive.
    pub(crate) joining: Option<Parked<Joined>>,
    /// Waits for the leader's assignment; that keeps it alive.
    pub(crate) syncing: Option<Parked<Synced>>,
    /// Commits of it that wait for the disk here, and keep its signs of life behind them from being read: that keeps it
    /// alive.
    pub(crate) commits: u32,
    /// Has not asked for its assignment in this generation.
    pub(crate) sync_pending: bool,
}

/// A static member that took the place of its old self, and what it will be told.
#[derive(Debug)]
pub(crate) struct Returning {
    pub(crate) parked: Parked<Joined>,
    pub(crate) joined: Joined,
}

impl Returning {
    /// Its new id is durable, or could not be made so.
    pub(crate) fn answer(self, durable: bool) {
        // A receiver that is gone is a connection that is gone.
        let _ = self.parked.send(if durable { Ok(self.joined) } else { Err(GroupError::NotAvailable) });
    }
}

impl Member {
    /// Heard from it.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.deadline = now + self.session_timeout;
    }

    /// Whether a request of it is parked here.
    pub(crate) fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some() || self.commits > 0
    }

    pub(crate) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// What it said about itself under the chosen protocol.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Answers whatever it waits for with an error.
    pub(crate) fn refuse(&mut self, error: &GroupError) {
        // A receiver that is gone is a connection that is gone.
        if let Some(parked) = self.joining.take() {
            let _ = parked.send(Err(error.clone()));
        }
        if let Some(parked) = self.syncing.take() {
            let _ = parked.send(Err(error.clone()));
        }
    }
}
