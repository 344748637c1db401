//! Topics that are made, written to, and deleted while producers go on writing: what is left of them must not keep the
//! broker from starting, and one that is gone stays gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const PARTITIONS: i32 = 2;
const PREFIX: &str = "passing-";
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages before a topic is deleted, and as many while it is.
const MESSAGES: usize = 50;

/// Who does that, until it is asked to finish.
pub struct Passing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeSet<String>>>,
    address: String,
}

impl Passing {
    pub fn start(address: &str) -> Passing {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, to) = (stop.clone(), address.to_owned());
        let thread = std::thread::spawn(move || make_and_delete(&to, &stopped));
        Passing { stop, thread: Some(thread), address: address.to_owned() }
    }

    /// How many topics were made and deleted; none of them is there.
    pub fn finish(&mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let deleted = self.thread.take().unwrap().join().unwrap();
        let reader: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.address).set("group.id", "none").create().unwrap();
        let metadata = reader.fetch_metadata(None, PATIENCE).unwrap();
        let back: Vec<&str> =
            metadata.topics().iter().map(|topic| topic.name()).filter(|name| deleted.contains(*name)).collect();
        assert_eq!(back, [""; 0], "deleted topics are back");
        deleted.len()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The topics whose deletion was acknowledged.
fn make_and_delete(address: &str, stop: &AtomicBool) -> BTreeSet<String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "500");
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let producer: BaseProducer = config
        .set("message.timeout.ms", "2000")
        .set("linger.ms", "0")
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut deleted = BTreeSet::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let name = format!("{PREFIX}{number}");
        let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
        let made = runtime.block_on(admin.create_topics([&topic], &options));
        if !made.is_ok_and(|results| results.iter().all(Result::is_ok)) {
            // The broker is away; whether it made the topic will not be known.
            continue;
        }
        write(&producer, &name);
        producer.flush(PATIENCE).ok();
        // It waits in the client and in the broker while the topic goes.
        write(&producer, &name);
        let gone = runtime.block_on(admin.delete_topics(&[&name], &options));
        if gone.is_ok_and(|results| results.iter().all(Result::is_ok)) {
            deleted.insert(name);
        }
        producer.poll(Duration::ZERO);
    }
    deleted
}

fn write(producer: &BaseProducer, topic: &str) {
    for index in 0..MESSAGES {
        let payload = [b'x'; 500];
        let record = BaseRecord::<(), [u8]>::to(topic).partition(index as i32 % PARTITIONS).payload(&payload);
        // A full queue is over when messages time out.
        let _ = producer.send(record);
    }
    producer.poll(Duration::ZERO);
}
