//! The private cluster as its users see it: there as long as anyone uses it, gone when the last one leaves.
//!
//! Every user holds a shared lock; whoever finds the server down starts it under the start lock; the last to leave stops
//! it. A server that a crash left behind is used again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::account::Account;
use super::cluster_files::{self, Location, SUPERUSER};
use super::{Binaries, Database, PostgresError, server};
use crate::data_dir::{DataDir, DataDirError, ServiceLock};
use crate::shutdown::{Shutdown, Stage};

/// Shared by all users of the server.
const USERS_LOCK: &str = "postgres";
/// Held while the server is created, started or stopped.
const START_LOCK: &str = "postgres-start";
/// How often the server's process is looked at: two file reads and a null signal.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// A server makes its socket at once when it starts.
const LOST_SOCKET_PATIENCE: Duration = Duration::from_secs(5);

/// How to find and run the private server.
#[derive(Clone, Debug, Default)]
pub struct PgSettings {
    /// `--pg-bin`: the folder of initdb, postgres and pg_ctl.
    pub pg_bin: Option<PathBuf>,
    /// `--pg-listen`: whether readers with a password are let in, besides the socket.
    pub listen: Listening,
}

/// Where the private server is to listen besides its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listening {
    /// As it was started last: for whoever only asks a question.
    #[default]
    Kept,
    /// Nowhere.
    Closed,
    /// There.
    At(SocketAddr),
}

impl PgSettings {
    /// `FINSTREAM_PG_BIN`, for programs that have no flags of ours, such as tests.
    pub fn from_environment() -> PgSettings {
        PgSettings {
            pg_bin: std::env::var_os("FINSTREAM_PG_BIN").filter(|folder| !folder.is_empty()).map(PathBuf::from),
            listen: Listening::Kept,
        }
    }
}

/// A share in the running private server. Call [`PrivateCluster::leave`] at the end: dropping it keeps the server.
#[derive(Debug)]
pub struct PrivateCluster {
    data: DataDir,
    settings: PgSettings,
    location: Location,
    major: u32,
    users: Mutex<Option<ServiceLock>>,
}

/// Connection settings of a server of ours, on its socket.
pub(super) fn options(location: &Location) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(&location.socket_dir)
        .port(location.port())
        .username(SUPERUSER)
        .database("postgres")
        .ssl_mode(PgSslMode::Disable)
}

impl PrivateCluster {
    /// Makes sure that the private server runs, creating its cluster where there is none, and joins its users.
    ///
    /// # Errors
    /// No binaries, a cluster of another major version, a server that does not start, or one that others use and that does
    /// not listen where `settings` want it: with the cure.
    pub async fn ensure(data: &DataDir, settings: PgSettings) -> Result<PrivateCluster, PostgresError> {
        let start_lock = start_lock(data).await?;
        let listen = agree_on_listening(data, settings.listen).await?;
        let users = data.clone();
        let users = blocking(move || users.shared_lock(USERS_LOCK)).await?;
        let (location, major) = match settings.listen {
            Listening::At(_) => up(data, &settings, listen, true).await?,
            Listening::Kept | Listening::Closed => up_anyway(data, &settings, listen).await?,
        };
        drop(start_lock);
        Ok(PrivateCluster { data: data.clone(), settings, location, major, users: Mutex::new(Some(users)) })
    }

    /// Starts the server again if it is down; cheap when it is not. For whoever notices.
    ///
    /// # Errors
    /// As [`PrivateCluster::ensure`].
    pub async fn restart_if_down(&self) -> Result<bool, PostgresError> {
        if server::postmaster(&self.location.cluster).is_some() {
            return Ok(false);
        }
        let start_lock = start_lock(&self.data).await?;
        // Whoever has left does not want it back.
        let left = self.users.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        let down = !left && server::postmaster(&self.location.cluster).is_none();
        if down {
            up_anyway(&self.data, &self.settings, self.location.listen).await?;
        }
        drop(start_lock);
        Ok(down)
    }

    /// Keeps the server up until the shutdown reaches `Now` (the drain still needs it); `on_event` gets a line for the terminal
    /// for each restart, and for each failure to do so (tried again until it works).
    pub async fn watch(&self, mut shutdown: Shutdown, mut on_event: impl FnMut(String)) {
        let mut failures = 0u32;
        loop {
            // A server that cannot start (disk full) is tried again ever more slowly, up to about 6 s.
            let pause = WATCH_INTERVAL * (1 << failures.min(5));
            tokio::select! {
                () = shutdown.reached(Stage::Now) => return,
                () = tokio::time::sleep(pause) => {}
            }
            match self.restart_if_down().await {
                Ok(true) => {
                    failures = 0;
                    on_event("PostgreSQL was down and has been started again".to_owned());
                }
                Ok(false) => failures = 0,
                Err(error) => {
                    failures += 1;
                    on_event(format!("PostgreSQL is down and cannot be started again: {error}"));
                }
            }
        }
    }

