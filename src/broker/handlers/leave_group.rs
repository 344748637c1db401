//! LeaveGroup (13), versions 0-5. v3: several members at once, static ones by instance id (KIP-345).

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::errors::{KafkaError, code_of};
use crate::broker::group::GroupError;
use crate::broker::node::Node;

/// Takes members out.
pub(crate) fn handle(node: &Node, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    if version < 3 {
        let left = node.groups.leave(&request.group_id, &[(&*request.member_id, None)]).pop();
        return LeaveGroupResponse::default().with_error_code(left.as_ref().map_or(0, code_of));
    }
    if request.group_id.is_empty() {
        return LeaveGroupResponse::default().with_error_code(GroupError::InvalidGroup.code());
    }
    let leaving: Vec<_> =
        request.members.iter().map(|member| (&*member.member_id, member.group_instance_id.as_deref())).collect();
    let left = node.groups.leave(&request.group_id, &leaving);
    let members = request.members.into_iter().zip(left).map(|(member, left)| {
        let error_code = code_of(&left);
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(error_code)
    });
    LeaveGroupResponse::default().with_members(members.collect())
}
