//! What this process will do, decided and checked before anything is touched.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::broker::log::Durability;
use crate::cli::{Cli, DurabilityArg, LatencyLayoutArg, SharedArgs};
use crate::config::{
    self, BrokerSettings, ConfigError, ConsumerSettings, EventTimes, HostPort, KafkaSettings, LatencyLayout, Pace,
    ProducerSettings, Roles, SourceSettings,
};
use crate::transaction::RunId;

/// Where the embedded broker listens without a flag.
const KAFKA_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9092);
/// Where the page is without a flag.
const HTTP_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// The validated command line of a pipeline process.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What runs here.
    pub roles: Roles,
    /// Where the log, PostgreSQL and ledger live; None: a temporary folder.
    pub data_dir: Option<PathBuf>,
    /// `--brokers`.
    pub brokers: Option<String>,
    /// `--database-url`, read.
    pub database_url: Option<String>,
    /// `--db-schema`.
    pub schema: String,
    /// `--pg-bin`.
    pub pg_bin: Option<PathBuf>,
    /// Where the private PostgreSQL lets readers in.
    pub pg_listen: Option<SocketAddr>,
    /// The broker's address, and whether the user named it.
    pub kafka_listen: SocketAddr,
    /// The page's address, and whether the user named it.
    pub http: (SocketAddr, bool),
    /// What is sent.
    pub source: SourceSettings,
    /// When it is sent.
    pub pace: Pace,
    /// When an append is acknowledged.
    pub durability: Durability,
    /// How long the embedded broker keeps records, and how many bytes of a partition.
    retention: (Duration, u64),
    properties: Vec<(String, String)>,
    cli: CliRest,
}

/// Flags that need no checking.
#[derive(Clone, Debug)]
struct CliRest {
    shared: SharedArgs,
    pipeline: crate::cli::PipelineArgs,
    command: String,
}

/// Flags that several commands share: how to reach Kafka.
///
/// # Errors
/// See [`config::kafka_properties`].
pub fn properties(shared: &SharedArgs) -> Result<Vec<(String, String)>, ConfigError> {
    let environment = std::env::var("FINSTREAM_KAFKA_PROPERTY").ok();
    config::kafka_properties(&shared.kafka_properties, environment.as_deref())
}

/// How to reach Kafka at `brokers`.
pub fn kafka_settings(shared: &SharedArgs, properties: &[(String, String)], brokers: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: brokers.to_string(),
        properties: properties.to_vec(),
        topic_prefix: shared.topic_prefix.clone(),
        partitions: shared.partitions,
        replication_factor: shared.replication_factor,
    }
}

impl Plan {
    /// Checks every flag that can be checked without touching anything.
    ///
    /// # Errors
    /// The flag, its value and the cure.
    pub fn new(cli: &Cli) -> Result<Plan, ConfigError> {
        let (shared, pipeline) = (&cli.shared, &cli.pipeline);
        let roles = Roles::from_cli(cli)?;
        let insecure = pipeline.insecure_listen;
        let kafka_listen = pipeline.kafka_listen.unwrap_or(KAFKA_LISTEN_DEFAULT);
        let http = pipeline.http.unwrap_or(HTTP_LISTEN_DEFAULT);
        let source = config::source(pipeline)?;
        let pace = match &source {
            // A trade is due when it is known.
            SourceSettings::Yahoo(_) => Pace::Max,
            _ => config::pace(pipeline)?,
        };
        let is_live = |source: &SourceSettings| match source {
            SourceSettings::Synthetic(settings) => settings.event_times == EventTimes::Live,
            _ => false,
        };
        if matches!(pace, Pace::Speed(_)) && is_live(&source) {
            return Err(config::ConfigError::new(
                "--speed replays transactions by their own time: give a --source file or --calendar, or use --rate",
            ));
        }
        Ok(Plan {
            roles,
            data_dir: (!shared.ephemeral).then(|| shared.data_dir.clone()),
            brokers: shared.brokers.clone(),
            database_url: shared.database_url.as_deref().map(config::database_url).transpose()?,
            schema: config::schema(&shared.db_schema)?,
            pg_bin: shared.pg_bin.clone(),
            pg_listen: config::pg_listen(pipeline, roles.consumer)?,
            kafka_listen: config::loopback_only("--kafka-listen", kafka_listen, insecure, config::NO_PASSWORD)?,
            http: (config::loopback_only("--http", http, insecure, config::NO_PASSWORD)?, pipeline.http.is_some()),
            source,
            pace,
            durability: match pipeline.durability {
                DurabilityArg::Fsync => Durability::Fsync,
                DurabilityArg::Os => Durability::Os,
            },
            retention: config::retention(pipeline, shared.partitions)?,
            properties: properties(shared)?,
            cli: CliRest {
                shared: shared.clone(),
                pipeline: pipeline.clone(),
                command: config::redacted_command(std::env::args()),
            },
        })
    }

