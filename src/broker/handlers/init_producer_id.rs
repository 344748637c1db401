//! InitProducerId (22), versions 0-5. v3: a producer may name its old id and epoch (KIP-360); v4 PRODUCER_FENCED.
//!
//! An idempotent producer always gets a new id, also when it names an old one, as in Apache Kafka: it raises its epoch
//! by itself. Deviation: a transactional id has 1,024 bytes at most.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::errors::{KafkaError, fenced_since};
use crate::broker::node::Node;
use crate::broker::txn::ProducerIdEpoch;

const NONE_ID: i64 = -1;
const NONE_EPOCH: i16 = -1;

/// A new producer id with epoch 0, or the next epoch of a transactional id.
pub(crate) async fn handle(node: &Node, request: InitProducerIdRequest, version: i16) -> InitProducerIdResponse {
    let given = match &request.transactional_id {
        None => node.producer_ids.next().await.map(|id| ProducerIdEpoch { id, epoch: 0 }).map_err(|error| {
            tracing::error!("no producer id can be given out: {error}");
            error.code()
        }),
        Some(id) => match expected(&request) {
            Ok(expected) => {
                let given = node.transactions.init(id, expected, request.transaction_timeout_ms).await;
                given.map_err(|error| fenced_since(error, version >= 4))
            }
            Err(error) => Err(error.code()),
        },
    };
    let answer = InitProducerIdResponse::default();
    match given {
        Ok(producer) => answer.with_producer_id(ProducerId(producer.id)).with_producer_epoch(producer.epoch),
        Err(code) => answer.with_error_code(code).with_producer_id(ProducerId(NONE_ID)).with_producer_epoch(NONE_EPOCH),
    }
}

/// Who the producer says that it was.
fn expected(request: &InitProducerIdRequest) -> Result<Option<ProducerIdEpoch>, ResponseError> {
    match (request.producer_id.0, request.producer_epoch) {
        (NONE_ID, NONE_EPOCH) => Ok(None),
        (NONE_ID, _) | (_, NONE_EPOCH) => Err(ResponseError::InvalidRequest),
        (id, epoch) => Ok(Some(ProducerIdEpoch { id, epoch })),
    }
}
