//! The private cluster on disk: where it lives, how it is made, how it is configured, where its socket is.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::account::Account;
use super::reader::READER;
use super::{Binaries, PostgresError};
use crate::data_dir::DataDir;

/// The superuser of the private cluster; its default schema has the same name.
pub(super) const SUPERUSER: &str = "finstream";
/// Only a part of the socket's name, unless the server listens on TCP: then both have the port of that address.
const PORT: u16 = 5432;
/// A longer path of a unix socket is refused by the system.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// The log starts anew beyond this size; one old one is kept.
const LOG_BYTES_MAX: u64 = 8 << 20;
/// The thousand files of a new cluster are synced by threads of ours, which share the journal's commits: 0.13 s where
/// initdb, one file after the other, took 1.5 s. (syncfs, 0.4 s, would also wait for what others have written.)
const SYNC_THREADS: usize = 8;
/// On macOS `sync_all` flushes the drive each time: there initdb's own way is kept.
const SYNCED_HERE: bool = cfg!(target_os = "linux");
/// Where the cluster lives when the server's user cannot enter the data directory.
const OUTSIDE: &str = "/var/lib/finstream";

/// `DATA/postgres.json`: what the processes on one data directory must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Location {
    /// PGDATA, once it is made.
    pub cluster: PathBuf,
    /// Holds the socket of the running server.
    pub socket_dir: PathBuf,
    /// Where the server listens for readers besides its socket, since it was started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

impl Location {
    /// PostgreSQL has one port for its socket and its addresses.
    pub(super) fn port(&self) -> u16 {
        self.listen.map_or(PORT, |address| address.port())
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}", self.port()))
    }

    pub(super) fn read(data: &DataDir) -> Option<Location> {
        serde_json::from_slice(&fs::read(record(data)).ok()?).ok()
    }

    pub(super) fn write(&self, data: &DataDir) -> Result<(), PostgresError> {
        let path = record(data);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        text.and_then(|text| crate::data_dir::write_atomically(&path, &text)).map_err(PostgresError::io("write", &path))
    }
}

fn record(data: &DataDir) -> PathBuf {
    data.path().join("postgres.json")
}

/// Where the server writes its log.
pub(super) fn log_path(data: &DataDir) -> PathBuf {
    data.path().join("postgres.log")
}

/// Opens the log for a server that inherits it, so that its user need not be able to reach the path.
pub(super) fn open_log(data: &DataDir) -> Result<File, PostgresError> {
    let path = log_path(data);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        fs::rename(&path, path.with_extension("log.1")).map_err(PostgresError::io("rename", &path))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(PostgresError::io("open", &path))
}

/// The folder that a new cluster is made in.
pub(super) async fn choose_home(data: &DataDir, account: Account) -> Result<PathBuf, PostgresError> {
    if account == Account::Own {
        return Ok(data.path().to_owned());
    }
    data.allow_traversal()?;
    if account.can_enter(data.path()).await {
        return Ok(data.path().to_owned());
    }
    let home = Path::new(OUTSIDE).join(data.id().simple().to_string());
    fs::create_dir_all(&home).map_err(PostgresError::io("create", &home))?;
    Ok(home)
}

/// Makes the cluster, all or nothing: a half-made one of a start that was cut short is thrown away.
pub(super) async fn create(
    home: &Path,
    account: Account,
    binaries: &Binaries,
    data: &DataDir,
) -> Result<PathBuf, PostgresError> {
    let (cluster, unfinished) = (home.join("postgres"), home.join("postgres.new"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(PostgresError::io("remove", &unfinished))?;
    }
    fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(PostgresError::io("create", &unfinished))?;
    account.own(&unfinished)?;
    let mut initdb = Command::new(binaries.program("initdb"));
    initdb
        .args(["--encoding=UTF8", "--locale=C", "--auth=trust", "--username", SUPERUSER, "--pgdata"])
        .arg(&unfinished);
    if SYNCED_HERE {
        initdb.arg("--no-sync");
    }
    // A fixed time zone spares initdb the search for the local one; GMT needs no zone files. It complains about a working directory that its
    // user cannot enter.
    initdb.env("TZ", "GMT").current_dir(&unfinished).stdin(Stdio::null());
    account.apply(&mut initdb);
    let failed = |reason: String| PostgresError::Server { action: "created", reason, log: log_path(data) };
    let output = initdb.output().await.map_err(|error| failed(account.cannot_run("initdb", binaries, &error)))?;
    if !output.status.success() {
        return Err(failed(last_lines(&String::from_utf8_lossy(&output.stderr))));
    }
    let configuration = unfinished.join("postgresql.conf");
    let mut text = fs::read_to_string(&configuration).map_err(PostgresError::io("read", &configuration))?;
    text.push_str("\n# Written by finstream at each start.\ninclude 'finstream.conf'\n");
    fs::write(&configuration, text).map_err(PostgresError::io("write", &configuration))?;
    let (home, synced, named) = (home.to_owned(), unfinished.clone(), cluster.clone());
    let synced = tokio::task::spawn_blocking(move || sync(&synced, &home, &named)).await.map_err(io::Error::other);
    synced.flatten().map_err(PostgresError::io("sync", &unfinished))?;
    Ok(cluster)
}

/// Everything in the new cluster is on disk before it gets its name.
fn sync(unfinished: &Path, home: &Path, cluster: &Path) -> io::Result<()> {
    if SYNCED_HERE {
        let mut paths = Vec::new();
        list(unfinished, &mut paths)?;
        std::thread::scope(|scope| {
            let share = paths.len().div_ceil(SYNC_THREADS).max(1);
            let sync_all = |paths: &[PathBuf]| paths.iter().try_for_each(|path| File::open(path)?.sync_all());
            let threads: Vec<_> = paths.chunks(share).map(|paths| scope.spawn(move || sync_all(paths))).collect();
            let panicked = |_| io::Error::other("a thread panicked");
            threads.into_iter().try_for_each(|thread| thread.join().map_err(panicked)?)
        })?;
    }
    fs::rename(unfinished, cluster)?;
    File::open(home)?.sync_all()
}

/// All files and folders in a folder, and itself.
fn list(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), paths)?;
        } else {
            paths.push(entry.path());
        }
    }
    paths.push(folder.to_owned());
    Ok(())
}

