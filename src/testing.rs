//! A Kafka for your tests: a real broker inside the test's own process, up in milliseconds, gone with its value.
//!
//! [`TestBroker`] is finstream's embedded broker, the same code that the binary runs, on a free port of 127.0.0.1 and with
//! its data in a temporary folder. Clients reach it over TCP, as they reach any Kafka: no JVM, no container, no port to
//! agree on, and as many brokers at once as there are tests.
//!
//! ```
//! use std::time::Duration;
//!
//! use finstream::testing::TestBroker;
//! use rdkafka::ClientConfig;
//! use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
//!
//! let broker = TestBroker::start()?;
//! let producer: BaseProducer =
//!     ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create()?;
//! // The topic is created by being asked for.
//! producer.send(BaseRecord::to("orders").key("42").payload("two apples")).map_err(|(error, _)| error)?;
//! producer.flush(Duration::from_secs(10))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/broker_in_a_test.rs` has a whole test with a consumer group. From other languages, run the binary:
//! `finstream --role broker --ephemeral --kafka-listen 127.0.0.1:0 --ready-file FILE`.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::broker::log::Durability;
use crate::broker::{Broker, BrokerError};
use crate::config::BrokerSettings;

/// Threads that serve a broker's connections.
const SERVING_THREADS: usize = 2;
/// A drop waits so long for the broker's threads to end; nothing of what they still do is needed.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// Why a broker does not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum TestBrokerError {
    /// No temporary folder, or none that can be written to.
    #[error("cannot make a temporary folder for the broker: {0}; TMPDIR chooses another place")]
    Folder(std::io::Error),
    /// The system gives no threads.
    #[error("cannot start the broker's threads: {0}")]
    Threads(std::io::Error),
    /// The broker itself.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// It ended in the middle of what was asked for.
    #[error("the broker panicked: its message is on stderr")]
    Panicked,
}

/// How a broker for tests is to be.
///
/// Made by [`TestBroker::builder`]; each setting has a default, and [`start`](TestBrokerBuilder::start) starts it.
#[derive(Clone, Debug)]
#[must_use = "a builder starts nothing before `start`"]
pub struct TestBrokerBuilder {
    partitions: i32,
    auto_create_topics: bool,
    durability: Durability,
}

impl Default for TestBrokerBuilder {
    /// Apache Kafka's defaults.
    fn default() -> Self {
        TestBrokerBuilder { partitions: 1, auto_create_topics: true, durability: Durability::Os }
    }
}

impl TestBrokerBuilder {
    /// Partitions of a topic that is created by being asked for, or with -1 partitions: Kafka's `num.partitions`
    /// (default 1; at least 1 and at most 1000, what lies beyond counts as the nearest of these).
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Whether a topic is created when a client asks for one that is not there: Kafka's `auto.create.topics.enable`
    /// (default true).
    pub fn auto_create_topics(mut self, creates: bool) -> Self {
        self.auto_create_topics = creates;
        self
    }

    /// When the broker acknowledges: after the write to the page cache (the default, [`Durability::Os`], as Apache Kafka
    /// does), or after `fdatasync` ([`Durability::Fsync`]), for tests that are about waiting for a disk.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Starts the broker. When this returns, it accepts connections.
    ///
    /// May be called from asynchronous code: the broker has threads of its own, and the call takes milliseconds.
    ///
    /// # Errors
    /// There is no temporary folder, no thread or no free port to be had.
    pub fn start(self) -> Result<TestBroker, TestBrokerError> {
        let dir = tempfile::Builder::new().prefix("finstream-test-").tempdir().map_err(TestBrokerError::Folder)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SERVING_THREADS)
            .thread_name("finstream-test")
            .enable_all()
            .build()
            .map_err(TestBrokerError::Threads)?;
        let settings = BrokerSettings {
            durability: self.durability,
            default_partitions: self.partitions,
            auto_create_topics: self.auto_create_topics,
            ..BrokerSettings::local(dir.path().join("broker"))
        };
        std::fs::create_dir(&settings.dir).map_err(TestBrokerError::Folder)?;
        let mut broker =
            TestBroker { bootstrap_servers: String::new(), settings, broker: None, runtime: Some(runtime), _dir: dir };
        broker.run()?;
        Ok(broker)
    }
}

