//! One process of the pipeline: starts its roles, watches them, drains them, audits the books.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::task::JoinHandle;

use super::console::{self, Goal, SampleChoice};
use super::database::DatabaseService;
use super::kafka::{self, BrokerEndpoint, EmbeddedBroker};
use super::plan::Plan;
use super::{Exit, signals, startup};
use crate::cli::Cli;
use crate::clock::{SharedClock, SystemClock};
use crate::config::ConfigError;
use crate::data_dir::{DataDir, DataDirError};
use crate::http::{self, About, HttpState, Readiness};
use crate::postgres::{Listening, Missing, PgSettings, PostgresError, PrivateCluster};
use crate::progress::Progress;
use crate::shutdown::{self, Shutdown, Stage};
use crate::source;

/// A consumer that runs alone shows one transaction and one total in this time.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// The private PostgreSQL of `--ephemeral` must be given up by every task within this.
const DISCARD_WITHIN: Duration = Duration::from_secs(5);
const DISCARD_RETRY: Duration = Duration::from_millis(50);

/// Runs the pipeline as the command line says.
///
/// # Errors
/// The first thing that could not be done, with its cure.
pub async fn run(cli: &Cli) -> anyhow::Result<Exit> {
    let plan = Plan::new(cli)?;
    let (trigger, shutdown) = shutdown::channel();
    signals::listen(trigger)?;
    check_files(&plan)?;
    let (data_dir, temporary) = open_data_dir(&plan)?;
    let mut now = shutdown.clone();
    let ended = tokio::select! {
        ended = Box::pin(Pipeline::run(plan, data_dir.clone(), shutdown)) => ended,
        () = now.reached(Stage::Now) => Ok(Exit::Failed),
    };
    if temporary.is_some() {
        discard(&data_dir).await?;
    }
    ended
}

/// Ends the private PostgreSQL of `--ephemeral`, on every way out: its files go with the temporary folder, or lie outside
/// of it.
async fn discard(data_dir: &DataDir) -> anyhow::Result<()> {
    let asked = Instant::now();
    loop {
        match PrivateCluster::destroy(data_dir).await {
            // What was cut short by a second signal is just letting go of it.
            Err(PostgresError::DataDir(DataDirError::Busy(_))) if asked.elapsed() < DISCARD_WITHIN => {
                tokio::time::sleep(DISCARD_RETRY).await;
            }
            done => return Ok(done?),
        }
    }
}

/// What all roles of this process share.
pub(super) struct Pipeline {
    pub plan: Plan,
    pub data_dir: DataDir,
    pub progress: Arc<Progress>,
    pub readiness: Readiness,
    pub known: http::Known,
    pub clock: SharedClock,
    pub shutdown: Shutdown,
    /// The private PostgreSQL's folder, once it is known.
    pub cluster_dir: Arc<OnceLock<PathBuf>>,
}

impl Pipeline {
    async fn run(plan: Plan, data_dir: DataDir, shutdown: Shutdown) -> anyhow::Result<Exit> {
        let pipeline = Pipeline {
            plan,
            data_dir,
            progress: Arc::new(Progress::new()),
            readiness: Readiness::new(),
            known: http::Known::default(),
            clock: SystemClock::shared(),
            shutdown,
            cluster_dir: Arc::default(),
        };
        Box::pin(pipeline.serve()).await
    }

