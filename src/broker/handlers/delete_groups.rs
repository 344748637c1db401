//! DeleteGroups (42), versions 0-2. Only groups without members; their offsets go with them.

use std::collections::HashSet;

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::errors::code_of;
use crate::broker::node::Node;

/// Deletes groups, each for itself.
pub(crate) async fn handle(node: &Node, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    let mut asked = HashSet::new();
    for id in request.groups_names.into_iter().filter(|id| asked.insert(id.clone())) {
        let code = code_of(&node.groups.delete(&id).await);
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
