//! The consumer role against librdkafka's mock cluster and a real PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::sink_support::{Schema, purchase, trade};
use finstream::clock::SystemClock;
use finstream::config::{ConsumerSettings, KafkaSettings, LatencyLayout};
use finstream::consumer::{Acknowledged, ConsumerError, ConsumerReport, run};
use finstream::progress::{Progress, Stage as LatencyStage};
use finstream::shutdown::{Stage, Trigger, channel};
use finstream::sink::{Reason, SinkError};
use finstream::transaction::{HEADER_RUN, HEADER_RUN_INFO, HEADER_SEQUENCE, RunInfo};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const TOPIC: &str = "finance.transactions";
const PARTITIONS: i32 = 3;
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    cluster
}

fn settings(cluster: &Cluster, instance: &str) -> ConsumerSettings {
    ConsumerSettings {
        kafka: KafkaSettings {
            brokers: cluster.bootstrap_servers(),
            properties: Vec::new(),
            topic_prefix: "finance.".to_owned(),
            partitions: PARTITIONS,
            replication_factor: None,
        },
        group: "g".to_owned(),
        group_instance_id: instance.to_owned(),
        batch_messages_max: 100,
        batch_wait: Duration::from_millis(5),
        duration: None,
        drain_timeout: Duration::from_secs(30),
        latency_layout: LatencyLayout::Rows,
        window: None,
        publish_aggregates: false,
    }
}

/// A consumer that runs, and the ways to stop it.
struct Running {
    trigger: Trigger,
    drain_to: watch::Sender<Option<Acknowledged>>,
    progress: Arc<Progress>,
    task: JoinHandle<Result<ConsumerReport, ConsumerError>>,
}

fn start(schema: &Schema, settings: ConsumerSettings) -> Running {
    let (trigger, shutdown) = channel();
    let (drain_to, drain) = watch::channel(None);
    let progress = Arc::new(Progress::new());
    let database = schema.options.clone();
    let task = tokio::spawn(run(settings, database, SystemClock::shared(), shutdown, progress.clone(), drain));
    Running { trigger, drain_to, progress, task }
}

impl Running {
    async fn drain(self, acknowledged: &Acknowledged) -> Result<ConsumerReport, ConsumerError> {
        self.drain_to.send_replace(Some(acknowledged.clone()));
        self.end().await
    }

    async fn end(self) -> Result<ConsumerReport, ConsumerError> {
        let Running { trigger, drain_to, task, .. } = self;
        let ended = tokio::time::timeout(TEST_TIMEOUT, task).await.expect("the consumer did not end").unwrap();
        drop((trigger, drain_to));
        ended
    }
}

/// Sends records as a producer of this run would, and notes what was acknowledged.
struct Sender {
    producer: FutureProducer,
    sequence: i64,
    acknowledged: Acknowledged,
}

