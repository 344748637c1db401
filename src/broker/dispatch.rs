//! From a frame to the handler of its API, and from the handler's message back to bytes.
//!
//! Must not know what any API does.

use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestKind;
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use metrics::{counter, histogram};

use super::answer::Answer;
use super::frame::{self, Frame, FrameError, Head, Opened};
use super::handlers;
use super::node::Node;
use crate::metrics::{BROKER_REQUEST_SECONDS, BROKER_REQUESTS_TOTAL};

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The peer's address, without its port.
    pub(crate) host: String,
}

/// Carries out one request.
///
/// # Errors
/// Whatever means that this connection must be closed; errors that Kafka's protocol can tell are in the answer.
pub(crate) async fn carry_out(node: &Arc<Node>, client: &Client, frame: Frame) -> Result<Answer, FrameError> {
    let pins = frame.pins;
    let (head, mut body) = match frame::open(frame.bytes)? {
        Opened::Request(head, body) => (head, body),
        Opened::FutureApiVersions(head) => {
            let response = handlers::api_versions::unsupported();
            return encode(&Head { version: 0, ..head }, &response).map(Answer::Now);
        }
    };
    counter!(BROKER_REQUESTS_TOTAL, "api" => head.api.name).increment(1);
    let request = RequestKind::decode(head.api.key, &mut body, head.version).map_err(|error| {
        FrameError::Undecodable { api: head.api.name, version: head.version, reason: error.to_string() }
    })?;
    // The frame is held by what was decoded from it only.
    drop(body);
    let began = Instant::now();
    let (timed, answer) = match request {
        RequestKind::Produce(request) => ("Produce", handlers::produce::handle(node, head, request, pins).await),
        RequestKind::Fetch(request) => {
            let (parts, share) = handlers::fetch::handle(node, &head, request).await?;
            ("Fetch", Ok(Answer::Parts(parts, share)))
        }
        request => ("other", answer(node, client, &head, request).await.map(Answer::Now)),
    };
    histogram!(BROKER_REQUEST_SECONDS, "api" => timed).record(began.elapsed().as_secs_f64());
    answer
}

async fn answer(node: &Arc<Node>, client: &Client, head: &Head, request: RequestKind) -> Result<Bytes, FrameError> {
    use handlers as on;
    let version = head.version;
    match request {
        RequestKind::ApiVersions(_) => encode(head, &on::api_versions::handle()),
        RequestKind::Metadata(request) => encode(head, &on::metadata::handle(node, request, version).await),
        RequestKind::ListOffsets(request) => encode(head, &on::list_offsets::handle(node, request, version).await),
        RequestKind::OffsetForLeaderEpoch(request) => encode(head, &on::offset_for_leader_epoch::handle(node, request)),
        RequestKind::CreateTopics(request) => encode(head, &on::create_topics::handle(node, request, version).await),
        RequestKind::DeleteTopics(request) => encode(head, &on::delete_topics::handle(node, request, version).await),
        RequestKind::CreatePartitions(request) => encode(head, &on::create_partitions::handle(node, request).await),
        RequestKind::DeleteRecords(request) => encode(head, &on::delete_records::handle(node, request).await),
        RequestKind::InitProducerId(request) => {
            encode(head, &on::init_producer_id::handle(node, request, version).await)
        }
        RequestKind::AddPartitionsToTxn(request) => {
            encode(head, &on::add_partitions_to_txn::handle(node, request, version).await)
        }
        RequestKind::AddOffsetsToTxn(request) => {
            encode(head, &on::add_offsets_to_txn::handle(node, request, version).await)
        }
        RequestKind::EndTxn(request) => encode(head, &on::end_txn::handle(node, request, version).await),
        RequestKind::FindCoordinator(request) => encode(head, &on::find_coordinator::handle(node, request, version)),
        RequestKind::JoinGroup(request) => {
            encode(head, &on::join_group::handle(node, client, &head.client_id, request, version).await)
        }
        RequestKind::SyncGroup(request) => encode(head, &on::sync_group::handle(node, request, version).await),
        RequestKind::Heartbeat(request) => encode(head, &on::heartbeat::handle(node, request)),
        RequestKind::LeaveGroup(request) => encode(head, &on::leave_group::handle(node, request, version)),
        RequestKind::OffsetCommit(request) => encode(head, &on::offset_commit::handle(node, request, version).await),
        RequestKind::OffsetFetch(request) => encode(head, &on::offset_fetch::handle(node, request, version)),
        RequestKind::OffsetDelete(request) => encode(head, &on::offset_delete::handle(node, request).await),
        RequestKind::DescribeGroups(request) => encode(head, &on::describe_groups::handle(node, request, version)),
        RequestKind::ListGroups(request) => encode(head, &on::list_groups::handle(node, request)),
        RequestKind::DeleteGroups(request) => encode(head, &on::delete_groups::handle(node, request).await),
        RequestKind::DescribeConfigs(request) => encode(head, &on::describe_configs::handle(node, request)),
        RequestKind::AlterConfigs(request) => encode(head, &on::alter_configs::handle(node, request).await),
        RequestKind::IncrementalAlterConfigs(request) => {
            encode(head, &on::incremental_alter_configs::handle(node, request).await)
        }
        RequestKind::DescribeCluster(request) => encode(head, &on::describe_cluster::handle(node, request)),
        RequestKind::WriteTxnMarkers(request) => encode(head, &on::write_txn_markers::handle(node, request).await),
        RequestKind::TxnOffsetCommit(request) => encode(head, &on::txn_offset_commit::handle(node, request).await),
        RequestKind::DescribeTransactions(request) => encode(head, &on::describe_transactions::handle(node, request)),
        RequestKind::ListTransactions(request) => encode(head, &on::list_transactions::handle(node, request)),
        RequestKind::DescribeProducers(request) => encode(head, &on::describe_producers::handle(node, request)),
        _ => Err(FrameError::UnknownApi(head.api.key as i16)),
    }
}

