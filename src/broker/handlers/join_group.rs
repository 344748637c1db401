//! JoinGroup (11), versions 0-9. v1 rebalance timeout; v4 member id first (KIP-394); v5 static members (KIP-345); v7
//! names the protocol type; v9 may skip the assignment (KIP-814).

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::errors::KafkaError;
use super::text;
use crate::broker::dispatch::Client;
use crate::broker::group::{GroupError, JoinRequest, Joined};
use crate::broker::node::Node;

/// Joins; the answer comes when the group's next generation begins.
pub(crate) async fn handle(
    node: &Node,
    client: &Client,
    client_id: &str,
    request: JoinGroupRequest,
    version: i16,
) -> JoinGroupResponse {
    let group_id = request.group_id.to_string();
    let asked_as = request.member_id.to_string();
    let join = read(client, client_id, request, version);
    match node.groups.join(&group_id, join).await {
        Ok(joined) => tell(joined, version),
        Err(error) => {
            let member_id = match &error {
                GroupError::MemberIdRequired(id) => text(id.clone()),
                _ => text(asked_as),
            };
            // Null is possible from version 7 on only.
            let protocol = (version < 7).then(|| text(""));
            JoinGroupResponse::default()
                .with_error_code(error.code())
                .with_generation_id(-1)
                .with_protocol_name(protocol)
                .with_member_id(member_id)
        }
    }
}

/// What is asked, without the request: whoever waits for the others does not hold its frame.
fn read(client: &Client, client_id: &str, request: JoinGroupRequest, version: i16) -> JoinRequest {
    let millis = |value: i32| Duration::from_millis(u64::try_from(value).unwrap_or(0));
    let session_timeout = millis(request.session_timeout_ms);
    JoinRequest {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        client_id: client_id.to_owned(),
        client_host: format!("/{}", client.host),
        session_timeout,
        rebalance_timeout: if version >= 1 { millis(request.rebalance_timeout_ms) } else { session_timeout },
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(|each| (each.name.to_string(), each.metadata)).collect(),
        id_first: version >= 4,
        can_skip_assignment: version >= 9,
    }
}

fn tell(joined: Joined, version: i16) -> JoinGroupResponse {
    let member = |(id, instance, metadata): (String, Option<String>, Bytes)| {
        JoinGroupResponseMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(instance.map(text).filter(|_| version >= 5))
            .with_metadata(metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.map(text))
        .with_protocol_name(Some(text(joined.protocol.unwrap_or_default())))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect())
}
