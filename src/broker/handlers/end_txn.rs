//! EndTxn (26), versions 0-4. v2 PRODUCER_FENCED. Version 5 is for KIP-890's second part.
//!
//! Answered when readers of committed records see the end; Kafka answers when it is decided, and its clients meet
//! CONCURRENT_TRANSACTIONS when they go on at once.

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse};

use super::errors::fenced_since;
use crate::broker::node::Node;
use crate::broker::txn::{End, ProducerIdEpoch};

/// Commits or aborts a transaction.
pub(crate) async fn handle(node: &Node, request: EndTxnRequest, version: i16) -> EndTxnResponse {
    let producer = ProducerIdEpoch { id: request.producer_id.0, epoch: request.producer_epoch };
    let end = if request.committed { End::Commit } else { End::Abort };
    let ended = node.transactions.end(&request.transactional_id, producer, end).await;
    EndTxnResponse::default().with_error_code(ended.err().map_or(0, |error| fenced_since(error, version >= 2)))
}
