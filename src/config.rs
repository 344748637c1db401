//! Flags and environment -> validated settings per role. The roles see these structs only, never clap's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::broker::log::Durability;
use crate::cli::{Cli, PipelineArgs, Role};
use crate::transaction::RunId;

mod pace;
mod source;
mod yahoo;

pub use pace::{Arrival, Day, Pace, pace};
pub use source::{CardsSettings, EventTimes, Shares, SourceSettings, SyntheticSettings, YfinanceSettings, source};
pub use yahoo::{Polling, YAHOO_URL, YahooSettings};

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; an IPv6 address stands without its brackets.
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(formatter, "[{host}]:{port}") } else { write!(formatter, "{host}:{port}") }
    }
}

/// Settings of the embedded broker.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// `DATA/broker`; its lock is held by the caller.
    pub dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Told to clients; default: the bound address.
    pub advertise: Option<HostPort>,
    /// When an append is acknowledged.
    pub durability: Durability,
    /// Partitions of a topic created with -1 partitions.
    pub default_partitions: i32,
    /// Whether a topic is created when a client asks for one that is not there: Kafka's `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// How long a group without members waits for more of them than the first: Kafka's
    /// `group.initial.rebalance.delay.ms`.
    pub group_initial_rebalance_delay: Duration,
    /// Default `retention.ms` of a topic.
    pub retention: Duration,
    /// Default `retention.bytes` of a topic, which bounds each of its partitions, as in Apache Kafka.
    pub retention_bytes_per_partition: u64,
}

impl BrokerSettings {
    /// A broker for this machine: on a free port of 127.0.0.1, durable, with topics that are created by CreateTopics only, of
    /// one partition unless asked otherwise, and that keep all their records.
    pub fn local(dir: PathBuf) -> BrokerSettings {
        BrokerSettings {
            dir,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            durability: Durability::Fsync,
            default_partitions: 1,
            auto_create_topics: false,
            group_initial_rebalance_delay: Duration::ZERO,
            retention: Duration::MAX,
            retention_bytes_per_partition: u64::MAX,
        }
    }

    /// The same with limits, for tests.
    #[cfg(test)]
    pub(crate) fn limited(dir: PathBuf) -> BrokerSettings {
        let (retention, retention_bytes_per_partition) = (Duration::from_secs(3600), 1 << 30);
        BrokerSettings { retention, retention_bytes_per_partition, ..BrokerSettings::local(dir) }
    }
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

/// Settings of the producer role.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    /// How to reach the broker.
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

/// How the latency of each message is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatencyLayout {
    /// A row a message.
    #[default]
    Rows,
    /// Arrays, a row for many messages.
    Packed,
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
    /// Length of the windows of event time; none: what the schema has, and a minute in a new one.
    pub window: Option<Duration>,
    /// Publish changed totals to the aggregates topic.
    pub publish_aggregates: bool,
    /// How latency rows are stored.
    pub latency_layout: LatencyLayout,
}

/// A flag whose value makes no sense; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        ConfigError(message.into())
    }
}

/// Which roles this process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// The embedded broker.
    pub broker: bool,
    /// The producer.
    pub producer: bool,
    /// The consumer.
    pub consumer: bool,
}

impl Roles {
    /// Those that run, in the order of a message's way but for the broker, which is first.
    pub fn names(self) -> Vec<&'static str> {
        let all = [("broker", self.broker), ("producer", self.producer), ("consumer", self.consumer)];
        all.into_iter().filter_map(|(name, runs)| runs.then_some(name)).collect()
    }

    /// From `--role`; none given means all, or producer and consumer where the brokers are elsewhere.
    ///
    /// # Errors
    /// `--role broker` together with `--brokers`.
    pub fn from_cli(cli: &Cli) -> Result<Roles, ConfigError> {
        let external = cli.shared.brokers.is_some();
        let named = &cli.pipeline.role;
        if named.is_empty() {
            return Ok(Roles { broker: !external, producer: true, consumer: true });
        }
        if external && named.contains(&Role::Broker) {
            return Err(ConfigError::new(
                "--role broker runs the embedded broker, and --brokers names another one: leave out one of them",
            ));
        }
        if external && cli.pipeline.kafka_listen.is_some() {
            return Err(ConfigError::new(
                "--kafka-listen is for the embedded broker, and --brokers names another one: leave out one of them",
            ));
        }
        Ok(Roles {
            broker: named.contains(&Role::Broker),
            producer: named.contains(&Role::Producer),
            consumer: named.contains(&Role::Consumer),
        })
    }
}

