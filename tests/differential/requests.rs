//! Requests as scenarios need them again and again, short to write.

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    ProduceRequest,
};
use uuid::Uuid;

use super::batch::Batch;
use super::session::{Session, text, topic_name};

/// How long a broker may take, in milliseconds.
pub const TIMEOUT_MS: i32 = 30_000;
const MIB: i32 = 1 << 20;

pub fn metadata(names: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    MetadataRequest::default().with_topics(Some(names.iter().map(topic).collect()))
}

pub fn metadata_by_id(ids: &[Uuid]) -> MetadataRequest {
    let topic = |id: &Uuid| MetadataRequestTopic::default().with_name(None).with_topic_id(*id);
    MetadataRequest::default().with_topics(Some(ids.iter().map(topic).collect()))
}

pub fn new_topic(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
}

pub fn with_config(topic: CreatableTopic, name: &str, value: Option<&str>) -> CreatableTopic {
    let mut configs = topic.configs.clone();
    configs.push(CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text)));
    topic.with_configs(configs)
}

pub fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(TIMEOUT_MS)
}

pub fn produce(topic: &str, partition: i32, records: Option<Bytes>) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(records);
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(TIMEOUT_MS).with_topic_data(vec![topic])
}

/// One partition from an offset on.
pub fn fetch(topic: &str, id: Uuid, version: i16, partition: FetchPartition) -> FetchRequest {
    let topic = match version {
        13.. => FetchTopic::default().with_topic_id(id),
        _ => FetchTopic::default().with_topic(topic_name(topic)),
    };
    let replica = if version < 15 { BrokerId(-1) } else { BrokerId::default() };
    let request = FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(MIB)
        .with_topics(vec![topic.with_partitions(vec![partition])]);
    let request = if version < 15 { request.with_replica_id(replica) } else { request };
    // No session.
    if version >= 7 { request.with_session_epoch(-1) } else { request }
}

pub fn from(partition: i32, offset: i64) -> FetchPartition {
    FetchPartition::default().with_partition(partition).with_fetch_offset(offset).with_partition_max_bytes(MIB)
}

pub fn list_offsets(topic: &str, asked: &[(i32, i64)]) -> ListOffsetsRequest {
    let partition =
        |(index, time): &(i32, i64)| ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(*time);
    let topic =
        ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(asked.iter().map(partition).collect());
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

impl Session<'_> {
    /// Appends, without comparing; returns the base offset.
    pub fn append(&mut self, topic: &str, partition: i32, batch: &Batch) -> i64 {
        let request = produce(topic, partition, Some(batch.bytes()));
        let answer = self.quietly(|session| session.ask_at(9, request));
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        answer.base_offset
    }

    /// A new producer id.
    pub fn producer_id(&mut self) -> i64 {
        let request = InitProducerIdRequest::default().with_transaction_timeout_ms(TIMEOUT_MS);
        self.quietly(|session| session.ask_at(4, request)).producer_id.0
    }
}