/// The settings of a server of ours, written at each start, and who may connect to it.
pub(super) fn configure(location: &Location, is_open: bool, account: Account, major: u32) -> Result<(), PostgresError> {
    let cluster = &location.cluster;
    let listen = location.listen.filter(|_| is_open).map_or(String::new(), |address| address.ip().to_string());
    // initdb's own file would let everyone on this machine in as the superuser, once the server listens on TCP.
    let mut access = String::from("# Managed by finstream: rewritten at each start.\nlocal all all trust\n");
    if location.listen.is_some() {
        access += &format!("host postgres {READER} all scram-sha-256\n");
    }
    let hba = cluster.join("finstream_hba.conf");
    fs::write(&hba, access).map_err(PostgresError::io("write", &hba))?;
    account.own(&hba)?;
    let wal_sync = if cfg!(target_os = "macos") { "wal_sync_method = fsync_writethrough\n" } else { "" };
    // Before a recovery every file is synced: one call for the whole file system instead of a thousand.
    let recovery_sync =
        if cfg!(target_os = "linux") && major >= 14 { "recovery_init_sync_method = syncfs\n" } else { "" };
    let text = format!(
        "# Managed by finstream: rewritten at each start. Put settings of your own into postgresql.auto.conf (alter system).
listen_addresses = '{listen}'
port = {port}
hba_file = '{hba}'
password_encryption = 'scram-sha-256'
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 64
cluster_name = 'finstream'
timezone = 'GMT'
log_timezone = 'GMT'
log_destination = 'stderr'
logging_collector = off
log_line_prefix = '%m [%p] '
log_checkpoints = off

# What was committed survives a crash of the machine.
fsync = on
synchronous_commit = on
full_page_writes = on
{wal_sync}{recovery_sync}
# Bulk COPY: few checkpoints, yet a crash recovery of seconds. No replica reads this log.
wal_level = minimal
max_wal_senders = 0
max_logical_replication_workers = 0
wal_buffers = 16MB
min_wal_size = 256MB
max_wal_size = 1GB
checkpoint_timeout = 5min

# Room for hot totals, not more: the machine is shared with the pipeline it measures.
shared_buffers = 128MB
work_mem = 32MB
maintenance_work_mem = 64MB
random_page_cost = 1.1
jit = off
",
        port = location.port(),
        hba = quoted(&hba),
        sockets = quoted(&location.socket_dir),
    );
    let path = cluster.join("finstream.conf");
    fs::write(&path, text).map_err(PostgresError::io("write", &path))?;
    account.own(&path)
}

fn quoted(path: &Path) -> String {
    path.display().to_string().replace('\'', "''")
}

/// PG_VERSION of a cluster.
pub(super) fn major(cluster: &Path) -> Option<u32> {
    fs::read_to_string(cluster.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// A folder for the socket, made or found: short, mode 0700, owned by the server's user.
pub(super) fn socket_dir(data: &DataDir, account: Account) -> Result<PathBuf, PostgresError> {
    let mut parents = Vec::new();
    match account {
        Account::Own => {
            parents.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir()))
        }
        Account::Dropped { .. } => {
            let run = PathBuf::from("/run/finstream");
            if run.is_dir() || fs::create_dir(&run).is_ok() {
                parents.push(run);
            }
        }
    }
    parents.push(PathBuf::from("/tmp"));
    let id = data.id().simple().to_string();
    let mut reason = io::Error::from(io::ErrorKind::NotFound);
    for parent in parents {
        // In /tmp anyone may have made a folder of that name: one that is not ours is passed over.
        for attempt in 0..8 {
            let folder = parent.join(format!(
                "finstream-{}{}",
                &id[id.len() - 12..],
                ["", "a", "b", "c", "d", "e", "f", "g"][attempt]
            ));
            if folder.join(".s.PGSQL.65535").as_os_str().len() > SOCKET_PATH_BYTES_MAX {
                break;
            }
            match claim(&folder, account) {
                Ok(()) => return Ok(folder),
                Err(error) => reason = error,
            }
        }
    }
    Err(PostgresError::io("create a folder for the socket in", Path::new("/tmp"))(reason))
}

/// Makes the folder, or checks that an existing one is really ours.
pub(super) fn claim(folder: &Path, account: Account) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => account.own(folder).map_err(io::Error::other)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Not followed if it is a link.
            let metadata = fs::symlink_metadata(folder)?;
            let owned = metadata.uid() == account.uid();
            if !metadata.is_dir() || !owned {
                return Err(io::Error::from(io::ErrorKind::PermissionDenied));
            }
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// What a program said last, as one line.
pub(super) fn last_lines(text: &str) -> String {
    // pg_ctl only says to look at the log, of which this is the end.
    let telling = |line: &&str| !line.is_empty() && !line.starts_with("pg_ctl:") && *line != "Examine the log output.";
    let lines: Vec<_> = text.lines().map(str::trim).filter(telling).collect();
    let shown = lines[lines.len().saturating_sub(4)..].join("; ");
    if shown.is_empty() { "it said nothing".to_owned() } else { shown }
}
