//! A broker for other people's tests: in a Rust test, and as a process; and how soon each is there.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::sandbox::Sandbox;
use crate::support::{PATIENCE, Raw, batch};
use finstream::testing::TestBroker;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{MetadataRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

/// Starts that a median is made of.
const STARTS: usize = 20;
/// The bars are 50 and 100 ms and printed beside the figures. A machine that runs other tests at once gets more here.
const GENEROUS: Duration = Duration::from_secs(2);

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The shortest way to an acknowledgement: a topic that is created by being asked for, and one record in it.
fn first_acknowledgement(raw: &mut Raw) {
    let topic = MetadataRequestTopic::default().with_name(Some(name("new")));
    let metadata = raw.ask(&MetadataRequest::default().with_topics(Some(vec![topic])), 9);
    assert_eq!(metadata.topics[0].error_code, 0);
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch(b"first")));
    let data = TopicProduceData::default().with_name(name("new")).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![data]);
    let produced = raw.ask(&request, 9);
    let partition = &produced.responses[0].partition_responses[0];
    assert_eq!((partition.error_code, partition.base_offset), (0, 0));
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[(times.len() - 1) / 2]
}

#[test]
fn a_broker_in_a_test_acknowledges_at_once() {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let began = Instant::now();
        let broker = TestBroker::start().unwrap();
        first_acknowledgement(&mut Raw::connect_to(broker.address()));
        times.push(began.elapsed());
    }
    let median = median(times);
    println!("broker in a test: start to first acknowledgement {median:.1?} (median of {STARTS}; bar 50 ms)");
    assert!(median < GENEROUS, "{median:?}");
}

#[test]
fn an_ephemeral_process_acknowledges_at_once() {
    let sandbox = Sandbox::new();
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let ready_file = sandbox.path().join("ready.json");
        let began = Instant::now();
        let mut command = ephemeral(&sandbox, &ready_file);
        let mut child = Child(command.spawn().unwrap());
        let ready = ready(&mut child, &ready_file);
        first_acknowledgement(&mut Raw::connect_to(ready["kafka"].as_str().unwrap().parse().unwrap()));
        times.push(began.elapsed());
    }
    let median = median(times);
    println!("ephemeral process: start to first acknowledgement {median:.1?} (median of {STARTS}; bar 100 ms)");
    assert!(median < GENEROUS, "{median:?}");
}

#[test]
fn a_ready_file_is_there_only_while_somebody_listens() {
    let sandbox = Sandbox::new();
    let ready_file = sandbox.path().join("ready.json");
    let mut first = Child(ephemeral(&sandbox, &ready_file).spawn().unwrap());
    let taken = ready(&mut first, &ready_file)["kafka"].as_str().unwrap().to_owned();
    // A start that fails does not leave what an earlier one has written.
    let stale = sandbox.path().join("stale.json");
    std::fs::write(&stale, "{}").unwrap();
    let mut refused = sandbox.command(&["--role", "broker", "--ephemeral", "--kafka-listen", &taken, "--ready-file"]);
    let refused = refused.arg(&stale).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(!refused.success() && !stale.exists());
    drop(first);
    assert!(!ready_file.exists());
}

/// Ended with its value, also when a test fails.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // By signal, as a user ends it: it removes its temporary folder.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn ephemeral(sandbox: &Sandbox, ready_file: &Path) -> std::process::Command {
    let mut command = sandbox.command(&["--role", "broker", "--ephemeral"]);
    command.args(["--kafka-listen", "127.0.0.1:0", "--ready-file"]).arg(ready_file);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn ready(child: &mut Child, ready_file: &Path) -> serde_json::Value {
    let began = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(ready_file) {
            return serde_json::from_str(&text).unwrap();
        }
        assert!(child.0.try_wait().unwrap().is_none(), "it ended before it was ready");
        assert!(began.elapsed() < PATIENCE, "it is not ready");
        // As whoever waits for a file does.
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn a_broker_starts_restarts_and_ends_inside_of_asynchronous_code() {
    let mut broker = TestBroker::builder().partitions(2).start().unwrap();
    let address = broker.address();
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .unwrap();
    let send = async |partition: i32| {
        let record = FutureRecord::<(), str>::to("t").partition(partition).payload("p");
        producer.send(record, PATIENCE).await.unwrap().offset
    };
    assert_eq!((send(0).await, send(1).await), (0, 0));
    broker.restart().unwrap();
    assert_eq!(broker.address(), address);
    assert_eq!((send(0).await, send(1).await), (1, 1), "what was written is still there");
    broker.stop().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn brokers_side_by_side_know_nothing_of_each_other_and_leave_nothing() {
    let one = TestBroker::start().unwrap();
    let other = TestBroker::builder().auto_create_topics(false).start().unwrap();
    first_acknowledgement(&mut Raw::connect_to(one.address()));
    let topic = MetadataRequestTopic::default().with_name(Some(name("new")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    assert_eq!(Raw::connect_to(other.address()).ask(&request, 9).topics[0].error_code, 3);
    let mut left = Raw::connect_to(one.address());
    let address = one.address();
    drop(one);
    assert!(left.receive().is_none(), "its connections are closed");
    assert!(std::net::TcpStream::connect(address).is_err());
}
