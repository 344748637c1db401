//! One scenario at one broker: sends calls, and writes down what comes back as facts.

use std::collections::HashMap;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use uuid::Uuid;

use super::facts::{Fact, Kind, Symbols, Teller};
use super::requests::list_offsets;
use super::value::Value;
use super::wire::{Came, PATIENCE, Wire};

/// Between two looks for what a broker does a moment after its answer.
const PAUSE: Duration = Duration::from_millis(10);

/// Which versions of each API both brokers serve.
pub type Served = HashMap<i16, RangeInclusive<i16>>;

/// A request whose answer is waited for later.
pub struct Waiting<R> {
    connection: usize,
    id: i32,
    version: i16,
    step: String,
    request: PhantomData<R>,
}

pub struct Session<'a> {
    address: SocketAddr,
    served: &'a Served,
    /// Of the scenario, as topics and groups are named.
    slug: String,
    masks: &'a [&'a str],
    wires: HashMap<usize, Wire>,
    connection: usize,
    pub symbols: Symbols,
    facts: Vec<Fact>,
    steps: usize,
    calls: usize,
    is_quiet: bool,
}

impl<'a> Session<'a> {
    pub fn new(address: SocketAddr, served: &'a Served, name: &str, masks: &'a [&'a str]) -> Session<'a> {
        let slug = name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        Session {
            address,
            served,
            slug: slug.collect::<Vec<_>>().join("-"),
            masks,
            wires: HashMap::new(),
            connection: 0,
            symbols: Symbols::default(),
            facts: Vec::new(),
            steps: 0,
            calls: 0,
            is_quiet: false,
        }
    }

    /// What was found, and the number of calls compared.
    pub fn finish(self) -> (Vec<Fact>, usize) {
        (self.facts, self.calls)
    }

    /// A name that no other scenario uses.
    pub fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.slug)
    }

    /// Versions that both serve.
    pub fn versions<R: Request>(&self) -> RangeInclusive<i16> {
        self.served.get(&R::KEY).cloned().unwrap_or_else(|| panic!("API {} is not served by both", R::KEY))
    }

    /// Calls go to this connection from now on.
    pub fn connection(&mut self, number: usize) -> &mut Self {
        self.connection = number;
        self
    }

    /// A call in the highest version that both serve.
    pub fn ask<R: Request<Response: Debug + Default>>(&mut self, request: R) -> R::Response {
        self.ask_at(*self.versions::<R>().end(), request)
    }

    /// A call in one version.
    pub fn ask_at<R: Request<Response: Debug + Default>>(&mut self, version: i16, request: R) -> R::Response {
        let waiting = self.send_at(version, request);
        self.receive(waiting)
    }

    /// A call in each version that both serve.
    pub fn each<R: Request<Response: Debug + Default>>(&mut self, mut request: impl FnMut(i16) -> R) {
        for version in self.versions::<R>() {
            self.ask_at(version, request(version));
        }
    }

    /// A call whose answer comes later.
    pub fn send<R: Request>(&mut self, request: R) -> Waiting<R> {
        self.send_at(*self.versions::<R>().end(), request)
    }

    /// The same in one version.
    pub fn send_at<R: Request>(&mut self, version: i16, request: R) -> Waiting<R> {
        let step = self.step(&format!("{:?} v{version}", ApiKey::try_from(R::KEY).unwrap()));
        self.calls += usize::from(!self.is_quiet);
        let id = self.wire().send(&request, version);
        Waiting { connection: self.connection, id, version, step, request: PhantomData }
    }

    /// The answer to a call.
    pub fn receive<R: Request<Response: Debug + Default>>(&mut self, waiting: Waiting<R>) -> R::Response {
        let Waiting { connection, id, version, step, .. } = waiting;
        let came = self.wires.get_mut(&connection).map_or(Came::Closed, Wire::receive);
        let mut frame = match came {
            Came::Frame(frame) => frame,
            Came::Closed => {
                self.wires.remove(&connection);
                self.fact(&step, "the connection is closed");
                return R::Response::default();
            }
            Came::Nothing => panic!("{step}: no answer within {PATIENCE:?}"),
        };
        assert_eq!(frame.get_i32(), id, "{step}: an answer to another request");
        if R::Response::header_version(version) >= 1 {
            assert_eq!(frame.get_u8(), 0, "{step}: a header with fields");
        }
        let response = R::Response::decode(&mut frame, version).unwrap_or_else(|error| panic!("{step}: {error}"));
        assert!(frame.is_empty(), "{step}: {} bytes behind the answer", frame.len());
        self.tell(&step, &response);
        response
    }

