//! AddOffsetsToTxn (25), versions 0-4. v2 PRODUCER_FENCED. There is one coordinator of groups, so the group is not noted.

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::errors::fenced_since;
use crate::broker::node::Node;
use crate::broker::txn::ProducerIdEpoch;

/// Offsets of groups become part of a transaction, which begins by this if need be.
pub(crate) async fn handle(node: &Node, request: AddOffsetsToTxnRequest, version: i16) -> AddOffsetsToTxnResponse {
    let producer = ProducerIdEpoch { id: request.producer_id.0, epoch: request.producer_epoch };
    let added = node.transactions.add_offsets(&request.transactional_id, producer).await;
    let code = added.err().map_or(0, |error| fenced_since(error, version >= 2));
    AddOffsetsToTxnResponse::default().with_error_code(code)
}