    /// The flags as they came.
    pub fn flags(&self) -> &crate::cli::PipelineArgs {
        &self.cli.pipeline
    }

    /// `--json`.
    pub fn json(&self) -> bool {
        self.cli.shared.json
    }

    /// `--drain-timeout`.
    pub fn drain_timeout(&self) -> Duration {
        self.cli.pipeline.drain_timeout
    }

    /// `--retention` and `--retention-bytes`.
    pub fn retention(&self) -> (Duration, u64) {
        (self.retention.0, self.cli.pipeline.retention_bytes.0)
    }

    /// `--latency-layout`.
    pub fn latency_layout(&self) -> LatencyLayout {
        match self.cli.pipeline.latency_layout {
            LatencyLayoutArg::Rows => LatencyLayout::Rows,
            LatencyLayoutArg::Packed => LatencyLayout::Packed,
        }
    }

    /// How to reach Kafka at `brokers`.
    pub fn kafka(&self, brokers: &str) -> KafkaSettings {
        kafka_settings(&self.cli.shared, &self.properties, brokers)
    }

    /// Settings of the embedded broker in `dir`.
    pub fn broker(&self, dir: PathBuf) -> BrokerSettings {
        let flags = &self.cli.pipeline;
        BrokerSettings {
            dir,
            listen: self.kafka_listen,
            advertise: flags.kafka_advertise.clone().map(|(host, port)| HostPort { host, port }),
            durability: self.durability,
            default_partitions: self.cli.shared.partitions,
            auto_create_topics: flags.auto_create_topics,
            group_initial_rebalance_delay: flags.group_initial_rebalance_delay,
            retention: self.retention.0,
            // The flag bounds the topic of transactions as a whole; the broker knows a bound for each partition only.
            retention_bytes_per_partition: self.retention.1,
        }
    }

    /// Settings of the producer; `durability` is what the broker promises.
    pub fn producer(&self, kafka: KafkaSettings, ledger_dir: &Path, durability: &str) -> ProducerSettings {
        let flags = &self.cli.pipeline;
        ProducerSettings {
            kafka,
            source: self.source.clone(),
            pace: self.pace.clone(),
            count: flags.count,
            duration: flags.duration,
            drain_timeout: flags.drain_timeout,
            ledger_dir: ledger_dir.to_owned(),
            run_id: flags.run_id.map(RunId),
            command: self.cli.command.clone(),
            durability: durability.to_string(),
        }
    }

    /// Settings of the consumer. `--duration` ends it only where no producer of this process does.
    pub fn consumer(&self, kafka: KafkaSettings, group_instance_id: &str) -> ConsumerSettings {
        let flags = &self.cli.pipeline;
        ConsumerSettings {
            kafka,
            group: self.cli.shared.group.clone(),
            group_instance_id: group_instance_id.to_string(),
            batch_messages_max: flags.batch_max as usize,
            batch_wait: flags.batch_wait,
            duration: flags.duration.filter(|_| !self.roles.producer),
            drain_timeout: flags.drain_timeout,
            window: flags.window,
            publish_aggregates: true,
            latency_layout: self.latency_layout(),
        }
    }
}
