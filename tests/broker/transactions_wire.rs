//! Transactions on the wire: which error in which version, what administrators see, and what nobody may do.

use crate::support::{Raw, batch, create_topic, start};
use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

const ID: &str = "id";
const GROUP: &str = "g";
/// Clients know PRODUCER_FENCED from there on.
const FENCED_SINCE: i16 = 2;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Who {
    id: i64,
    epoch: i16,
}

/// Requests as a transactional producer sends them; answers are error codes.
struct Producer {
    raw: Raw,
}

impl Producer {
    fn init(&mut self, expected: Option<Who>, version: i16) -> Result<Who, i16> {
        let mut request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id(ID)))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        if let Some(Who { id, epoch }) = expected {
            request = request.with_producer_id(ProducerId(id)).with_producer_epoch(epoch);
        }
        let answer = self.raw.ask(&request, version);
        let who = Who { id: answer.producer_id.0, epoch: answer.producer_epoch };
        if answer.error_code == 0 { Ok(who) } else { Err(answer.error_code) }
    }

    fn add(&mut self, transaction: &str, who: Who, asked: &[(&str, &[i32])], version: i16) -> Vec<i16> {
        let topics = asked.iter().map(|(name, partitions)| {
            AddPartitionsToTxnTopic::default().with_name(topic(name)).with_partitions(partitions.to_vec())
        });
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id(transaction))
            .with_v3_and_below_producer_id(ProducerId(who.id))
            .with_v3_and_below_producer_epoch(who.epoch)
            .with_v3_and_below_topics(topics.collect());
        let answer = self.raw.ask(&request, version);
        let results = answer.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
        results.map(|result| result.partition_error_code).collect()
    }

    fn add_offsets(&mut self, transaction: &str, who: Who, group: &str, version: i16) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(id(transaction))
            .with_producer_id(ProducerId(who.id))
            .with_producer_epoch(who.epoch)
            .with_group_id(GroupId(text(group)));
        self.raw.ask(&request, version).error_code
    }

    fn commit_offset(&mut self, who: Who, (member, generation): (&str, i32), offset: i64, version: i16) -> i16 {
        let partition =
            TxnOffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
        let asked = TxnOffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
        let mut request = TxnOffsetCommitRequest::default()
            .with_transactional_id(id(ID))
            .with_group_id(GroupId(text(GROUP)))
            .with_producer_id(ProducerId(who.id))
            .with_producer_epoch(who.epoch)
            .with_topics(vec![asked]);
        if version >= 3 {
            request = request.with_member_id(text(member)).with_generation_id(generation);
        }
        self.raw.ask(&request, version).topics[0].partitions[0].error_code
    }

    /// The error of a partition and its offset.
    fn fetch_offset(&mut self, require_stable: bool) -> (i16, i64) {
        let asked = OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
        let group =
            OffsetFetchRequestGroup::default().with_group_id(GroupId(text(GROUP))).with_topics(Some(vec![asked]));
        let request = OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(require_stable);
        let found = self.raw.ask(&request, 8).groups[0].topics[0].partitions[0].clone();
        (found.error_code, found.committed_offset)
    }

    fn end(&mut self, transaction: &str, who: Who, is_committed: bool, version: i16) -> i16 {
        let request = EndTxnRequest::default()
            .with_transactional_id(id(transaction))
            .with_producer_id(ProducerId(who.id))
            .with_producer_epoch(who.epoch)
            .with_committed(is_committed);
        self.raw.ask(&request, version).error_code
    }

    /// An empty id is none.
    fn produce(&mut self, transaction: &str, name: &str, partition: i32, records: Bytes, version: i16) -> i16 {
        let transaction = Some(id(transaction)).filter(|id| !id.is_empty());
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
        let request = ProduceRequest::default()
            .with_transactional_id(transaction)
            .with_acks(-1)
            .with_timeout_ms(5_000)
            .with_topic_data(vec![TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![data])]);
        self.raw.ask(&request, version).responses[0].partition_responses[0].error_code
    }
}

fn transactional(who: Who, sequence: i32) -> Bytes {
    let record = Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: who.id,
        producer_epoch: who.epoch,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(Bytes::from_static(b"value")),
        headers: Default::default(),
    };
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, [&record], &options).unwrap();
    out.freeze()
}

