//! What groups may still do on a broker whose disk is full. Skipped where no tmpfs can be mounted.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::{PATIENCE, Raw, batch, create_topic, start};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    DeleteGroupsRequest, GroupId, OffsetCommitRequest, OffsetDeleteRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]).arg(dir.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(SmallDisk(dir))
    }

    fn free_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(self.0.path()).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// A file of somebody else that leaves so much free.
    fn fill(&self, left: u64) -> PathBuf {
        let path = self.0.path().join("neighbour");
        let taken = self.free_bytes() - left;
        std::fs::write(&path, vec![1; usize::try_from(taken).unwrap()]).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn group(id: &'static str) -> GroupId {
    GroupId(StrBytes::from_static_str(id))
}

fn produce(raw: &mut Raw) -> i16 {
    let data = PartitionProduceData::default().with_records(Some(batch(b"value")));
    let topic = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000).with_topic_data(vec![topic]);
    raw.ask(&request, 7).responses[0].partition_responses[0].error_code
}

fn commit(raw: &mut Raw, id: &'static str, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group(id))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    raw.ask(&request, 8).topics[0].partitions[0].error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_go_on_and_can_be_deleted_while_the_disk_is_too_full_for_records() {
    let Some(disk) = SmallDisk::mount() else { return };
    let broker = start(&disk.0.path().join("data")).await;
    create_topic(&broker, "t", 1).await;
    let mut raw = Raw::connect(&broker);
    assert_eq!((produce(&mut raw), commit(&mut raw, "g", 1), commit(&mut raw, "h", 1)), (0, 0, 0));
    let neighbour = disk.fill(26 << 20);
    assert_eq!(produce(&mut raw), ResponseError::KafkaStorageError.code());
    let began = Instant::now();
    // Producers hear of the refusal first.
    while commit(&mut raw, "g", 2) != 0 {
        assert!(began.elapsed() < PATIENCE, "commits are refused as well");
    }
    let partition = OffsetDeleteRequestPartition::default();
    let offsets = OffsetDeleteRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let deletion = OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![offsets]);
    let deleted = raw.ask(&deletion, 0);
    assert_eq!((deleted.error_code, deleted.topics[0].partitions[0].error_code), (0, 0));
    let deletion = DeleteGroupsRequest::default().with_groups_names(vec![group("h")]);
    assert_eq!(raw.ask(&deletion, 2).results[0].error_code, 0);
    assert_eq!(produce(&mut raw), ResponseError::KafkaStorageError.code());
    std::fs::remove_file(neighbour).unwrap();
    while produce(&mut raw) != 0 {
        assert!(began.elapsed() < 2 * PATIENCE, "appends are still refused");
    }
    broker.stop().await.unwrap();
}
