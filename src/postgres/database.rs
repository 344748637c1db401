//! A database and the schema of ours in it: how it is reached, and how it is made ready.

use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::{ConnectOptions, Connection, Executor};

use super::PostgresError;
use super::cluster_files::Location;
use super::migrate::{self, Missing};
use super::session::{self, CONNECT_DEADLINE, SessionError};

/// How long [`Database::prepare`] waits for a server that is starting or unreachable.
pub const PREPARE_PATIENCE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// PostgreSQL cuts longer names.
const SCHEMA_BYTES_MAX: usize = 63;

/// Where the totals are. Cheap to clone; holds no connection.
#[derive(Clone, Debug)]
pub struct Database {
    /// With `search_path` set to the schema, and an application name.
    pub options: PgConnectOptions,
    /// The schema that holds our tables.
    pub schema: String,
    /// For people, without a password: `private (socket in /tmp/finstream-…)` or `user@host:port/database`.
    pub target: String,
    /// A server of ours.
    pub(super) is_private: bool,
    psql: PathBuf,
    psql_environment: Vec<(&'static str, String)>,
}

impl Database {
    /// A server of the user's own. The password may be in the URL, in PGPASSWORD or in a PGPASSFILE.
    ///
    /// # Errors
    /// The URL or the schema's name is not usable. The URL is not repeated: it may hold a password.
    pub fn external(url: &str, schema: &str) -> Result<Database, PostgresError> {
        let options = PgConnectOptions::from_str(url).map_err(|error| {
            PostgresError::Settings(format!(
                "the database URL cannot be read ({error}); it looks like postgres://user@host:5432/database"
            ))
        })?;
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let name = options.get_database().unwrap_or(options.get_username()).to_owned();
        let target = format!("{}@{host}:{}/{name}", options.get_username(), options.get_port());
        let mut environment = vec![
            ("PGHOST", host),
            ("PGPORT", options.get_port().to_string()),
            ("PGUSER", options.get_username().to_owned()),
            ("PGDATABASE", name),
        ];
        // By the environment: arguments are visible to every user of the machine.
        environment.extend(password_of(url).map(|password| ("PGPASSWORD", password)));
        Self::build(options, schema, target, PathBuf::from("psql"), environment)
    }

    /// The private server on its socket.
    pub(super) fn private(location: &Location, schema: &str, psql: Option<PathBuf>) -> Result<Database, PostgresError> {
        let socket_dir = &location.socket_dir;
        let environment = vec![
            ("PGHOST", socket_dir.display().to_string()),
            ("PGPORT", location.port().to_string()),
            ("PGUSER", super::cluster_files::SUPERUSER.to_owned()),
            ("PGDATABASE", "postgres".to_owned()),
        ];
        let target = format!("private (socket in {})", socket_dir.display());
        let psql = psql.unwrap_or_else(|| PathBuf::from("psql"));
        let built = Self::build(super::cluster::options(location), schema, target, psql, environment)?;
        Ok(Database { is_private: true, ..built })
    }