fn codes(errors: &[ResponseError]) -> Vec<i16> {
    errors.iter().map(ResponseError::code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_kafkas_error_of_that_version() {
    use ResponseError::*;
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 2).await;
    let mut producer = Producer { raw: Raw::connect(&broker) };
    let me = producer.init(None, 4).unwrap();
    assert_eq!(me.epoch, 0);
    // Of a producer that goes on after an error, once and again.
    let me = producer.init(Some(me), 4).unwrap();
    assert_eq!(producer.init(Some(Who { epoch: 0, ..me }), 4), Ok(me));
    let (stranger, old) = (Who { id: me.id + 1, ..me }, Who { epoch: 0, ..me });
    assert_eq!(producer.init(Some(stranger), 4), Err(ProducerFenced.code()));
    assert_eq!(producer.init(Some(stranger), 3), Err(InvalidProducerEpoch.code()));
    assert_eq!(producer.init(Some(Who { id: -1, epoch: 3 }), 4), Err(InvalidRequest.code()));
    for version in 0..=3 {
        let fenced = if version >= FENCED_SINCE { ProducerFenced } else { InvalidProducerEpoch };
        let mut add = |transaction, who, asked: &[(&str, &[i32])]| producer.add(transaction, who, asked, version);
        assert_eq!(add("other", me, &[("t", &[0])]), codes(&[InvalidProducerIdMapping]));
        assert_eq!(add(ID, stranger, &[("t", &[0])]), codes(&[InvalidProducerIdMapping]));
        assert_eq!(add(ID, old, &[("t", &[0])]), codes(&[fenced]), "version {version}");
        let expected = codes(&[OperationNotAttempted, UnknownTopicOrPartition, UnknownTopicOrPartition]);
        assert_eq!(add(ID, me, &[("t", &[0, 2]), ("u", &[0])]), expected);
        assert_eq!(producer.add_offsets(ID, old, GROUP, version), fenced.code());
        assert_eq!(producer.end(ID, old, true, version), fenced.code());
        assert_eq!(producer.end("other", me, true, version), InvalidProducerIdMapping.code());
        assert_eq!(producer.end(ID, me, true, version), InvalidTxnState.code(), "nothing has begun");
        assert_eq!(producer.end("", me, true, version), InvalidRequest.code());
    }
    for (is_committed, other) in [(true, false), (false, true)] {
        assert_eq!(producer.add(ID, me, &[("t", &[0])], 3), [0]);
        assert_eq!(producer.add_offsets(ID, me, "", 3), 0, "Kafka asks no more of a group's name");
        assert_eq!(producer.end(ID, me, is_committed, 4), 0);
        assert_eq!(producer.end(ID, me, is_committed, 4), 0, "the answer may get lost");
        assert_eq!(producer.end(ID, me, other, 4), InvalidTxnState.code());
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_takes_transactional_records_from_the_producer_of_an_ongoing_transaction_only() {
    use ResponseError::*;
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 2).await;
    let mut producer = Producer { raw: Raw::connect(&broker) };
    let me = producer.init(None, 4).unwrap();
    let first = || transactional(me, 0);
    assert_eq!(producer.produce("", "t", 0, first(), 10), TransactionalIdAuthorizationFailed.code());
    assert_eq!(producer.produce("other", "t", 0, first(), 10), InvalidProducerIdMapping.code());
    assert_eq!(producer.produce(ID, "t", 0, first(), 10), InvalidTxnState.code());
    assert_eq!(producer.produce(ID, "t", 0, first(), 11), TransactionAbortable.code());
    assert_eq!(producer.add(ID, me, &[("t", &[0])], 3), [0]);
    assert_eq!(producer.produce(ID, "t", 1, first(), 10), InvalidTxnState.code());
    let newer = transactional(Who { epoch: me.epoch + 1, ..me }, 0);
    assert_eq!(producer.produce(ID, "t", 0, newer, 10), InvalidProducerEpoch.code());
    let stranger = transactional(Who { id: me.id + 1, ..me }, 0);
    assert_eq!(producer.produce(ID, "t", 0, stranger.clone(), 10), InvalidProducerIdMapping.code());
    // Nor behind a batch of one's own.
    let both: Bytes = [first(), stranger].concat().into();
    assert_eq!(producer.produce(ID, "t", 0, both, 10), InvalidProducerIdMapping.code());
    assert_eq!(producer.produce(ID, "t", 0, first(), 10), 0);
    assert_eq!(producer.produce(ID, "t", 0, first(), 10), 0, "a retry");
    // Plain batches may come along, as in Kafka.
    assert_eq!(producer.produce(ID, "t", 1, batch(b"plain"), 10), 0);
    assert_eq!(producer.end(ID, me, true, 4), 0);
    assert_eq!(producer.produce(ID, "t", 0, transactional(me, 1), 10), InvalidTxnState.code());
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_a_transaction_are_unstable_until_it_ends_and_taken_from_members_only() {
    use ResponseError::*;
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 1).await;
    let mut producer = Producer { raw: Raw::connect(&broker) };
    let me = producer.init(None, 4).unwrap();
    let nobody = ("", -1);
    for version in 0..=4 {
        assert_eq!(producer.commit_offset(me, nobody, 7, version), InvalidTxnState.code(), "version {version}");
    }
    // A member of a group that is not there, and then of one that has none.
    for (is_committed, expected, no_member) in [(false, -1, IllegalGeneration), (true, 9, UnknownMemberId)] {
        assert_eq!(producer.add_offsets(ID, me, GROUP, 3), 0);
        assert_eq!(producer.commit_offset(me, ("a member", 1), 7, 3), no_member.code());
        assert_eq!(producer.commit_offset(Who { epoch: 9, ..me }, nobody, 7, 3), InvalidProducerEpoch.code());
        assert_eq!(producer.commit_offset(me, nobody, 9, 3), 0);
        assert_eq!(producer.fetch_offset(true), (UnstableOffsetCommit.code(), -1));
        assert_eq!(producer.fetch_offset(false), (0, -1));
        assert_eq!(producer.end(ID, me, is_committed, 3), 0);
        assert_eq!(producer.fetch_offset(true), (0, expected));
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_see_transactions_and_can_end_one_in_a_partition() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 2).await;
    let mut producer = Producer { raw: Raw::connect(&broker) };
    let me = producer.init(None, 4).unwrap();
    assert_eq!(producer.add(ID, me, &[("t", &[1, 0])], 3), [0, 0]);
    assert_eq!(producer.produce(ID, "t", 0, transactional(me, 0), 10), 0);
    let raw = &mut producer.raw;
    let asked = DescribeTransactionsRequest::default().with_transactional_ids(vec![id(ID), id("other"), id("")]);
    let mut states = raw.ask(&asked, 0).transaction_states;
    states.sort_by(|one, other| one.transactional_id.cmp(&other.transactional_id));
    let errors: Vec<i16> = states.iter().map(|state| state.error_code).collect();
    assert_eq!(errors, [ResponseError::InvalidRequest.code(), 0, ResponseError::TransactionalIdNotFound.code()]);
    let state = &states[1];
    assert_eq!((state.transaction_state.as_str(), state.transaction_timeout_ms), ("Ongoing", 60_000));
    assert_eq!((state.producer_id.0, state.producer_epoch), (me.id, me.epoch));
    assert_eq!((state.topics[0].topic.as_str(), &state.topics[0].partitions[..]), ("t", &[0, 1][..]));
    let mut list = |request: ListTransactionsRequest| {
        let answer = raw.ask(&request, 1);
        let unknown: Vec<String> = answer.unknown_state_filters.iter().map(ToString::to_string).collect();
        (answer.transaction_states.len(), unknown)
    };
    let all = ListTransactionsRequest::default();
    assert_eq!(list(all.clone()), (1, vec![]));
    assert_eq!(list(all.clone().with_state_filters(vec![text("Ongoing"), text("Odd")])), (1, vec!["Odd".to_owned()]));
    assert_eq!(list(all.clone().with_state_filters(vec![text("Empty")])), (0, vec![]));
    assert_eq!(list(all.clone().with_producer_id_filters(vec![ProducerId(me.id + 1)])), (0, vec![]));
    assert_eq!(list(all.with_duration_filter(3_600_000)), (0, vec![]));
    // What kafka-transactions.sh abort sends.
    let topics = [("t", vec![0, 7]), ("__transaction_state", vec![0])].map(|(name, partitions)| {
        WritableTxnMarkerTopic::default().with_name(topic(name)).with_partition_indexes(partitions)
    });
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(me.id))
        .with_producer_epoch(me.epoch)
        .with_coordinator_epoch(i32::MAX)
        .with_topics(topics.to_vec());
    let answer = raw.ask(&WriteTxnMarkersRequest::default().with_markers(vec![marker]), 1);
    let results = answer.markers[0].topics.iter().flat_map(|topic| &topic.partitions);
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(results.map(|result| result.error_code).collect::<Vec<_>>(), [0, unknown, unknown]);
    // The coordinator ends it all the same.
    assert_eq!(producer.end(ID, me, false, 4), 0);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_of_transactions_is_the_brokers_own() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let name = "__transaction_state";
    let mut producer = Producer { raw: Raw::connect(&broker) };
    let invalid = ResponseError::InvalidTopicException.code();
    let create = CreateTopicsRequest::default().with_topics(vec![
        CreatableTopic::default().with_name(topic(name)).with_num_partitions(1).with_replication_factor(1),
    ]);
    let exists = ResponseError::TopicAlreadyExists.code();
    assert_eq!(producer.raw.ask(&create, 5).topics[0].error_code, exists);
    let all = MetadataRequest::default().with_topics(None);
    assert!(producer.raw.ask(&all, 12).topics.is_empty(), "it is made when it is needed");
    let me = producer.init(None, 4).unwrap();
    let metadata = producer.raw.ask(&all, 12);
    assert_eq!((metadata.topics[0].name.clone(), metadata.topics[0].is_internal), (Some(topic(name)), true));
    let delete =
        DeleteTopicsRequest::default().with_topics(vec![DeleteTopicState::default().with_name(Some(topic(name)))]);
    assert_eq!(producer.raw.ask(&delete, 6).responses[0].error_code, invalid);
    assert_eq!(producer.produce(ID, name, 0, batch(b"forged"), 9), invalid);
    assert_eq!(producer.init(None, 4), Ok(Who { epoch: 1, ..me }));
    broker.stop().await.unwrap();
}
