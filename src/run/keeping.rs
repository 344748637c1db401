//! What one process of the pipeline does for tables and ledger while traffic flows: small packs are merged, and what is
//! beyond `--retention` and `--retention-bytes` is removed, once a balanced audit has covered it.
//!
//! Whoever holds the schema's lock keeps; the others stand by.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use sqlx::PgConnection;
use tokio::task::{JoinError, JoinHandle};
use uuid::Uuid;

use super::figures::thousands;
use super::gauges;
use super::pipeline::Pipeline;
use crate::audit::{self, AuditError, AuditSettings, CheckpointError, Covered, Verdict};
use crate::broker::Holder;
use crate::clock::{Micros, SharedClock};
use crate::config::KafkaSettings;
use crate::http::{AuditCheckpoint, Known, Readiness};
use crate::ledger::{self, LedgerError, Settled};
use crate::metrics::{
    AUDIT_BALANCED, CHECKPOINT_TIMESTAMP_SECONDS, KEEPING_ROUNDS_TOTAL, RETENTION_LEDGER_BYTES_TOTAL,
    RETENTION_ROWS_TOTAL,
};
use crate::postgres::{Database, PostgresError, answered};
use crate::shutdown::{Shutdown, Stage};
use crate::sink::{self, Excess, Merger, SinkError};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longest wait for PostgreSQL: nobody waits for what is kept.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);
/// Rows are removed when they are more than may be kept by one part in so many: audits and removals come in strides.
const STRIDE: i64 = 16;
/// Rounds between two looks of one who stands by.
const LOOK_FOR_OTHERS_ROUNDS: u64 = 12;
/// The embedded broker of this process holds what no audit has covered, and other brokers know no audit. So that there is
/// something to cut, and little that is cut uncovered, an audit is due when this part of what may be kept has come since
/// the last one.
const COVER_PART: u32 = 4;
/// Where there is no checkpoint at all, an audit is due after this.
const FIRST_AFTER: Duration = Duration::from_secs(600);
/// Log of a message, with its share of the journal.
const LOG_BYTES: u64 = 400;
/// Books that do not balance are looked at again after so many times what the audit took, within these bounds.
const AUDIT_AGAIN_FACTOR: u32 = 20;
const AUDIT_AGAIN_MIN: Duration = Duration::from_secs(60);
const AUDIT_AGAIN_MAX: Duration = Duration::from_secs(3600);
/// Who waits, in the readiness, and for what.
const ROLE: &str = "retention";
const UNBALANCED: &str = "books that balance: nothing is removed until then (finstream verify)";

/// Why a round was not finished; the next one starts over.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("PostgreSQL: {0}")]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("a task ended unexpectedly: {0}")]
    Task(#[from] JoinError),
}

/// Keeps the tables and the ledger of one topic.
struct Keeper {
    database: Database,
    kafka: KafkaSettings,
    ledger_dir: PathBuf,
    retention: Duration,
    retention_bytes: u64,
    readiness: Readiness,
    known: Known,
    /// The embedded broker's, where it runs in this process.
    holder: Option<Holder>,
    rounds: u64,
    merger: Merger,
    connection: Option<PgConnection>,
    /// The schema's; does not change.
    books_id: Option<Uuid>,
    /// The checkpoint in the ledger's folder; looked for once, and after each audit.
    covered: Option<Covered>,
    has_looked: bool,
    /// The time of the last checkpoint, or of the start.
    since: Micros,
    clock: SharedClock,
    /// The last audit, by whichever process, has found differences; or this one's could not decide.
    is_doubtful: bool,
    /// An audit that found no balance, or failed, is not made again before.
    audit_after: Option<Instant>,
    has_trouble: bool,
}