    /// Leaves; stops the server (fast shutdown) if nobody else uses it. True when it was stopped.
    ///
    /// # Errors
    /// The server does not stop.
    pub async fn leave(&self) -> Result<bool, PostgresError> {
        let start_lock = start_lock(&self.data).await?;
        drop(self.users.lock().unwrap_or_else(PoisonError::into_inner).take());
        let data = self.data.clone();
        let alone = match blocking(move || data.lock(USERS_LOCK)).await {
            Ok(alone) => alone,
            Err(PostgresError::DataDir(DataDirError::Busy(_))) => return Ok(false),
            Err(error) => return Err(error),
        };
        server::stop(&self.data, &self.location.cluster).await?;
        // Made again at the next start; left where someone put a file into it.
        let _ = fs::remove_dir(&self.location.socket_dir);
        drop((alone, start_lock));
        Ok(true)
    }

    /// Stops the server if it runs, and deletes the cluster with all totals: `--ephemeral`, and `reset`. Needs no binaries.
    ///
    /// # Errors
    /// Others still use it, or its files cannot be removed.
    pub async fn destroy(data: &DataDir) -> Result<(), PostgresError> {
        let Some(location) = Location::read(data) else { return Ok(()) };
        let start_lock = start_lock(data).await?;
        let users = data.clone();
        let alone = blocking(move || users.lock(USERS_LOCK)).await?;
        server::stop(data, &location.cluster).await?;
        let cluster = &location.cluster;
        if cluster.exists() {
            fs::remove_dir_all(cluster).map_err(PostgresError::io("remove", cluster))?;
        }
        // Both are ours alone; left where someone put a file into them.
        let _ = fs::remove_dir(&location.socket_dir);
        if let Some(home) = cluster.parent().filter(|home| *home != data.path()) {
            let _ = fs::remove_dir(home);
        }
        let record = data.path().join("postgres.json");
        fs::remove_file(&record).map_err(PostgresError::io("remove", &record))?;
        drop((alone, start_lock));
        Ok(())
    }

    /// Where the cluster of a data directory is, if it has one; it need not run.
    pub fn location(data: &DataDir) -> Option<PathBuf> {
        Location::read(data).map(|location| location.cluster)
    }

    /// How the roles reach it.
    ///
    /// # Errors
    /// `schema` is not a usable name.
    pub fn database(&self, schema: &str) -> Result<Database, PostgresError> {
        let psql = Binaries::find(self.settings.pg_bin.as_deref(), Some(self.major), &self.location.cluster)
            .ok()
            .map(|binaries| binaries.program("psql"))
            .filter(|psql| psql.is_file());
        Database::private(&self.location, schema, psql)
    }

    /// Where the totals are on disk; outside of the data directory when root's server user cannot enter that.
    pub fn cluster_path(&self) -> &Path {
        &self.location.cluster
    }

    /// Where it listens for readers, if it does.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.location.listen
    }

    /// The folder of the unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.location.socket_dir
    }

    /// PostgreSQL's major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Space of the file system that the cluster is on.
    ///
    /// # Errors
    /// The system call failed.
    pub fn disk_space(&self) -> Result<crate::data_dir::DiskSpace, PostgresError> {
        crate::data_dir::DiskSpace::of(&self.location.cluster)
            .map_err(PostgresError::io("measure the file system of", &self.location.cluster))
    }
}

/// As [`up`]; where the readers' address is taken by others meanwhile, the totals do not wait for that.
async fn up_anyway(
    data: &DataDir,
    settings: &PgSettings,
    listen: Option<SocketAddr>,
) -> Result<(Location, u32), PostgresError> {
    match (up(data, settings, listen, true).await, listen) {
        (Err(PostgresError::Server { reason, .. }), Some(address)) => {
            tracing::warn!("PostgreSQL does not start with --pg-listen {address}, so it starts without: {reason}");
            up(data, settings, listen, false).await
        }
        (started, _) => started,
    }
}

