//! ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{BrokerId, DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};

use super::batch::{Batch, TIME_MS, packed};
use super::requests::{TIMEOUT_MS, list_offsets, produce};
use super::scenario::{Scenario, scenario};
use super::session::{Session, topic_name};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

pub const SCENARIOS: &[Scenario] = &[
    scenario("ListOffsets of the ends in each version", |s| {
        let topic = filled(s, 2);
        s.each(|_| list_offsets(&topic, &[(0, LATEST)]));
        s.each(|_| list_offsets(&topic, &[(0, EARLIEST)]));
    }),
    scenario("ListOffsets of the largest time in each version", |s| {
        let topic = filled(s, 2);
        s.each(|_| list_offsets(&topic, &[(0, MAX_TIMESTAMP)]));
    }),
    scenario("ListOffsets of tiers in each version", |s| {
        let topic = filled(s, 2);
        s.each(|_| list_offsets(&topic, &[(0, EARLIEST_LOCAL)]));
        s.each(|_| list_offsets(&topic, &[(0, LATEST_TIERED)]));
    }),
    scenario("ListOffsets of names that there are not", |s| {
        let topic = filled(s, 1);
        for time in [-6, -7, -99, i64::MIN] {
            s.each(|_| list_offsets(&topic, &[(0, time)]));
        }
    }),
    scenario("ListOffsets by time in each version", |s| {
        let topic = filled(s, 2);
        s.each(|_| list_offsets(&topic, &[(0, TIME_MS + 1)]));
    }),
    scenario("ListOffsets by every time", |s| {
        let topic = s.topic("t", 1);
        for time_ms in [TIME_MS, TIME_MS + 100, TIME_MS + 50] {
            s.append(&topic, 0, &Batch { time_ms, ..Batch::of(3) });
        }
        for time in [0, 0, 1, 2, 3, 49, 50, 52, 53, 100, 101, 102, 103].map(|after| TIME_MS + after) {
            s.ask(list_offsets(&topic, &[(0, time)]));
        }
        for time in [0, 1, i64::MAX] {
            s.ask(list_offsets(&topic, &[(0, time)]));
        }
        s.ask(list_offsets(&topic, &[(0, MAX_TIMESTAMP)]));
    }),
    scenario("ListOffsets by time inside of packed batches", |s| {
        let topic = s.topic("t", 1);
        for codec in 1..=4 {
            let batch = Batch { time_ms: TIME_MS + 10 * i64::from(codec), ..Batch::of(3) };
            s.quietly(|s| s.ask_at(9, produce(&topic, 0, Some(packed(&batch.bytes(), codec)))));
        }
        for after in [0, 11, 12, 13, 22, 42, 43] {
            s.ask(list_offsets(&topic, &[(0, TIME_MS + after)]));
        }
        s.ask(list_offsets(&topic, &[(0, MAX_TIMESTAMP)]));
    }),
    scenario("ListOffsets of an empty partition", |s| {
        let topic = s.topic("t", 1);
        for time in [LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED, 0, TIME_MS] {
            s.ask(list_offsets(&topic, &[(0, time)]));
        }
    }),
    scenario("ListOffsets of the committed end", |s| {
        let topic = filled(s, 2);
        for time in [LATEST, EARLIEST, MAX_TIMESTAMP, TIME_MS + 2] {
            s.ask(list_offsets(&topic, &[(0, time)]).with_isolation_level(1));
            s.ask_at(2, list_offsets(&topic, &[(0, time)]).with_isolation_level(1));
        }
    }),
    scenario("ListOffsets of what there is not", |s| {
        let topic = filled(s, 1);
        let none = s.name("none");
        s.each(|_| list_offsets(&none, &[(0, LATEST)]));
        s.ask(list_offsets(&topic, &[(1, LATEST)]));
        s.ask(list_offsets(&topic, &[(-1, LATEST)]));
        s.ask(list_offsets("a b", &[(0, LATEST)]));
    }),
    scenario("ListOffsets with epochs of the leader", |s| {
        let topic = filled(s, 1);
        for epoch in [-1, 0, 1, 99] {
            let mut request = list_offsets(&topic, &[(0, LATEST)]);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            s.ask(request);
        }
    }),
    scenario("ListOffsets names one partition twice", |s| {
        let topic = filled(s, 1);
        s.ask(list_offsets(&topic, &[(0, LATEST), (0, EARLIEST)]));
    }),
    scenario("ListOffsets of several partitions", |s| {
        let topic = s.topic("t", 3);
        s.append(&topic, 1, &Batch::of(5));
        s.ask(list_offsets(&topic, &[(2, LATEST), (1, LATEST), (0, EARLIEST), (7, LATEST)]));
        s.ask(ListOffsetsRequest::default().with_replica_id(BrokerId(-1)));
    }),
    scenario("ListOffsets as a replica that there is not", |s| {
        let topic = filled(s, 1);
        s.ask(list_offsets(&topic, &[(0, LATEST)]).with_replica_id(BrokerId(17)));
        s.ask(list_offsets(&topic, &[(0, LATEST)]).with_replica_id(BrokerId(-2)));
    }),
    scenario("OffsetForLeaderEpoch in each version", |s| {
        let topic = filled(s, 2);
        s.each(|version| epoch_end(version, &topic, 0, -1, 0));
    }),
    scenario("OffsetForLeaderEpoch of other epochs", |s| {
        let topic = filled(s, 1);
        for (current, asked) in [(-1, 1), (-1, 99), (-1, -1), (0, 0), (1, 0), (99, 99), (0, -2)] {
            s.ask(epoch_end(4, &topic, 0, current, asked));
        }
    }),
    scenario("OffsetForLeaderEpoch of an empty partition", |s| {
        let topic = s.topic("t", 1);
        for asked in [0, 1, -1] {
            s.ask(epoch_end(4, &topic, 0, -1, asked));
        }
    }),
    scenario("OffsetForLeaderEpoch of what there is not", |s| {
        let topic = s.topic("t", 1);
        let none = s.name("none");
        s.ask(epoch_end(4, &none, 0, -1, 0));
        s.ask(epoch_end(4, &topic, 1, -1, 0));
        s.ask(epoch_end(4, &topic, -1, -1, 0));
    }),
    scenario("DeleteRecords in each version", |s| {
        let topic = filled(s, 4);
        for version in s.versions::<DeleteRecordsRequest>() {
            s.ask_at(version, delete_records(&topic, &[(0, 2 * (i64::from(version) + 1))]));
            s.ask(list_offsets(&topic, &[(0, EARLIEST)]));
        }
    }),
    scenario("DeleteRecords up to the end", |s| {
        let topic = filled(s, 2);
        s.ask(delete_records(&topic, &[(0, -1)]));
        s.ask(list_offsets(&topic, &[(0, EARLIEST)]));
        s.ask(list_offsets(&topic, &[(0, LATEST)]));
        s.ask(delete_records(&topic, &[(0, -1)]));
        s.append(&topic, 0, &Batch::of(1));
        s.ask(list_offsets(&topic, &[(0, LATEST)]));
        s.ask(list_offsets(&topic, &[(0, TIME_MS)]));
    }),
    scenario("DeleteRecords beyond the end and before the start", |s| {
        let topic = filled(s, 2);
        for offset in [7, i64::MAX, -2, i64::MIN] {
            s.ask(delete_records(&topic, &[(0, offset)]));
        }
        s.ask(delete_records(&topic, &[(0, 4)]));
        for offset in [2, 0, 4] {
            s.ask(delete_records(&topic, &[(0, offset)]));
        }
        s.ask(list_offsets(&topic, &[(0, TIME_MS)]));
    }),
    scenario("DeleteRecords of what there is not", |s| {
        let topic = filled(s, 1);
        let none = s.name("none");
        s.ask(delete_records(&none, &[(0, 1)]));
        s.ask(delete_records(&topic, &[(1, 1)]));
        s.ask(delete_records(&topic, &[(-1, 1)]));
        s.ask(delete_records("a b", &[(0, 1)]));
        s.ask(DeleteRecordsRequest::default().with_timeout_ms(TIMEOUT_MS));
    }),
    scenario("DeleteRecords of a compacted topic", |s| {
        for policy in ["compact", "compact,delete"] {
            let topic = s.topic_with(&policy.replace(',', "-"), 1, &[("cleanup.policy", policy)]);
            s.append(&topic, 0, &Batch::of(3));
            s.ask(delete_records(&topic, &[(0, 1)]));
        }
    }),
    scenario("DeleteRecords of an empty partition", |s| {
        let topic = s.topic("t", 1);
        for offset in [0, -1, 1] {
            s.ask(delete_records(&topic, &[(0, offset)]));
        }
    }),
    scenario("DeleteRecords names one partition twice", |s| {
        let topic = filled(s, 2);
        s.ask(delete_records(&topic, &[(0, 2), (0, 3)]));
    }),
];

/// Deletes, without comparing.
pub fn delete_before(s: &mut Session, topic: &str, offset: i64) {
    let answer = s.quietly(|s| s.ask(delete_records(topic, &[(0, offset)])));
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

fn delete_records(topic: &str, before: &[(i32, i64)]) -> DeleteRecordsRequest {
    let partition = |(index, offset): &(i32, i64)| {
        DeleteRecordsPartition::default().with_partition_index(*index).with_offset(*offset)
    };
    let topic = DeleteRecordsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(before.iter().map(partition).collect());
    DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS)
}

fn epoch_end(version: i16, topic: &str, partition: i32, current: i32, asked: i32) -> OffsetForLeaderEpochRequest {
    let partition = OffsetForLeaderPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(current)
        .with_leader_epoch(asked);
    let topic = OffsetForLeaderTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    if version >= 3 { request.with_replica_id(BrokerId(-1)) } else { request }
}

/// A topic with so many batches of three records in partition 0.
fn filled(s: &mut Session, batches: usize) -> String {
    let topic = s.topic("t", 1);
    for _ in 0..batches {
        s.append(&topic, 0, &Batch::of(3));
    }
    topic
}