/// librdkafka properties that hold secrets: refused on a command line, which other users can read.
fn is_secret_property(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("password")
        || key.contains("secret")
        || key.ends_with(".pem") && key.contains("key")
        || key == "sasl.oauthbearer.config"
}

/// Reads `-X K=V` and the environment's `FINSTREAM_KAFKA_PROPERTY` (one K=V a line; secrets are allowed there).
///
/// # Errors
/// A property without `=`, a secret in argv, an unreadable @FILE.
pub fn kafka_properties(argv: &[String], environment: Option<&str>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut properties = Vec::new();
    let lines = environment.into_iter().flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty());
    for (text, from_argv) in lines.map(|line| (line, false)).chain(argv.iter().map(|text| (text.as_str(), true))) {
        let Some((key, value)) = text.split_once('=') else {
            let shown = text.split_whitespace().next().unwrap_or_default();
            return Err(ConfigError::new(format!("kafka property {shown:?} has no '=': write -X KEY=VALUE")));
        };
        let (key, value) = (key.trim(), value.trim());
        let value = match value.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| ConfigError::new(format!("kafka property {key}: cannot read {file}: {error}")))?
                .trim_end_matches(['\n', '\r'])
                .to_string(),
            None if from_argv && is_secret_property(key) => {
                return Err(ConfigError::new(format!(
                    "kafka property {key} is a secret, and other users can read a command line: write -X {key}=@FILE, or \
                     put {key}=… into the environment variable FINSTREAM_KAFKA_PROPERTY"
                )));
            }
            None => value.to_string(),
        };
        properties.push((key.to_string(), value));
    }
    Ok(properties)
}

/// The database's URL, with @FILE read.
///
/// # Errors
/// An unreadable file.
pub fn database_url(argument: &str) -> Result<String, ConfigError> {
    match argument.strip_prefix('@') {
        None => Ok(argument.to_string()),
        Some(file) => std::fs::read_to_string(file)
            .map(|text| text.trim().to_string())
            .map_err(|error| ConfigError::new(format!("--database-url: cannot read {file}: {error}"))),
    }
}

/// The schema of the totals: a name of its own, never `public`.
///
/// # Errors
/// `public`, PostgreSQL's own names, an empty or overlong name.
pub fn schema(name: &str) -> Result<String, ConfigError> {
    let plain = name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    if name == "public" || name.starts_with("pg_") || !plain || name.is_empty() || name.len() > 63 {
        return Err(ConfigError::new(format!(
            "--db-schema {name:?}: write lower-case letters, digits and _, at most 63, and neither public nor pg_…"
        )));
    }
    Ok(name.to_string())
}

/// What an open address of ours comes to.
pub const NO_PASSWORD: &str = "nobody is asked for a password there";

/// `address`, unless it would be open to the network without the user's word; `danger` is what that comes to.
///
/// # Errors
/// An address other than loopback without `--insecure-listen`.
pub fn loopback_only(
    flag: &str,
    address: SocketAddr,
    insecure_listen: bool,
    danger: &str,
) -> Result<SocketAddr, ConfigError> {
    if address.ip().is_loopback() || insecure_listen {
        return Ok(address);
    }
    Err(ConfigError::new(format!(
        "{flag} {address} is open to the network, and {danger}: use 127.0.0.1, or add --insecure-listen"
    )))
}

