//! The listener: accepts clients, bounds their number, and stops them in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::{counter, gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::budget::{AnswerBudget, RequestBudget};
use super::catalog::{Catalog, CatalogError};
use super::complaints::{Complaints, Flood, Tell};
use super::connection;
use super::fetch_sessions::FetchSessions;
use super::frame::FrameError;
use super::group::{Coordinator, GroupsError};
use super::hold::Holder;
use super::internal_topic::{CONSUMER_OFFSETS, InternalTopic};
use super::limits::Limits;
use super::log::{AppendError, Log, LogSettings, OpenError, RecoveryReport};
use super::node::{Node, new_cluster_id};
use super::open_files;
use super::places::{Place, Places, Refusal};
use super::producer_ids::ProducerIds;
use super::txn;
use crate::clock::{SharedClock, SystemClock};
use crate::config::{BrokerSettings, HostPort};
use crate::metrics::{BROKER_CONNECTIONS, BROKER_CONNECTIONS_TOTAL, BROKER_REFUSED_CONNECTIONS_TOTAL};

const CLUSTER_ID_KEY: &[u8] = b"cluster/id";
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long answers that wait for a sync may take once the broker stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A pause after a failed accept: file descriptors run out, and come back.
const HOUSEKEEPING_ENDS_WITHIN: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the broker did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The listen address cannot be had.
    #[error("cannot listen on {address}: {source}; stop the other process there or choose another --kafka-listen")]
    Listen { address: SocketAddr, source: std::io::Error },
    /// The log did not open or close.
    #[error("broker log in {dir}: {source}")]
    Log { dir: PathBuf, source: OpenError },
    /// Start-up could not write what it must remember.
    #[error("broker state in {dir}: {source}")]
    State { dir: PathBuf, source: AppendError },
    /// The topics did not open.
    #[error("topics in {dir}: {source}")]
    Catalog { dir: PathBuf, source: CatalogError },
    /// The groups did not open.
    #[error("consumer groups in {dir}: {source}")]
    Groups { dir: PathBuf, source: GroupsError },
    /// The transactions did not open.
    #[error("transactions in {dir}: {source}")]
    Transactions { dir: PathBuf, source: txn::OpenError },
}

/// A running broker. Dropping it stops it without a clean mark; `stop` is the way to end it.
pub struct Broker {
    address: SocketAddr,
    pub(super) node: Arc<Node>,
    recovery: RecoveryReport,
    dir: PathBuf,
    stop: watch::Sender<bool>,
    listener: JoinHandle<()>,
    housekeeping: JoinHandle<()>,
}

impl Broker {
    /// Opens the log in `settings.dir`, recovers it, binds, and serves.
    ///
    /// # Errors
    /// The address is taken, the log or its state cannot be read or written.
    pub async fn start(settings: BrokerSettings) -> Result<Broker, BrokerError> {
        Self::start_with(settings, Limits::default()).await
    }

    /// As `start`, with limits of one's own.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_with(settings: BrokerSettings, mut limits: Limits) -> Result<Broker, BrokerError> {
        let dir = settings.dir.clone();
        let files_max = open_files::raise_limit();
        // Bind first: a port that is taken is the common mistake, and recovery can take long.
        let listen = |source| BrokerError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let HostPort { host, port } = settings.advertise.clone().unwrap_or_else(|| advertised(address));

