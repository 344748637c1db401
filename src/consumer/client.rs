//! The properties that librdkafka is given.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{ConsumerSettings, KafkaSettings};

/// After so long without a heartbeat the group gives a consumer's partitions to others.
pub(super) const SESSION: Duration = Duration::from_secs(6);

/// What every client of this role shares; the user's own properties win.
pub(super) fn base_config(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", "finstream-consumer")
        .set("reconnect.backoff.ms", "50")
        // With the default of 10 s no restart of a broker would be noticed in time.
        .set("reconnect.backoff.max.ms", "500")
        .set("retry.backoff.ms", "50")
        .set("socket.nagle.disable", "true");
    config
}

/// The group's consumer.
pub(super) fn consumer_config(settings: &ConsumerSettings) -> ClientConfig {
    let mut config = base_config(&settings.kafka);
    config
        .set("group.id", &settings.group)
        // A static member that comes back within the session gets its partitions without a rebalance.
        .set("group.instance.id", &settings.group_instance_id)
        // By this a consumer that leaves sees in the group whether it is gone.
        .set("client.id", &settings.group_instance_id)
        // Incremental: a consumer that joins does not stop those that keep their partitions.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", SESSION.as_millis().to_string())
        // A rebalance waits for the next heartbeat of each member, and one that moves partitions is two of them.
        .set("heartbeat.interval.ms", "500")
        // The truth about progress is in PostgreSQL; a log that does not reach it must stop us, never skip.
        .set("auto.offset.reset", "error")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true")
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "500")
        // With the default of 1 s a full queue would stop fetching for that long.
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.error.backoff.ms", "50")
        .set("queued.max.messages.kbytes", "16384")
        .set("topic.metadata.refresh.interval.ms", "10000")
        // Where the log ends, for the lag.
        .set("statistics.interval.ms", "500");
    let mut config = with_properties(config, &settings.kafka);
    // Only its log tells that a topic was recreated; see `rebalance::is_new_topic_id`.
    let debug = config.get("debug").map_or("metadata".to_owned(), |asked| format!("{asked},metadata"));
    config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
    config
}

/// A client without a group: metadata, watermarks, single records.
pub(super) fn probe_config(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = base_config(kafka);
    config
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true");
    with_properties(config, kafka)
}

/// The publisher's producer.
pub(super) fn producer_config(kafka: &KafkaSettings, transactional_id: &str) -> ClientConfig {
    let mut config = base_config(kafka);
    config
        .set("client.id", "finstream-publisher")
        .set("transactional.id", transactional_id)
        // What a publisher that died has left open holds up readers of committed records for no longer.
        .set("transaction.timeout.ms", "30000")
        .set("compression.type", "zstd")
        .set("linger.ms", "20")
        .set("queue.buffering.max.kbytes", "32768");
    with_properties(config, kafka)
}

/// The admin client.
pub(super) fn admin_config(kafka: &KafkaSettings) -> ClientConfig {
    with_properties(base_config(kafka), kafka)
}

fn with_properties(mut config: ClientConfig, kafka: &KafkaSettings) -> ClientConfig {
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
}
