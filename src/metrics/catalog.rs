//! Every metric: its name, kind, labels and what it means to people.

use super::*;

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// A value of now.
    Gauge,
    /// Buckets with fixed bounds.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// With unit, and `_total` for counters.
    pub name: &'static str,
    /// What it is to Prometheus.
    pub kind: MetricKind,
    /// Label and its values; none: the values are bounded, but not known beforehand.
    pub labels: &'static [(&'static str, &'static [&'static str])],
    /// For people.
    pub help: &'static str,
}

impl Metric {
    /// Every set of labels that is known beforehand; none at all for a metric with a label whose values are not.
    pub fn label_sets(&self) -> Vec<Vec<(&'static str, &'static str)>> {
        let mut sets = vec![Vec::new()];
        for (label, values) in self.labels {
            let with = |set: &Vec<(&'static str, &'static str)>| {
                values.iter().map(|value| [set.as_slice(), &[(*label, *value)]].concat()).collect::<Vec<_>>()
            };
            sets = sets.iter().flat_map(with).collect();
        }
        sets
    }
}

type Labels = &'static [(&'static str, &'static [&'static str])];

const NONE: Labels = &[];
const STAGES: Labels = &[(
    "stage",
    &[
        "scheduled_to_sent",
        "sent_to_acknowledged",
        "sent_to_received",
        "received_to_processed",
        "processed_to_committed",
        "scheduled_to_committed",
    ],
)];
const PARTITIONS: Labels = &[("topic", &[]), ("partition", &[])];
const APIS: Labels = &[("api", &[])];
const TIMED_APIS: Labels = &[("api", &["Produce", "Fetch", "other"])];
const PLACES: Labels = &[("place", &["data", "postgres"])];
const ROLES: Labels = &[("role", &["broker", "producer", "consumer", "retention"])];
const VERDICTS: Labels = &[("verdict", &["balanced", "differences", "undecided", "nothing", "failed"])];
const PUBLISHED: Labels = &[("outcome", &["published", "unchanged", "fenced", "failed"])];
const KEPT: Labels = &[("outcome", &["done", "failed"])];
const VERSIONS: Labels = &[("version", &[])];

const fn counter(name: &'static str, labels: Labels, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: Labels, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: Labels, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, labels, help }
}

