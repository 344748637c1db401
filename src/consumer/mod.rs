//! The consumer role: reads transactions, hands micro-batches to the sink, publishes changed totals.
//!
//! Owns the group membership, the place where batches fill, and when to stop. Must know neither the broker's inside nor
//! SQL: progress is the sink's, the log is reached over TCP.
//!
//! Some threads and tasks: one thread polls librdkafka (its callbacks may block there), one or two write to PostgreSQL,
//! each its own partitions, and [`run`] watches the clock, the stop signal and the drain.

mod assignment;
mod client;
mod handoff;
mod lanes;
mod last;
mod leave;
mod new_life;
mod orphans;
mod poll;
mod publisher;
mod rebalance;
mod record;
mod setup;
mod shared;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::error::KafkaError;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::aggregate::WindowLength;
use crate::clock::SharedClock;
use crate::config::ConsumerSettings;
use crate::postgres::{self, CONNECT_DEADLINE};
use crate::progress::Progress;
use crate::shutdown::{self, Shutdown, Stage};
use crate::sink::{Class, Mismatch, Patience, SinkError, WorkerSettings, claim_schema, open_stream, progress};
use handoff::Limits;
use lanes::Lanes;
pub use new_life::{PartitionInLog, TopicInLog, look_at_topic};
use poll::Poller;
use publisher::Publisher;
use shared::{Mode, Shared};

/// A stop by signal ends within 10 s; this much of it may go into draining.
const SIGNAL_DRAIN_MAX: Duration = Duration::from_secs(7);
/// Longest look at the log for the cure of a mismatch.
const EXPLAIN_WITHIN: Duration = Duration::from_secs(10);
/// One question to PostgreSQL at the start.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How often a drain looks at PostgreSQL.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Highest offset per partition that the producer in this process was told is stored.
pub type Acknowledged = HashMap<i32, i64>;

/// What a consumer has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerReport {
    /// Rows committed by this process.
    pub stored: u64,
    /// Dead letters committed by this process.
    pub dead_letters: u64,
    /// Last applied + 1 of each partition of the topic, by whoever owns it.
    pub next_offsets: BTreeMap<i32, i64>,
    /// Whether everything that was to be drained is in PostgreSQL.
    pub drained: bool,
    /// Messages that were read but not stored: the next start reads them again.
    pub left: usize,
}

/// Why a consumer stopped.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The sink's answer.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The log is not the one that was applied.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
    /// Kafka's answer.
    #[error("{what}: {error}")]
    Kafka { what: String, error: KafkaError },
    /// The input topic loses records by design.
    #[error(
        "topic {topic} is compacted (cleanup.policy={policy}): it loses records on purpose, totals over it would be \
             wrong. Use a topic with cleanup.policy=delete"
    )]
    Compacted { topic: String, policy: String },
    /// Someone else uses our name.
    #[error(
        "another consumer with the same group.instance.id has joined the group; each consumer needs a name of its own"
    )]
    FencedInstance,
    /// A defect of finstream.
    #[error("a thread of the consumer ended by a panic; this is a defect of finstream, please report it")]
    Panicked,
}

