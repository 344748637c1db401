//! FindCoordinator (10), versions 0-6. v4: several keys at once (KIP-699). It is always this node.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};

use super::text;
use crate::broker::node::{NODE_ID, Node};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Us.
pub(crate) fn handle(node: &Node, request: FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    let known = matches!(request.key_type, GROUP | TRANSACTION);
    let error_code = if known { 0 } else { ResponseError::InvalidRequest.code() };
    let (id, port) = if known { (NODE_ID, i32::from(node.port)) } else { (-1, -1) };
    let host = text(if known { node.host.clone() } else { String::new() });
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(error_code)
            .with_node_id(BrokerId(id))
            .with_host(host)
            .with_port(port);
    }
    // Asked for twice, answered once.
    let mut asked = HashSet::new();
    let coordinator = |key| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(id))
            .with_host(host.clone())
            .with_port(port)
            .with_error_code(error_code)
    };
    let keys = request.coordinator_keys.into_iter().filter(|key| asked.insert(key.clone()));
    let coordinators = keys.map(coordinator).collect();
    FindCoordinatorResponse::default().with_coordinators(coordinators)
}