impl Pipeline {
    /// Starts to keep tables and ledger, until the task is aborted.
    pub(super) fn start_keeping(
        &self,
        database: Database,
        kafka: KafkaSettings,
        holder: Option<Holder>,
    ) -> JoinHandle<()> {
        let (retention, retention_bytes) = self.plan.retention();
        let keeper = Keeper {
            database: database.named("finstream keeping"),
            kafka,
            ledger_dir: self.data_dir.path().join("ledger"),
            retention,
            retention_bytes,
            readiness: self.readiness.clone(),
            known: self.known.clone(),
            holder,
            rounds: 0,
            merger: Merger::default(),
            connection: None,
            books_id: None,
            covered: None,
            has_looked: false,
            since: self.clock.now(),
            clock: self.clock.clone(),
            is_doubtful: false,
            audit_after: None,
            has_trouble: false,
        };
        tokio::spawn(keeper.run(self.shutdown.clone()))
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
            let outcome = if round.is_ok() { "done" } else { "failed" };
            metrics::counter!(KEEPING_ROUNDS_TOTAL, "outcome" => outcome).increment(1);
            match round {
                Ok(()) => self.has_trouble = false,
                Err(error) => {
                    self.connection = None;
                    if !self.has_trouble {
                        tracing::warn!("cannot keep tables and ledger now, tried again every {LOOK_EVERY:?}: {error}");
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
        let is_keeper = answered(ANSWER_DEADLINE, is_keeper(&mut connection)).await?;
        let topic = self.kafka.transactions_topic();
        let current = sink::current_stream(&mut connection, &topic);
        if let Some(stream) = answered(ANSWER_DEADLINE, current).await? {
            if self.books_id.is_none() {
                let asking = sqlx::query_scalar("select books_id from schema_owner").fetch_optional(&mut connection);
                self.books_id = answered(ANSWER_DEADLINE, asking).await?;
            }
            let looking = sink::differs(&mut connection, stream.topic_ref);
            self.doubt(answered(ANSWER_DEADLINE, looking).await?, is_keeper);
            // Who stands by learns of the others' checkpoints for the sake of the broker here.
            let is_time = self.holder.is_some() && self.rounds.is_multiple_of(LOOK_FOR_OTHERS_ROUNDS);
            self.rounds += 1;
            // After a reset the checkpoint is of a life that is over.
            let is_of_another = self.covered.as_ref().is_some_and(|known| known.topic_ref != stream.topic_ref);
            if !self.has_looked || is_of_another || !is_keeper && is_time {
                self.look(stream.topic_ref).await?;
            }
            // Before an audit, which may take long, and after it.
            self.hold(&topic);
            if is_keeper {
                answered(ANSWER_DEADLINE, self.merger.merge(&mut connection, stream.topic_ref)).await?;
                self.retire(&mut connection, stream.topic_ref).await?;
            }
            self.hold(&topic);
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Removes what is beyond its time or its room, as far as a balanced audit has covered it.
    async fn retire(&mut self, connection: &mut PgConnection, topic_ref: i32) -> Result<(), KeepError> {
        let looking = sink::excess(connection, topic_ref, self.retention, self.retention_bytes);
        let excess = answered(ANSWER_DEADLINE, looking).await?;
        let sum = |each: fn(&Excess) -> i64| excess.iter().map(each).sum::<i64>();
        let (much, kept) = (sum(|part| part.to - part.from), sum(|part| part.next_offset - part.from));
        let is_much = much > 0 && much >= kept / STRIDE;
        // Books that did not balance prove nothing, not even what an older checkpoint stands for, until they balance again.
        let is_proven = is_much && !self.is_doubtful && self.is_covered(&excess);
        let is_asked = is_much || self.is_doubtful || self.is_due(&excess);
        if !is_proven && is_asked && !self.audit(topic_ref).await? {
            return Ok(());
        }
        let Some(covered) = self.covered.clone().filter(|_| is_much) else { return Ok(()) };
        let mut removed = 0;
        for Excess { partition, from, to, .. } in excess {
            let to = to.min(covered.offsets.get(&partition).copied().unwrap_or(0));
            removed += sink::cut(connection, topic_ref, partition, (from, to)).await?;
        }
        let dir = self.ledger_dir.clone();
        let settled: Vec<Settled> = covered.runs.into_iter().map(|(run, below)| Settled { run, below }).collect();
        let older_than = SystemTime::now().checked_sub(self.retention).unwrap_or(SystemTime::UNIX_EPOCH);
        let bytes_max = self.retention_bytes;
        let cutting = tokio::task::spawn_blocking(move || ledger::cut(&dir, &settled, older_than, bytes_max));
        let bytes = cutting.await??;
        metrics::counter!(RETENTION_ROWS_TOTAL).increment(removed);
        metrics::counter!(RETENTION_LEDGER_BYTES_TOTAL).increment(bytes);
        if (removed, bytes) != (0, 0) {
            tracing::info!(
                "retention removed {} latency rows and {} of ledger, behind a balanced audit; totals are kept",
                thousands(removed),
                super::figures::bytes(bytes)
            );
        }
        Ok(())
    }

    /// What the database says of differences. The keeper's doubt stays until its own audit balances.
    fn doubt(&mut self, differs: bool, is_keeper: bool) {
        if !differs && !is_keeper && std::mem::take(&mut self.is_doubtful) {
            self.readiness.ready(ROLE);
        }
        if differs && !self.is_doubtful {
            self.is_doubtful = true;
            metrics::gauge!(AUDIT_BALANCED).set(0.0);
            self.readiness.waiting(ROLE, UNBALANCED);
            tracing::warn!(
                "an audit has found differences, so nothing is removed, whatever --retention says, until one balances"
            );
        }
    }

    /// Has the embedded broker keep what no checkpoint covers.
    fn hold(&self, topic: &str) {
        let Some(holder) = &self.holder else { return };
        let nothing = BTreeMap::new();
        let proven = self.covered.as_ref().filter(|_| !self.is_doubtful);
        holder.hold(topic, proven.map_or(&nothing, |covered| &covered.offsets));
    }

    /// Whether the checkpoint stands for all that is to go.
    fn is_covered(&self, excess: &[Excess]) -> bool {
        let Some(covered) = &self.covered else { return false };
        excess.iter().all(|part| covered.offsets.get(&part.partition).is_some_and(|offset| *offset >= part.to))
    }

    /// Whether so much has come since the last checkpoint that the log may soon be cut behind it.
    fn is_due(&self, excess: &[Excess]) -> bool {
        let offset = |part: &Excess| {
            let covered = self.covered.as_ref().and_then(|covered| covered.offsets.get(&part.partition).copied());
            covered.unwrap_or(0).max(part.from)
        };
        let since: u64 = excess.iter().map(|part| (part.next_offset - offset(part)).max(0).unsigned_abs()).sum();
        let age = Duration::from_micros((self.clock.now().0 - self.since.0).max(0).unsigned_abs());
        let is_old = age >= self.retention / COVER_PART;
        // The first one comes soon, so that a new installation knows that its books balance.
        let is_first = self.covered.is_none() && age >= FIRST_AFTER;
        since > 0
            && (is_old || is_first || since.saturating_mul(LOG_BYTES) >= self.retention_bytes / u64::from(COVER_PART))
    }

    /// Makes a new checkpoint; false when the books do not balance, or did not a short time ago.
    async fn audit(&mut self, topic_ref: i32) -> Result<bool, KeepError> {
        if self.audit_after.is_some_and(|after| Instant::now() < after) {
            return Ok(false);
        }
        let settings = AuditSettings {
            kafka: self.kafka.clone(),
            database: self.database.clone(),
            ledger_dirs: vec![self.ledger_dir.clone()],
            make_checkpoint: true,
        };
        let began = Instant::now();
        let audited = gauges::audit(settings, &self.known, &self.clock).await;
        let again = (began.elapsed() * AUDIT_AGAIN_FACTOR).clamp(AUDIT_AGAIN_MIN, AUDIT_AGAIN_MAX);
        self.audit_after = Some(Instant::now() + again);
        let report = audited?;
        if report.verdict == Verdict::Balanced {
            self.audit_after = None;
            if std::mem::take(&mut self.is_doubtful) {
                tracing::info!("the books balance again: retention goes on");
                self.readiness.ready(ROLE);
            }
            self.look(topic_ref).await?;
            return Ok(true);
        }
        if !std::mem::replace(&mut self.is_doubtful, true) {
            tracing::warn!(
                "the books do not balance, so nothing is removed, whatever --retention says; `finstream verify` names the \
                 reason: {report}"
            );
        }
        self.readiness.waiting(ROLE, UNBALANCED);
        Ok(false)
    }

    async fn look(&mut self, topic_ref: i32) -> Result<(), KeepError> {
        let (dir, topic) = (self.ledger_dir.clone(), self.kafka.transactions_topic());
        let Some(books_id) = self.books_id else { return Ok(()) };
        let covered = tokio::task::spawn_blocking(move || audit::covered(&dir, books_id, &topic)).await??;
        self.covered = covered.filter(|covered| covered.topic_ref == topic_ref);
        self.since = self.covered.as_ref().map_or(self.since, |covered| covered.made_at);
        if let Some(covered) = &self.covered {
            metrics::gauge!(CHECKPOINT_TIMESTAMP_SECONDS).set(covered.made_at.0 as f64 / 1e6);
        }
        self.has_looked = true;
        let checkpoint = self
            .covered
            .as_ref()
            .map(|covered| AuditCheckpoint { made_at: covered.made_at.to_string(), offsets: covered.offsets.clone() });
        self.known.set_checkpoint(checkpoint);
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
