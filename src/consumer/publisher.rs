//! Changed totals go back to Kafka, to the compacted topic, from whoever owns partition 0 of the transactions.
//!
//! A round is one transaction: a reader of committed records sees all totals of a round or none. The transactional id
//! belongs to the group, so whoever takes over partition 0 fences the publisher before it, and an old value never comes
//! behind a newer one. Change rows are deleted only after the commit, so a crash publishes again, never too little.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;

use super::client::producer_config;
use super::setup::{admin, create_topic, is_there};
use super::shared::Shared;
use crate::config::KafkaSettings;
use crate::metrics::{PUBLISHER_RECORDS_TOTAL, PUBLISHER_ROUND_SECONDS, PUBLISHER_ROUNDS_TOTAL};
use crate::postgres::{CONNECT_DEADLINE, answered, connect};
use crate::progress::Sample;
use crate::seam::{self, Seam};
use crate::sink::{Changes, SinkError, change_all, plan_by_key, read_changes, settle_changes};

/// Segments are small, because only closed ones are compacted: what a reader has to pass over stays small, too.
const TOPIC_CONFIGS: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("segment.bytes", "16777216")];
/// Between two rounds while totals change: a total that changes often is sent once a round.
const ROUND_WAIT_MIN: Duration = Duration::from_millis(250);
/// The longer a round takes, the longer the next one waits: publishing takes a tenth of a core at most.
const WAIT_PER_ROUND_TIME: u32 = 9;
/// Longest wait between two rounds under load.
const ROUND_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks while nothing changes, or while something is broken.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for a delivery report, and for the broker to begin or end a transaction.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for PostgreSQL: a round may read very many totals, and nobody but readers of the topic waits for it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Time for the last totals at a clean stop; what is left is published by the next start.
const LAST_ROUNDS_MAX: Duration = Duration::from_secs(2);

/// Why a round was not finished; the next one starts over.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("a call of the Kafka client panicked")]
    Panicked,
}

/// Publishes while partition 0 is owned here.
pub(super) struct Publisher {
    kafka: KafkaSettings,
    database: PgConnectOptions,
    answer_deadline: Duration,
    topic_ref: i32,
    shared: Arc<Shared>,
    topic: String,
    transactional_id: String,
    connection: Option<PgConnection>,
    producer: Option<FutureProducer>,
    has_trouble: bool,
}

/// What a round found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Published,
    /// There is more: what waits must not grow for ever.
    PublishedSome,
    NothingChanged,
    /// Someone else owns partition 0.
    Fenced,
}

impl Publisher {
    /// `group`: the consumer group, of which one member publishes at a time.
    pub(super) fn new(
        kafka: KafkaSettings,
        group: &str,
        database: PgConnectOptions,
        topic_ref: i32,
        shared: Arc<Shared>,
    ) -> Self {
        let topic = kafka.aggregates_topic();
        Publisher {
            transactional_id: format!("{group}/{topic}"),
            kafka,
            database,
            answer_deadline: ANSWER_DEADLINE,
            topic_ref,
            shared,
            topic,
            connection: None,
            producer: None,
            has_trouble: false,
        }
    }

