//! What groups need of a store: nothing but durable writes of small values.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::broker::log::Log;

/// A write that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot write group state: {0}")]
pub(crate) struct StoreError(pub(crate) String);

/// Durable key-value state.
pub(crate) trait StateStore: Send + Sync + 'static {
    /// Resolves when all changes are durable; atomic.
    fn put(&self, changes: Vec<(Bytes, Option<Bytes>)>) -> BoxFuture<'static, Result<(), StoreError>>;
    /// Entries whose key starts with `prefix`.
    fn entries(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)>;
}

impl StateStore for Log {
    fn put(&self, changes: Vec<(Bytes, Option<Bytes>)>) -> BoxFuture<'static, Result<(), StoreError>> {
        let log = self.clone();
        Box::pin(async move { log.put_state(changes).await.map_err(|error| StoreError(error.to_string())) })
    }

    fn entries(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.state(prefix)
    }
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}
