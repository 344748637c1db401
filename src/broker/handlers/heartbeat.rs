//! Heartbeat (12), versions 0-4. v3 static members.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::errors::code_of;
use crate::broker::node::Node;

/// Keeps a member alive, and tells it to join again.
pub(crate) fn handle(node: &Node, request: HeartbeatRequest) -> HeartbeatResponse {
    let instance = request.group_instance_id.as_deref();
    let result = node.groups.heartbeat(&request.group_id, &request.member_id, instance, request.generation_id);
    HeartbeatResponse::default().with_error_code(code_of(&result))
}
