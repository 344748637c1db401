//! DescribeProducers (61), version 0 (KIP-664): who writes to a partition, and since where a transaction is open.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::asked::AnswerRoom;
use crate::broker::catalog::valid_name;
use crate::broker::log::ActiveProducer;
use crate::broker::node::Node;

/// What each partition remembers of its producers.
pub(crate) fn handle(node: &Node, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut room = AnswerRoom::new(node.limits.waiting_answer_bytes_max);
    // One answer a partition: a small request that names it a million times must not ask for gigabytes.
    let mut answered = HashSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = node.catalog.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let response = PartitionResponse::default().with_partition_index(index);
            let partition = known.as_ref().and_then(|topic| topic.partition(index));
            partitions.push(match partition {
                Some(partition) if answered.insert(partition.id()) => {
                    let producers = partition.active_producers();
                    match room.take(producers.len() * size_of::<ProducerState>()) {
                        true => response.with_active_producers(producers.into_iter().map(state).collect()),
                        // Asked for again, as this error is, it comes earlier.
                        false => response.with_error_code(ResponseError::NotLeaderOrFollower.code()),
                    }
                }
                Some(_) => response.with_error_code(ResponseError::InvalidRequest.code()),
                None if !valid_name(&topic.name) => {
                    response.with_error_code(ResponseError::InvalidTopicException.code())
                }
                None => response.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            });
        }
        topics.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

fn state(producer: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_append_ms)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.transaction_start)
}
