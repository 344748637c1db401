//! What handlers work on: the one node of this cluster.

use std::sync::Arc;

use super::budget::{AnswerBudget, RequestBudget};
use super::catalog::Catalog;
pub(crate) use super::catalog::LEADER_EPOCH;
use super::fetch_sessions::FetchSessions;
use super::group::{Coordinator, OffsetKey};
use super::limits::Limits;
use super::log::Log;
use super::producer_ids::ProducerIds;
use super::txn;
use crate::clock::SharedClock;

/// Our node id, and that of the controller and of every coordinator.
pub(crate) const NODE_ID: i32 = 0;

/// State shared by all connections.
pub(crate) struct Node {
    pub(crate) cluster_id: String,
    /// What clients are told to connect to.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) log: Log,
    pub(crate) catalog: Catalog,
    pub(crate) groups: Coordinator,
    pub(crate) producer_ids: Arc<ProducerIds>,
    pub(crate) transactions: txn::Coordinator,
    pub(crate) fetch_sessions: FetchSessions,
    /// Records in answers that wait to be sent.
    pub(crate) answers: Arc<AnswerBudget>,
    /// Large requests that arrive or are carried out.
    pub(crate) requests: RequestBudget,
    pub(crate) limits: Limits,
    pub(crate) clock: SharedClock,
}

impl Node {
    /// Wall clock in milliseconds since the epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now().as_millis()
    }

    /// Tells whether a partition is there at the time at which it is asked.
    pub(crate) fn is_there(&self) -> impl Fn(&OffsetKey) -> bool + Send + Sync + 'static {
        let catalog = self.catalog.clone();
        move |(topic, partition)| catalog.topic(topic).is_some_and(|topic| topic.partition(*partition).is_some())
    }
}

/// A cluster id in Kafka's form: 16 random bytes as 22 characters of URL-safe base64.
pub(crate) fn new_cluster_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: u128 = rand::random();
    let mut id = String::with_capacity(22);
    for position in 0..22u32 {
        // 128 bits in groups of six from the top; the last group is padded with zeros on the right.
        let shift = 122i32 - 6 * position as i32;
        let six = if shift >= 0 { bits >> shift } else { bits << -shift } & 0x3f;
        id.push(char::from(ALPHABET[six as usize]));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_22_characters_of_url_safe_base64() {
        let id = new_cluster_id();
        assert_eq!(id.len(), 22);
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{id}");
        assert_ne!(id, new_cluster_id());
    }
}
