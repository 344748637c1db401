//! One process of the pipeline: starts its roles, watches them, drains them, audits the books.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::console::{self, Goal, SampleChoice};
use super::database::DatabaseService;
use super::figures::thousands;
use super::kafka::{self, BrokerEndpoint, EmbeddedBroker};
use super::plan::Plan;
use super::summary::Summary;
use super::{Exit, disk_guard, signals, startup};
use crate::cli::Cli;
use crate::clock::{SharedClock, SystemClock};
use crate::config::KafkaSettings;
use crate::consumer::{self, ConsumerReport};
use crate::data_dir::{DataDir, InstanceSlot};
use crate::http::{self, HttpState, Readiness};
use crate::producer::{self, ProducerReport};
use crate::progress::Progress;
use crate::shutdown::{self, Shutdown, Stage, Trigger};

/// From Ctrl-C to the end, at most; what is not done by then is said.
const STOP_WITHIN: Duration = Duration::from_secs(9);
/// A consumer that does not drain is asked to stop cleanly, and given this long.
const CONSUMER_STOP_WITHIN: Duration = Duration::from_secs(3);
/// A producer in one process with its consumer begins when the consumer has its partitions, or after this long.
const CONSUMER_HEAD_START: Duration = Duration::from_secs(10);
/// A consumer that runs alone shows one transaction and one total in this time.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// Runs the pipeline as the command line says.
///
/// # Errors
/// The first thing that could not be done, with its cure.
pub async fn run(cli: &Cli) -> anyhow::Result<Exit> {
    let plan = Plan::new(cli)?;
    let (trigger, shutdown) = shutdown::channel();
    signals::listen(trigger)?;
    let mut now = shutdown.clone();
    tokio::select! {
        ended = Box::pin(Pipeline::run(plan, shutdown)) => ended,
        () = now.reached(Stage::Now) => Ok(Exit::Failed),
    }
}

/// What all roles of this process share.
pub(super) struct Pipeline {
    pub plan: Plan,
    pub data_dir: DataDir,
    pub progress: Arc<Progress>,
    readiness: Readiness,
    clock: SharedClock,
    shutdown: Shutdown,
}

/// The consumer role while it runs.
struct ConsumerTask {
    task: JoinHandle<Result<ConsumerReport, consumer::ConsumerError>>,
    stop: Trigger,
    drain_to: watch::Sender<Option<HashMap<i32, i64>>>,
    _slot: InstanceSlot,
}

/// The producer role while it runs.
struct ProducerTask {
    task: JoinHandle<Result<ProducerReport, producer::ProducerError>>,
    stop: Trigger,
}

/// How the roles ended.
#[derive(Default)]
struct Ended {
    producer: Option<ProducerReport>,
    /// What could not be finished.
    left: Vec<String>,
    failure: Option<anyhow::Error>,
}

impl Pipeline {
    async fn run(plan: Plan, shutdown: Shutdown) -> anyhow::Result<Exit> {
        let (data_dir, _temporary) = open_data_dir(&plan)?;
        let pipeline = Pipeline {
            plan,
            data_dir,
            progress: Arc::new(Progress::new()),
            readiness: Readiness::new(),
            clock: SystemClock::shared(),
            shutdown,
        };
        pipeline.serve().await
    }

    async fn serve(self) -> anyhow::Result<Exit> {
        let roles = self.plan.roles;
        for (role, runs) in [("broker", roles.broker), ("consumer", roles.consumer), ("producer", roles.producer)] {
            if runs {
                self.readiness.waiting(role, "start");
            }
        }
        let (http_stop, http_shutdown) = shutdown::channel();
        let http_address = self.open_windows(http_shutdown).await?;

        let (broker, database) = tokio::join!(self.start_broker(), self.start_database());
        // Both were started at once; if one of them failed, the other is stopped before the error is told.
        let (broker, database) = match (broker, database) {
            (Ok(broker), Ok(database)) => (broker, database),
            (broker, database) => {
                let mut errors = Vec::new();
                match broker {
                    Ok(Some(broker)) => errors.extend(broker.stop().await.err()),
                    Ok(None) => {}
                    Err(error) => errors.insert(0, error),
                }
                match database {
                    Ok(Some(database)) => errors.extend(database.release().await.err()),
                    Ok(None) => {}
                    Err(error) => errors.insert(0, error),
                }
                return Err(errors.into_iter().next().unwrap_or_else(|| anyhow!("start-up failed")));
            }
        };
        let served = self.serve_roles(broker.as_ref(), database.as_ref(), http_address).await;

        http_stop.raise(Stage::Drain);
        let broker_stopped = match broker {
            Some(broker) => broker.stop().await,
            None => Ok(()),
        };
        let database_released = match database {
            Some(database) => database.release().await,
            None => Ok(()),
        };
        let exit = served?;
        broker_stopped?;
        database_released?;
        Ok(exit)
    }

