//! Flags and environment -> validated settings per role. The roles see these structs only, never clap's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::broker::log::Durability;
use crate::transaction::{Currency, RunId};

/// Settings of the embedded broker.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// `DATA/broker`; its lock is held by the caller.
    pub dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// HOST:PORT told to clients; default: the bound address.
    pub advertise: Option<String>,
    /// When an append is acknowledged.
    pub durability: Durability,
    /// Partitions of a topic created with -1 partitions.
    pub default_partitions: i32,
    /// Default `retention.ms` of a topic.
    pub retention: Duration,
    /// Default `retention.bytes`, per partition.
    pub retention_bytes_per_partition: u64,
}

/// How roles reach the Kafka API.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Further librdkafka properties, secrets among them; they win over our defaults.
    pub properties: Vec<(String, String)>,
    /// Default `finance.`; topics are PREFIXtransactions and PREFIXaggregates.
    pub topic_prefix: String,
    /// Partitions of topics that we create.
    pub partitions: i32,
    /// None: the broker's default (-1).
    pub replication_factor: Option<i32>,
}

impl KafkaSettings {
    /// The topic of transactions.
    pub fn transactions_topic(&self) -> String {
        format!("{}transactions", self.topic_prefix)
    }

    /// The compacted topic of totals.
    pub fn aggregates_topic(&self) -> String {
        format!("{}aggregates", self.topic_prefix)
    }
}

/// Where transactions come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceSettings {
    /// Card purchases and refunds that never happened.
    Synthetic { users: u64, zipf_exponent: f64, seed: u64 },
    /// yfinance CSV files.
    Yfinance { files: Vec<PathBuf>, symbol: Option<String>, currency: Currency, users: u64, seed: u64 },
}

/// When they are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Messages per second, evenly.
    Rate(f64),
    /// As fast as it goes.
    Max,
    /// By event time, this many times faster than it happened.
    Speed(f64),
}

/// Settings of the producer role.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    pub kafka: KafkaSettings,
    pub source: SourceSettings,
    pub pace: Pace,
    /// Stop after this many messages.
    pub count: Option<u64>,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// Longest wait for outstanding delivery reports at the end.
    pub drain_timeout: Duration,
    /// `DATA/ledger`.
    pub ledger_dir: PathBuf,
    /// A fixed run id, for byte-identical tests.
    pub run_id: Option<RunId>,
    /// The command line, redacted, for the run's record.
    pub command: String,
    /// `fsync`, `os` or `external`, for the run's record.
    pub durability: String,
}

/// Settings of the consumer role.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    pub kafka: KafkaSettings,
    /// `group.id`.
    pub group: String,
    /// `group.instance.id`: unique in the group, kept over restarts.
    pub group_instance_id: String,
    /// Messages in a micro-batch, at most.
    pub batch_messages_max: usize,
    /// Longest wait of a message for its batch to fill.
    pub batch_wait: Duration,
    /// Stop after this long (draining to the end offsets noted then).
    pub duration: Option<Duration>,
    /// Longest drain.
    pub drain_timeout: Duration,
    /// Publish changed totals to the aggregates topic.
    pub publish_aggregates: bool,
}
