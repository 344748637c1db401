//! Metric names, labels and units: constants only, each described once, in [`CATALOG`].
//!
//! Full names with base units (`_seconds`, `_bytes`, `_total`); label values come from closed sets, or are bounded. Rooms
//! record with the `metrics` macros and these names; [`describe`] is called once by whoever installs the recorder.

mod catalog;

use metrics::{Label, Unit};

pub use catalog::{CATALOG, Metric, MetricKind};

/// The service level of latency: 99 % of messages are committed in PostgreSQL within this many seconds of the moment at
/// which they were due. Dashboards and alerting rules use this number; tests/dashboards.rs holds them to it.
pub const LATENCY_SLO_SECONDS: f64 = 0.05;
/// The part of all messages that may be slower than [`LATENCY_SLO_SECONDS`].
pub const LATENCY_SLO_BUDGET: f64 = 0.01;
/// The service level of the lag: the oldest record that is not in the totals is no older than this.
pub const LAG_SLO_SECONDS: f64 = 5.0;

/// Partitions that have a series of their own, at most; the lag over all of them has no such bound.
pub const PARTITION_SERIES_MAX: i32 = 128;

/// Arrivals whose time has come.
pub const PRODUCER_SCHEDULED_TOTAL: &str = "finstream_producer_scheduled_messages_total";
/// Transactions handed to the Kafka client.
pub const PRODUCER_SENT_TOTAL: &str = "finstream_producer_sent_messages_total";
/// Transactions acknowledged by the broker.
pub const PRODUCER_ACKNOWLEDGED_TOTAL: &str = "finstream_producer_acknowledged_messages_total";
/// Delivery reports whose outcome is unknown.
pub const PRODUCER_UNKNOWN_TOTAL: &str = "finstream_producer_unknown_outcomes_total";
/// Messages handed to the Kafka client, without a delivery report yet.
pub const PRODUCER_OUTSTANDING_MESSAGES: &str = "finstream_producer_outstanding_messages";
/// 1 while the producer pauses because a disk is almost full.
pub const PRODUCER_PAUSED: &str = "finstream_producer_paused";
/// Rows committed in PostgreSQL.
pub const SINK_STORED_TOTAL: &str = "finstream_sink_stored_messages_total";
/// Micro-batches committed.
pub const SINK_BATCHES_TOTAL: &str = "finstream_sink_batches_total";
/// Messages in one micro-batch.
pub const SINK_BATCH_MESSAGES: &str = "finstream_sink_batch_messages";
/// Dead letters committed.
pub const SINK_DEAD_LETTERS_TOTAL: &str = "finstream_sink_dead_letters_total";
/// Batches tried again after an outage of the database.
pub const SINK_RETRIES_TOTAL: &str = "finstream_sink_retries_total";
/// 1 while PostgreSQL does not store.
pub const SINK_DATABASE_AWAY: &str = "finstream_sink_database_away";
/// Latency of a stage; label `stage`.
pub const STAGE_LATENCY_SECONDS: &str = "finstream_stage_latency_seconds";
/// Messages without one of the two times of a stage; label `stage`.
pub const STAGE_MISSING_TOTAL: &str = "finstream_stage_missing_times_total";
/// Latencies below zero, counted as zero; label `stage`.
pub const STAGE_NEGATIVE_TOTAL: &str = "finstream_stage_negative_latencies_total";
/// Records in the log, not yet applied, over owned partitions.
pub const CONSUMER_LAG_MESSAGES: &str = "finstream_consumer_lag_messages";
/// Age of the oldest record not yet applied.
pub const CONSUMER_LAG_SECONDS: &str = "finstream_consumer_lag_seconds";
/// Records of one partition, not yet applied; labels `topic`, `partition`.
pub const CONSUMER_PARTITION_LAG_MESSAGES: &str = "finstream_consumer_partition_lag_messages";
/// Age of the oldest record of one partition, not yet applied; labels `topic`, `partition`.
pub const CONSUMER_PARTITION_LAG_SECONDS: &str = "finstream_consumer_partition_lag_seconds";
/// Records that were read and are not stored yet.
pub const CONSUMER_PENDING_MESSAGES: &str = "finstream_consumer_pending_messages";
/// Partitions owned by the consumer of this process.
pub const CONSUMER_OWNED_PARTITIONS: &str = "finstream_consumer_owned_partitions";
/// Rebalances of the group that this consumer took part in.
pub const CONSUMER_REBALANCES_TOTAL: &str = "finstream_consumer_rebalances_total";
/// Partitions lost to another consumer.
pub const CONSUMER_FENCED_TOTAL: &str = "finstream_consumer_fenced_partitions_total";
/// Rounds of the publisher of totals; label `outcome`.
pub const PUBLISHER_ROUNDS_TOTAL: &str = "finstream_publisher_rounds_total";
/// Totals written to the compacted topic.
pub const PUBLISHER_RECORDS_TOTAL: &str = "finstream_publisher_records_total";
/// Time of one round that published.
pub const PUBLISHER_ROUND_SECONDS: &str = "finstream_publisher_round_seconds";
/// Audits of the books; label `verdict`.
pub const AUDITS_TOTAL: &str = "finstream_audits_total";
/// 1 when the last audit balanced, 0 when it named differences.
pub const AUDIT_BALANCED: &str = "finstream_audit_balanced";
/// Differences that the last audit found.
pub const AUDIT_DIFFERENCES: &str = "finstream_audit_differences";
/// When the last audit ended, as a Unix time.
pub const AUDIT_TIMESTAMP_SECONDS: &str = "finstream_audit_timestamp_seconds";
/// How long the last audit took.
pub const AUDIT_DURATION_SECONDS: &str = "finstream_audit_duration_seconds";
/// When the newest checkpoint was made, as a Unix time.
pub const CHECKPOINT_TIMESTAMP_SECONDS: &str = "finstream_checkpoint_timestamp_seconds";
/// Rounds of merging and retention; label `outcome`.
pub const KEEPING_ROUNDS_TOTAL: &str = "finstream_keeping_rounds_total";
/// Rows that retention has removed.
pub const RETENTION_ROWS_TOTAL: &str = "finstream_retention_removed_rows_total";
/// Bytes of ledger that retention has removed.
pub const RETENTION_LEDGER_BYTES_TOTAL: &str = "finstream_retention_removed_ledger_bytes_total";
/// Requests answered by the embedded broker; label `api`.
pub const BROKER_REQUESTS_TOTAL: &str = "finstream_broker_requests_total";
/// Time from a request's last byte to its answer, or to its place in the writer's queue; label `api`.
pub const BROKER_REQUEST_SECONDS: &str = "finstream_broker_request_seconds";
/// Open connections of the embedded broker.
pub const BROKER_CONNECTIONS: &str = "finstream_broker_connections";
/// Connections that the embedded broker took.
pub const BROKER_CONNECTIONS_TOTAL: &str = "finstream_broker_accepted_connections_total";
/// Connections that the embedded broker turned away.
pub const BROKER_REFUSED_CONNECTIONS_TOTAL: &str = "finstream_broker_refused_connections_total";
/// Bytes appended to the log.
pub const BROKER_APPENDED_BYTES_TOTAL: &str = "finstream_broker_appended_bytes_total";
/// Time of one group commit's sync.
pub const BROKER_SYNC_SECONDS: &str = "finstream_broker_sync_seconds";
/// 1 while the embedded broker refuses appends, or lets them wait, because a disk is full or no file can be opened.
pub const BROKER_REFUSES_APPENDS: &str = "finstream_broker_refuses_appends";
/// Bytes that may still be written; label `place`.
pub const DISK_FREE_BYTES: &str = "finstream_disk_free_bytes";
/// Size of the file system; label `place`.
pub const DISK_SIZE_BYTES: &str = "finstream_disk_size_bytes";
/// Free bytes below which the producer pauses; label `place`.
pub const DISK_LIMIT_BYTES: &str = "finstream_disk_limit_bytes";
/// 1 when a role of this process is ready, 0 while it waits; label `role`. A role that is not here has no series.
pub const ROLE_READY: &str = "finstream_role_ready";
/// Processor time of this process.
pub const PROCESS_CPU_SECONDS_TOTAL: &str = "process_cpu_seconds_total";
/// Open file descriptors of this process.
pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
/// File descriptors that this process may open.
pub const PROCESS_MAX_FDS: &str = "process_max_fds";
/// Memory of this process that is not swapped out or unmapped.
pub const PROCESS_RESIDENT_MEMORY_BYTES: &str = "process_resident_memory_bytes";
/// Threads of this process.
pub const PROCESS_THREADS: &str = "process_threads";
/// When this process was started, as a Unix time.
pub const PROCESS_START_TIME_SECONDS: &str = "process_start_time_seconds";
/// Build information; always 1, label `version`.
pub const BUILD_INFO: &str = "finstream_build_info";