/// Under the start lock: a cluster, a socket folder and a server that takes sessions; with readers let in where `is_open`.
async fn up(
    data: &DataDir,
    settings: &PgSettings,
    listen: Option<SocketAddr>,
    is_open: bool,
) -> Result<(Location, u32), PostgresError> {
    let recorded = Location::read(data);
    if let Some(location) = &recorded
        && let Some(major) = cluster_files::major(&location.cluster)
        && server::ready(&location.cluster, &location.socket())
    {
        // It runs, perhaps left over from a crash.
        return Ok((location.clone(), major));
    }
    let default = data.path().join("postgres");
    let known = recorded.as_ref().map_or(default.as_path(), |location| location.cluster.as_path());
    let account = Account::choose(known, data.path())?;
    let wanted = match cluster_files::major(known) {
        Some(major) => Some(major),
        None => data.format()?.postgresql_major.filter(|_| recorded.is_some()),
    };
    let settings_bin = settings.pg_bin.clone();
    let known = known.to_owned();
    let probed = known.clone();
    let binaries = blocking(move || Binaries::find(settings_bin.as_deref(), wanted, &probed)).await?;
    let cluster = if cluster_files::major(&known).is_some() {
        if account != Account::Own && known.starts_with(data.path()) {
            data.allow_traversal()?;
        }
        known
    } else if recorded.is_some() {
        return Err(PostgresError::Settings(format!(
            "the totals of {} should be in {}, but there is no PostgreSQL cluster; restore it, or start over with finstream reset",
            data.path().display(),
            known.display()
        )));
    } else {
        let home = cluster_files::choose_home(data, account).await?;
        cluster_files::create(&home, account, &binaries, data).await?
    };
    // A server that is on its way down or up keeps its old socket folder.
    let socket_dir = match &recorded {
        Some(location) if cluster_files::claim(&location.socket_dir, account).is_ok() => location.socket_dir.clone(),
        _ => cluster_files::socket_dir(data, account)?,
    };
    let location = Location { cluster, socket_dir, listen };
    if let Some(recorded) = &recorded {
        refuse_hidden(data, recorded)?;
    }
    location.write(data)?;
    if data.format()?.postgresql_major != Some(binaries.major) {
        data.record_postgresql_major(binaries.major)?;
    }
    let socket = location.socket();
    settle(&location).await;
    if !server::ready(&location.cluster, &socket) {
        server::stop(data, &location.cluster).await?;
        cluster_files::configure(&location, is_open, account, binaries.major)?;
        // A crash may have left the socket of another port.
        if let Some(old) = recorded.as_ref().map(Location::socket).filter(|old| *old != socket) {
            let _ = (fs::remove_file(&old), fs::remove_file(server::lock_of(&old)));
        }
        let started = server::start(data, &location.cluster, &socket, account, &binaries).await;
        if started.is_err() {
            // Nobody joined, so nobody will leave and tidy up.
            let _ = fs::remove_dir(&location.socket_dir);
        }
        started?;
    }
    Ok((location, binaries.major))
}

/// Waits while a server is there that takes no sessions yet (recovery) or any more (shutdown).
async fn settle(location: &Location) {
    let begun = tokio::time::Instant::now();
    let socket = location.socket();
    while server::postmaster(&location.cluster).is_some() && !server::ready(&location.cluster, &socket) {
        // Without its socket (a cleaner of /tmp took it) it can never be reached again.
        let patience = if socket.exists() { server::START_PATIENCE } else { LOST_SOCKET_PATIENCE };
        if begun.elapsed() > patience {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Where the server is to listen: as `wanted` when nobody else uses it, and then one that runs and does otherwise (a crash
/// left it) is stopped first. Whoever wants it closed takes what others have.
async fn agree_on_listening(data: &DataDir, wanted: Listening) -> Result<Option<SocketAddr>, PostgresError> {
    let recorded = Location::read(data);
    let now = recorded.as_ref().and_then(|location| location.listen);
    let wanted = match wanted {
        Listening::Kept => now,
        Listening::Closed => None,
        Listening::At(address) => Some(address),
    };
    let Some(location) = recorded.filter(|_| now != wanted) else { return Ok(wanted) };
    let users = data.clone();
    match (blocking(move || users.lock(USERS_LOCK)).await, wanted) {
        (Ok(alone), _) => {
            refuse_hidden(data, &location)?;
            server::stop(data, &location.cluster).await?;
            drop(alone);
            Ok(wanted)
        }
        (Err(PostgresError::DataDir(DataDirError::Busy(_))), None) => Ok(now),
        (Err(PostgresError::DataDir(DataDirError::Busy(_))), Some(address)) => {
            let now = now.map_or_else(|| "on its socket only".to_owned(), |now| format!("on {now}"));
            Err(PostgresError::Settings(format!(
                "--pg-listen {address}: the private PostgreSQL of {} is in use by another finstream, which has it listen \
                 {now}; give --pg-listen to that one, or end it (a finstream sql, too)",
                data.path().display()
            )))
        }
        (Err(error), _) => Err(error),
    }
}

/// A server that runs and whose socket is there, but not for us, is somebody else's in another mount namespace (a service
/// with a /tmp of its own, a container): it must not be taken for one that has lost its socket.
fn refuse_hidden(data: &DataDir, location: &Location) -> Result<(), PostgresError> {
    match server::is_hidden(&location.cluster, &location.socket()) {
        false => Ok(()),
        true => Err(PostgresError::Settings(format!(
            "the private PostgreSQL of {} runs, and its socket {} cannot be reached from here: it is in another mount \
             namespace; ask from there, or start its service with a socket folder that is shared (XDG_RUNTIME_DIR)",
            data.path().display(),
            location.socket().display()
        ))),
    }
}

async fn start_lock(data: &DataDir) -> Result<ServiceLock, PostgresError> {
    let data = data.clone();
    blocking(move || data.lock_waiting(START_LOCK)).await
}

/// Runs what may block on a lock or a child process away from the runtime's threads.
async fn blocking<T: Send + 'static, E: Into<PostgresError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, PostgresError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
