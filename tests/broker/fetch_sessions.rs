//! Fetch sessions on the wire (KIP-227).

use crate::support::{Raw, create_topic, producer, send, start};
use finstream::broker::Broker;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FetchRequest, FetchResponse, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
const FETCH_SESSION_TOPIC_ID_ERROR: i16 = 106;

/// A client that fetches topic `t` at one version.
struct Client {
    raw: Raw,
    version: i16,
    id: Uuid,
}

impl Client {
    fn new(broker: &Broker, version: i16) -> Client {
        let mut raw = Raw::connect(broker);
        let topic = MetadataRequestTopic::default().with_name(Some(name("t")));
        let metadata = raw.ask(&MetadataRequest::default().with_topics(Some(vec![topic])), 12);
        Client { raw, version, id: metadata.topics[0].topic_id }
    }

    /// `wanted`: partitions and offsets.
    fn fetch(&mut self, session: (i32, i32), wanted: &[(i32, i64)], forgotten: &[i32]) -> FetchResponse {
        let partition = |(index, offset): &(i32, i64)| {
            let partition = FetchPartition::default().with_partition(*index).with_fetch_offset(*offset);
            partition.with_partition_max_bytes(1 << 20)
        };
        let by_id = self.version >= 13;
        let (name, id) = if by_id { (TopicName::default(), self.id) } else { (name("t"), Uuid::nil()) };
        let topic = FetchTopic::default().with_topic(name.clone()).with_topic_id(id);
        let topic = topic.with_partitions(wanted.iter().map(partition).collect());
        let topics = if wanted.is_empty() { Vec::new() } else { vec![topic] };
        let forgotten = match forgotten {
            [] => Vec::new(),
            some => {
                let topic = ForgottenTopic::default().with_topic(name).with_topic_id(id);
                vec![topic.with_partitions(some.to_vec())]
            }
        };
        let request = FetchRequest::default()
            .with_max_bytes(1 << 20)
            .with_session_id(session.0)
            .with_session_epoch(session.1)
            .with_topics(topics)
            .with_forgotten_topics_data(forgotten);
        self.raw.ask(&request, self.version)
    }
}

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Partition, error code, high watermark and whether there are records, of all that an answer tells.
fn told(response: &FetchResponse) -> Vec<(i32, i16, i64, bool)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let tell = |partition: &kafka_protocol::messages::fetch_response::PartitionData| {
        let has_records = partition.records.as_ref().is_some_and(|records| !records.is_empty());
        (partition.partition_index, partition.error_code, partition.high_watermark, has_records)
    };
    partitions.map(tell).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_tells_all_at_first_and_then_only_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 3).await;
    let producer = producer(&broker);
    send(&producer, "t", 1, "first").await;
    for version in [7, 11, 12, 13, 16] {
        let mut client = Client::new(&broker, version);
        let end = 1 + send(&producer, "t", 1, "again").await;
        let first = client.fetch((0, 0), &[(0, 0), (1, 0), (9, 0)], &[]);
        let id = first.session_id;
        assert!(first.error_code == 0 && id > 0, "version {version}");
        let unknown = (9, UNKNOWN_TOPIC_OR_PARTITION, -1, false);
        assert_eq!(told(&first), [(0, 0, 0, false), (1, 0, end, true), unknown], "version {version}");
        // The records were taken; what is unknown is said each time.
        let second = client.fetch((id, 1), &[(1, end)], &[]);
        assert_eq!((second.session_id, told(&second)), (id, vec![unknown]), "version {version}");
        let third = client.fetch((id, 2), &[(2, 0)], &[9]);
        assert_eq!((third.session_id, told(&third)), (id, vec![(2, 0, 0, false)]), "version {version}");
        assert_eq!(told(&client.fetch((id, 3), &[], &[])), [], "version {version}");
        let end = 1 + send(&producer, "t", 1, "new").await;
        assert_eq!(told(&client.fetch((id, 4), &[], &[])), [(1, 0, end, true)], "version {version}");
        // Its offset is not moved by itself.
        assert_eq!(told(&client.fetch((id, 5), &[], &[])), [(1, 0, end, true)], "version {version}");
        let over = client.fetch((id, 6), &[], &[0, 1, 2]);
        assert_eq!((over.error_code, over.session_id, told(&over)), (0, 0, vec![]), "version {version}");
        assert_eq!(client.fetch((id, 7), &[], &[]).error_code, FETCH_SESSION_ID_NOT_FOUND, "version {version}");
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_session_is_refused_and_a_new_one_ends_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 1).await;
    let (mut by_name, mut by_id) = (Client::new(&broker, 12), Client::new(&broker, 13));
    let id = by_name.fetch((0, 0), &[(0, 0)], &[]).session_id;
    let refused = |response: FetchResponse| (response.error_code, response.session_id, response.responses.len());
    assert_eq!(refused(by_name.fetch((id, 2), &[], &[])), (INVALID_FETCH_SESSION_EPOCH, 0, 0));
    assert_eq!(refused(by_id.fetch((id, 1), &[], &[])), (FETCH_SESSION_TOPIC_ID_ERROR, 0, 0));
    assert_eq!(refused(by_name.fetch((0, 1), &[], &[])), (FETCH_SESSION_ID_NOT_FOUND, 0, 0));
    // Refusals do not end it. What is asked for in it comes in one answer only.
    assert_eq!(refused(by_name.fetch((id, 1), &[], &[])), (0, id, 0));
    assert_eq!(refused(by_name.fetch((id, 1), &[], &[])), (INVALID_FETCH_SESSION_EPOCH, 0, 0));
    let next = by_name.fetch((id, 0), &[(0, 0)], &[]).session_id;
    assert!(next != id && next != 0);
    assert_eq!(refused(by_name.fetch((id, 2), &[], &[])), (FETCH_SESSION_ID_NOT_FOUND, 0, 0));
    // Without a session, the old one is over as well.
    let last = by_name.fetch((next, -1), &[(0, 0)], &[]);
    assert_eq!((last.session_id, told(&last)), (0, vec![(0, 0, 0, false)]));
    assert_eq!(refused(by_name.fetch((next, 1), &[], &[])), (FETCH_SESSION_ID_NOT_FOUND, 0, 0));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_waits_is_answered_when_records_come() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 2).await;
    let mut client = Client::new(&broker, 12);
    let id = client.fetch((0, 0), &[(0, 0), (1, 0)], &[]).session_id;
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_min_bytes(1)
        .with_max_wait_ms(20_000)
        .with_session_id(id)
        .with_session_epoch(1);
    client.raw.send(&request, 12);
    send(&producer(&broker), "t", 1, "late").await;
    let (_, response) = client.raw.answer::<FetchRequest>(12);
    assert_eq!((response.session_id, told(&response)), (id, vec![(1, 0, 1, true)]));
    broker.stop().await.unwrap();
}
