//! OffsetFetch (9), versions 1-9. v2: null asks for all; v7 `require_stable` (nothing here is ever unstable); v8
//! several groups at once (KIP-709). A partition without a commit, and a group that does not exist, answer -1.

use std::collections::BTreeMap;

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::text;
use crate::broker::group::{CommittedOffset, OffsetKey};
use crate::broker::node::Node;

type Found = Vec<(String, Vec<(i32, CommittedOffset)>)>;

/// Committed offsets.
pub(crate) fn handle(node: &Node, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    if version >= 8 {
        let groups = request.groups.into_iter().map(|group| {
            let wanted = group.topics.map(|topics| {
                topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect()
            });
            let topics = find(&node.groups.offsets(&group.group_id), wanted).into_iter().map(|(name, partitions)| {
                OffsetFetchResponseTopics::default()
                    .with_name(TopicName(text(name)))
                    .with_partitions(partitions.into_iter().map(|(index, committed)| many(index, committed)).collect())
            });
            let topics = topics.collect();
            OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_topics(topics)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let wanted = request
        .topics
        .map(|topics| topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect());
    let topics = find(&node.groups.offsets(&request.group_id), wanted).into_iter().map(|(name, partitions)| {
        OffsetFetchResponseTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(partitions.into_iter().map(|(index, committed)| one(index, committed)).collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// What was asked for, or all there is.
fn find(offsets: &BTreeMap<OffsetKey, CommittedOffset>, wanted: Option<Vec<(String, Vec<i32>)>>) -> Found {
    let none = || CommittedOffset { offset: -1, leader_epoch: -1, metadata: String::new() };
    let Some(wanted) = wanted else {
        let mut all: BTreeMap<String, Vec<(i32, CommittedOffset)>> = BTreeMap::new();
        for ((topic, partition), committed) in offsets {
            all.entry(topic.clone()).or_default().push((*partition, committed.clone()));
        }
        return all.into_iter().collect();
    };
    wanted
        .into_iter()
        .map(|(topic, partitions)| {
            let look = |index: i32| (index, offsets.get(&(topic.clone(), index)).cloned().unwrap_or_else(none));
            let found = partitions.into_iter().map(look).collect();
            (topic, found)
        })
        .collect()
}

fn one(index: i32, committed: CommittedOffset) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_committed_offset(committed.offset)
        .with_committed_leader_epoch(committed.leader_epoch)
        .with_metadata(Some(text(committed.metadata)))
}

fn many(index: i32, committed: CommittedOffset) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_committed_offset(committed.offset)
        .with_committed_leader_epoch(committed.leader_epoch)
        .with_metadata(Some(text(committed.metadata)))
}