/// Runs the consumer until it is told to stop, its time is over, or it cannot go on.
///
/// `drain_to`: while its sender lives, a request to drain waits for the map (a producer in this process is finishing),
/// then for PostgreSQL to be beyond every offset in it, whoever owns the partition. Without a producer, drop the
/// sender: then a request to drain stores what was read and stops. After `settings.duration` it drains to the ends of
/// the partitions as they are then.
///
/// # Errors
/// [`ConsumerError`]; what was committed before stays committed.
pub async fn run(
    settings: ConsumerSettings,
    database: PgConnectOptions,
    clock: SharedClock,
    shutdown: Shutdown,
    progress: Arc<Progress>,
    drain_to: watch::Receiver<Option<Acknowledged>>,
) -> Result<ConsumerReport, ConsumerError> {
    let topic = settings.kafka.transactions_topic();
    let Some(mut connection) = connect(&database, &settings, &shutdown).await? else {
        return Ok(ConsumerReport::default());
    };
    let claiming = claim_schema(&mut connection, &settings.group, settings.window.and_then(WindowLength::of));
    let window_length = postgres::answered(START_DEADLINE, claiming).await?;
    let Some(found) = setup::find_topic(&settings.kafka, &topic, &shutdown).await? else {
        return Ok(ConsumerReport::default());
    };
    let opening = open_stream(&mut connection, &found.cluster_id, &topic, &found.log_starts);
    let stream = postgres::answered(START_DEADLINE, opening).await?;
    drop(connection);

    let limits = Limits { batch_messages_max: settings.batch_messages_max.max(1), batch_wait: settings.batch_wait };
    let shared =
        Arc::new(Shared::new(topic, Lanes::for_topic(found.log_starts.len(), limits), progress, clock.clone()));
    let watched = Arc::downgrade(&shared);
    shared.progress.seen.watch_partitions(move || Some(watched.upgrade()?.partitions_seen()));
    let worker = WorkerSettings {
        database: database.clone(),
        topic_ref: stream.topic_ref,
        instance: settings.group_instance_id.clone(),
        record_changes: settings.publish_aggregates,
        latency_layout: settings.latency_layout,
        window_length,
        clock,
    };
    let threads = Threads::start(&settings, worker, &shared, &shutdown)?;
    let (stop_publisher, stopped) = watch::channel(false);
    let publisher = settings.publish_aggregates.then(|| {
        let (kafka, group) = (settings.kafka.clone(), &settings.group);
        let publisher = Publisher::new(kafka, group, database.clone(), stream.topic_ref, shared.clone());
        tokio::spawn(publisher.run(stopped))
    });
    let mut supervisor = Supervisor {
        settings: &settings,
        shared: &shared,
        shutdown,
        drain_to,
        database: &database,
        topic_ref: stream.topic_ref,
    };
    let drained = supervisor.watch().await;
    threads.join().await?;
    // After the threads: the last batch has its totals published, too.
    stop_publisher.send_replace(true);
    if let Some(publisher) = publisher {
        publisher.await.map_err(|_| ConsumerError::Panicked)?;
    }
    if let Some(failure) = shared.take_failure() {
        return Err(explained(failure, &settings, &database, stream.topic_ref).await);
    }
    Ok(supervisor.report(drained).await)
}

/// Adds to a mismatch where the log goes on with what is not in the totals: its cure must count nothing twice.
async fn explained(
    failure: ConsumerError,
    settings: &ConsumerSettings,
    database: &PgConnectOptions,
    topic_ref: i32,
) -> ConsumerError {
    let ConsumerError::Mismatch(mut mismatch) = failure else { return failure };
    let (_trigger, shutdown) = shutdown::channel();
    let look = async {
        let mut connection = postgres::connect(database, CONNECT_DEADLINE).await.ok()?;
        let looked = look_at_topic(&settings.kafka, &mut connection, &mismatch.topic, topic_ref, &shutdown).await;
        looked.ok().flatten()?.partitions.into_iter().find(|found| found.partition == mismatch.partition)
    };
    // Without an answer the cure names the log's start, and `finstream reset` looks again before it does anything.
    if let Ok(Some(found)) = tokio::time::timeout(EXPLAIN_WITHIN, look).await {
        mismatch.log = found.log;
        mismatch.go_on_at = found.go_on_at();
    }
    ConsumerError::Mismatch(mismatch)
}

/// Connects to PostgreSQL, waiting while it is down; none when it is time to stop.
async fn connect(
    database: &PgConnectOptions,
    settings: &ConsumerSettings,
    shutdown: &Shutdown,
) -> Result<Option<PgConnection>, ConsumerError> {
    let mut patience = Patience::new(shutdown.clone(), settings.drain_timeout);
    let mut has_said_so = false;
    loop {
        match postgres::connect(database, CONNECT_DEADLINE).await.map_err(SinkError::from) {
            Ok(connection) => return Ok(Some(connection)),
            Err(error) if error.class() == Class::Outage => {
                if !has_said_so {
                    tracing::warn!("{error}; waiting for PostgreSQL");
                    has_said_so = true;
                }
            }
            Err(error) => return Err(error.into()),
        }
        if shutdown.requested() || !patience.wait().await {
            return Ok(None);
        }
    }
}