    /// Sends bytes as they are on a connection of their own; writes down whether it is closed, kept or answered, and
    /// returns the answer without its length.
    pub fn throw(&mut self, what: &str, bytes: &[u8]) -> Option<Bytes> {
        let step = self.step(what);
        self.calls += 1;
        let mut wire = Wire::connect(self.address);
        wire.send_bytes(bytes);
        let (fact, frame) = match wire.receive_soon() {
            Came::Frame(frame) => ("an answer", Some(frame)),
            Came::Closed => ("the connection is closed", None),
            Came::Nothing => ("nothing, and the connection stays open", None),
        };
        self.fact(&step, fact);
        frame
    }

    /// Writes down the facts of something decoded by the scenario.
    pub fn note(&mut self, what: &str, value: &impl Debug) {
        let step = self.step(what);
        self.tell(&step, value);
    }

    /// Writes down that a request has no answer: that of the next one comes first.
    pub fn expect_no_answer<R: Request>(&mut self, waiting: Waiting<R>) {
        self.connection = waiting.connection;
        let id = self.wire().send(&ApiVersionsRequest::default(), 0);
        let fact = match self.wire().receive() {
            Came::Frame(frame) if frame.starts_with(&id.to_be_bytes()) => "no answer, the connection goes on",
            Came::Frame(_) => "an answer",
            Came::Closed => "no answer, the connection is closed",
            Came::Nothing => panic!("{}: neither answered nor closed", waiting.step),
        };
        if fact.ends_with("closed") {
            self.wires.remove(&waiting.connection);
        }
        self.fact(&waiting.step, fact);
    }

    /// Does something whose answers are not compared.
    pub fn quietly<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        let was_quiet = std::mem::replace(&mut self.is_quiet, true);
        let result = what(self);
        self.is_quiet = was_quiet;
        result
    }

    /// Asks, without comparing, until the answer is as wanted: Apache Kafka tells its left hand a moment later what its
    /// right hand did.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !self.quietly(&mut is_so) {
            assert!(began.elapsed() < PATIENCE, "still not: {what}");
            std::thread::sleep(PAUSE);
        }
    }

    /// Makes a topic; returns its name.
    pub fn topic(&mut self, name: &str, partitions: i32) -> String {
        self.topic_with(name, partitions, &[])
    }

    /// The same with configs.
    pub fn topic_with(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
        let name = self.name(name);
        let config = |(name, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let topic = CreatableTopic::default()
            .with_name(topic_name(&name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let created = self.quietly(|session| session.ask(request));
        assert_eq!(created.topics[0].error_code, 0, "{name}: {:?}", created.topics[0].error_message);
        self.await_topic(&name, partitions);
        name
    }

    /// Waits until a topic is known with all its partitions; its id gets a name.
    pub fn await_topic(&mut self, name: &str, partitions: i32) -> Uuid {
        let mut id = Uuid::nil();
        self.until("the topic is there", |session| {
            let topics = session.metadata(name).topics;
            id = topics[0].topic_id;
            let led = topics[0].partitions.iter().filter(|partition| partition.error_code == 0);
            // Apache Kafka's metadata knows of a partition before the partition can be used.
            let latest: Vec<_> = (0..partitions).map(|partition| (partition, -1)).collect();
            let has_all = topics[0].error_code == 0 && led.count() as i32 == partitions;
            has_all && {
                let ends = session.ask_at(4, list_offsets(name, &latest));
                ends.topics.iter().flat_map(|topic| &topic.partitions).all(|partition| partition.error_code == 0)
            }
        });
        self.symbols.learn(Kind::TopicId, &id.to_string(), format!("<id of {name}>"));
        id
    }

    /// Waits until a topic is gone.
    pub fn await_no_topic(&mut self, name: &str) {
        self.until("the topic is gone", |session| session.metadata(name).topics[0].error_code != 0);
    }

    fn metadata(&mut self, name: &str) -> MetadataResponse {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        self.ask_at(12, MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false))
    }

    /// Writes down something that is no answer.
    pub fn fact(&mut self, path: &str, value: &str) {
        if !self.is_quiet {
            self.facts.push((path.to_owned(), value.to_owned()));
        }
    }

    fn tell(&mut self, step: &str, response: &impl Debug) {
        let value = Value::of(response);
        let mut dropped = Vec::new();
        let facts = if self.is_quiet { &mut dropped } else { &mut self.facts };
        Teller { symbols: &mut self.symbols, masks: self.masks, facts }.tell(&format!("{step} "), &value);
    }

    /// Numbered, so that two equal calls are told apart.
    /// The next step's number and name, before the paths of its facts.
    pub fn step(&mut self, what: &str) -> String {
        self.steps += usize::from(!self.is_quiet);
        format!("{} {what}:", self.steps)
    }

    fn wire(&mut self) -> &mut Wire {
        let address = self.address;
        self.wires.entry(self.connection).or_insert_with(|| Wire::connect(address))
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}
