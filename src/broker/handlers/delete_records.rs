//! DeleteRecords (21), versions 0-2. Offset -1 is the high watermark. Refused on topics that are compacted only, as in
//! Kafka: their records go by key. Refused on internal topics.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::asked::once;
use super::errors::KafkaError;
use crate::broker::internal_topic::is_internal;
use crate::broker::node::Node;

/// Raises log starts.
pub(crate) async fn handle(node: &Node, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let asked = request.topics.into_iter().map(|topic| (topic.name, topic.partitions));
    for (name, asked) in once(asked, |partition| partition.partition_index) {
        let known = node.catalog.topic(&name);
        let mut partitions = Vec::with_capacity(asked.len());
        for asked in asked {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            let Some(partition) = known.as_ref().and_then(|topic| topic.partition(asked.partition_index)) else {
                let code = ResponseError::UnknownTopicOrPartition.code();
                partitions.push(result.with_error_code(code).with_low_watermark(-1));
                continue;
            };
            if is_internal(&name) {
                let code = ResponseError::InvalidTopicException.code();
                partitions.push(result.with_error_code(code).with_low_watermark(-1));
                continue;
            }
            if !partition.config().is_cut_by_retention() {
                let code = ResponseError::PolicyViolation.code();
                partitions.push(result.with_error_code(code).with_low_watermark(-1));
                continue;
            }
            let before = if asked.offset == -1 { partition.high_watermark() } else { asked.offset };
            partitions.push(match partition.delete_records_before(before).await {
                Ok(log_start) => result.with_low_watermark(log_start),
                Err(error) => result.with_error_code(error.code()).with_low_watermark(-1),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}
