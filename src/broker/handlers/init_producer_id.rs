//! InitProducerId (22), versions 0-5. v3: a producer may name its old id and epoch (KIP-360).
//!
//! An idempotent producer always gets a new id, also when it names an old one, as in Apache Kafka: it raises its epoch
//! by itself. A transactional one is refused.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::errors::KafkaError;
use crate::broker::node::Node;

/// A new producer id with epoch 0.
pub(crate) async fn handle(node: &Node, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let failed = |code| {
        InitProducerIdResponse::default().with_error_code(code).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
    };
    match &request.transactional_id {
        Some(id) if id.is_empty() => return failed(ResponseError::InvalidRequest.code()),
        // The one answer that clients take as final and that does not blame their permissions.
        Some(_) => return failed(ResponseError::UnsupportedVersion.code()),
        None => {}
    }
    match node.producer_ids.next().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => {
            tracing::error!("no producer id can be given out: {error}");
            failed(error.code())
        }
    }
}