    async fn start_broker(&self) -> anyhow::Result<Option<EmbeddedBroker>> {
        if !self.plan.roles.broker {
            return Ok(None);
        }
        let settings = self.plan.broker(self.data_dir.path().join("broker"));
        let broker = EmbeddedBroker::start(&self.data_dir, settings).await?;
        self.readiness.ready("broker");
        Ok(Some(broker))
    }

    async fn start_database(&self) -> anyhow::Result<Option<DatabaseService>> {
        if !self.plan.roles.consumer {
            return Ok(None);
        }
        self.readiness.waiting("consumer", "PostgreSQL");
        let plan = &self.plan;
        DatabaseService::start(&self.data_dir, plan.database_url.as_deref(), &plan.schema, plan.pg_bin.as_deref())
            .await
            .map(Some)
    }

    /// Binds and serves page, metrics and health.
    async fn open_windows(&self, shutdown: Shutdown) -> anyhow::Result<std::net::SocketAddr> {
        let (listen, explicit) = self.plan.http;
        let listener = http::bind(listen, explicit).await?;
        let address = listener.local_addr().context("the page's address")?;
        let metrics = http::install_recorder()?;
        let upkeep = metrics.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(http::UPKEEP_INTERVAL);
            loop {
                interval.tick().await;
                upkeep.run_upkeep();
            }
        });
        let state = HttpState::new(self.progress.clone(), metrics, self.readiness.clone());
        tokio::spawn(async move {
            if let Err(error) = http::serve(listener, state, shutdown).await {
                eprintln!("The page stopped: {error}; the pipeline goes on.");
            }
        });
        Ok(address)
    }

    async fn find_kafka(&self, broker: Option<&EmbeddedBroker>) -> anyhow::Result<BrokerEndpoint> {
        match (broker, &self.plan.brokers) {
            (Some(broker), _) => Ok(broker.endpoint.clone()),
            (None, Some(brokers)) => {
                Ok(BrokerEndpoint { kafka: brokers.clone(), durability: "external".to_string(), pid: 0 })
            }
            (None, None) => {
                let mut shutdown = self.shutdown.clone();
                kafka::wait_for_running(&self.data_dir, &mut shutdown).await
            }
        }
    }

    async fn serve_roles(
        &self,
        broker: Option<&EmbeddedBroker>,
        database: Option<&DatabaseService>,
        http_address: std::net::SocketAddr,
    ) -> anyhow::Result<Exit> {
        let roles = self.plan.roles;
        let endpoint = self.find_kafka(broker).await?;
        let settings = self.plan.kafka(&endpoint.kafka);
        let before = match database {
            Some(database) => Some(database.contents().await?),
            None => None,
        };
        startup::print(self, broker, &endpoint, database, before.as_ref(), http_address)?;

        let started = Instant::now();
        let mut consumer = match database {
            Some(database) => Some(self.start_consumer(settings.clone(), database)?),
            None => None,
        };
        if roles.consumer && roles.producer {
            self.await_consumer(consumer.as_mut()).await;
        }
        let mut producer = roles.producer.then(|| self.start_producer(settings.clone(), &endpoint, database));
        startup::write_ready_file(self, &endpoint, database, http_address)?;

        let samples = self.show_samples();
        let (live_stop, live_shutdown) = shutdown::channel();
        let flags = self.plan.flags();
        let goal = Goal { count: flags.count, duration: flags.duration };
        let live = tokio::spawn(console::live(self.progress.clone(), roles, goal, live_shutdown));
        let ended = self.until_the_end(&mut producer, &mut consumer).await;
        let busy = started.elapsed();
        live_stop.raise(Stage::Now);
        // The live line is only a view: whether its task ended well changes nothing.
        let _ = live.await;
        if let Some(samples) = samples {
            samples.abort();
        }
        self.conclude(ended, settings, database, busy).await
    }

    fn start_consumer(&self, kafka: KafkaSettings, database: &DatabaseService) -> anyhow::Result<ConsumerTask> {
        let slot = self.data_dir.instance_slot()?;
        let settings = self.plan.consumer(kafka, &slot.group_instance_id);
        let (stop, shutdown) = shutdown::channel();
        let (drain_to, drain_to_watcher) = watch::channel(None);
        self.readiness.waiting("consumer", "its partitions");
        let readiness = self.readiness.clone();
        let running = consumer::run(
            settings,
            database.database(),
            self.clock.clone(),
            shutdown,
            self.progress.clone(),
            drain_to_watcher,
            Box::new(move || readiness.ready("consumer")),
        );
        Ok(ConsumerTask { task: tokio::spawn(running), stop, drain_to, _slot: slot })
    }

    /// Gives the consumer its head start, so that the first messages do not wait for its group to form.
    async fn await_consumer(&self, consumer: Option<&mut ConsumerTask>) {
        let Some(consumer) = consumer else { return };
        let mut shutdown = self.shutdown.clone();
        let assigned = async {
            while self.readiness.waiting_for().contains_key("consumer") && !consumer.task.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = assigned => {}
            () = tokio::time::sleep(CONSUMER_HEAD_START) => {}
            () = shutdown.reached(Stage::Drain) => {}
        }
    }

    fn start_producer(
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
        let guard = tokio::spawn(disk_guard::watch(paths, pause));
        let running = producer::run(settings, self.clock.clone(), shutdown, paused, self.progress.clone());
        self.readiness.ready("producer");
        let task = tokio::spawn(async move {
            let ended = running.await;
            guard.abort();
            ended
        });
        ProducerTask { task, stop }
    }

    fn show_samples(&self) -> Option<JoinHandle<()>> {
        let (roles, flags) = (self.plan.roles, self.plan.flags());
        let asked = flags.print_transactions || flags.print_aggregates;
        let alone = roles.consumer && !roles.producer && !roles.broker;
        if !roles.consumer || !(asked || alone) || (self.plan.json() && !asked) {
            return None;
        }
        let choice = match asked {
            true => SampleChoice {
                transactions: flags.print_transactions,
                aggregates: flags.print_aggregates,
                at_most_every: None,
            },
            false => SampleChoice { transactions: true, aggregates: true, at_most_every: Some(SAMPLE_EVERY) },
        };
        Some(tokio::spawn(console::print_samples(self.progress.clone(), choice)))
    }

    /// Waits until the roles are done, or are told to stop, and drains them in order: producer, then consumer.
    async fn until_the_end(&self, producer: &mut Option<ProducerTask>, consumer: &mut Option<ConsumerTask>) -> Ended {
        let mut ended = Ended::default();
        let mut shutdown = self.shutdown.clone();
        let mut consumer_done = false;
        let broker_only_time = self.plan.flags().duration.filter(|_| producer.is_none() && consumer.is_none());
        tokio::select! {
            report = finished(producer.as_mut().map(|producer| &mut producer.task)) => {
                ended.take_producer(report);
                *producer = None;
            }
            report = finished(consumer.as_mut().map(|consumer| &mut consumer.task)) => {
                ended.take_consumer(report);
                consumer_done = true;
            }
            () = shutdown.reached(Stage::Drain) => {}
            () = elapsed(broker_only_time) => {}
        }
        let stopping = shutdown.requested();
        let patience = if stopping { STOP_WITHIN.min(self.plan.drain_timeout()) } else { self.plan.drain_timeout() };
        let deadline = tokio::time::Instant::now() + patience;
        if let Some(producer) = producer {
            producer.stop.raise(Stage::Drain);
            match tokio::time::timeout_at(deadline, &mut producer.task).await {
                Ok(report) => ended.take_producer(report),
                Err(_) => ended.left.push("the producer still waits for acknowledgements".to_string()),
            }
        }
        if let Some(consumer) = consumer
            && !consumer_done
        {
            self.drain_consumer(consumer, &mut ended, deadline).await;
        }
        ended
    }

    async fn drain_consumer(&self, consumer: &mut ConsumerTask, ended: &mut Ended, deadline: tokio::time::Instant) {
        match &ended.producer {
            Some(report) => {
                let targets = report.highest_acknowledged.iter().map(|(&partition, &offset)| (partition, offset));
                consumer.drain_to.send_replace(Some(targets.collect()));
            }
            None => consumer.stop.raise(Stage::Drain),
        }
        let mut shutdown = self.shutdown.clone();
        // Ctrl-C during a long drain shortens it.
        let stopped_early = async {
            shutdown.reached(Stage::Drain).await;
            tokio::time::sleep(STOP_WITHIN).await;
        };
        tokio::select! {
            report = &mut consumer.task => return ended.take_consumer(report),
            () = tokio::time::sleep_until(deadline) => {}
            () = stopped_early => {}
        }
        let behind = self.progress.lag_messages.load(Ordering::Relaxed).max(0) as u64;
        ended.left.push(format!(
            "about {} messages are in the log but not yet in PostgreSQL; the next start goes on with them",
            thousands(behind)
        ));
        consumer.stop.raise(Stage::Drain);
        match tokio::time::timeout(CONSUMER_STOP_WITHIN, &mut consumer.task).await {
            Ok(report) => ended.take_consumer(report),
            Err(_) => consumer.stop.raise(Stage::Now),
        }
    }

    async fn conclude(
        &self,
        ended: Ended,
        kafka: KafkaSettings,
        database: Option<&DatabaseService>,
        busy: Duration,
    ) -> anyhow::Result<Exit> {
        let roles = self.plan.roles;
        if !roles.producer && !roles.consumer {
            return Ok(Exit::Done);
        }
        let run_id = ended.producer.as_ref().map(|report| report.run_id.to_string());
        let mut summary = Summary::take(&self.progress, roles, run_id, busy, startup::next_command(self));
        summary.notes.extend(ended.producer.iter().flat_map(|report| report.notes()));
        summary.notes.extend(ended.left.iter().cloned());
        let mut exit = if ended.left.is_empty() { Exit::Done } else { Exit::Failed };
        if let Some(database) = database {
            summary.top_users = database.top_users().await.unwrap_or_default();
            // Only where the whole pipeline is here is anyone waiting for the answer.
            if roles.producer && ended.failure.is_none() && ended.left.is_empty() {
                let (audit, verdict) = self.audit(kafka, database).await;
                summary.audit = Some(audit);
                exit = verdict;
            }
        }
        if let Some(file) = &self.plan.flags().summary {
            let text = serde_json::to_string_pretty(&summary)?;
            std::fs::write(file, text).with_context(|| format!("cannot write the summary to {}", file.display()))?;
        }
        super::print(&if self.plan.json() { serde_json::to_string(&summary)? } else { summary.to_string() })?;
        match ended.failure {
            Some(failure) => Err(failure),
            None => Ok(exit),
        }
    }
}

impl Ended {
    fn take_producer(&mut self, report: Result<Result<ProducerReport, producer::ProducerError>, tokio::task::JoinError>) {
        match report {
            Ok(Ok(report)) => self.producer = Some(report),
            Ok(Err(error)) => self.fail(error.into()),
            Err(panic) => self.fail(anyhow!("the producer ended unexpectedly: {panic}")),
        }
    }

    fn take_consumer(&mut self, report: Result<Result<ConsumerReport, consumer::ConsumerError>, tokio::task::JoinError>) {
        match report {
            Ok(Ok(_)) => {}
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
async fn finished<T>(task: Option<&mut JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

async fn elapsed(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// The data directory, and the folder that is removed at exit if it is temporary.
fn open_data_dir(plan: &Plan) -> anyhow::Result<(DataDir, Option<tempfile::TempDir>)> {
    match &plan.data_dir {
        Some(path) => Ok((DataDir::open(path)?, None)),
        None => {
            let temporary = tempfile::Builder::new()
                .prefix("finstream-")
                .tempdir()
                .context("cannot make a temporary folder for --ephemeral")?;
            Ok((DataDir::open(temporary.path())?, Some(temporary)))
        }
    }
}