impl Sender {
    fn new(cluster: &Cluster) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .unwrap();
        Sender { producer, sequence: 0, acknowledged: HashMap::new() }
    }

    async fn purchases(&mut self, count: usize) {
        for _ in 0..count {
            let user = format!("user-{}", self.sequence % 7);
            let mut payload = Vec::new();
            purchase(&user, 150).encode_into(&mut payload);
            self.send((self.sequence % i64::from(PARTITIONS)) as i32, &payload).await;
        }
    }

    async fn send(&mut self, partition: i32, payload: &[u8]) {
        let run = crate::sink_support::run(5).to_string();
        let sequence = self.sequence.to_string();
        let mut headers = OwnedHeaders::new()
            .insert(Header { key: HEADER_RUN, value: Some(&run) })
            .insert(Header { key: HEADER_SEQUENCE, value: Some(&sequence) });
        if self.sequence == 0 {
            let info =
                RunInfo { command: "finstream \0 test".to_owned(), rate: "max".to_owned(), ..RunInfo::default() };
            let info = serde_json::to_string(&info).unwrap();
            headers = headers.insert(Header { key: HEADER_RUN_INFO, value: Some(&info) });
        }
        let record = FutureRecord::to(TOPIC).partition(partition).key("k").payload(payload).headers(headers);
        let delivery = self.producer.send(record, TEST_TIMEOUT).await.unwrap();
        self.acknowledged.insert(partition, delivery.offset);
        self.sequence += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_drained_exactly_over_restarts() {
    let (schema, cluster) = (Schema::create().await, cluster());
    let mut sender = Sender::new(&cluster);
    let mut stored = 0;
    for round in 0..3 {
        let consumer = start(&schema, settings(&cluster, "i"));
        sender.purchases(500).await;
        let progress = consumer.progress.clone();
        let report = consumer.drain(&sender.acknowledged).await.unwrap();
        assert!(report.drained);
        assert_eq!(report.left, 0);
        stored += report.stored;
        assert_eq!(stored, 500 * (round + 1));
        assert_eq!(progress.latencies(LatencyStage::EndToEnd).histogram.len(), report.stored);
        assert_eq!(report.next_offsets.values().sum::<i64>() as u64, stored);
    }
    assert_eq!(schema.rows("select sum(purchases), sum(spend) from user_totals").await, ["1500 2250.00"]);
    assert_eq!(schema.rows("select count(*), count(distinct sequence) from messages").await, ["1500 1500"]);
    assert_eq!(schema.rows("select command, rate from runs").await, ["finstream  test max"]);
    assert_eq!(schema.rows("select count(*) from batches where committed_at is null").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_transaction_becomes_a_dead_letter_and_the_rest_is_stored() {
    let (schema, cluster) = (Schema::create().await, cluster());
    let mut sender = Sender::new(&cluster);
    sender.purchases(10).await;
    sender.send(0, b"{\"amount\": }").await;
    sender.send(1, b"\xff\xfe").await;
    let mut payload = Vec::new();
    trade("ann", "EA", 3, 1_000, 1_600_000_000_000_000).encode_into(&mut payload);
    sender.send(2, &payload).await;
    let report = start(&schema, settings(&cluster, "i")).drain(&sender.acknowledged).await.unwrap();
    assert_eq!((report.stored, report.dead_letters), (11, 2));
    assert_eq!(
        schema.rows("select partition, sequence, encode(payload, 'hex') from dead_letters order by 1").await,
        ["0 10 7b22616d6f756e74223a207d", "1 11 fffe"]
    );
    assert_eq!(schema.rows("select symbol, quantity, notional from symbol_totals").await, ["EA 3 30.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_by_signal_stores_what_was_read_and_leaves_the_group() {
    let (schema, cluster) = (Schema::create().await, cluster());
    let mut sender = Sender::new(&cluster);
    sender.purchases(100).await;
    let Running { trigger, drain_to, progress, task } = start(&schema, settings(&cluster, "i"));
    drop(drain_to);
    let mut samples = progress.samples();
    // The first sample says that a batch was stored.
    tokio::time::timeout(TEST_TIMEOUT, samples.recv()).await.unwrap().unwrap();
    trigger.raise(Stage::Drain);
    let report = tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
    assert_eq!(report.left, 0);
    assert_eq!(schema.rows("select count(*) from messages").await, [report.stored.to_string()]);
    // Whoever comes next under another name gets the partitions at once, not after the session of the first.
    let report = start(&schema, settings(&cluster, "j")).drain(&sender.acknowledged).await.unwrap();
    assert!(report.drained);
    assert_eq!(schema.rows("select count(*) from messages").await, ["100"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_time_is_over_a_consumer_alone_reads_to_the_ends_noted_then() {
    let (schema, cluster) = (Schema::create().await, cluster());
    let mut sender = Sender::new(&cluster);
    sender.purchases(300).await;
    let mut settings = settings(&cluster, "i");
    // Long enough to join the group.
    settings.duration = Some(Duration::from_secs(5));
    let Running { trigger: _trigger, drain_to, task, .. } = start(&schema, settings);
    drop(drain_to);
    let report = tokio::time::timeout(TEST_TIMEOUT, task).await.unwrap().unwrap().unwrap();
    assert!(report.drained);
    assert_eq!(report.stored, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_backends_lose_nothing_and_count_nothing_twice() {
    let (schema, cluster) = (Schema::create().await, cluster());
    let mut sender = Sender::new(&cluster);
    let consumer = start(&schema, settings(&cluster, "i"));
    for _ in 0..10 {
        sender.purchases(100).await;
        schema
            .execute("select pg_terminate_backend(owner_pid) from partition_offsets p join pg_stat_activity a on a.pid = owner_pid and a.backend_start = owner_backend_start")
            .await;
    }
    let report = consumer.drain(&sender.acknowledged).await.unwrap();
    assert!(report.drained);
    assert_eq!(report.dead_letters, 0);
    assert_eq!(schema.rows("select sum(purchases) from user_totals").await, ["1000"]);
    assert_eq!(schema.rows("select count(distinct sequence) from messages").await, ["1000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_consumers_share_the_partitions_and_hand_them_over() {
    let (schema, cluster) = (Schema::create().await, cluster());
    let mut sender = Sender::new(&cluster);
    let first = start(&schema, settings(&cluster, "first"));
    sender.purchases(200).await;
    let second = start(&schema, settings(&cluster, "second"));
    sender.purchases(400).await;
    let first = first.drain(&sender.acknowledged).await.unwrap();
    sender.purchases(200).await;
    let second = second.drain(&sender.acknowledged).await.unwrap();
    assert!(first.drained && second.drained);
    assert_eq!(first.stored + second.stored, 800);
    assert_eq!(schema.rows("select sum(purchases) from user_totals").await, ["800"]);
    assert_eq!(schema.rows("select distinct owner_instance from partition_offsets").await, ["second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_on_an_old_database_is_refused() {
    let (schema, one) = (Schema::create().await, cluster());
    let mut sender = Sender::new(&one);
    sender.purchases(10).await;
    start(&schema, settings(&one, "i")).drain(&sender.acknowledged).await.unwrap();
    let other = cluster();
    let error = start(&schema, settings(&other, "i")).end().await.unwrap_err();
    assert!(matches!(error, ConsumerError::Sink(SinkError::OtherCluster { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_the_one_that_was_applied_stops_the_consumer_with_the_cure() {
    let (schema, cluster) = (Schema::create().await, cluster());
    let mut sender = Sender::new(&cluster);
    sender.purchases(30).await;
    start(&schema, settings(&cluster, "i")).drain(&sender.acknowledged).await.unwrap();
    let kept = "create table kept as select * from partition_offsets";
    schema.execute(kept).await;
    for (damage, reason, counted_to) in [
        ("update partition_offsets set fingerprint = '\\x00' where partition = 1", Reason::OtherRecord, 9),
        ("update partition_offsets set next_offset = 11 where partition = 1", Reason::EndsBefore, 10),
    ] {
        schema.execute(damage).await;
        let error = start(&schema, settings(&cluster, "i")).end().await.unwrap_err();
        match &error {
            ConsumerError::Mismatch(mismatch) => assert_eq!((mismatch.partition, mismatch.reason), (1, reason)),
            other => panic!("{other}"),
        }
        let cure =
            format!("finstream reset --topic finance.transactions --partition 1 --to {counted_to} --accept-loss");
        assert!(error.to_string().ends_with(&cure), "{error}");
        schema
            .execute("update partition_offsets p set next_offset = k.next_offset, fingerprint = k.fingerprint from kept k where k.partition = p.partition")
            .await;
    }
    assert_eq!(schema.rows("select sum(purchases) from user_totals").await, ["30"]);
    sender.purchases(30).await;
    let report = start(&schema, settings(&cluster, "i")).drain(&sender.acknowledged).await.unwrap();
    assert_eq!(report.stored, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_totals_are_published_with_versions_and_the_offsets_they_include() {
    let (schema, cluster) = (Schema::create().await, cluster());
    cluster.create_topic("finance.aggregates", 1, 1).unwrap();
    let mut sender = Sender::new(&cluster);
    sender.purchases(70).await;
    let mut payload = Vec::new();
    trade("user-0", "EA", 3, 1_000, 1_600_000_000_000_000).encode_into(&mut payload);
    sender.send(2, &payload).await;
    let mut settings = settings(&cluster, "i");
    settings.publish_aggregates = true;
    start(&schema, settings).drain(&sender.acknowledged).await.unwrap();
    assert_eq!(schema.rows("select count(*) from aggregate_changes").await, ["0"]);

    let published = read_aggregates(&cluster, 10).await;
    let ann = &published["user/user-0/USD"];
    assert_eq!((&ann["purchases"], &ann["spend"], &ann["trades"]), (&10.into(), &"15.00".into(), &1.into()));
    assert_eq!(ann["offsets"], serde_json::json!({"0": 23, "1": 22, "2": 23}));
    assert!(ann["version"].as_i64().unwrap() >= 3);
    let symbol = &published["symbol/EA"];
    assert_eq!(symbol["totals"]["USD"]["quantity"], "3");
    assert_eq!(symbol["totals"]["USD"]["last_price"], "10.00");
    assert_eq!(symbol["offsets"], serde_json::json!({"2": 23}));
    let window = &published["window/symbol/2020-09-13T12:26:00Z/USD/EA"];
    assert_eq!((&window["open"], &window["vwap"]), (&"10.00".into(), &"10.00000000".into()));
    assert_eq!((&window["window_end"], &window["late"]), (&"2020-09-13T12:27:00.000000Z".into(), &0.into()));
    let (key, window) = published.iter().find(|(key, _)| key.starts_with("window/category/")).unwrap();
    assert_eq!((&window["purchases"], &window["spend"]), (&70.into(), &"105.00".into()), "{key}");
    assert_eq!(window["offsets"], serde_json::json!({"0": 23, "1": 22, "2": 23}));
}

/// The newest value of each key, once there are `keys` of them.
async fn read_aggregates(cluster: &Cluster, keys: usize) -> HashMap<String, serde_json::Value> {
    use rdkafka::consumer::{Consumer, StreamConsumer};
    use rdkafka::message::Message;
    use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("finance.aggregates", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut newest: HashMap<String, serde_json::Value> = HashMap::new();
    let (_, end) = consumer.fetch_watermarks("finance.aggregates", 0, TEST_TIMEOUT).unwrap();
    loop {
        let record = tokio::time::timeout(TEST_TIMEOUT, consumer.recv()).await.unwrap().unwrap();
        let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
        newest.insert(key, serde_json::from_slice(record.payload().unwrap()).unwrap());
        if record.offset() + 1 == end {
            assert_eq!(newest.len(), keys);
            return newest;
        }
    }
}