    async fn serve(self) -> anyhow::Result<Exit> {
        let roles = self.plan.roles;
        for (role, runs) in [("broker", roles.broker), ("consumer", roles.consumer), ("producer", roles.producer)] {
            if runs {
                let is_elsewhere = !roles.broker && self.plan.brokers.is_none();
                let what =
                    if is_elsewhere { "a broker: start finstream --role broker, or give --brokers" } else { "start" };
                self.readiness.waiting(role, what);
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
        if let Some(database) = &database {
            self.known.set_reads(http::Reads::new(&database.database()));
        }
        let served = Box::pin(self.serve_roles(broker.as_ref(), database.as_ref(), http_address)).await;

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
        let broker = EmbeddedBroker::start(&self.data_dir, settings, true).await?;
        if self.plan.roles.consumer {
            // Until it is known what an audit has covered.
            let topic = self.plan.kafka(&broker.endpoint.kafka).transactions_topic();
            broker.broker.holder().hold(&topic, &BTreeMap::new());
        }
        self.readiness.ready("broker");
        Ok(Some(broker))
    }

    async fn start_database(&self) -> anyhow::Result<Option<DatabaseService>> {
        if !self.plan.roles.consumer {
            return Ok(None);
        }
        self.readiness.waiting("consumer", "PostgreSQL");
        let plan = &self.plan;
        let listen = plan.pg_listen.map_or(Listening::Closed, Listening::At);
        let settings = PgSettings { pg_bin: plan.pg_bin.clone(), listen };
        DatabaseService::start(&self.data_dir, plan.database_url.as_deref(), &plan.schema, settings, Missing::Create)
            .await
            .inspect(|database| {
                // Set once: a process has one database.
                let _ = self.cluster_dir.set(database.cluster_dir().map(PathBuf::from).unwrap_or_default());
            })
            .map(Some)
    }

    /// Binds and serves page, metrics and health.
    async fn open_windows(&self, shutdown: Shutdown) -> anyhow::Result<std::net::SocketAddr> {
        let (listen, explicit) = self.plan.http;
        let listener = http::bind(listen, explicit).await?;
        let address = listener.local_addr().context("the page's address")?;
        let metrics = http::install_recorder()?;
        self.start_gauges();
        let about = About { roles: self.plan.roles.names(), command: startup::own_command(self) };
        let (progress, readiness) = (self.progress.clone(), self.readiness.clone());
        let state = HttpState::about(about, progress, metrics, readiness, self.clock.clone(), self.known.clone());
        http::serve_on_thread(listener, state, shutdown).context("cannot start the page's thread")?;
        Ok(address)
    }

    async fn find_kafka(&self, broker: Option<&EmbeddedBroker>, page: SocketAddr) -> Option<BrokerEndpoint> {
        match (broker, &self.plan.brokers) {
            (Some(broker), _) => Some(broker.endpoint.clone()),
            (None, Some(brokers)) => {
                Some(BrokerEndpoint { kafka: brokers.clone(), port: 0, durability: "external".to_string(), pid: 0 })
            }
            (None, None) => {
                let mut shutdown = self.shutdown.clone();
                kafka::wait_for_running(&self.data_dir, page, &mut shutdown).await
            }
        }
    }

    async fn serve_roles(
        &self,
        broker: Option<&EmbeddedBroker>,
        database: Option<&DatabaseService>,
        http_address: SocketAddr,
    ) -> anyhow::Result<Exit> {
        let roles = self.plan.roles;
        let Some(endpoint) = self.find_kafka(broker, http_address).await else { return Ok(Exit::Done) };
        let settings = self.plan.kafka(&endpoint.kafka);
        let before = match database {
            Some(database) => Some(database.contents().await?),
            None => None,
        };
        startup::print(self, broker, &endpoint, database, before.as_ref(), http_address)?;

        let mut consumer = match database {
            Some(database) => Some(self.start_consumer(settings.clone(), database)?),
            None => None,
        };
        if roles.consumer && roles.producer {
            self.await_consumer(consumer.as_mut()).await;
        }
        let mut producer = roles.producer.then(|| self.start_producer(settings.clone(), &endpoint, database));
        let ready_file = startup::write_ready_file(self, &endpoint, database, http_address)?;

        let holder = broker.map(|broker| broker.broker.holder());
        let keeping = database.map(|database| self.start_keeping(database.database(), settings.clone(), holder));
        let samples = self.show_samples();
        let (live_stop, live_shutdown) = shutdown::channel();
        let flags = self.plan.flags();
        let goal = Goal { count: flags.count, duration: flags.duration };
        let live = tokio::spawn(console::live(self.progress.clone(), roles, goal, live_shutdown));
        let ended = self.until_the_end(&mut producer, &mut consumer, broker).await;
        drop(ready_file);
        if let Some(keeping) = keeping {
            keeping.abort();
            // It was told to end: how it did changes nothing.
            let _ = keeping.await;
        }
        live_stop.raise(Stage::Now);
        // The live line is only a view: whether its task ended well changes nothing.
        let _ = live.await;
        if let Some(samples) = samples {
            samples.abort();
        }
        self.conclude(ended, settings, database).await
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
}

/// What can be known before anything is started: the source opens, and the files that are to be written can be.
fn check_files(plan: &Plan) -> anyhow::Result<()> {
    if plan.roles.producer {
        source::check(&plan.source)?;
    }
    let flags = plan.flags();
    for (flag, file) in [("--summary", &flags.summary), ("--ready-file", &flags.ready_file)] {
        let Some(file) = file else { continue };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) || file.is_dir() {
            let what = format!("{flag} {}: cannot write there; name a file in a folder that exists", file.display());
            return Err(ConfigError::new(what).into());
        }
    }
    flags.ready_file.as_deref().map_or(Ok(()), startup::remove_ready_file)
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
