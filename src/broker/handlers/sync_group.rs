//! SyncGroup (14), versions 0-5. v3 static members; v5 must name protocol type and protocol.

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::errors::KafkaError;
use super::text;
use crate::broker::group::{GroupError, SyncRequest};
use crate::broker::node::Node;

/// The assignment; it comes when the leader's is durable.
pub(crate) async fn handle(node: &Node, request: SyncGroupRequest, version: i16) -> SyncGroupResponse {
    if version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return SyncGroupResponse::default().with_error_code(GroupError::InconsistentProtocol.code());
    }
    let group_id = request.group_id.to_string();
    match node.groups.sync(&group_id, read(request)).await {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.map(text))
            .with_protocol_name(synced.protocol.map(text))
            .with_assignment(synced.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
    }
}

/// What is asked, without the request: whoever waits for the leader does not hold its frame.
fn read(request: SyncGroupRequest) -> SyncRequest {
    SyncRequest {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(|name| name.to_string()),
        protocol: request.protocol_name.map(|name| name.to_string()),
        assignments: request
            .assignments
            .into_iter()
            .map(|each| (each.member_id.to_string(), each.assignment))
            .collect(),
    }
}