    fn build(
        options: PgConnectOptions,
        schema: &str,
        target: String,
        psql: PathBuf,
        psql_environment: Vec<(&'static str, String)>,
    ) -> Result<Database, PostgresError> {
        check_schema(schema)?;
        // Speed shows in the latencies; a line with a whole statement for each slow one helps nobody at a terminal.
        let options =
            options.options([("search_path", schema)]).application_name("finstream").disable_statement_logging();
        Ok(Database { options, schema: schema.to_owned(), target, is_private: false, psql, psql_environment })
    }

    /// The same database under another application name (as `pg_stat_activity` shows it), such as `finstream sink`.
    pub fn named(&self, application_name: &str) -> Database {
        Database { options: self.options.clone().application_name(application_name), ..self.clone() }
    }

    /// One new connection, without retries.
    ///
    /// # Errors
    /// `Unreachable`, with what to do.
    pub async fn connect(&self) -> Result<PgConnection, PostgresError> {
        session::connect(&self.options, CONNECT_DEADLINE).await.map_err(|error| self.unreachable(&error))
    }

    /// Waits for the server, creates the schema and brings it up to date. Any number of processes may do so at once.
    ///
    /// # Errors
    /// The server does not answer within [`PREPARE_PATIENCE`], refuses, or the schema belongs to a newer finstream.
    pub async fn prepare(&self) -> Result<(), PostgresError> {
        self.prepare_within(PREPARE_PATIENCE, Missing::Create).await
    }

    /// As [`Database::prepare`], with another patience, and with a word on a schema that is not there.
    ///
    /// # Errors
    /// As [`Database::prepare`]; the schema is missing.
    pub async fn prepare_within(&self, patience: Duration, missing: Missing) -> Result<(), PostgresError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.prepare_once(deadline, patience, missing).await {
                // The server went away meanwhile, and comes again: what was begun is rolled back.
                Err(PostgresError::Sql(error)) if is_passing(&error) && Instant::now() + RETRY_PAUSE < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn prepare_once(&self, deadline: Instant, patience: Duration, missing: Missing) -> Result<(), PostgresError> {
        let mut connection = loop {
            match tokio::time::timeout_at(deadline.into(), PgConnection::connect_with(&self.options)).await {
                Ok(Ok(connection)) => break connection,
                Ok(Err(error)) if is_passing(&error) && Instant::now() + RETRY_PAUSE < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Ok(Err(error)) => return Err(self.unreachable(&error)),
                Err(_) => {
                    let reason =
                        format!("no answer within {} s; does it run, and is the address right?", patience.as_secs());
                    return Err(PostgresError::Unreachable { target: self.target.clone(), reason });
                }
            }
        };
        let checked = session::check_backend(&mut connection, &self.options);
        session::answered(CONNECT_DEADLINE, checked).await.map_err(|error| self.unusable(error))?;
        migrate::run(&mut connection, self, missing).await?;
        connection.close().await?;
        Ok(())
    }

    /// psql on this database, its settings in the environment (so that no password shows in the process list).
    pub fn psql(&self) -> Command {
        let mut command = Command::new(&self.psql);
        for (name, value) in &self.psql_environment {
            command.env(name, value);
        }
        command.env("PGOPTIONS", format!("-c search_path={}", self.schema));
        command
    }

    /// What a person types to get there, without a password.
    pub fn psql_command(&self) -> String {
        let setting = |name: &str| {
            let found = self.psql_environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        format!(
            "psql \"host={} port={} user={} dbname={} options=-csearch_path={}\"",
            setting("PGHOST"),
            setting("PGPORT"),
            setting("PGUSER"),
            setting("PGDATABASE"),
            self.schema
        )
    }

    fn unreachable(&self, error: &sqlx::Error) -> PostgresError {
        PostgresError::Unreachable { target: self.target.clone(), reason: explain(error) }
    }

    /// For a session that is not ours alone.
    pub(super) fn unusable(&self, error: SessionError) -> PostgresError {
        match error {
            SessionError::Sql(error) => self.unreachable(&error),
            error => PostgresError::Unreachable { target: self.target.clone(), reason: error.to_string() },
        }
    }

    pub(super) fn schema_error(&self, reason: String) -> PostgresError {
        PostgresError::Schema { schema: self.schema.clone(), target: self.target.clone(), reason }
    }
}

/// Runs a statement that is not known at compile time; names in it were checked by [`check_schema`].
pub(super) async fn execute(connection: &mut PgConnection, sql: &str) -> Result<u64, sqlx::Error> {
    let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
    Ok(connection.execute(statement).await?.rows_affected())
}

/// Only names that need no quotes anywhere: they go into SQL, start-up options and printed commands.
fn check_schema(schema: &str) -> Result<(), PostgresError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let usable = !schema.is_empty()
        && schema.len() <= SCHEMA_BYTES_MAX
        && schema.bytes().all(plain)
        && !schema.starts_with(|first: char| first.is_ascii_digit())
        && !schema.starts_with("pg_");
    if usable && !["public", "information_schema"].contains(&schema) {
        return Ok(());
    }
    Err(PostgresError::Settings(format!(
        "schema {schema:?} cannot be used: a name of lower-case letters, digits and _, at most {SCHEMA_BYTES_MAX} long, not public and not pg_…"
    )))
}

/// Whether time may heal it: the server starts, stops, is not there yet, or is full.
pub(super) fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["57P01", "57P02", "57P03", "53300"].contains(&&*code))
        }
        _ => false,
    }
}

/// What went wrong and what to do about it.
fn explain(error: &sqlx::Error) -> String {
    let sqlx::Error::Database(database) = error else {
        return match error {
            sqlx::Error::Io(error) => format!("{error}; does it run, and is the address right?"),
            other => other.to_string(),
        };
    };
    let cure = match database.code().as_deref() {
        Some("28P01" | "28000") => "; give the password with PGPASSWORD or PGPASSFILE, and check the user's name",
        Some("3D000") => "; create the database first: createdb NAME",
        Some("53300") => "; raise max_connections, or end other sessions",
        Some("42501") => "; grant it to this user, or use another one",
        Some("08P01") if database.message().contains("startup parameter") => {
            "; this is a connection pooler: connect to PostgreSQL directly"
        }
        _ => "",
    };
    let code = database.try_downcast_ref::<PgDatabaseError>().map(|error| error.code()).unwrap_or_default();
    format!("{} ({code}){cure}", database.message())
}

/// The password in a URL, decoded.
fn password_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    let mut bytes = Vec::with_capacity(password.len());
    let mut left = password.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        let hex = rest
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                left = &rest[2..];
            }
            _ => {
                bytes.push(*first);
                left = rest;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_shows_where_people_look() {
        let database = Database::external("postgres://ann:s%40cret@db.example:6543/books", "finstream").unwrap();
        assert_eq!(database.target, "ann@db.example:6543/books");
        assert!(!database.psql_command().contains("cret"));
        let psql = database.psql();
        assert!(psql.get_envs().any(|(name, value)| name == "PGPASSWORD" && value == Some("s@cret".as_ref())));
        assert_eq!(psql.get_args().count(), 0);
    }

    #[test]
    fn names_that_would_need_quotes_are_refused() {
        for schema in ["", "public", "pg_x", "Finance", "a b", "a\"b", "1a", &"a".repeat(64), "a;drop"] {
            assert!(check_schema(schema).is_err(), "{schema}");
        }
        assert!(check_schema("finstream_2").is_ok());
    }

    #[test]
    fn a_url_that_cannot_be_read_is_not_repeated() {
        let error = Database::external("mysql//ann:secret@x", "finstream").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