/// Where the private PostgreSQL lets readers in (`--pg-listen`).
///
/// # Errors
/// Port 0; a process without a consumer; an address other than loopback without `--insecure-listen`.
pub fn pg_listen(pipeline: &PipelineArgs, has_consumer: bool) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(address) = pipeline.pg_listen else { return Ok(None) };
    if !has_consumer {
        return Err(ConfigError::new(format!(
            "--pg-listen {address}: only the role consumer has a PostgreSQL; add it to --role"
        )));
    }
    if address.port() == 0 {
        return Err(ConfigError::new(format!("--pg-listen {address}: PostgreSQL wants a port; 5433 is often free")));
    }
    let danger = "a password is asked for, and what is read goes over it in the clear";
    loopback_only("--pg-listen", address, pipeline.insecure_listen, danger).map(Some)
}

/// The shortest `--retention`: a segment stays open for a minute, and what is cut sooner may not have been read yet.
const RETENTION_MIN: Duration = Duration::from_secs(60);
/// The smallest `--retention-bytes`: a consumer that pauses for a moment at full speed must find what it left off at.
const RETENTION_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// The smallest share of a partition: a segment is not smaller, and only whole ones are cut.
const RETENTION_BYTES_PER_PARTITION_MIN: u64 = 1024 * 1024;

/// How long and how much the embedded broker keeps; the latter as each partition's share.
///
/// # Errors
/// Records would be cut before a consumer could have read them.
pub fn retention(pipeline: &PipelineArgs, partitions: i32) -> Result<(Duration, u64), ConfigError> {
    let (time, bytes) = (pipeline.retention, pipeline.retention_bytes);
    if time < RETENTION_MIN {
        return Err(ConfigError::new(format!(
            "--retention {} would cut records before a consumer that is held up for a moment has read them: write 1m or \
             more",
            humantime::format_duration(time)
        )));
    }
    let partitions = u64::from(partitions.unsigned_abs()).max(1);
    let bytes_min = RETENTION_BYTES_MIN.max(partitions * RETENTION_BYTES_PER_PARTITION_MIN);
    if bytes.0 < bytes_min {
        return Err(ConfigError::new(format!(
            "--retention-bytes {bytes} for {partitions} partitions would cut records before a consumer that is held up for \
             a moment has read them: write {}MiB or more",
            bytes_min.div_ceil(1024 * 1024)
        )));
    }
    Ok((time, bytes.0 / partitions))
}

/// The command line for the record: secrets redacted.
pub fn redacted_command(arguments: impl Iterator<Item = String>) -> String {
    let mut words = Vec::new();
    for argument in arguments {
        let shown = match argument.split_once("://") {
            Some((scheme, rest)) => match rest.split_once('@') {
                Some((user, host)) => {
                    let user = user.split(':').next().unwrap_or_default();
                    format!("{scheme}://{user}@{host}")
                }
                None => argument,
            },
            None => argument,
        };
        words.push(if shown.contains(' ') { format!("'{shown}'") } else { shown });
    }
    words.join(" ")
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_argv_is_refused_and_the_cure_is_named() {
        let error = kafka_properties(&["sasl.password=x".to_string()], None).expect_err("refused");
        assert!(error.to_string().contains("sasl.password=@FILE"), "{error}");
        assert!(!error.to_string().contains("=x"));
    }

    #[test]
    fn a_secret_in_the_environment_is_taken_and_argv_wins_over_it() {
        let properties = kafka_properties(&["client.id=b".to_string()], Some("sasl.password=x\nclient.id=a\n"));
        let properties = properties.expect("both are legal");
        assert_eq!(properties.len(), 3);
        assert_eq!(properties[2], ("client.id".to_string(), "b".to_string()));
    }

    #[test]
    fn a_recorded_command_holds_no_password() {
        let words = ["finstream", "--database-url", "postgresql://me:secret@db/x"].map(String::from);
        assert_eq!(redacted_command(words.into_iter()), "finstream --database-url postgresql://me@db/x");
    }

    #[test]
    fn an_address_beyond_loopback_needs_the_users_word() {
        let open = "0.0.0.0:9092".parse().expect("an address");
        assert!(loopback_only("--kafka-listen", open, false, NO_PASSWORD).is_err());
        assert!(loopback_only("--kafka-listen", open, true, NO_PASSWORD).is_ok());
    }
}