/// The polling thread, then the writing ones.
struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    fn start(
        settings: &ConsumerSettings,
        worker: WorkerSettings,
        shared: &Arc<Shared>,
        shutdown: &Shutdown,
    ) -> Result<Self, ConsumerError> {
        let poller = Poller::subscribe(
            &client::consumer_config(settings),
            shared.clone(),
            settings.drain_timeout.min(SIGNAL_DRAIN_MAX),
        )
        .map_err(|error| ConsumerError::Kafka { what: "joining the consumer group".to_owned(), error })?;
        let patience = Patience::new(shutdown.clone(), settings.drain_timeout.min(SIGNAL_DRAIN_MAX))
            .marking(shared.progress.database_away.clone());
        let mut threads = vec![spawn("finstream-poll".to_owned(), move || poller.run())?];
        for lane in 0..shared.lanes.count() {
            let (worker, patience, shared) = (worker.clone(), patience.clone(), shared.clone());
            threads.push(spawn(format!("finstream-sink-{lane}"), move || {
                if let Err(error) = writer::run(worker, &shared, lane, patience) {
                    shared.fail(error.into());
                }
            })?);
        }
        Ok(Threads(threads))
    }

    /// Waits for all; the poller lets the writers end.
    async fn join(self) -> Result<(), ConsumerError> {
        for thread in self.0 {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            joined.map_err(|_| ConsumerError::Panicked)?.map_err(|_| ConsumerError::Panicked)?;
        }
        Ok(())
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ConsumerError> {
    std::thread::Builder::new().name(name).spawn(work).map_err(|error| ConsumerError::Sink(SinkError::from(error)))
}

/// Decides when it is over.
struct Supervisor<'a> {
    settings: &'a ConsumerSettings,
    shared: &'a Arc<Shared>,
    shutdown: Shutdown,
    drain_to: watch::Receiver<Option<Acknowledged>>,
    database: &'a PgConnectOptions,
    topic_ref: i32,
}

impl Supervisor<'_> {
    /// Waits for the reason to stop, and drains; whether everything that was to be drained is in PostgreSQL.
    async fn watch(&mut self) -> bool {
        let time_is_over = self.settings.duration.map(|duration| Instant::now() + duration);
        let mut shutdown = self.shutdown.clone();
        let mut drain_to = self.drain_to.clone();
        tokio::select! {
            () = shutdown.reached(Stage::Drain) => {}
            Ok(_) = drain_to.wait_for(Option::is_some) => {}
            () = reached(time_is_over) => {}
            () = self.shared.failed.notified() => return false,
        }
        let bound = if self.shutdown.requested() {
            self.settings.drain_timeout.min(SIGNAL_DRAIN_MAX)
        } else {
            self.settings.drain_timeout
        };
        let drained = tokio::select! {
            drained = self.drain() => drained,
            () = tokio::time::sleep(bound) => false,
            () = shutdown.reached(Stage::Now) => {
                self.shared.raise(Mode::Now);
                false
            }
            () = self.shared.failed.notified() => false,
        };
        self.shared.raise(Mode::Stop);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            // The threads are still storing what was read; a second signal must reach them.
            shutdown.reached(Stage::Now).await;
            if shutdown.stage() == Stage::Now {
                shared.raise(Mode::Now);
            }
        });
        drained
    }

    async fn drain(&self) -> bool {
        let mut drain_to = self.drain_to.clone();
        // An error means that no producer of this process will ever say what it was told.
        let acknowledged = match drain_to.wait_for(Option::is_some).await {
            Ok(acknowledged) => acknowledged.clone(),
            Err(_) => None,
        };
        match acknowledged {
            Some(acknowledged) => self.applied_beyond(&acknowledged).await,
            None if self.shutdown.requested() => true,
            None => {
                self.shared.raise(Mode::DrainToEnds);
                // The polling thread ends by itself when it is there.
                while self.shared.mode() < Mode::Stop && !self.shared.assignment().is_empty() {
                    tokio::time::sleep(DRAIN_LOOK_EVERY).await;
                }
                true
            }
        }
    }

    /// Waits until PostgreSQL is beyond every acknowledged offset, whoever owns the partition.
    async fn applied_beyond(&self, acknowledged: &Acknowledged) -> bool {
        let mut connection = None;
        loop {
            if let Some(next_offsets) = self.next_offsets(&mut connection).await
                && acknowledged
                    .iter()
                    .all(|(partition, offset)| next_offsets.get(partition).is_some_and(|next| next > offset))
            {
                return true;
            }
            tokio::time::sleep(DRAIN_LOOK_EVERY).await;
        }
    }

    /// How far PostgreSQL is; none while it is away.
    async fn next_offsets(&self, connection: &mut Option<PgConnection>) -> Option<BTreeMap<i32, i64>> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => postgres::connect(self.database, CONNECT_DEADLINE).await.ok()?,
        };
        let partitions = postgres::answered(CONNECT_DEADLINE, progress(&mut open, self.topic_ref)).await.ok()?;
        *connection = Some(open);
        Some(partitions.into_iter().map(|partition| (partition.partition, partition.next_offset)).collect())
    }

    async fn report(&self, drained: bool) -> ConsumerReport {
        let counters = &self.shared.progress;
        ConsumerReport {
            stored: counters.stored.load(Ordering::Relaxed),
            dead_letters: counters.dead_letters.load(Ordering::Relaxed),
            next_offsets: self.next_offsets(&mut None).await.unwrap_or_default(),
            drained,
            left: self.shared.lanes.pending(),
        }
    }
}

/// Resolves at a point in time; never when there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