        let log_settings = LogSettings { durability: settings.durability, journal_bytes_max: JOURNAL_BYTES_MAX };
        let (opened, log_dir) = (dir.clone(), dir.clone());
        // Recovery reads files for as long as it takes; other tasks of this runtime must go on.
        let opening = tokio::task::spawn_blocking(move || Log::open(&opened, log_settings));
        let (log, recovery) = match opening.await {
            Ok(result) => result.map_err(|source| BrokerError::Log { dir: log_dir, source })?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let cluster_id = cluster_id(&log).await.map_err(|source| BrokerError::State { dir: dir.clone(), source })?;
        let catalog = Catalog::open(log.clone(), &settings)
            .await
            .map_err(|source| BrokerError::Catalog { dir: dir.clone(), source })?;
        let clock = SystemClock::shared();
        let groups = open_groups(&log, &catalog, settings.group_initial_rebalance_delay, &clock)
            .await
            .map_err(|source| BrokerError::Groups { dir: dir.clone(), source })?;
        let producer_ids = Arc::new(ProducerIds::open(log.clone()));
        let transactions = txn::Coordinator::open(catalog.clone(), groups.clone(), producer_ids.clone(), clock.clone())
            .await
            .map_err(|source| BrokerError::Transactions { dir: dir.clone(), source })?;
        // Now that the log's files are open.
        let configured = limits.connections_max;
        limits.connections_max = open_files::connections_max(configured, files_max);
        if limits.connections_max < configured {
            // What is kept for others stays kept.
            let part = limits.connections_max - limits.connections_max / 4;
            limits.connections_per_address_max = limits.connections_per_address_max.min(part);
        }
        let answers = AnswerBudget::new(limits.all_answers_bytes_max);
        let requests = RequestBudget::new(limits.all_requests_bytes_max);
        let node = Arc::new(Node {
            cluster_id,
            host,
            port,
            log,
            catalog,
            groups,
            producer_ids,
            transactions,
            fetch_sessions: FetchSessions::default(),
            answers,
            requests,
            limits,
            clock,
        });

        let (stop, stopped) = watch::channel(false);
        let listener = tokio::spawn(accept(node.clone(), listener, limits, stopped.clone()));
        let housekeeping = tokio::spawn(keep_house(node.clone(), limits.housekeeping_pause, stopped));
        Ok(Broker { address, node, recovery, dir, stop, listener, housekeeping })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster id, made once per data directory.
    pub fn cluster_id(&self) -> &str {
        &self.node.cluster_id
    }

    /// Holds records against retention.
    pub fn holder(&self) -> Holder {
        Holder(Arc::downgrade(&self.node))
    }

    /// What start-up found in the log.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Bytes on disk of the log and its state.
    pub fn disk_bytes(&self) -> u64 {
        self.node.log.disk_bytes()
    }

    /// Why nothing is acknowledged any more; none while all is well. Only a restart cures it.
    pub fn failure(&self) -> Option<&str> {
        self.node.log.failure()
    }

    /// Why appends are refused, or wait, for the time being; it is over by itself once the cause is.
    pub fn obstacle(&self) -> Option<String> {
        self.node.log.obstacle()
    }

    /// Takes no further requests, answers those that are carried out, and closes the log with a clean mark.
    ///
    /// # Errors
    /// The log cannot be closed cleanly; the next start recovers it.
    pub async fn stop(mut self) -> Result<(), BrokerError> {
        self.stop.send_replace(true);
        let _ = self.listener.await;
        // A full disk may hold it up, until the log is told to stop. What it does can end anywhere.
        let ended = tokio::time::timeout(HOUSEKEEPING_ENDS_WITHIN, &mut self.housekeeping).await;
        if ended.is_err() {
            self.housekeeping.abort();
        }
        self.node.transactions.stop();
        self.node.groups.stop();
        self.node.log.close().await.map_err(|source| BrokerError::Log { dir: self.dir, source })
    }
}

fn advertised(bound: SocketAddr) -> HostPort {
    // "Any address" is a fine place to listen, and no place to connect to.
    let host = if bound.ip().is_unspecified() { "localhost".to_owned() } else { bound.ip().to_string() };
    HostPort { host, port: bound.port() }
}

/// All groups, without the offsets that a crash between the deletion of a topic and theirs has left: its successor of the
/// same name would not be read from its beginning.
async fn open_groups(
    log: &Log,
    catalog: &Catalog,
    initial_delay: Duration,
    clock: &SharedClock,
) -> Result<Coordinator, GroupsError> {
    let topic = InternalTopic::open(catalog.clone(), CONSUMER_OFFSETS);
    let groups = Coordinator::open(log, topic, initial_delay, clock.clone()).await?;
    let known = catalog.clone();
    if let Err(error) = groups.forget_offsets(None, move |(topic, _)| known.topic(topic).is_none()).await {
        tracing::error!("offsets committed for topics that were deleted remain: {error}");
    }
    Ok(groups)
}

async fn cluster_id(log: &Log) -> Result<String, AppendError> {
    if let Some((_, id)) = log.state(CLUSTER_ID_KEY).into_iter().next() {
        return Ok(String::from_utf8_lossy(&id).into_owned());
    }
    let id = new_cluster_id();
    log.put_state_synced(vec![(Bytes::from_static(CLUSTER_ID_KEY), Some(Bytes::from(id.clone())))]).await?;
    Ok(id)
}

async fn accept(node: Arc<Node>, listener: TcpListener, limits: Limits, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let places = Places::new(&limits);
    let complaints = Arc::new(Complaints::default());
    let (mut crowd, mut hoarder, mut trouble) = (Flood::default(), Flood::default(), Flood::default());
    loop {
        gauge!(BROKER_CONNECTIONS).set(places.taken() as f64);
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => match places.take(peer.ip()) {
                    Ok(place) => {
                        counter!(BROKER_CONNECTIONS_TOTAL).increment(1);
                        let complaints = complaints.clone();
                        connections.spawn(serve(node.clone(), socket, peer, limits, stop.clone(), place, complaints));
                    }
                    Err(refusal) => {
                        counter!(BROKER_REFUSED_CONNECTIONS_TOTAL).increment(1);
                        let flood = if matches!(refusal, Refusal::All(_)) { &mut crowd } else { &mut hoarder };
                        if flood.begins() {
                            tracing::warn!(%peer, "connection refused: {refusal}; so are all that follow");
                        }
                        drop(socket);
                    }
                },
                Err(error) => {
                    if trouble.begins() {
                        tracing::warn!("cannot accept a connection: {error}; it is tried again");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
        tracing::warn!("some clients did not take their answers within {STOP_TIMEOUT:?}; their connections are cut");
    }
}

async fn serve(
    node: Arc<Node>,
    socket: TcpStream,
    peer: SocketAddr,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    _place: Place,
    complaints: Arc<Complaints>,
) {
    match connection::serve(node, socket, limits, async move { stopped(&mut stop).await }).await {
        Ok(()) => {}
        // Clients come and go.
        Err(error @ (FrameError::Io(_) | FrameError::Idle(_) | FrameError::Unread(_) | FrameError::Slow { .. })) => {
            tracing::debug!(%peer, "connection closed: {error}")
        }
        Err(error) => match complaints.note() {
            Tell::Line { untold_before: 0 } => tracing::warn!(%peer, "connection closed: {error}"),
            Tell::Line { untold_before } => {
                tracing::warn!(%peer, "connection closed: {error}; {untold_before} others before it went untold")
            }
            Tell::LastLine => {
                tracing::warn!(%peer, "connection closed: {error}; there are many, so those that follow go untold for a while")
            }
            Tell::Nothing => tracing::debug!(%peer, "connection closed: {error}"),
        },
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the broker was dropped, which stops it too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn keep_house(node: Arc<Node>, tick: Duration, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(tick) => {
                let housekeeper = node.clone();
                // Deleting files may block.
                let _ = tokio::task::spawn_blocking(move || {
                    housekeeper.log.enforce_retention(housekeeper.now_ms());
                    housekeeper.log.wake_cleaner(housekeeper.now_ms());
                })
                .await;
                node.groups.expire_offsets().await;
                node.groups.forget_empty().await;
                node.catalog.clear_orphans().await;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::group::{CommittedOffset, Committer};
    use super::super::topic_config::Overrides;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn offsets_that_a_crash_has_left_of_a_deleted_topic_do_not_meet_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let settings = BrokerSettings::limited(dir.path().to_owned());
        let broker = Broker::start(settings.clone()).await.unwrap();
        let node = broker.node.clone();
        for topic in ["deleted", "kept"] {
            node.catalog.create(topic.to_owned(), 1, Overrides::new(), false).await.unwrap();
            let committed =
                CommittedOffset { offset: 5, commit_timestamp_ms: node.now_ms(), ..CommittedOffset::none() };
            let outside = Committer::outside;
            node.groups.commit("g", outside(), vec![((topic.to_owned(), 0), committed.clone())]).await.unwrap();
            let staged = vec![((topic.to_owned(), 1), committed)];
            node.groups.stage_offsets("g", outside(), (7, 0), staged).await.unwrap();
        }
        // All that DeleteTopics has done when it is killed before it is done.
        node.catalog.delete("deleted".to_owned()).await.unwrap();
        drop(node);
        broker.stop().await.unwrap();
        for _ in 0..2 {
            let broker = Broker::start(settings.clone()).await.unwrap();
            let node = broker.node.clone();
            let _ = node.catalog.create("deleted".to_owned(), 2, Overrides::new(), false).await;
            let committed = |topic: &str, partition: i32| {
                let key = (topic.to_owned(), partition);
                node.groups.describe("g", |group| group.offsets.get(&key).map(|found| found.offset)).flatten()
            };
            assert_eq!((committed("deleted", 0), committed("deleted", 1)), (None, None));
            assert_eq!(committed("kept", 0), Some(5));
            drop(node);
            broker.stop().await.unwrap();
        }
    }
}
