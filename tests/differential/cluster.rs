//! ApiVersions, DescribeCluster, FindCoordinator, ListGroups of an unknown kind: what a client asks first.

use bytes::Buf;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeClusterRequest, FindCoordinatorRequest,
};
use kafka_protocol::protocol::Decodable;

use super::scenario::{Scenario, scenario};
use super::session::{Session, text};

pub const SCENARIOS: &[Scenario] = &[
    scenario("ApiVersions in each version", |s| {
        s.each(|version| api_versions(if version < 3 { "" } else { "differential" }));
    }),
    scenario("ApiVersions of a version from the future", |s| {
        future_api_versions(s, 99);
        future_api_versions(s, i16::MAX);
        future_api_versions(s, -1);
    }),
    scenario("ApiVersions of a client without a name", |s| {
        s.ask(ApiVersionsRequest::default());
    }),
    scenario("ApiVersions of a client with a strange name", |s| {
        s.ask(api_versions("-strange name-"));
    }),
    scenario("DescribeCluster in each version", |s| {
        s.each(|_| DescribeClusterRequest::default().with_include_cluster_authorized_operations(false));
    }),
    scenario("DescribeCluster with permitted operations", |s| {
        s.each(|_| DescribeClusterRequest::default().with_include_cluster_authorized_operations(true));
    }),
    scenario("DescribeCluster of controllers and of no kind", |s| {
        for endpoint_type in [2, 0, 3, -1] {
            s.ask(DescribeClusterRequest::default().with_endpoint_type(endpoint_type));
        }
    }),
    scenario("DescribeCluster with fenced brokers", |s| {
        s.ask_at(2, DescribeClusterRequest::default().with_include_fenced_brokers(true));
    }),
    scenario("FindCoordinator of a group in each version", |s| s.each(|version| coordinator(version, 0, &["a group"]))),
    scenario("FindCoordinator of a transaction in each version", |s| {
        s.each(|version| if version == 0 { coordinator(0, 0, &["a group"]) } else { coordinator(version, 1, &["t"]) });
    }),
    scenario("FindCoordinator of an unknown kind", |s| {
        for key_type in [3, -1, 17] {
            s.ask_at(3, coordinator(3, key_type, &["a key"]));
            s.ask_at(4, coordinator(4, key_type, &["a key"]));
        }
    }),
    scenario("FindCoordinator of a share group", |s| {
        s.ask(coordinator(6, 2, &["group:AAAAAAAAAAAAAAAAAAAAAQ:0"]));
        s.ask(coordinator(6, 2, &["no such form"]));
    }),
    scenario("FindCoordinator of an empty key", |s| {
        s.ask_at(3, coordinator(3, 0, &[""]));
        s.ask_at(4, coordinator(4, 0, &[""]));
        s.ask_at(4, coordinator(4, 1, &[""]));
    }),
    scenario("FindCoordinator of many keys and of none", |s| {
        s.ask(coordinator(4, 0, &["one", "two", "three"]));
        s.ask(coordinator(4, 0, &[]));
    }),
    scenario("FindCoordinator of one key twice", |s| {
        s.ask(coordinator(4, 0, &["one", "one"]));
    }),
];

fn api_versions(name: &str) -> ApiVersionsRequest {
    let version = if name.is_empty() { "" } else { "1.0" };
    ApiVersionsRequest::default().with_client_software_name(text(name)).with_client_software_version(text(version))
}

fn coordinator(version: i16, key_type: i8, keys: &[&str]) -> FindCoordinatorRequest {
    let request = FindCoordinatorRequest::default().with_key_type(key_type);
    match version {
        4.. => request.with_coordinator_keys(keys.iter().map(|key| text(key)).collect()),
        _ => request.with_key(text(keys[0])),
    }
}

/// Its answer is one of version 0, whose errors and rows are compared.
fn future_api_versions(s: &mut Session, version: i16) {
    let mut frame = vec![0, 0, 0, 12, 0, 18];
    frame.extend(version.to_be_bytes());
    frame.extend([0, 0, 0, 7, 0xff, 0xff, 0, 0]);
    let answer = s.throw(&format!("ApiVersions v{version}"), &frame);
    if let Some(mut answer) = answer {
        assert_eq!(answer.get_i32(), 7);
        let decoded = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
        s.note(&format!("ApiVersions v{version} answered as v0"), &decoded);
    }
}
