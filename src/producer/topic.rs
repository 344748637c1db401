//! The topic: found, or created and then found.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;
use rdkafka::types::RDKafkaErrorCode;

use super::ProducerError;
use super::client::{Client, Deliveries, base_config};
use super::start::Context;
use super::tally::Complaints;

/// One answer of the broker, at most; also how long a stop may have to wait here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of the topic before the first message.
pub(super) struct Topic {
    pub(super) partitions: i32,
    pub(super) cluster_id: Option<String>,
}

/// Waits for the broker, and for the topic, which is created if it is absent. None: stopped while waiting.
pub(super) fn ensure(
    context: &Context,
    client: &Client,
    deliveries: &Deliveries,
) -> Result<Option<Topic>, ProducerError> {
    let name = context.settings.kafka.transactions_topic();
    let mut complaints = Complaints::since(Instant::now());
    let mut trouble = String::new();
    while !context.shutdown.requested() {
        // The whole list: asking for one name makes some brokers create it with their own partition count.
        match client.client().fetch_metadata(None, ANSWER_TIMEOUT) {
            Ok(metadata) => match metadata.topics().iter().find(|topic| topic.name() == name) {
                Some(topic) if topic.error().is_none() && !topic.partitions().is_empty() => {
                    let partitions = topic.partitions().len() as i32;
                    let cluster_id = client.client().fetch_cluster_id(ANSWER_TIMEOUT);
                    return Ok(Some(Topic { partitions, cluster_id }));
                }
                Some(_) => trouble = format!("topic {name} has no leader yet"),
                None => {
                    if let Err(error) = create(context, &name)? {
                        trouble = format!("topic {name} is not there yet: {error}");
                    }
                }
            },
            Err(error) => trouble = format!("{error}; {}", deliveries.last_error()),
        }
        if complaints.is_due(Instant::now()) {
            tracing::warn!("waiting for the broker at {}: {trouble}", context.settings.kafka.brokers);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

/// The inner error is one that may pass.
fn create(context: &Context, name: &str) -> Result<Result<(), KafkaError>, ProducerError> {
    let kafka = &context.settings.kafka;
    let admin: AdminClient<DefaultClientContext> = base_config(kafka, &[]).create().map_err(ProducerError::Client)?;
    let topic = NewTopic::new(name, kafka.partitions, TopicReplication::Fixed(kafka.replication_factor.unwrap_or(-1)));
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT)).operation_timeout(Some(ANSWER_TIMEOUT));
    let results = match context.runtime.block_on(admin.create_topics([&topic], &options)) {
        Ok(results) => results,
        Err(error) => return Ok(Err(error)),
    };
    for result in results {
        let code = match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => continue,
            Err((_, code)) => code,
        };
        let cure = match code {
            RDKafkaErrorCode::InvalidReplicationFactor => "; choose --replication-factor for this cluster",
            RDKafkaErrorCode::InvalidPartitions => "; choose --partitions for this cluster",
            RDKafkaErrorCode::InvalidTopic => "; choose another --topic-prefix",
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                "; ask for the right to create it, or have it created"
            }
            RDKafkaErrorCode::PolicyViolation => "; the cluster's policy forbids it, have it created",
            _ => return Ok(Err(KafkaError::AdminOp(code))),
        };
        return Err(ProducerError::Topic { topic: name.to_owned(), why: format!("cannot create it: {code}{cure}") });
    }
    Ok(Ok(()))
}
