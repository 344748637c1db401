//! TxnOffsetCommit (28), versions 0-4. v3: generation, member and instance (KIP-447). Version 5 is for KIP-890's second
//! part. Answered when durable; what was sent counts once the transaction is committed.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::errors::KafkaError;
use super::offset_commit::METADATA_UNITS_MAX;
use crate::broker::group::{CommittedOffset, Committer};
use crate::broker::node::Node;
use crate::broker::txn::{ProducerIdEpoch, TxnError};

/// Offsets that count once the transaction is committed.
pub(crate) async fn handle(node: &Node, mut request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let producer = ProducerIdEpoch { id: request.producer_id.0, epoch: request.producer_epoch };
    let commit_timestamp_ms = node.now_ms();
    let by = Committer::new(
        &request.member_id,
        request.group_instance_id.as_deref(),
        request.generation_id,
        node.is_there(),
    );
    let refused = check(node, &request, producer, &by).err();
    // Of a partition that is named twice, the last mention counts.
    let mut offsets = BTreeMap::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in std::mem::take(&mut request.topics) {
        let known = node.catalog.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let exists = known.as_ref().is_some_and(|topic| topic.partition(asked.partition_index).is_some());
            let metadata = asked.committed_metadata.as_deref().unwrap_or_default().to_owned();
            let error = if !exists {
                ResponseError::UnknownTopicOrPartition.code()
            } else if let Some(code) = refused {
                code
            } else if metadata.encode_utf16().count() > METADATA_UNITS_MAX {
                ResponseError::OffsetMetadataTooLarge.code()
            } else {
                let (offset, leader_epoch) = (asked.committed_offset, asked.committed_leader_epoch);
                let committed =
                    CommittedOffset { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms: None };
                offsets.insert((topic.name.to_string(), asked.partition_index), committed);
                0
            };
            partitions.push((asked.partition_index, error));
        }
        topics.push((topic.name, partitions));
    }
    let failed = match offsets.is_empty() {
        true => None,
        false => {
            let (id, group) = (&request.transactional_id, &request.group_id);
            node.transactions.commit_offsets(id, producer, group, by, offsets.into_iter().collect()).await.err()
        }
    };
    let failed = failed.map_or(0, code);
    let partition = |(index, error): (i32, i16)| {
        let code = if error == 0 { failed } else { error };
        TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
    };
    let topic = |(name, partitions): (_, Vec<(i32, i16)>)| {
        TxnOffsetCommitResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions.into_iter().map(partition).collect())
    };
    TxnOffsetCommitResponse::default().with_topics(topics.into_iter().map(topic).collect())
}

/// Whether producer and member may: in Kafka's order.
fn check(node: &Node, request: &TxnOffsetCommitRequest, producer: ProducerIdEpoch, by: &Committer) -> Result<(), i16> {
    if request.group_id.is_empty() {
        return Err(ResponseError::InvalidGroupId.code());
    }
    node.transactions.check_offsets(&request.transactional_id, producer).map_err(code)?;
    node.groups.check_transactional_commit(&request.group_id, by).map_err(|error| error.code())
}

/// As Kafka's group coordinator tells what the one of transactions says.
fn code(error: TxnError) -> i16 {
    match error {
        TxnError::ProducerFenced => ResponseError::InvalidProducerEpoch.code(),
        TxnError::Concurrent => ResponseError::CoordinatorNotAvailable.code(),
        TxnError::NotInTransaction => ResponseError::InvalidTxnState.code(),
        error => error.code(),
    }
}
