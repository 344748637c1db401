//! DescribeCluster (60), versions 0-2. v1: the endpoint type (KIP-919); there are no separate controllers.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::{CLUSTER_OPERATIONS, OPERATIONS_UNKNOWN, text};
use crate::broker::node::{NODE_ID, Node};

const ENDPOINT_BROKERS: i8 = 1;
const ENDPOINT_CONTROLLERS: i8 = 2;

/// Us, and the cluster's id.
pub(crate) fn handle(node: &Node, request: DescribeClusterRequest) -> DescribeClusterResponse {
    if request.endpoint_type != ENDPOINT_BROKERS {
        let error = match request.endpoint_type {
            ENDPOINT_CONTROLLERS => ResponseError::MismatchedEndpointType,
            _ => ResponseError::UnsupportedEndpointType,
        };
        return DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(text("this is a broker; ask for brokers")));
    }
    let operations =
        if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { OPERATIONS_UNKNOWN };
    let broker = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE_ID))
        .with_host(text(node.host.clone()))
        .with_port(i32::from(node.port));
    DescribeClusterResponse::default()
        .with_cluster_id(text(node.cluster_id.clone()))
        .with_controller_id(BrokerId(NODE_ID))
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(operations)
}