/// Every metric; those named `process_…` are called so by all clients of Prometheus.
pub const CATALOG: &[Metric] = &[
    counter(PRODUCER_SCHEDULED_TOTAL, NONE, "Transactions whose time to be sent has come."),
    counter(PRODUCER_SENT_TOTAL, NONE, "Transactions handed to the Kafka client."),
    counter(PRODUCER_ACKNOWLEDGED_TOTAL, NONE, "Transactions acknowledged by the broker."),
    counter(PRODUCER_UNKNOWN_TOTAL, NONE, "Transactions whose delivery report leaves the outcome unknown."),
    gauge(
        PRODUCER_OUTSTANDING_MESSAGES,
        NONE,
        "Transactions handed to the Kafka client, without a delivery report yet.",
    ),
    gauge(PRODUCER_PAUSED, NONE, "1 while the producer pauses because a disk is almost full."),
    counter(SINK_STORED_TOTAL, NONE, "Messages whose rows and totals are committed in PostgreSQL."),
    counter(SINK_BATCHES_TOTAL, NONE, "Micro-batches committed in PostgreSQL."),
    histogram(SINK_BATCH_MESSAGES, NONE, "Messages in one committed micro-batch of one partition."),
    counter(SINK_DEAD_LETTERS_TOTAL, NONE, "Messages stored as dead letters."),
    counter(SINK_RETRIES_TOTAL, NONE, "Micro-batches tried again after an outage of the database."),
    gauge(SINK_DATABASE_AWAY, NONE, "1 while PostgreSQL does not store what the consumer has read."),
    histogram(STAGE_LATENCY_SECONDS, STAGES, "Time a message spent in a stage of its way."),
    counter(STAGE_MISSING_TOTAL, STAGES, "Messages without one of the two times of a stage; they are in no bucket."),
    counter(STAGE_NEGATIVE_TOTAL, STAGES, "Latencies below zero, between clocks that differ; in the buckets as zero."),
    gauge(CONSUMER_LAG_MESSAGES, NONE, "Records in the log that are not yet applied, over owned partitions."),
    gauge(
        CONSUMER_LAG_SECONDS,
        NONE,
        "Age, by the log's timestamp, of the oldest record that is not yet applied; 0 when there is none, NaN while it is \
         not known.",
    ),
    gauge(CONSUMER_PARTITION_LAG_MESSAGES, PARTITIONS, "Records of a partition not yet applied; NaN: not owned here."),
    gauge(
        CONSUMER_PARTITION_LAG_SECONDS,
        PARTITIONS,
        "Age, by the log's timestamp, of the oldest record of a partition that is not yet applied; NaN: not known here.",
    ),
    gauge(CONSUMER_PENDING_MESSAGES, NONE, "Records that were read and are not stored yet."),
    gauge(CONSUMER_OWNED_PARTITIONS, NONE, "Partitions that the consumer of this process owns."),
    counter(CONSUMER_REBALANCES_TOTAL, NONE, "Changes of the partitions given to the consumer of this process."),
    counter(CONSUMER_FENCED_TOTAL, NONE, "Partitions that another consumer took over before they were given up here."),
    counter(PUBLISHER_ROUNDS_TOTAL, PUBLISHED, "Looks for changed totals, by what became of them."),
    counter(PUBLISHER_RECORDS_TOTAL, NONE, "Totals written to the compacted topic."),
    histogram(PUBLISHER_ROUND_SECONDS, NONE, "Time of one round that wrote totals to the compacted topic."),
    counter(AUDITS_TOTAL, VERDICTS, "Audits of the books that this process made, by verdict."),
    gauge(AUDIT_BALANCED, NONE, "1 when the last audit of this process balanced, 0 when it named differences."),
    gauge(AUDIT_DIFFERENCES, NONE, "Differences between ledger, log and PostgreSQL that the last audit found."),
    gauge(AUDIT_TIMESTAMP_SECONDS, NONE, "Unix time at which the last audit of this process ended."),
    gauge(AUDIT_DURATION_SECONDS, NONE, "Time that the last audit of this process took."),
    gauge(CHECKPOINT_TIMESTAMP_SECONDS, NONE, "Unix time of the newest checkpoint: what came before is proven."),
    counter(KEEPING_ROUNDS_TOTAL, KEPT, "Rounds of merging packs and of retention, by what became of them."),
    counter(RETENTION_ROWS_TOTAL, NONE, "Rows of messages that retention has removed, behind a balanced audit."),
    counter(RETENTION_LEDGER_BYTES_TOTAL, NONE, "Bytes of ledger that retention has removed, behind a balanced audit."),
    counter(BROKER_REQUESTS_TOTAL, APIS, "Requests taken by the embedded broker."),
    histogram(
        BROKER_REQUEST_SECONDS,
        TIMED_APIS,
        "Time to carry out a request; a Fetch includes its wait for records, a Produce not its wait for the sync.",
    ),
    gauge(BROKER_CONNECTIONS, NONE, "Open connections of the embedded broker."),
    counter(BROKER_CONNECTIONS_TOTAL, NONE, "Connections that the embedded broker took."),
    counter(BROKER_REFUSED_CONNECTIONS_TOTAL, NONE, "Connections that the embedded broker turned away: too many."),
    counter(BROKER_APPENDED_BYTES_TOTAL, NONE, "Bytes of record batches appended to the log."),
    histogram(BROKER_SYNC_SECONDS, NONE, "Time of one group commit's sync."),
    gauge(
        BROKER_REFUSES_APPENDS,
        NONE,
        "1 while appends are refused or wait, because the disk is full or no file can be opened.",
    ),
    gauge(DISK_FREE_BYTES, PLACES, "Bytes that may still be written to the file system of a place."),
    gauge(DISK_SIZE_BYTES, PLACES, "Size of the file system of a place."),
    gauge(DISK_LIMIT_BYTES, PLACES, "Free bytes below which the producer pauses."),
    gauge(ROLE_READY, ROLES, "1 when a role of this process does its work, 0 while it waits for something."),
    counter(PROCESS_CPU_SECONDS_TOTAL, NONE, "User and system time of this process, in whole seconds."),
    gauge(PROCESS_OPEN_FDS, NONE, "Open file descriptors of this process."),
    gauge(PROCESS_MAX_FDS, NONE, "File descriptors that this process may open."),
    gauge(PROCESS_RESIDENT_MEMORY_BYTES, NONE, "Resident memory of this process."),
    gauge(PROCESS_THREADS, NONE, "Threads of this process."),
    gauge(PROCESS_START_TIME_SECONDS, NONE, "Unix time at which this process was started."),
    gauge(BUILD_INFO, VERSIONS, "Always 1; the labels name the build."),
];