/// A Kafka broker that lives as long as this value.
///
/// Dropping it closes its connections, ends its threads and removes its data; clients that are still there see a broker
/// that went away. It holds nothing global: any number can run side by side, in one test or in many.
///
/// Each broker is a cluster of one node with the id 0. It serves plain connections from this machine and asks nobody for
/// a password.
pub struct TestBroker {
    bootstrap_servers: String,
    settings: BrokerSettings,
    broker: Option<Broker>,
    /// Taken when it ends: a runtime must not be waited for in asynchronous code.
    runtime: Option<Runtime>,
    /// Removed with this value, after the broker.
    _dir: tempfile::TempDir,
}

impl TestBroker {
    /// Starts a broker with Apache Kafka's defaults: one partition a topic, topics created by being asked for.
    ///
    /// # Errors
    /// As [`TestBrokerBuilder::start`].
    pub fn start() -> Result<TestBroker, TestBrokerError> {
        TestBroker::builder().start()
    }

    /// A broker with other settings.
    ///
    /// ```
    /// use finstream::testing::TestBroker;
    ///
    /// let broker = TestBroker::builder().partitions(6).auto_create_topics(false).start()?;
    /// # Ok::<(), finstream::testing::TestBrokerError>(())
    /// ```
    pub fn builder() -> TestBrokerBuilder {
        TestBrokerBuilder::default()
    }

    /// The value for a client's `bootstrap.servers`: `127.0.0.1:PORT`.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.settings.listen
    }

    /// Stops the broker and starts it again, on the same port and with all its topics, records and groups: what a client
    /// sees of a broker's restart.
    ///
    /// # Errors
    /// The broker does not stop cleanly, or somebody else took its port meanwhile. It is stopped then.
    pub fn restart(&mut self) -> Result<(), TestBrokerError> {
        self.end(None)?;
        self.run()
    }

    /// Stops the broker, and says what went wrong with that, which a drop does not. The data is removed in any case.
    ///
    /// # Errors
    /// The broker does not stop cleanly.
    pub fn stop(mut self) -> Result<(), TestBrokerError> {
        self.end(None)
    }

    fn run(&mut self) -> Result<(), TestBrokerError> {
        let broker = self.on_runtime(Broker::start(self.settings.clone()), None)??;
        // A restart comes back to the port that this start took.
        self.settings.listen = broker.address();
        self.bootstrap_servers = broker.address().to_string();
        self.broker = Some(broker);
        Ok(())
    }

    fn end(&mut self, patience: Option<Duration>) -> Result<(), TestBrokerError> {
        match self.broker.take() {
            Some(broker) => Ok(self.on_runtime(broker.stop(), patience)??),
            None => Ok(()),
        }
    }

    /// Runs work on the broker's threads and waits here: `block_on` would panic where the caller is asynchronous.
    fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        patience: Option<Duration>,
    ) -> Result<T, TestBrokerError> {
        let (sender, receiver) = mpsc::channel();
        let runtime = self.runtime.as_ref().ok_or(TestBrokerError::Panicked)?;
        runtime.spawn(async move {
            // Nobody waits any more.
            let _ = sender.send(work.await);
        });
        let received = match patience {
            None => receiver.recv().ok(),
            Some(patience) => receiver.recv_timeout(patience).ok(),
        };
        received.ok_or(TestBrokerError::Panicked)
    }
}

impl std::fmt::Debug for TestBroker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TestBroker").field("bootstrap_servers", &self.bootstrap_servers).finish_non_exhaustive()
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        // Its data goes away: how it stopped does not matter any more.
        let _ = self.end(Some(DROP_PATIENCE));
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
