//! The producer and consumer roles of this process: started, watched, and drained in order.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::database::DatabaseService;
use super::disk_guard;
use super::figures::thousands;
use super::kafka::{BrokerEndpoint, EmbeddedBroker};
use super::pipeline::Pipeline;
use crate::config::KafkaSettings;
use crate::consumer::{self, Acknowledged, ConsumerError, ConsumerReport};
use crate::data_dir::InstanceSlot;
use crate::http::Readiness;
use crate::metrics::BROKER_REFUSES_APPENDS;
use crate::producer::{self, ProducerError, ProducerReport};
use crate::progress::Progress;
use crate::shutdown::{self, Stage, Trigger};

/// From Ctrl-C to the end, at most; what is not done by then is said.
const STOP_WITHIN: Duration = Duration::from_secs(9);
/// A consumer that does not drain is asked to stop cleanly, and given this long.
const CONSUMER_STOP_WITHIN: Duration = Duration::from_secs(3);
/// A producer in one process with its consumer begins when the consumer has its partitions, or after this long.
const CONSUMER_HEAD_START: Duration = Duration::from_secs(10);
/// Between two looks whether the consumer has its partitions.
const READY_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Between two looks whether the broker still stores.
const BROKER_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two looks whether PostgreSQL stores.
const READINESS_LOOK_EVERY: Duration = Duration::from_millis(250);

/// A broker that answers nothing for so long is waited for, and readiness says so. Longer than a group takes to settle.
const SILENT_AFTER: Duration = Duration::from_secs(10);

/// The consumer role while it runs.
pub(super) struct ConsumerTask {
    task: JoinHandle<Result<ConsumerReport, ConsumerError>>,
    stop: Trigger,
    /// What the producer of this process was told; none where no producer runs here, or it failed.
    drain_to: Option<watch::Sender<Option<Acknowledged>>>,
    _slot: InstanceSlot,
}

/// The producer role while it runs.
pub(super) struct ProducerTask {
    task: JoinHandle<Result<ProducerReport, ProducerError>>,
    stop: Trigger,
}

/// How the roles ended.
#[derive(Default)]
pub(super) struct Ended {
    pub producer: Option<ProducerReport>,
    /// What could not be finished.
    pub left: Vec<String>,
    pub failure: Option<anyhow::Error>,
}

/// Has the producer wait for the broker while that answers nothing that was sent.
async fn watch_answers(progress: Arc<Progress>, readiness: Readiness) -> Infallible {
    let (mut known, mut moved_at, mut is_waiting) = (0, Instant::now(), false);
    loop {
        tokio::time::sleep(READINESS_LOOK_EVERY).await;
        let answered = progress.acknowledged.load(Ordering::Relaxed) + progress.unknown.load(Ordering::Relaxed);
        if answered != known || progress.sent.load(Ordering::Relaxed) <= answered {
            (known, moved_at) = (answered, Instant::now());
            if std::mem::take(&mut is_waiting) {
                readiness.ready("producer");
            }
        } else if moved_at.elapsed() > SILENT_AFTER && !std::mem::replace(&mut is_waiting, true) {
            readiness.waiting("producer", "the broker, which answers nothing that was sent");
        }
    }
}

impl Pipeline {
    pub(super) fn start_consumer(
        &self,
        kafka: KafkaSettings,
        database: &DatabaseService,
    ) -> anyhow::Result<ConsumerTask> {
        let slot = self.data_dir.instance_slot()?;
        let settings = self.plan.consumer(kafka, &slot.group_instance_id);
        let (stop, shutdown) = shutdown::channel();
        let (drain_to, drain_to_watcher) = watch::channel(None);
        let running = consumer::run(
            settings,
            database.database().named("finstream consumer").options,
            self.clock.clone(),
            shutdown,
            self.progress.clone(),
            drain_to_watcher,
        );
        self.readiness.waiting("consumer", "its partitions");
        let (readiness, progress) = (self.readiness.clone(), self.progress.clone());
        let task = tokio::spawn(async move {
            let ready = async {
                // The lag is known as soon as partitions are owned.
                while progress.lag_messages.load(Ordering::Relaxed) < 0 {
                    tokio::time::sleep(READY_LOOK_EVERY).await;
                }
                readiness.ready("consumer");
                let mut owned_at = Instant::now();
                loop {
                    tokio::time::sleep(READINESS_LOOK_EVERY).await;
                    if progress.lag_messages.load(Ordering::Relaxed) >= 0 {
                        owned_at = Instant::now();
                    }
                    match progress.database_away.load(Ordering::Relaxed) {
                        true => readiness.waiting("consumer", "PostgreSQL, which does not store"),
                        false if owned_at.elapsed() > SILENT_AFTER => readiness.waiting(
                            "consumer",
                            "its partitions: the broker is away, or other consumers have all of them",
                        ),
                        false => readiness.ready("consumer"),
                    }
                }
            };
            tokio::select! {
                ended = running => ended,
                () = ready => Ok(ConsumerReport::default()),
            }
        });
        Ok(ConsumerTask { task, stop, drain_to: self.plan.roles.producer.then_some(drain_to), _slot: slot })
    }

