//! What one process of the pipeline does for the tables while traffic flows: small packs are merged.
//!
//! Whoever holds the schema's lock keeps; the others stand by.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::task::JoinHandle;

use super::pipeline::Pipeline;
use crate::config::LatencyLayout;
use crate::postgres::{Database, PostgresError, answered};
use crate::shutdown::{Shutdown, Stage};
use crate::sink::{self, Merger, SinkError};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for PostgreSQL: nobody waits for what is kept.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);

/// Why a round was not finished; the next one starts over.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("PostgreSQL: {0}")]
    Sql(#[from] sqlx::Error),
}

/// Keeps the tables of one topic.
struct Keeper {
    database: Database,
    topic: String,
    merger: Merger,
    connection: Option<PgConnection>,
    has_trouble: bool,
}

impl Pipeline {
    /// Starts to keep the tables, where there is something to do.
    pub(super) fn start_keeping(&self, database: Database, topic: String) -> Option<JoinHandle<()>> {
        if self.plan.latency_layout() == LatencyLayout::Rows {
            return None;
        }
        let database = database.named("finstream keeping");
        let keeper = Keeper { database, topic, merger: Merger::default(), connection: None, has_trouble: false };
        Some(tokio::spawn(keeper.run(self.shutdown.clone())))
    }
}

impl Keeper {
    async fn run(mut self, mut shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.reached(Stage::Drain) => return,
            }
            let round = tokio::select! {
                round = self.round() => round,
                // What a statement has begun, PostgreSQL rolls back.
                () = shutdown.reached(Stage::Drain) => return,
            };
            match round {
                Ok(()) => self.has_trouble = false,
                Err(error) => {
                    self.connection = None;
                    if !self.has_trouble {
                        tracing::warn!(
                            "cannot keep the tables at the moment, tried again every {LOOK_EVERY:?}: {error}"
                        );
                    }
                    self.has_trouble = true;
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), KeepError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.database.connect().await?,
        };
        if answered(ANSWER_DEADLINE, is_keeper(&mut connection)).await? {
            let merging = async {
                match sink::current_stream(&mut connection, &self.topic).await? {
                    Some(stream) => self.merger.merge(&mut connection, stream.topic_ref).await,
                    None => Ok(0),
                }
            };
            answered(ANSWER_DEADLINE, merging).await?;
        }
        self.connection = Some(connection);
        Ok(())
    }
}

/// Takes the schema's lock for as long as this connection lives, unless it has it; false where another has it.
async fn is_keeper(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and granted)
             or pg_try_advisory_lock(hashtextextended('finstream keeping ' || current_schema(), 0))",
    )
    .fetch_one(connection)
    .await
}
