//! Too many open files: clients cannot take them all, and the log outlives it when they are gone.
//!
//! The limit of open files belongs to the process: the tests of this file run one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "broker/support.rs"]
mod broker_support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use broker_support::{PATIENCE, Raw, start, start_with};
use finstream::broker::{Broker, Limits};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, ListOffsetsRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::fmt::MakeWriter;

static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
const STORAGE_ERROR: i16 = 56;
const EXISTS: i16 = 36;

/// Sets the soft limit; the hard one stays as it is.
fn limit(files: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).unwrap();
}

/// Takes every handle that is left.
fn take_all_files() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn create(raw: &mut Raw, name: &'static str, partitions: i32) -> i16 {
    let small = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("segment.bytes"))
        .with_value(Some(StrBytes::from_static_str("1048576")));
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(vec![small]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(20_000);
    raw.ask(&request, 5).topics[0].error_code
}

/// Error code and base offset of one batch.
fn produce(raw: &mut Raw, name: &'static str, partition: i32, value_bytes: usize) -> (i16, i64) {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(broker_support::batch(&vec![b'x'; value_bytes])));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str(name)))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(2_000).with_topic_data(vec![topic]);
    let answer = &raw.ask(&request, 7).responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

/// Tries until it is taken.
fn produce_in_the_end(raw: &mut Raw, name: &'static str, partition: i32) -> i64 {
    let started = Instant::now();
    loop {
        let (code, base_offset) = produce(raw, name, partition, 10);
        if code == 0 {
            return base_offset;
        }
        assert!(started.elapsed() < PATIENCE, "refused with {code}");
    }
}

fn end_of(raw: &mut Raw, name: &'static str, partition: i32) -> i64 {
    let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1);
    let topic =
        ListOffsetsTopic::default().with_name(TopicName(StrBytes::from_static_str(name))).with_partitions(vec![asked]);
    let answer = raw.ask(&ListOffsetsRequest::default().with_topics(vec![topic]), 4);
    answer.topics[0].partitions[0].offset
}

fn greeted(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker);
    raw.ask(&ApiVersionsRequest::default(), 3);
    raw
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_no_file_could_be_opened_for_is_created_later_and_kept() {
    let _alone = ALONE.lock().await;
    let hard = getrlimit(Resource::Nofile).maximum;
    let dir = tempfile::tempdir().unwrap();
    limit(400);
    let broker = start(dir.path()).await;
    assert_eq!(getrlimit(Resource::Nofile).current, hard.map(|hard| hard.min(1 << 20)), "the soft limit is raised");
    let mut raw = greeted(&broker);
    assert_eq!(create(&mut raw, "before", 12), 0);
    limit(400);
    let files = take_all_files();
    assert_eq!(create(&mut raw, "within", 30), STORAGE_ERROR);
    drop(files);
    let started = Instant::now();
    while !matches!(create(&mut raw, "within", 30), 0 | EXISTS) {
        assert!(started.elapsed() < PATIENCE);
    }
    assert!(produce_in_the_end(&mut raw, "within", 29) >= 0);
    assert!(produce_in_the_end(&mut raw, "before", 0) >= 0);
    broker.stop().await.unwrap();
    reopened_holds(dir.path(), "within", 29).await;
}

async fn reopened_holds(dir: &Path, name: &'static str, partition: i32) {
    let broker = start(dir).await;
    let mut raw = greeted(&broker);
    assert!(end_of(&mut raw, name, partition) > 0);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_files_appends_are_refused_or_late_and_none_that_was_acknowledged_is_lost() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    limit(300);
    let mut raw = greeted(&broker);
    assert_eq!(create(&mut raw, "money", 2), 0);
    assert_eq!(produce(&mut raw, "money", 0, 10), (0, 0));
    let files = take_all_files();
    // Segments of a megabyte: the second batch needs a new file, and so does the first one of partition 1.
    let mut acknowledged: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let mut refused = 0;
    for partition in [0, 0, 1, 0, 1] {
        match produce(&mut raw, "money", partition, 900_000) {
            (0, base_offset) => acknowledged.entry(partition).or_default().push(base_offset),
            _ => refused += 1,
        }
    }
    assert!(refused > 0, "no file was needed");
    drop(files);
    for partition in 0..2 {
        let base_offset = produce_in_the_end(&mut raw, "money", partition);
        acknowledged.entry(partition).or_default().push(base_offset);
    }
    let ends: Vec<i64> = (0..2).map(|partition| end_of(&mut raw, "money", partition)).collect();
    broker.stop().await.unwrap();
    let broker = start(dir.path()).await;
    let mut raw = greeted(&broker);
    for partition in 0..2 {
        assert_eq!(end_of(&mut raw, "money", partition), ends[partition as usize]);
        assert!(acknowledged[&partition].iter().all(|offset| *offset < ends[partition as usize]));
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_file_that_cannot_be_opened_is_waited_for() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    limit(300);
    let mut raw = greeted(&broker);
    let large = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("large")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![large]).with_timeout_ms(20_000);
    assert_eq!(raw.ask(&request, 5).topics[0].error_code, 0);
    assert_eq!(produce(&mut raw, "large", 0, 900_000).0, 0);
    let files = take_all_files();
    // One journal file is open, another one may be prepared; then one, or a checkpoint, cannot be made.
    let refused = (0..200).find(|_| produce(&mut raw, "large", 0, 900_000).0 != 0);
    assert!(refused.is_some_and(|batches| batches > 0), "{refused:?}");
    drop(files);
    let last = produce_in_the_end(&mut raw, "large", 0);
    broker.stop().await.unwrap();
    let broker = start(dir.path()).await;
    assert!(end_of(&mut greeted(&broker), "large", 0) > last);
    broker.stop().await.unwrap();
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;
    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

/// On this thread only, so that what the broker says is heard.
#[tokio::test]
async fn connections_are_bounded_by_the_limit_of_open_files_and_a_flood_is_told_of_once() {
    let _alone = ALONE.lock().await;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let lines = Lines::default();
    let heard = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
    let _heard = tracing::subscriber::set_default(heard);
    let dir = tempfile::tempdir().unwrap();
    // More than any limit of open files allows.
    let limits = Limits { connections_max: usize::MAX, ..Limits::default() };
    let broker = start_with(dir.path(), limits).await;
    let said = |what: &str| {
        String::from_utf8_lossy(&lines.0.lock().unwrap()).lines().filter(|line| line.contains(what)).count()
    };
    if maximum.is_some() {
        assert_eq!(said("open files allows"), 1);
    }
    broker.stop().await.unwrap();
    let broker = start_with(dir.path(), Limits { connections_max: 2, ..Limits::default() }).await;
    let mut sockets = Vec::new();
    for _ in 0..50 {
        sockets.push(tokio::net::TcpStream::connect(broker.address()).await.unwrap());
    }
    // The last one is closed by the broker: then all were looked at.
    let closed = tokio::time::timeout(PATIENCE, sockets[49].readable()).await;
    assert!(closed.is_ok());
    assert_eq!(said("connection refused"), 1);
    broker.stop().await.unwrap();
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}
