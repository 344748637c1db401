//! DescribeGroups (15), versions 0-6. v6: a group that does not exist is error 69, before that it is "Dead" (KIP-1043).
//! Groups that do not fit into an answer of some size any more are answered with an error that clients ask again after.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use super::asked::AnswerRoom;
use super::errors::KafkaError;
use super::{GROUP_OPERATIONS, OPERATIONS_UNKNOWN, text};
use crate::broker::group::{GroupError, Member, Phase};
use crate::broker::node::Node;

/// Members and state of groups.
pub(crate) fn handle(node: &Node, request: DescribeGroupsRequest, version: i16) -> DescribeGroupsResponse {
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { OPERATIONS_UNKNOWN };
    let mut asked = request.groups;
    asked.sort_unstable();
    asked.dedup();
    let mut room = AnswerRoom::new(node.limits.waiting_answer_bytes_max);
    let groups =
        asked.into_iter().map(|id| describe(node, id, version, &mut room).with_authorized_operations(operations));
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe(node: &Node, id: GroupId, version: i16, room: &mut AnswerRoom) -> DescribedGroup {
    let found = node.groups.describe(&id, |group| {
        if !room.take(group.bytes()) {
            // Asked for again, as this error is, it comes earlier.
            return DescribedGroup::default().with_error_code(ResponseError::CoordinatorLoadInProgress.code());
        }
        // Until all have their assignment the choice may change.
        let protocol = group.protocol.clone().filter(|_| group.phase == Phase::Stable).unwrap_or_default();
        let member = |member: &Member| {
            DescribedGroupMember::default()
                .with_member_id(text(member.id.clone()))
                .with_group_instance_id(member.instance_id.clone().map(text))
                .with_client_id(text(member.client_id.clone()))
                .with_client_host(text(member.client_host.clone()))
                .with_member_metadata(member.metadata(&protocol))
                .with_member_assignment(member.assignment.clone())
        };
        DescribedGroup::default()
            .with_group_state(text(group.phase.name()))
            .with_protocol_type(text(group.protocol_type.clone().unwrap_or_default()))
            .with_members(group.members.values().map(member).collect())
            .with_protocol_data(text(protocol.clone()))
    });
    let group = found.unwrap_or_else(|| {
        let error = GroupError::NotFound;
        let dead = DescribedGroup::default().with_group_state(text("Dead"));
        match version {
            ..=5 => dead,
            _ => dead.with_error_code(error.code()).with_error_message(Some(text(error.to_string()))),
        }
    });
    group.with_group_id(id)
}