/// One answer with its length and header.
pub(crate) fn encode<M: Encodable + HeaderVersion>(head: &Head, message: &M) -> Result<Bytes, FrameError> {
    let version = head.version;
    let failed = |reason: String| FrameError::Unencodable { api: head.api.name, version, reason };
    let header_bytes = if M::header_version(version) >= 1 { 5 } else { 4 };
    let bytes = header_bytes + message.compute_size(version).map_err(|error| failed(error.to_string()))?;
    let length = i32::try_from(bytes).map_err(|_| failed(format!("{bytes} bytes are too many")))?;
    let mut out = BytesMut::with_capacity(4 + bytes);
    out.put_i32(length);
    out.put_i32(head.correlation_id);
    if header_bytes == 5 {
        out.put_u8(0);
    }
    message.encode(&mut out, version).map_err(|error| failed(error.to_string()))?;
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseKind};
    use kafka_protocol::protocol::{Decodable, StrBytes};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::super::group::{CommittedOffset, Committer};
    use super::super::sample;
    use super::super::topic_config::Overrides;
    use super::super::versions::{APIS, Api};
    use super::super::{Broker, log::Durability};
    use super::*;
    use crate::config::BrokerSettings;

    fn frame(api: &Api, version: i16, elements: usize) -> Vec<u8> {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(api.key as i16)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        header.encode(&mut frame, api.key.request_header_version(version)).unwrap();
        let mut body = sample::body(api.schema, version, elements, &mut Vec::new());
        if api.key == ApiKey::Produce {
            // acks=1, behind the transactional id; 0 would have no answer.
            let at = if version >= 9 { 4 } else { 5 };
            body[at..at + 2].copy_from_slice(&1i16.to_be_bytes());
        }
        frame.extend_from_slice(&body);
        let mut wire = (frame.len() as u32).to_be_bytes().to_vec();
        wire.extend(&frame);
        wire
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_api_answers_in_every_version_so_that_a_client_can_decode_it() {
        let dir = tempfile::tempdir().unwrap();
        let settings = BrokerSettings {
            durability: Durability::Os,
            auto_create_topics: true,
            ..BrokerSettings::limited(dir.path().to_owned())
        };
        let broker = Broker::start(settings).await.unwrap();
        let mut socket = TcpStream::connect(broker.address()).await.unwrap();
        for api in &APIS {
            for version in api.min..=api.max {
                for elements in 0..3 {
                    // The topic and the group that the samples name exist, so that answers are full ones.
                    let _ = broker.node.catalog.create("abc".to_owned(), 2, Overrides::new(), false).await;
                    let committed = CommittedOffset {
                        offset: 1,
                        leader_epoch: 0,
                        metadata: "m".to_owned(),
                        commit_timestamp_ms: broker.node.now_ms(),
                        expire_timestamp_ms: None,
                    };
                    let offsets = vec![(("abc".to_owned(), 0), committed)];
                    broker.node.groups.commit("abc", Committer::outside(), offsets).await.unwrap();
                    let name = format!("{} v{version} with {elements}", api.name);
                    socket.write_all(&frame(api, version, elements)).await.unwrap();
                    let length = socket.read_u32().await.unwrap_or_else(|error| panic!("{name}: {error}"));
                    let mut answer = vec![0; length as usize];
                    socket.read_exact(&mut answer).await.unwrap();
                    let mut answer = Bytes::from(answer);
                    let header_version = api.key.response_header_version(version);
                    let header = kafka_protocol::messages::ResponseHeader::decode(&mut answer, header_version).unwrap();
                    assert_eq!(header.correlation_id, 77, "{name}");
                    ResponseKind::decode(api.key, &mut answer, version)
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert!(answer.is_empty(), "{name}: {} bytes left", answer.len());
                }
            }
        }
        broker.stop().await.unwrap();
    }
}