    /// Runs until `stop` is set or its sender is gone; then publishes what is left, for a bounded time.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut owns = self.shared.partition_zero.subscribe();
        let mut last_epoch = None;
        loop {
            let epoch = *owns.borrow_and_update();
            last_epoch = epoch.or(last_epoch);
            let wait = match epoch {
                Some(epoch) => tokio::select! {
                    wait = self.round(epoch) => wait,
                    // This round had the time of the last ones: PostgreSQL or Kafka does not answer.
                    () = stopped_for(&mut stop, LAST_ROUNDS_MAX) => return,
                },
                None => Duration::MAX,
            };
            tokio::select! {
                () = sleep(wait) => {}
                changed = owns.changed(), if epoch.is_none() => {
                    if changed.is_err() {
                        return;
                    }
                }
                // An error means that nobody is left to say stop.
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        if let Some(epoch) = last_epoch {
            let _ = tokio::time::timeout(LAST_ROUNDS_MAX, self.last_rounds(epoch)).await;
        }
    }

    /// One round; how long to wait for the next.
    async fn round(&mut self, epoch: i64) -> Duration {
        let started = Instant::now();
        let published = self.publish(epoch).await;
        count(&published, started.elapsed());
        match published {
            Ok(Round::PublishedSome) => {
                self.has_trouble = false;
                ROUND_WAIT_MIN
            }
            Ok(Round::Published) => {
                self.has_trouble = false;
                (started.elapsed() * WAIT_PER_ROUND_TIME).clamp(ROUND_WAIT_MIN, ROUND_WAIT_MAX)
            }
            Ok(Round::NothingChanged | Round::Fenced) => {
                self.has_trouble = false;
                IDLE_WAIT
            }
            Err(error) => {
                self.connection = None;
                if !self.has_trouble {
                    tracing::warn!("publishing totals to {}: {error}; trying on, nothing is lost", self.topic);
                    self.has_trouble = true;
                }
                IDLE_WAIT
            }
        }
    }

    async fn last_rounds(&mut self, epoch: i64) {
        while matches!(self.publish(epoch).await, Ok(Round::Published | Round::PublishedSome)) {}
    }

    async fn publish(&mut self, epoch: i64) -> Result<Round, PublishError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = connect(&self.database, CONNECT_DEADLINE).await.map_err(SinkError::from)?;
                answered(CONNECT_DEADLINE, plan_by_key(&mut connection)).await.map_err(SinkError::from)?;
                connection
            }
        };
        let Some(mut changes) = self.changes(&mut connection, epoch).await? else { return Ok(Round::Fenced) };
        if changes.is_empty() {
            self.connection = Some(connection);
            return Ok(Round::NothingChanged);
        }
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => {
                let producer = self.new_producer(&mut connection).await?;
                // Read again: a publisher before us may have published until it was fenced, just now.
                let Some(read_again) = self.changes(&mut connection, epoch).await? else { return Ok(Round::Fenced) };
                changes = read_again;
                producer
            }
        };
        seam::reach(Seam::BeforePublish).await.map_err(SinkError::from)?;
        self.send(&producer, &changes).await?;
        seam::reach(Seam::AfterPublish).await.map_err(SinkError::from)?;
        // Only now: after any error the next round begins with a new one, which ends what this one has left open.
        self.producer = Some(producer);
        if self.shared.progress.wants_samples() {
            for total in &changes.totals {
                self.shared.progress.sample(Sample::Aggregate(total.value.clone()));
            }
        }
        metrics::counter!(PUBLISHER_RECORDS_TOTAL).increment(changes.totals.len() as u64);
        answered(self.answer_deadline, settle_changes(&mut connection, &changes)).await?;
        self.connection = Some(connection);
        Ok(if changes.is_full { Round::PublishedSome } else { Round::Published })
    }

    /// None when someone else owns partition 0.
    async fn changes(&self, connection: &mut PgConnection, epoch: i64) -> Result<Option<Changes>, SinkError> {
        answered(self.answer_deadline, read_changes(connection, self.topic_ref, epoch)).await
    }

    /// Fences the publisher before it, and aborts what that one has left open.
    async fn new_producer(&self, connection: &mut PgConnection) -> Result<FutureProducer, PublishError> {
        if !is_there(&self.kafka, &self.topic).await {
            // Before it is there: whoever stops in between finds it absent again.
            answered(self.answer_deadline, change_all(connection, self.topic_ref)).await?;
            self.create_topic().await;
        }
        let producer: FutureProducer = producer_config(&self.kafka, &self.transactional_id).create()?;
        blocking(&producer, |producer| producer.init_transactions(DELIVERY_TIMEOUT)).await?;
        Ok(producer)
    }

    /// All of it in one transaction.
    async fn send(&self, producer: &FutureProducer, changes: &Changes) -> Result<(), PublishError> {
        if changes.totals.is_empty() {
            return Ok(());
        }
        producer.begin_transaction()?;
        let deliveries = changes.totals.iter().map(|total| {
            producer.send(FutureRecord::to(&self.topic).key(&total.key).payload(&total.value), DELIVERY_TIMEOUT)
        });
        for delivery in join_all(deliveries).await {
            delivery.map_err(|(error, _)| error)?;
        }
        seam::reach(Seam::InsidePublish).await.map_err(SinkError::from)?;
        blocking(producer, |producer| producer.commit_transaction(DELIVERY_TIMEOUT)).await
    }

    /// Creates the topic; if that fails, sending says so.
    async fn create_topic(&self) {
        let created = match admin(&self.kafka) {
            Ok(admin) => create_topic(&admin, &self.kafka, &self.topic, &TOPIC_CONFIGS).await,
            Err(error) => Err(error),
        };
        if let Err(error) = created {
            tracing::debug!("{error}");
        }
    }
}

fn count(published: &Result<Round, PublishError>, took: Duration) {
    let outcome = match published {
        Ok(Round::Published | Round::PublishedSome) => "published",
        Ok(Round::NothingChanged) => "unchanged",
        Ok(Round::Fenced) => "fenced",
        Err(_) => "failed",
    };
    metrics::counter!(PUBLISHER_ROUNDS_TOTAL, "outcome" => outcome).increment(1);
    if outcome == "published" {
        metrics::histogram!(PUBLISHER_ROUND_SECONDS).record(took.as_secs_f64());
    }
}

/// A call of the client that waits for the broker.
async fn blocking(
    producer: &FutureProducer,
    call: impl FnOnce(&FutureProducer) -> Result<(), KafkaError> + Send + 'static,
) -> Result<(), PublishError> {
    let producer = producer.clone();
    let called = tokio::task::spawn_blocking(move || call(&producer)).await;
    called.map_err(|_| PublishError::Panicked)?.map_err(PublishError::Kafka)
}

/// Resolves `time` after `stop` was set or its sender is gone.
async fn stopped_for(stop: &mut watch::Receiver<bool>, time: Duration) {
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(time).await;
}

async fn sleep(wait: Duration) {
    if wait == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(wait).await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::consumer::handoff::Limits;
    use crate::consumer::lanes::Lanes;
    use crate::postgres::silent_server;
    use crate::progress::Progress;

    #[tokio::test]
    async fn a_server_that_falls_silent_ends_the_round_and_its_connection() {
        let kafka = KafkaSettings {
            brokers: "127.0.0.1:1".to_owned(),
            properties: Vec::new(),
            topic_prefix: String::new(),
            partitions: 1,
            replication_factor: None,
        };
        let lanes = Lanes::new(1, Limits { batch_messages_max: 1, batch_wait: Duration::ZERO });
        let shared = Shared::new(String::new(), lanes, Arc::new(Progress::default()), Arc::new(SystemClock::new()));
        let mut publisher = Publisher::new(kafka, "g", silent_server().await, 1, Arc::new(shared));
        publisher.answer_deadline = Duration::from_millis(20);
        let error = publisher.publish(1).await.unwrap_err().to_string();
        assert!(error.contains("no answer within"), "{error}");
        assert!(publisher.connection.is_none());
    }
}
