//! OffsetFetch (9), versions 1-9. v2: null asks for all; v7 `require_stable`: an offset
//! that an open transaction may replace is answered with an error that clients ask again after (KIP-447); v8
//! several groups at once (KIP-709). A partition without a commit, and a group that does not exist, answer -1.
//!
//! Groups and partitions named twice are answered once. Groups whose offsets do not fit into an answer of some size any
//! more are answered with an error that clients ask again after.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::asked::{AnswerRoom, once};
use super::text;
use crate::broker::group::{CommittedOffset, Group, OffsetKey};
use crate::broker::node::Node;

/// What a topic or a partition takes in an answer besides its texts, about.
const ITEM_BYTES: usize = 128;

type Wanted = Vec<(TopicName, Vec<i32>)>;
/// What is told of a partition; none while it is unstable.
type Told = Option<CommittedOffset>;
type Found = Vec<(TopicName, Vec<(i32, Told)>)>;

/// Committed offsets.
pub(crate) fn handle(node: &Node, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    let mut room = AnswerRoom::new(node.limits.waiting_answer_bytes_max);
    let stable = request.require_stable;
    let wanted = |topics: Wanted| once(topics, |index| *index);
    if version >= 8 {
        let mut asked = HashSet::new();
        let groups = request.groups.into_iter().filter(|group| asked.insert(group.group_id.clone())).map(|group| {
            let topics = group
                .topics
                .map(|topics| wanted(topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()));
            let answer = OffsetFetchResponseGroup::default();
            let answer = match find(node, &group.group_id, topics, stable, &mut room) {
                Some(found) => answer.with_topics(found.into_iter().map(many_of).collect()),
                // Asked for again, as this error is, it comes first.
                None => answer.with_error_code(ResponseError::CoordinatorLoadInProgress.code()),
            };
            answer.with_group_id(group.group_id)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let topics = request
        .topics
        .map(|topics| wanted(topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()));
    // The only group always fits.
    let found = find(node, &request.group_id, topics, stable, &mut room).unwrap_or_default();
    OffsetFetchResponse::default().with_topics(found.into_iter().map(one_of).collect())
}

/// What was asked for, or all there is; none when there is no room for it.
fn find(node: &Node, group_id: &GroupId, wanted: Option<Wanted>, stable: bool, room: &mut AnswerRoom) -> Option<Found> {
    let mut gathered = Gathered { found: Vec::new(), bytes: ITEM_BYTES + group_id.len(), stable, room };
    let whole = match wanted {
        Some(wanted) => {
            let known = node.groups.describe(group_id, |group| gathered.chosen(&wanted, group));
            known.unwrap_or_else(|| gathered.chosen(&wanted, &Group::new()))
        }
        None => node.groups.describe(group_id, |group| gathered.all(group)).unwrap_or(true),
    };
    (whole && gathered.room.take(gathered.bytes)).then_some(gathered.found)
}

/// Looked at under the group's lock, and copied only as far as there is room.
struct Gathered<'a> {
    found: Found,
    bytes: usize,
    stable: bool,
    room: &'a mut AnswerRoom,
}

impl Gathered<'_> {
    fn topic(&mut self, name: TopicName, partitions: usize) {
        self.bytes += ITEM_BYTES + name.len();
        self.found.push((name, Vec::with_capacity(partitions)));
    }

    /// False when it does not fit any more.
    fn partition(&mut self, group: &Group, key: &OffsetKey) -> bool {
        let committed = group.offsets.get(key);
        self.bytes += ITEM_BYTES + committed.map_or(0, |committed| committed.metadata.len());
        if !self.room.fits(self.bytes) {
            return false;
        }
        if let Some((_, partitions)) = self.found.last_mut() {
            let is_told = !(self.stable && group.is_unstable(&key.0, key.1));
            partitions.push((key.1, is_told.then(|| committed.cloned().unwrap_or_else(CommittedOffset::none))));
        }
        true
    }

    fn chosen(&mut self, wanted: &Wanted, group: &Group) -> bool {
        for (topic, indexes) in wanted {
            self.topic(topic.clone(), indexes.len());
            let mut key = (topic.to_string(), 0);
            for &index in indexes {
                key.1 = index;
                if !self.partition(group, &key) {
                    return false;
                }
            }
        }
        true
    }

    fn all(&mut self, group: &Group) -> bool {
        group.offsets.iter().all(|(key, _)| {
            if self.found.last().is_none_or(|(last, _)| **last != *key.0) {
                self.topic(TopicName(text(key.0.clone())), 1);
            }
            self.partition(group, key)
        })
    }
}

/// The code, and what is told.
fn told(told: Told) -> (i16, CommittedOffset) {
    match told {
        Some(committed) => (0, committed),
        None => (ResponseError::UnstableOffsetCommit.code(), CommittedOffset::none()),
    }
}

fn one_of((name, partitions): (TopicName, Vec<(i32, Told)>)) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(index, found)| one(index, told(found))).collect();
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
}

fn many_of((name, partitions): (TopicName, Vec<(i32, Told)>)) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|(index, found)| many(index, told(found))).collect();
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
}

fn one(index: i32, (code, committed): (i16, CommittedOffset)) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_error_code(code)
        .with_committed_offset(committed.offset)
        .with_committed_leader_epoch(committed.leader_epoch)
        .with_metadata(Some(text(committed.metadata)))
}

fn many(index: i32, (code, committed): (i16, CommittedOffset)) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_error_code(code)
        .with_committed_offset(committed.offset)
        .with_committed_leader_epoch(committed.leader_epoch)
        .with_metadata(Some(text(committed.metadata)))
}
