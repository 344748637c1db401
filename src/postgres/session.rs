//! A connection that answers in time, and is a session of its own: not one that a pooler lends to others in between.
//!
//! A peer that has vanished without a word (a failover, a NAT that forgot, a stopped server) looks like one that thinks.
//! sqlx sets no TCP keepalive and offers no way to, so every wait for PostgreSQL has a deadline of ours.

use std::io;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};

/// Longest wait for a new connection; a caller that waits for a server tries again.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Connects.
///
/// # Errors
/// PostgreSQL's answer, or `TimedOut` when there is none within `deadline`.
pub async fn connect(options: &PgConnectOptions, deadline: Duration) -> Result<PgConnection, sqlx::Error> {
    answered(deadline, PgConnection::connect_with(options)).await
}

/// Waits for an answer of PostgreSQL for `deadline` at most. After `TimedOut` the connection that was asked is in an
/// unknown state: drop it.
///
/// # Errors
/// Those of `work`, or `TimedOut`.
pub async fn answered<T, E>(deadline: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, E>
where
    E: From<sqlx::Error>,
{
    match tokio::time::timeout(deadline, work).await {
        Ok(answer) => answer,
        Err(_) => Err(no_answer(deadline).into()),
    }
}

/// The error of a wait that was too long.
pub fn no_answer(waited: Duration) -> sqlx::Error {
    let what = format!("no answer within {waited:.1?}, the connection is given up");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, what))
}

/// Why a connection is of no use. Locks, the search path and the backend's pid must be ours from statement to statement.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The start-up option was dropped, or the schema is not there or not for us.
    #[error(
        "the session uses schema {found:?} instead of {asked:?}: either a connection pooler drops the search_path, then \
         connect to PostgreSQL directly, or pool sessions and `alter role USER set search_path = {asked}`; or this user \
         may not use the schema, then `grant usage, create on schema {asked} to USER`"
    )]
    OtherSchema {
        /// With which tables are found.
        asked: String,
        /// What unqualified names mean in this session; empty for nothing.
        found: String,
    },
    /// One connection, several backends.
    #[error(
        "one connection was served by the backends {first} and {second}: a connection pooler in transaction mode is in \
         between, which would lose locks and progress; connect to PostgreSQL directly, or let it pool sessions"
    )]
    Pooled {
        /// A backend's pid.
        first: i32,
        /// Another backend's.
        second: i32,
    },
    /// PostgreSQL's answer.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// Checks that unqualified names mean tables of `asked`.
///
/// # Errors
/// [`SessionError::OtherSchema`].
pub async fn check_schema(connection: &mut PgConnection, asked: &str) -> Result<(), SessionError> {
    let sql = "select coalesce(current_schema()::text, '')";
    let found: String = sqlx::raw_sql(sql).fetch_one(connection).await?.try_get(0)?;
    if found == asked { Ok(()) } else { Err(SessionError::OtherSchema { asked: asked.to_owned(), found }) }
}

/// Checks that two transactions of a connection are served by one backend, while another connection holds a backend.
///
/// # Errors
/// [`SessionError::Pooled`].
pub(super) async fn check_backend(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<(), SessionError> {
    let first = backend_pid(connection).await?;
    // A pooler would give the backend that has just become free to whoever asks next.
    let mut other = PgConnection::connect_with(options).await?;
    let mut held = other.begin().await?;
    backend_pid(&mut held).await?;
    let second = backend_pid(connection).await?;
    held.rollback().await?;
    other.close().await?;
    if first == second { Ok(()) } else { Err(SessionError::Pooled { first, second }) }
}

/// The backend that serves this statement; by the simple protocol, as a prepared statement would be lost on the way to
/// another backend.
pub async fn backend_pid(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("select pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}

/// The schema that connections ask for with [`PgConnectOptions::options`].
pub fn search_path(options: &PgConnectOptions) -> Option<&str> {
    options.get_options()?.split_whitespace().filter_map(|option| option.strip_prefix("search_path=")).next_back()
}

/// A server that lets everyone in and never answers a question, for tests.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) async fn silent_server() -> PgConnectOptions {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 1024];
                let _ = client.read(&mut asked).await;
                // AuthenticationOk, ReadyForQuery.
                let _ = client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
                while client.read(&mut asked).await.is_ok_and(|length| length > 0) {}
            });
        }
    });
    PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).ssl_mode(sqlx::postgres::PgSslMode::Disable)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options =
            PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(silent.local_addr().unwrap().port());
        let error = connect(&options, Duration::from_millis(20)).await.unwrap_err();
        assert!(error.to_string().contains("no answer within 20.0ms"), "{error}");
    }
}
