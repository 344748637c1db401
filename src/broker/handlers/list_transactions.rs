//! ListTransactions (66), versions 0-1 (KIP-664). v1: only those that run for longer (KIP-994).
//!
//! Version 2 (a pattern of ids, KIP-1152) is not served: it would need Java's dialect of patterns.

use std::collections::HashSet;

use kafka_protocol::messages::list_transactions_response::TransactionState as Listed;
use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId};

use super::text;
use crate::broker::node::Node;
use crate::broker::txn::{Metadata, TransactionState};

/// All transactional ids, or those that pass the filters.
pub(crate) fn handle(node: &Node, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let states: HashSet<&str> = request.state_filters.iter().map(|name| name.as_str()).collect();
    let producers: HashSet<i64> = request.producer_id_filters.iter().map(|id| id.0).collect();
    let unknown = request.state_filters.iter().filter(|name| TransactionState::named(name).is_none());
    let now_ms = node.now_ms();
    let wanted = |metadata: &Metadata| {
        let is_long = request.duration_filter < 0 || now_ms - metadata.start_ms > request.duration_filter;
        let is_of_producer = producers.is_empty() || producers.contains(&metadata.producer.id);
        is_long && is_of_producer && (states.is_empty() || states.contains(metadata.state.name()))
    };
    let listed = node.transactions.list(|(id, metadata)| {
        wanted(metadata).then(|| {
            Listed::default()
                .with_transactional_id(TransactionalId(text(id)))
                .with_producer_id(ProducerId(metadata.producer.id))
                .with_transaction_state(text(metadata.state.name()))
        })
    });
    ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown.cloned().collect())
        .with_transaction_states(listed)
}
