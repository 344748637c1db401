//! PostgreSQL: finds or starts the private cluster, reaches a given one, and brings the schema up to date.
//!
//! Owns server processes, connection settings and migrations. Must not know what the tables mean: the sink and the
//! audit do.

use std::path::PathBuf;

use crate::data_dir::DataDirError;

mod account;
mod binaries;
mod cluster;
mod cluster_files;
mod database;
mod migrate;
mod query;
mod reader;
mod server;
mod session;

pub use binaries::Binaries;
pub use cluster::{Listening, PgSettings, PrivateCluster};
pub use database::{Database, PREPARE_PATIENCE};
pub use migrate::Missing;
pub use query::{OutputFormat, write_query};
pub use reader::{READER, admit_reader};
#[cfg(test)]
pub(crate) use session::silent_server;
pub use session::{
    CONNECT_DEADLINE, SessionError, answered, backend_pid, check_schema, connect, no_answer, search_path,
};

/// Whoever reads latency rows in several statements holds this for its session, so that none of them are removed meanwhile.
pub const LOCK_ROWS_FOR_READING: &str =
    "select pg_advisory_lock_shared(hashtextextended('finstream reading ' || current_schema(), 0))";
/// Whoever removes some tries this first, in the transaction: false while somebody reads.
pub const TRY_TO_LOCK_ROWS: &str =
    "select pg_try_advisory_xact_lock(hashtextextended('finstream reading ' || current_schema(), 0))";

/// Why PostgreSQL cannot be used. Each message names the cure.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No server binaries.
    #[error(
        "no PostgreSQL server found (looked for initdb, postgres and pg_ctl in {searched}); install it \
         (Debian/Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql@17), \
         name its folder with --pg-bin DIR, or use a server of your own with --database-url"
    )]
    NoBinaries {
        /// The folders.
        searched: String,
    },
    /// There are binaries, but none for this cluster's files.
    #[error(
        "the totals in {} were made by PostgreSQL {cluster_major}, but only {found} is installed; install PostgreSQL \
         {cluster_major} or name its folder with --pg-bin DIR",
        cluster.display()
    )]
    MajorMismatch {
        /// The cluster's folder.
        cluster: PathBuf,
        /// From its PG_VERSION.
        cluster_major: u32,
        /// Such as `16 (/usr/lib/postgresql/16/bin)`.
        found: String,
    },
    /// Root, and nobody to run the server as.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody`; run finstream as an ordinary user, or use --database-url"
    )]
    NoAccount,
    /// Files of the cluster.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Such as `create`.
        action: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// initdb or the server said no.
    #[error("PostgreSQL could not be {action}: {reason} (log: {})", log.display())]
    Server {
        /// `created`, `started` or `stopped`.
        action: &'static str,
        /// The last lines it said.
        reason: String,
        /// Where there is more.
        log: PathBuf,
    },
    /// The URL or the schema's name is not usable.
    #[error("{0}")]
    Settings(String),
    /// No connection within the time that was given.
    #[error("cannot use PostgreSQL at {target}: {reason}")]
    Unreachable {
        /// Without a password.
        target: String,
        /// With a cure where one is known.
        reason: String,
    },
    /// The schema does not fit to this finstream.
    #[error("schema {schema} at {target} {reason}")]
    Schema {
        /// Its name.
        schema: String,
        /// Without a password.
        target: String,
        /// With the cure.
        reason: String,
    },
    /// A statement failed.
    #[error("PostgreSQL: {}", in_its_words(.0))]
    Sql(#[from] sqlx::Error),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// The server's own message: sqlx adds the line of PostgreSQL's source code, which looks like one of the query.
fn in_its_words(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(said) => said.message().to_owned(),
        None => error.to_string(),
    }
}

impl PostgresError {
    /// For `map_err`: names the action and the path.
    fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> PostgresError {
        let path = path.to_owned();
        move |source| PostgresError::Io { action, path, source }
    }
}
