//! AddPartitionsToTxn (24), versions 0-3. v2 PRODUCER_FENCED. Versions 4 and 5 are for brokers among themselves.
//!
//! As in Kafka, all or nothing: when one of the partitions does not exist, the others are "not attempted".

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, TopicName};

use super::asked::once;
use super::errors::fenced_since;
use crate::broker::node::Node;
use crate::broker::txn::{Partitions, ProducerIdEpoch};

/// Adds partitions to a transaction, which begins by this if need be.
pub(crate) async fn handle(
    node: &Node,
    request: AddPartitionsToTxnRequest,
    version: i16,
) -> AddPartitionsToTxnResponse {
    let producer =
        ProducerIdEpoch { id: request.v3_and_below_producer_id.0, epoch: request.v3_and_below_producer_epoch };
    let topics = request.v3_and_below_topics.into_iter().map(|topic| (topic.name, topic.partitions));
    let asked = once(topics, |index| *index);
    let are_missing = |(name, indexes): &(TopicName, Vec<i32>)| -> Vec<bool> {
        let known = node.catalog.topic(name);
        let exists = |index: &i32| known.as_ref().is_some_and(|topic| topic.partition(*index).is_some());
        indexes.iter().map(|index| !exists(index)).collect()
    };
    let missing: Vec<Vec<bool>> = asked.iter().map(are_missing).collect();
    let is_any_missing = missing.iter().flatten().any(|is_missing| *is_missing);
    let code = if is_any_missing {
        ResponseError::OperationNotAttempted.code()
    } else {
        let partitions: Partitions =
            asked.iter().map(|(name, indexes)| (name.to_string(), indexes.iter().copied().collect())).collect();
        let added = node.transactions.add_partitions(&request.v3_and_below_transactional_id, producer, &partitions);
        added.await.err().map_or(0, |error| fenced_since(error, version >= 2))
    };
    let results = asked.into_iter().zip(missing).map(|((name, indexes), missing)| {
        let result = |(index, is_missing): (i32, bool)| {
            let code = if is_missing { ResponseError::UnknownTopicOrPartition.code() } else { code };
            AddPartitionsToTxnPartitionResult::default().with_partition_index(index).with_partition_error_code(code)
        };
        let partitions = indexes.into_iter().zip(missing).map(result).collect();
        AddPartitionsToTxnTopicResult::default().with_name(name).with_results_by_partition(partitions)
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}
