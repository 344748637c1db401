//! CreatePartitions (37), versions 0-3.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::errors::KafkaError;
use super::text;
use crate::broker::internal_topic::is_internal;
use crate::broker::node::{NODE_ID, Node};

/// Adds partitions to topics, each for itself.
pub(crate) async fn handle(node: &Node, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        let elsewhere = topic
            .assignments
            .iter()
            .flatten()
            .any(|replica| !matches!(&replica.broker_ids[..], [id] if id.0 == NODE_ID));
        if is_internal(&topic.name) {
            let message = "the broker keeps its own topics in one partition each";
            let code = ResponseError::InvalidPartitions.code();
            results.push(result.with_error_code(code).with_error_message(Some(text(message))));
            continue;
        }
        if elsewhere {
            results.push(result.with_error_code(ResponseError::InvalidReplicaAssignment.code()));
            continue;
        }
        let added = node.catalog.add_partitions(topic.name.to_string(), topic.count, request.validate_only).await;
        results.push(match added {
            Ok(()) => result,
            Err(error) => result.with_error_code(error.code()).with_error_message(Some(text(error.to_string()))),
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}