/// Upper bounds in seconds of every latency histogram: 16 us growing by the square root of two, 39 buckets to about 9 s.
pub fn latency_bounds_seconds() -> Vec<f64> {
    (0..39).map(|step| 16e-6 * 2f64.powf(f64::from(step) / 2.0)).collect()
}

/// The same with the service level among them, so that the messages within it are counted and not estimated.
pub fn stage_bounds_seconds() -> Vec<f64> {
    let mut bounds = latency_bounds_seconds();
    bounds.push(LATENCY_SLO_SECONDS);
    bounds.sort_by(f64::total_cmp);
    bounds
}

/// Upper bounds of histograms that count messages: powers of four.
pub fn message_bounds() -> Vec<f64> {
    (0..9).map(|step| 4f64.powi(step)).collect()
}

/// Tells the recorder what each metric means, and registers what can be counted from the start: a counter that appears
/// with its first event would hide that event from `increase()`.
pub fn describe() {
    for metric in CATALOG {
        let Metric { name, help, kind, .. } = *metric;
        let unit = unit(name);
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, help),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, help),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
        for labels in metric.label_sets() {
            let labels: Vec<Label> = labels.into_iter().map(|(key, value)| Label::new(key, value)).collect();
            match kind {
                MetricKind::Counter => metrics::counter!(name, labels).increment(0),
                MetricKind::Histogram => drop(metrics::histogram!(name, labels)),
                // What is not known is not shown, and never as 0.
                MetricKind::Gauge => {}
            }
        }
    }
}

/// The unit that a name ends in.
fn unit(name: &str) -> Unit {
    let base = name.strip_suffix("_total").unwrap_or(name);
    match base.rsplit('_').next() {
        Some("seconds") => Unit::Seconds,
        Some("bytes") => Unit::Bytes,
        _ => Unit::Count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_level_is_a_bound_of_its_histogram_and_of_no_other() {
        assert!(stage_bounds_seconds().contains(&LATENCY_SLO_SECONDS));
        assert_eq!((stage_bounds_seconds().len(), latency_bounds_seconds().len()), (40, 39));
        assert!(stage_bounds_seconds().is_sorted());
    }
}
