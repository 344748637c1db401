//! OffsetDelete (47), version 0 (KIP-496).
//!
//! Offsets of a topic that members of a consumer group subscribe to stay; of another kind of group with members all stay.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Buf;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::asked::once;
use super::errors::KafkaError;
use crate::broker::group::{Group, GroupError, OffsetKey};
use crate::broker::node::Node;

/// What consumers call their groups.
const CONSUMER: &str = "consumer";

/// Forgets committed offsets.
pub(crate) async fn handle(node: &Node, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let failed = |error: GroupError| OffsetDeleteResponse::default().with_error_code(error.code());
    if request.group_id.is_empty() {
        return failed(GroupError::InvalidGroup);
    }
    let subscribed = match node.groups.describe(&request.group_id, subscribed) {
        None => return failed(GroupError::NotFound),
        Some(None) => return failed(GroupError::NotEmpty),
        Some(Some(topics)) => topics,
    };
    let asked = request.topics.into_iter().map(|topic| (topic.name, topic.partitions));
    let topics = once(asked, |partition| partition.partition_index);
    let mut chosen: BTreeSet<OffsetKey> = BTreeSet::new();
    let mut refused: BTreeMap<OffsetKey, ResponseError> = BTreeMap::new();
    for (name, partitions) in &topics {
        let known = node.catalog.topic(name);
        for partition in partitions {
            let key = (name.to_string(), partition.partition_index);
            let exists = known.as_ref().is_some_and(|topic| topic.partition(partition.partition_index).is_some());
            if !exists {
                refused.insert(key, ResponseError::UnknownTopicOrPartition);
            } else if subscribed.contains(&key.0) {
                refused.insert(key, ResponseError::GroupSubscribedToTopic);
            } else {
                chosen.insert(key);
            }
        }
    }
    let gone = node.groups.forget_offsets(Some(request.group_id.to_string()), move |key| chosen.contains(key)).await;
    let code = gone.as_ref().err().map_or(0, KafkaError::code);
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|asked| {
            let index = asked.partition_index;
            let code = refused.get(&(name.to_string(), index)).map_or(code, ResponseError::code);
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

/// What members of a group read; None where that cannot be known.
fn subscribed(group: &Group) -> Option<BTreeSet<String>> {
    if group.members.is_empty() {
        return Some(BTreeSet::new());
    }
    if group.protocol_type.as_deref() != Some(CONSUMER) {
        return None;
    }
    let metadata = group.members.values().flat_map(|member| &member.protocols).map(|(_, metadata)| metadata);
    Some(metadata.filter_map(|metadata| topics(metadata)).flatten().collect())
}

/// The topics of a consumer's subscription: a version, then names. What cannot be read subscribes to nothing.
fn topics(mut metadata: &[u8]) -> Option<Vec<String>> {
    metadata.try_get_i16().ok()?;
    let count = metadata.try_get_i32().ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        let name = metadata.get(..length)?;
        topics.push(String::from_utf8_lossy(name).into_owned());
        metadata.advance(length);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::topics;

    #[test]
    fn a_subscription_is_read_and_one_that_is_cut_off_is_none() {
        let whole = [&[0, 1, 0, 0, 0, 2, 0, 1][..], b"a", &[0, 2], b"bc", &[0xff; 4]].concat();
        assert_eq!(topics(&whole), Some(vec!["a".to_owned(), "bc".to_owned()]));
        for length in 0..whole.len() - 4 {
            assert_eq!(topics(&whole[..length]), None, "cut at {length}");
        }
        assert_eq!(topics(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
    }
}
