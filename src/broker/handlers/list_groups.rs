//! ListGroups (16), versions 0-5. v4 filters by state; v5 by type: all groups here are "classic".

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};

use super::text;
use crate::broker::node::Node;

const TYPE: &str = "classic";

/// All groups.
pub(crate) fn handle(node: &Node, request: ListGroupsRequest) -> ListGroupsResponse {
    let wanted = |filter: &[kafka_protocol::protocol::StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|word| word.eq_ignore_ascii_case(value))
    };
    let groups = node
        .groups
        .list()
        .into_iter()
        .filter(|group| wanted(&request.states_filter, group.state) && wanted(&request.types_filter, TYPE))
        .map(|group| {
            ListedGroup::default()
                .with_group_id(GroupId(text(group.id)))
                .with_protocol_type(text(group.protocol_type))
                .with_group_state(text(group.state))
                .with_group_type(text(TYPE))
        });
    ListGroupsResponse::default().with_groups(groups.collect())
}
