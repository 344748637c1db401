//! WriteTxnMarkers (27), version 1: what `kafka-transactions.sh abort` sends to end a transaction that hangs in a
//! partition, past its coordinator.
//!
//! Deviation: the coordinator's epoch in the request does not count; there has only ever been one.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::asked::once;
use super::errors::KafkaError;
use crate::broker::internal_topic::is_internal;
use crate::broker::log::{AppendError, Appended, EndTransaction, Marker, Partition};
use crate::broker::node::{LEADER_EPOCH, Node};
use crate::broker::txn::COORDINATOR_EPOCH;

/// What became of a marker for a partition.
type Marked = Result<(Partition, Appended), AppendError>;

/// Ends transactions in the partitions that are named.
pub(crate) async fn handle(node: &Node, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let mut results = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        results.push(write(node, marker).await);
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

async fn write(node: &Node, asked: WritableTxnMarker) -> WritableTxnMarkerResult {
    let end = EndTransaction {
        producer_id: asked.producer_id.0,
        producer_epoch: asked.producer_epoch,
        marker: if asked.transaction_result { Marker::Commit } else { Marker::Abort },
        coordinator_epoch: COORDINATOR_EPOCH,
    };
    let now_ms = node.now_ms();
    let mut topics = Vec::with_capacity(asked.topics.len());
    for (name, indexes) in once(asked.topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)), |at| *at) {
        // The state of coordinators is theirs to end.
        let known = node.catalog.topic(&name).filter(|_| !is_internal(&name));
        let mark = |index: i32| -> (i32, Option<Marked>) {
            let partition = known.as_ref().and_then(|topic| topic.partition(index));
            (index, partition.map(|at| at.write_marker(end, LEADER_EPOCH, now_ms).map(|marked| (at.clone(), marked))))
        };
        // All of them wait for the same sync.
        let marked: Vec<_> = indexes.into_iter().map(mark).collect();
        let mut partitions = Vec::with_capacity(marked.len());
        for (index, marked) in marked {
            let code = match marked {
                None => ResponseError::UnknownTopicOrPartition.code(),
                Some(Err(error)) => error.code(),
                Some(Ok((partition, appended))) => {
                    partition.durable(&appended).await.err().map_or(0, |error| error.code())
                }
            };
            partitions
                .push(WritableTxnMarkerPartitionResult::default().with_partition_index(index).with_error_code(code));
        }
        topics.push(WritableTxnMarkerTopicResult::default().with_name(name).with_partitions(partitions));
    }
    WritableTxnMarkerResult::default().with_producer_id(asked.producer_id).with_topics(topics)
}
