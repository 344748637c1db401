//! Runs of producers: registered by the consumer that first sees one.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::error::SinkError;
use crate::transaction::{RunId, RunInfo};

/// Runs kept in memory, at most; a hostile producer may name a new one in each message.
const KNOWN_RUNS_MAX: usize = 10_000;
/// Characters kept of each text that a run says about itself.
const TEXT_CHARS_MAX: usize = 4_000;

/// The small integers of the runs seen so far.
#[derive(Debug, Default)]
pub(super) struct Runs {
    refs: HashMap<RunId, i32>,
}

impl Runs {
    pub(super) fn get(&self, run: RunId) -> Option<i32> {
        self.refs.get(&run).copied()
    }

    /// Registers the runs that are not known yet.
    pub(super) async fn register(&mut self, connection: &mut PgConnection, runs: Vec<RunId>) -> Result<(), SinkError> {
        if self.refs.len() + runs.len() > KNOWN_RUNS_MAX {
            self.refs.clear();
        }
        let mut unknown: Vec<Uuid> = runs.into_iter().filter(|run| self.get(*run).is_none()).map(|run| run.0).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        // Sorted, so that two consumers that see the same runs cannot lock each other out.
        unknown.sort_unstable();
        unknown.dedup();
        sqlx::query("insert into runs (run_id) select unnest($1::uuid[]) on conflict (run_id) do nothing")
            .bind(&unknown)
            .execute(&mut *connection)
            .await?;
        let rows = sqlx::query("select run_id, run_ref from runs where run_id = any($1)")
            .bind(&unknown)
            .fetch_all(connection)
            .await?;
        for row in rows {
            self.refs.insert(RunId(row.try_get(0)?), row.try_get(1)?);
        }
        Ok(())
    }
}

/// Fills the row of a run with what it says about itself, once.
pub(super) async fn describe(connection: &mut PgConnection, run: RunId, info: &RunInfo) -> Result<(), SinkError> {
    let started_at: Option<DateTime<Utc>> =
        DateTime::parse_from_rfc3339(&info.started_at).ok().map(|time| time.with_timezone(&Utc));
    sqlx::query(
        "insert into runs (run_id, started_at, command, source, rate, seed, durability, version)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (run_id) do update set started_at = excluded.started_at, command = excluded.command,
             source = excluded.source, rate = excluded.rate, seed = excluded.seed,
             durability = excluded.durability, version = excluded.version
         where runs.command is null",
    )
    .bind(run.0)
    .bind(started_at)
    .bind(storable(&info.command))
    .bind(storable(&info.source))
    .bind(storable(&info.rate))
    .bind(info.seed)
    .bind(storable(&info.durability))
    .bind(storable(&info.version))
    .execute(connection)
    .await?;
    Ok(())
}

/// PostgreSQL has no zero characters in texts; a header must not be able to stop the sink.
fn storable(text: &str) -> String {
    text.chars().filter(|character| *character != '\0').take(TEXT_CHARS_MAX).collect()
}
