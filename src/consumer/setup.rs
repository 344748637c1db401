//! Before the group is joined: is the broker there, is the topic, and is it one that may be totalled?

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::ConsumerError;
use super::client::{admin_config, probe_config};
use crate::config::KafkaSettings;
use crate::shutdown::Shutdown;

/// One question to the broker.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two questions while something is missing.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A wait that nobody needs to hear of.
const SAY_AFTER_ATTEMPTS: u32 = 3;

/// The topic as the broker shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub cluster_id: String,
    /// Partition and the offset of the first record kept.
    pub log_starts: Vec<(i32, i64)>,
}

/// Waits for the broker and the topic, creating the topic if it is absent; none when it is time to stop.
pub(super) async fn find_topic(
    kafka: &KafkaSettings,
    name: &str,
    shutdown: &Shutdown,
) -> Result<Option<Topic>, ConsumerError> {
    let admin: AdminClient<DefaultClientContext> = create(&admin_config(kafka), kafka)?;
    let mut attempts = 0;
    loop {
        if shutdown.requested() {
            return Ok(None);
        }
        let (config, topic_name, brokers) = (probe_config(kafka), name.to_owned(), kafka.brokers.clone());
        let looked = tokio::task::spawn_blocking(move || look(&config, &topic_name, &brokers)).await;
        match looked.map_err(|_| ConsumerError::Panicked)?? {
            Seen::Topic(topic) => {
                refuse_compacted(&admin, name).await?;
                return Ok(Some(topic));
            }
            Seen::Absent => create_topic(&admin, kafka, name, &[]).await?,
            Seen::NotYet(what) => {
                attempts += 1;
                if attempts == SAY_AFTER_ATTEMPTS {
                    tracing::info!("waiting for {what}");
                }
            }
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

/// Creates a topic, unless it is there; a broker that is busy is asked again by the caller.
///
/// # Errors
/// [`ConsumerError::Kafka`] when the broker will not have it.
pub(super) async fn create_topic(
    admin: &AdminClient<DefaultClientContext>,
    kafka: &KafkaSettings,
    name: &str,
    properties: &[(&str, &str)],
) -> Result<(), ConsumerError> {
    // -1 leaves the choice to the broker.
    let replication = TopicReplication::Fixed(kafka.replication_factor.unwrap_or(-1));
    let mut topic = NewTopic::new(name, kafka.partitions, replication);
    for (property, value) in properties {
        topic = topic.set(property, value);
    }
    let failed = |error| ConsumerError::Kafka { what: format!("creating topic {name}"), error };
    let results = admin.create_topics([&topic], &AdminOptions::new().request_timeout(Some(ASK_TIMEOUT))).await;
    for result in results.map_err(failed)? {
        match result {
            Ok(_) => tracing::debug!("created topic {name}"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists | RDKafkaErrorCode::RequestTimedOut)) => {}
            Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// Whether a topic is there.
pub(super) async fn is_there(kafka: &KafkaSettings, name: &str) -> bool {
    let (config, name, brokers) = (probe_config(kafka), name.to_owned(), kafka.brokers.clone());
    let looked = tokio::task::spawn_blocking(move || look(&config, &name, &brokers)).await;
    matches!(looked, Ok(Ok(Seen::Topic(_))))
}

/// An admin client.
pub(super) fn admin(kafka: &KafkaSettings) -> Result<AdminClient<DefaultClientContext>, ConsumerError> {
    create(&admin_config(kafka), kafka)
}

#[derive(Debug)]
enum Seen {
    Topic(Topic),
    Absent,
    NotYet(String),
}

/// One look at the broker; blocks.
fn look(config: &ClientConfig, name: &str, brokers: &str) -> Result<Seen, ConsumerError> {
    let client: BaseConsumer =
        config.create().map_err(|error| ConsumerError::Kafka { what: "starting a Kafka client".to_owned(), error })?;
    let metadata = match client.fetch_metadata(Some(name), ASK_TIMEOUT) {
        Ok(metadata) => metadata,
        Err(error) if is_refused(&error) => {
            return Err(ConsumerError::Kafka { what: format!("looking for topic {name}"), error });
        }
        Err(error) => return Ok(Seen::NotYet(format!("a broker at {brokers} ({error})"))),
    };
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(Seen::Absent) };
    match topic.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(Seen::Absent),
        Some(RDKafkaErrorCode::LeaderNotAvailable) => return Ok(Seen::NotYet(format!("a leader of topic {name}"))),
        Some(code) => {
            let error = KafkaError::MetadataFetch(code);
            return Err(ConsumerError::Kafka { what: format!("looking for topic {name}"), error });
        }
    }
    if topic.partitions().is_empty() {
        return Ok(Seen::Absent);
    }
    let mut log_starts = Vec::with_capacity(topic.partitions().len());
    for partition in topic.partitions() {
        match client.fetch_watermarks(name, partition.id(), ASK_TIMEOUT) {
            Ok((start, _)) => log_starts.push((partition.id(), start)),
            Err(error) => {
                return Ok(Seen::NotYet(format!("the leader of topic {name} partition {} ({error})", partition.id())));
            }
        }
    }
    // Taken for another cluster's, a missing id would stop the next start.
    let Some(cluster_id) = client.client().fetch_cluster_id(ASK_TIMEOUT) else {
        return Ok(Seen::NotYet(format!("the id of the cluster at {brokers}")));
    };
    Ok(Seen::Topic(Topic { cluster_id, log_starts }))
}

/// A compacted topic has lost records on purpose: totals over it would be wrong. Unknown is no reason to refuse.
async fn refuse_compacted(admin: &AdminClient<DefaultClientContext>, name: &str) -> Result<(), ConsumerError> {
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
    let described = admin.describe_configs([&ResourceSpecifier::Topic(name)], &options).await;
    let policy = described.ok().into_iter().flatten().find_map(|resource| {
        resource.ok().and_then(|resource| resource.get("cleanup.policy").and_then(|entry| entry.value.clone()))
    });
    match policy {
        Some(policy) if policy.contains("compact") => Err(ConsumerError::Compacted { topic: name.to_owned(), policy }),
        _ => Ok(()),
    }
}

/// Errors that waiting does not cure.
fn is_refused(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::Authentication
        )
    )
}

fn create(config: &ClientConfig, kafka: &KafkaSettings) -> Result<AdminClient<DefaultClientContext>, ConsumerError> {
    config
        .create()
        .map_err(|error| ConsumerError::Kafka { what: format!("starting a Kafka client for {}", kafka.brokers), error })
}
