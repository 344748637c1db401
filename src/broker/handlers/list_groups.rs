//! ListGroups (16), versions 0-5. v4 filters by state; v5 by type: all groups here are "classic".

use std::collections::HashSet;

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::text;
use crate::broker::node::Node;

const TYPE: &str = "classic";

/// Words without regard to case; none at all let everything through.
struct Filter(HashSet<String>);

impl Filter {
    fn new(words: &[StrBytes]) -> Self {
        Filter(words.iter().map(|word| word.to_ascii_lowercase()).collect())
    }

    fn wants(&self, value: &str) -> bool {
        self.0.is_empty() || self.0.contains(&value.to_ascii_lowercase())
    }
}

/// All groups.
pub(crate) fn handle(node: &Node, request: ListGroupsRequest) -> ListGroupsResponse {
    let (states, types) = (Filter::new(&request.states_filter), Filter::new(&request.types_filter));
    let groups =
        node.groups.list().into_iter().filter(|group| states.wants(group.state) && types.wants(TYPE)).map(|group| {
            ListedGroup::default()
                .with_group_id(GroupId(text(group.id)))
                .with_protocol_type(text(group.protocol_type))
                .with_group_state(text(group.state))
                .with_group_type(text(TYPE))
        });
    ListGroupsResponse::default().with_groups(groups.collect())
}
