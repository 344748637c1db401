//! Metric names, labels and units: constants only, each described once.
//!
//! Full names with base units (`_seconds`, `_bytes`, `_total`); label values come from closed sets. Rooms record with
//! the `metrics` macros and these names; `describe()` is called once by whoever installs the recorder.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Transactions handed to the Kafka client.
pub const PRODUCER_SENT_TOTAL: &str = "finstream_producer_sent_messages_total";
/// Transactions acknowledged by the broker.
pub const PRODUCER_ACKNOWLEDGED_TOTAL: &str = "finstream_producer_acknowledged_messages_total";
/// Delivery reports whose outcome is unknown.
pub const PRODUCER_UNKNOWN_TOTAL: &str = "finstream_producer_unknown_outcomes_total";
/// Rows committed in PostgreSQL.
pub const SINK_STORED_TOTAL: &str = "finstream_sink_stored_messages_total";
/// Micro-batches committed.
pub const SINK_BATCHES_TOTAL: &str = "finstream_sink_batches_total";
/// Dead letters committed.
pub const SINK_DEAD_LETTERS_TOTAL: &str = "finstream_sink_dead_letters_total";
/// Batches tried again after an outage of the database.
pub const SINK_RETRIES_TOTAL: &str = "finstream_sink_retries_total";
/// Latency of a stage; label `stage`.
pub const STAGE_LATENCY_SECONDS: &str = "finstream_stage_latency_seconds";
/// Records in the log, not yet applied, over owned partitions.
pub const CONSUMER_LAG_MESSAGES: &str = "finstream_consumer_lag_messages";
/// Age of the oldest record not yet applied.
pub const CONSUMER_LAG_SECONDS: &str = "finstream_consumer_lag_seconds";
/// Requests answered by the embedded broker; label `api`.
pub const BROKER_REQUESTS_TOTAL: &str = "finstream_broker_requests_total";
/// Open connections of the embedded broker.
pub const BROKER_CONNECTIONS: &str = "finstream_broker_connections";
/// Bytes appended to the log.
pub const BROKER_APPENDED_BYTES_TOTAL: &str = "finstream_broker_appended_bytes_total";
/// Time of one group commit's sync.
pub const BROKER_SYNC_SECONDS: &str = "finstream_broker_sync_seconds";
/// 1 while the embedded broker refuses appends, or lets them wait, because a disk is full or no file can be opened.
pub const BROKER_REFUSES_APPENDS: &str = "finstream_broker_refuses_appends";
/// Build information; always 1, label `version`.
pub const BUILD_INFO: &str = "finstream_build_info";

/// Upper bounds in seconds of every latency histogram: 16 us growing by the square root of two, 39 buckets to about 9 s.
pub fn latency_bounds_seconds() -> Vec<f64> {
    (0..39).map(|step| 16e-6 * 2f64.powf(f64::from(step) / 2.0)).collect()
}

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_counter!(PRODUCER_SENT_TOTAL, Unit::Count, "Transactions handed to the Kafka client.");
    describe_counter!(PRODUCER_ACKNOWLEDGED_TOTAL, Unit::Count, "Transactions acknowledged by the broker.");
    describe_counter!(
        PRODUCER_UNKNOWN_TOTAL,
        Unit::Count,
        "Transactions whose delivery report leaves the outcome unknown."
    );
    describe_counter!(SINK_STORED_TOTAL, Unit::Count, "Messages whose rows and totals are committed in PostgreSQL.");
    describe_counter!(SINK_BATCHES_TOTAL, Unit::Count, "Micro-batches committed in PostgreSQL.");
    describe_counter!(SINK_DEAD_LETTERS_TOTAL, Unit::Count, "Messages stored as dead letters.");
    describe_counter!(SINK_RETRIES_TOTAL, Unit::Count, "Micro-batches tried again after an outage of the database.");
    describe_histogram!(STAGE_LATENCY_SECONDS, Unit::Seconds, "Time a message spent in a stage of its way.");
    describe_gauge!(
        CONSUMER_LAG_MESSAGES,
        Unit::Count,
        "Records in the log that are not yet applied, over owned partitions."
    );
    describe_gauge!(CONSUMER_LAG_SECONDS, Unit::Seconds, "Age of the oldest record that is not yet applied.");
    describe_counter!(BROKER_REQUESTS_TOTAL, Unit::Count, "Requests answered by the embedded broker.");
    describe_gauge!(BROKER_CONNECTIONS, Unit::Count, "Open connections of the embedded broker.");
    describe_counter!(BROKER_APPENDED_BYTES_TOTAL, Unit::Bytes, "Bytes of record batches appended to the log.");
    describe_histogram!(BROKER_SYNC_SECONDS, Unit::Seconds, "Time of one group commit's sync.");
    describe_gauge!(
        BROKER_REFUSES_APPENDS,
        Unit::Count,
        "1 while appends are refused or wait, because the disk is full or no file can be opened."
    );
    describe_gauge!(BUILD_INFO, Unit::Count, "Always 1; the labels name the build.");
}
