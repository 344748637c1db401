//! A few connections that can only read, and give up soon.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, Postgres};
use tokio::sync::Semaphore;

use super::ReadError;
use crate::postgres::{Database, answered, connect};

/// Connections, at most: viewers must not crowd out the pipeline.
const CONNECTIONS_MAX: usize = 2;
/// PostgreSQL ends a statement after this.
const STATEMENT_TIMEOUT: &str = "2s";
/// Longest wait for a connection that is free.
const PLACE_DEADLINE: Duration = Duration::from_secs(2);
/// Longest wait for a new connection, or for the answer on one.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// An idle connection that does not answer within this is dropped.
const PING_DEADLINE: Duration = Duration::from_millis(500);

/// Connections, opened when needed and kept.
#[derive(Debug)]
pub(super) struct Pool {
    options: PgConnectOptions,
    places: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

impl Pool {
    pub(super) fn new(database: &Database) -> Pool {
        let options = database.named("finstream http").options;
        let options = options.options([
            // Whatever is asked here, PostgreSQL refuses to change anything.
            ("default_transaction_read_only", "on"),
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", STATEMENT_TIMEOUT),
        ]);
        Pool { options, places: Semaphore::new(CONNECTIONS_MAX), idle: Mutex::default() }
    }

    /// The rows that a question gives.
    ///
    /// # Errors
    /// [`ReadError`]; the connection of a failed question is dropped.
    pub(super) async fn rows(&self, question: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, ReadError> {
        let waited = tokio::time::timeout(PLACE_DEADLINE, self.places.acquire()).await;
        let Ok(Ok(_place)) = waited else {
            let what = format!("{CONNECTIONS_MAX} other questions to PostgreSQL are under way");
            return Err(ReadError::Slow(what));
        };
        let mut connection = self.connection().await?;
        let rows = answered(ANSWER_DEADLINE, question.fetch_all(&mut connection)).await.map_err(explained)?;
        self.idle().push(connection);
        Ok(rows)
    }

    async fn connection(&self) -> Result<PgConnection, ReadError> {
        loop {
            let kept = self.idle().pop();
            let Some(mut kept) = kept else { break };
            // It may be of a server that was restarted since.
            if answered(PING_DEADLINE, kept.ping()).await.is_ok() {
                return Ok(kept);
            }
        }
        connect(&self.options, ANSWER_DEADLINE).await.map_err(|error| ReadError::Away(error.to_string()))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        // A push or pop is done or not.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn explained(error: sqlx::Error) -> ReadError {
    let Some(said) = error.as_database_error() else { return ReadError::Away(error.to_string()) };
    match said.code().as_deref() {
        // query_canceled, lock_not_available
        Some("57014" | "55P03") => ReadError::Slow(format!("the answer took PostgreSQL more than {STATEMENT_TIMEOUT}")),
        // It stops, starts, or has no connection or memory left.
        Some(code) if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") => {
            ReadError::Away(said.message().to_owned())
        }
        _ => ReadError::Refused(said.message().to_owned()),
    }
}