    /// Gives the consumer its head start, so that the first messages do not wait for its group to form.
    pub(super) async fn await_consumer(&self, consumer: Option<&mut ConsumerTask>) {
        let Some(consumer) = consumer else { return };
        let mut shutdown = self.shutdown.clone();
        let assigned = async {
            while self.readiness.waiting_for().contains_key("consumer") && !consumer.task.is_finished() {
                tokio::time::sleep(READY_LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = assigned => {}
            () = tokio::time::sleep(CONSUMER_HEAD_START) => {}
            () = shutdown.reached(Stage::Drain) => {}
        }
    }

    pub(super) fn start_producer(
        &self,
        kafka: KafkaSettings,
        endpoint: &BrokerEndpoint,
        database: Option<&DatabaseService>,
    ) -> ProducerTask {
        let settings = self.plan.producer(kafka, &self.data_dir.path().join("ledger"), &endpoint.durability);
        let (stop, shutdown) = shutdown::channel();
        let (pause, paused) = watch::channel(false);
        let mut paths = vec![self.data_dir.path().to_owned()];
        paths.extend(database.and_then(DatabaseService::cluster_dir).map(PathBuf::from));
        let guard = tokio::spawn(disk_guard::watch(paths, pause, self.readiness.clone()));
        let running = producer::run(settings, self.clock.clone(), shutdown, paused, self.progress.clone());
        self.readiness.ready("producer");
        let answers = watch_answers(self.progress.clone(), self.readiness.clone());
        let task = tokio::spawn(async move {
            let ended = tokio::select! {
                ended = running => ended,
                never = answers => match never {},
            };
            guard.abort();
            ended
        });
        ProducerTask { task, stop }
    }

    /// Waits until the roles are done, or are told to stop, and drains them in order: producer, then consumer.
    pub(super) async fn until_the_end(
        &self,
        producer: &mut Option<ProducerTask>,
        consumer: &mut Option<ConsumerTask>,
        broker: Option<&EmbeddedBroker>,
    ) -> Ended {
        let mut ended = Ended::default();
        let mut shutdown = self.shutdown.clone();
        let mut consumer_done = false;
        // A producer ends by itself, unless it cannot even begin.
        let patience =
            if producer.is_none() && consumer.is_none() { Duration::ZERO } else { self.plan.drain_timeout() };
        let latest = self.plan.flags().duration.map(|time| time.saturating_add(patience));
        tokio::select! {
            report = finished(producer.as_mut().map(|producer| &mut producer.task)) => {
                ended.take_producer(report);
                *producer = None;
            }
            report = finished(consumer.as_mut().map(|consumer| &mut consumer.task)) => {
                ended.take_consumer(report);
                consumer_done = true;
            }
            why = broker_failed(broker, &self.readiness) => {
                self.readiness.waiting("broker", why.clone());
                ended.fail(anyhow!("{why}; start finstream again: it recovers what was acknowledged"));
            }
            () = shutdown.reached(Stage::Drain) => {}
            () = elapsed(latest) => {}
        }
        let stopping = shutdown.requested() || ended.failure.is_some();
        let patience = if stopping { STOP_WITHIN.min(self.plan.drain_timeout()) } else { self.plan.drain_timeout() };
        let deadline = Instant::now() + patience;
        if let Some(producer) = producer {
            producer.stop.raise(Stage::Drain);
            match tokio::time::timeout_at(deadline, &mut producer.task).await {
                Ok(report) => ended.take_producer(report),
                Err(_) => ended.left.push("the producer still waits for acknowledgements".to_string()),
            }
        }
        if producer.is_some() && ended.producer.as_ref().is_some_and(|report| report.sent == 0 && !stopping) {
            ended.left.push("nothing was sent: the broker did not answer".to_string());
        }
        if let Some(consumer) = consumer
            && !consumer_done
        {
            self.drain_consumer(consumer, &mut ended, deadline).await;
        }
        ended
    }

    async fn drain_consumer(&self, consumer: &mut ConsumerTask, ended: &mut Ended, deadline: Instant) {
        match (&ended.producer, &consumer.drain_to) {
            // It ends by itself once PostgreSQL is beyond all of these, whoever owns the partition.
            (Some(report), Some(drain_to)) => {
                let targets = report.highest_acknowledged.iter().map(|(&partition, &offset)| (partition, offset));
                drain_to.send_replace(Some(targets.collect()));
            }
            _ => {
                consumer.drain_to = None;
                consumer.stop.raise(Stage::Drain);
            }
        }
        let mut shutdown = self.shutdown.clone();
        // Ctrl-C during a long drain shortens it.
        let stopped_early = async {
            shutdown.reached(Stage::Drain).await;
            tokio::time::sleep_until(deadline.min(Instant::now() + STOP_WITHIN)).await;
        };
        tokio::select! {
            report = &mut consumer.task => return ended.take_consumer(report),
            () = tokio::time::sleep_until(deadline) => {}
            () = stopped_early => {}
        }
        consumer.drain_to = None;
        consumer.stop.raise(Stage::Drain);
        match tokio::time::timeout(CONSUMER_STOP_WITHIN, &mut consumer.task).await {
            Ok(report) => ended.take_consumer(report),
            Err(_) => {
                consumer.stop.raise(Stage::Now);
                ended.left.push("the consumer did not stop in time".to_string());
            }
        }
        let behind = self.progress.lag_messages.load(Ordering::Relaxed).max(0) as u64;
        if behind > 0 {
            ended.left.push(format!(
                "about {} messages are in the log but not yet in PostgreSQL; the next start goes on with them",
                thousands(behind)
            ));
        }
    }
}

impl Ended {
    fn take_producer(&mut self, report: Result<Result<ProducerReport, ProducerError>, JoinError>) {
        match report {
            Ok(Ok(report)) => self.producer = Some(report),
            Ok(Err(error)) => self.fail(error.into()),
            Err(panic) => self.fail(anyhow!("the producer ended unexpectedly: {panic}")),
        }
    }

    fn take_consumer(&mut self, report: Result<Result<ConsumerReport, ConsumerError>, JoinError>) {
        match report {
            Ok(Ok(report)) if report.drained => {}
            Ok(Ok(report)) if report.left == 0 && self.producer.as_ref().is_none_or(|producer| producer.sent == 0) => {}
            Ok(Ok(report)) => self.left.push(format!(
                "not everything that was acknowledged is in PostgreSQL yet ({} messages were read but not stored); the next \
                 start goes on with them",
                thousands(report.left as u64)
            )),
            Ok(Err(error)) => self.fail(error.into()),
            Err(panic) => self.fail(anyhow!("the consumer ended unexpectedly: {panic}")),
        }
    }

    fn fail(&mut self, error: anyhow::Error) {
        // The first failure is the cause.
        self.failure.get_or_insert(error);
    }
}

/// The result of a task, or never where there is none.
async fn finished<T>(task: Option<&mut JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Resolves when the broker of this process acknowledges nothing any more. Reports meanwhile what only holds it up.
async fn broker_failed(broker: Option<&EmbeddedBroker>, readiness: &Readiness) -> String {
    let Some(broker) = broker else { return std::future::pending().await };
    let mut known = None;
    loop {
        if let Some(why) = broker.broker.failure() {
            return why.to_owned();
        }
        let obstacle = broker.broker.obstacle();
        if obstacle != known {
            metrics::gauge!(BROKER_REFUSES_APPENDS).set(if obstacle.is_some() { 1.0 } else { 0.0 });
            match &obstacle {
                Some(why) => readiness.waiting("broker", why.clone()),
                None => readiness.ready("broker"),
            }
            known = obstacle;
        }
        tokio::time::sleep(BROKER_LOOK_EVERY).await;
    }
}

async fn elapsed(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
