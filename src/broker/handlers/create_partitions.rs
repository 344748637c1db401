//! CreatePartitions (37), versions 0-3. A topic that a request names twice stays as it is.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::errors::KafkaError;
use super::text;
use crate::broker::internal_topic::is_internal;
use crate::broker::node::{NODE_ID, Node};

/// Adds partitions to topics, each for itself.
pub(crate) async fn handle(node: &Node, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut mentions: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &request.topics {
        *mentions.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(mentions.len());
    for topic in request.topics {
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        if is_internal(&topic.name) {
            let message = "the broker keeps its own topics in one partition each";
            let code = ResponseError::InvalidPartitions.code();
            results.push(result.with_error_code(code).with_error_message(Some(text(message))));
            continue;
        }
        match mentions.insert(topic.name.to_string(), 0) {
            Some(0) => continue,
            Some(1) => {}
            _ => {
                let message = "the request names this topic more than once";
                let code = ResponseError::InvalidRequest.code();
                results.push(result.with_error_code(code).with_error_message(Some(text(message))));
                continue;
            }
        }
        let present = node.catalog.topic(&topic.name).map_or(0, |topic| topic.partitions.len());
        let added = usize::try_from(topic.count).unwrap_or(0).saturating_sub(present);
        let misplaced = |assignments: &[CreatePartitionsAssignment]| {
            let here =
                |replica: &CreatePartitionsAssignment| matches!(&replica.broker_ids[..], [id] if id.0 == NODE_ID);
            assignments.len() != added || !assignments.iter().all(here)
        };
        if present > 0 && added > 0 && topic.assignments.as_deref().is_some_and(misplaced) {
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
