//! The writer of one consumer: its connection, what it owns, and what it does when PostgreSQL refuses or is away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::backoff::Patience;
use super::batch::Batch;
use super::deadlines::{Deadlines, TRANSACTION_DEADLINE_MAX};
use super::error::{Class, SinkError, classify};
use super::outcome::{Found, broken, judge, split, stored_part};
use super::ownership::{Backend, Claimed, Owned, claim, renew};
use super::plans::plan_by_key;
use super::prepare::{Move, Part, Prepared, prepare};
use super::runs::{Runs, describe};
use super::values::Time;
use super::write::{Context, Failure, SeenCommit, read_progress, write, write_seen_commits};
use crate::aggregate::WindowLength;
use crate::clock::{Micros, SharedClock};
use crate::config::LatencyLayout;
use crate::metrics::SINK_RETRIES_TOTAL;
use crate::postgres::{SessionError, answered, backend_pid, check_schema, connect, no_answer, search_path};

/// Commits that wait to be written down, at most; a busy worker writes them with its next transaction.
const SEEN_COMMITS_MAX: usize = 10_000;

/// What a worker is made of.
#[derive(Clone)]
pub struct WorkerSettings {
    /// Where PostgreSQL is; the schema is chosen by the search path.
    pub database: PgConnectOptions,
    /// The stream whose partitions it writes.
    pub topic_ref: i32,
    /// `group.instance.id`: who owns a partition, for people.
    pub instance: String,
    /// Whether changed totals are recorded for the publisher.
    pub record_changes: bool,
    /// How latency rows are stored.
    pub latency_layout: LatencyLayout,
    /// Of the schema's windows.
    pub window_length: WindowLength,
    pub clock: SharedClock,
}

/// One transaction's worth of a batch, committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Transactions stored.
    pub messages: u64,
    pub dead_letters: u64,
    /// Of these, messages that say of no run that they are of it: no producer of ours has sent them.
    pub foreign_letters: u64,
    /// Before BEGIN, after decoding and summing.
    pub processed_at: Micros,
    /// After COMMIT returned; none when the commit was found done after a lost connection.
    pub committed_at: Option<Micros>,
    /// (scheduled, sent, received) of each transaction.
    pub times: Vec<(Option<Micros>, Option<Micros>, Micros)>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// In the order of the log.
    pub parts: Vec<StoredPart>,
    /// Last applied + 1, of the batch's partitions that are still owned.
    pub next_offsets: Vec<(i32, i64)>,
    /// Partitions that someone else has claimed: nothing more of them may be written here.
    pub fenced: Vec<i32>,
}

/// Writes batches over one connection, which it renews when it breaks.
pub struct Worker {
    settings: WorkerSettings,
    deadlines: Deadlines,
    /// For the next batch.
    write_deadline: Duration,
    connection: Option<PgConnection>,
    backend: Backend,
    owned: BTreeMap<i32, Owned>,
    runs: Runs,
    seen: Vec<SeenCommit>,
}

impl Worker {
    /// Connects, waiting while PostgreSQL is away.
    ///
    /// # Errors
    /// What waiting does not cure, or the last error when it is time to stop.
    pub async fn connect_patiently(settings: WorkerSettings, patience: &mut Patience) -> Result<Self, SinkError> {
        loop {
            match Self::connect(settings.clone(), Deadlines::default()).await {
                Err(error) if error.class() == Class::Outage => {
                    patience.failed(&error);
                    if !patience.wait().await {
                        return Err(error);
                    }
                }
                connected => {
                    patience.reset();
                    return connected;
                }
            }
        }
    }

    /// Connects, once.
    pub async fn connect(settings: WorkerSettings, deadlines: Deadlines) -> Result<Self, SinkError> {
        let mut connection = connect(&settings.database, deadlines.connect).await?;
        let backend = answered(deadlines.transaction, begin_session(&mut connection, &settings.database)).await?;
        Ok(Worker {
            settings,
            deadlines,
            write_deadline: deadlines.transaction,
            connection: Some(connection),
            backend,
            owned: BTreeMap::new(),
            runs: Runs::default(),
            seen: Vec::new(),
        })
    }

    /// The backend that holds this worker's locks.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Claims partitions for this worker; whoever owned them is fenced from now on.
    ///
    /// # Errors
    /// [`SinkError::GaveUp`] when PostgreSQL stayed away, [`SinkError::Locked`] when a lock could not be had.
    pub async fn claim(&mut self, partitions: &[i32], patience: &mut Patience) -> Result<Vec<Claimed>, SinkError> {
        let mut claims = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let claimed = loop {
                match self.try_claim(*partition).await {
                    Err(error @ SinkError::Database(_)) if error.class() == Class::Outage => {
                        self.recover(error, patience, 0).await?;
                    }
                    claimed => break claimed?,
                }
            };
            let Claimed { epoch, next_offset, watermark, .. } = claimed;
            self.owned.insert(claimed.partition, Owned { epoch, next_offset, watermark });
            claims.push(claimed);
        }
        patience.reset();
        Ok(claims)
    }

    /// Forgets partitions: they were revoked or lost.
    pub fn release(&mut self, partitions: &[i32]) {
        self.owned.retain(|partition, _| !partitions.contains(partition));
    }

    /// Stores a batch: all of it, in order, except messages of partitions that turn out to be fenced.
    ///
    /// A message that PostgreSQL refuses for its data becomes a dead letter; while PostgreSQL is away, this waits.
    ///
    /// # Errors
    /// [`SinkError::Broken`] when the books are not what this worker wrote, [`SinkError::GaveUp`] when PostgreSQL stayed
    /// away until it was time to stop, [`SinkError::BatchTooLarge`] before anything is stored. Parts that were committed before the error stay committed.
    pub async fn store(&mut self, batch: &Batch, patience: &mut Patience) -> Result<Committed, SinkError> {
        batch.check_whole()?;
        self.register_runs(batch, patience).await?;
        let mut committed = Committed::default();
        let mut pending = vec![Part { batch, items: batch.items().iter().collect(), refused: None }];
        // The part on top is the next one in the log: halves are pushed second half first.
        while let Some(mut part) = pending.pop() {
            part.items.retain(|item| self.owned.contains_key(&item.partition));
            if part.items.is_empty() {
                continue;
            }
            match self.store_part(&part, patience, &mut committed).await? {
                None => {}
                Some(reason) => split(part, &reason, &mut pending)?,
            }
        }
        committed.next_offsets = self.owned.iter().map(|(partition, owned)| (*partition, owned.next_offset)).collect();
        // Also where nothing of it was left to store: PostgreSQL has answered.
        patience.reset();
        Ok(committed)
    }

    /// Writes down the commits seen since the last transaction. Losing them costs latency values, not messages: an
    /// error is for the log.
    pub async fn write_seen_commits(&mut self) -> Result<(), SinkError> {
        if self.seen.is_empty() {
            return Ok(());
        }
        let Some(mut connection) = self.connection.take() else { return Ok(()) };
        let settings = &self.settings;
        let written = write_seen_commits(&mut connection, settings.topic_ref, settings.latency_layout, &self.seen);
        answered(self.deadlines.transaction, written).await?;
        self.connection = Some(connection);
        self.seen.clear();
        Ok(())
    }

    /// Stops cleanly: the last commits are written down, the connection is closed.
    pub async fn close(mut self) -> Result<(), SinkError> {
        self.write_seen_commits().await?;
        if let Some(connection) = self.connection.take() {
            answered(self.deadlines.connect, connection.close()).await?;
        }
        Ok(())
    }

    /// Writes one part; the reason when PostgreSQL refuses its data.
    async fn store_part(
        &mut self,
        part: &Part<'_>,
        patience: &mut Patience,
        committed: &mut Committed,
    ) -> Result<Option<String>, SinkError> {
        let topic_ref = self.settings.topic_ref;
        let mut part = part.clone();
        while !part.items.is_empty() {
            let (layout, window_length) = (self.settings.latency_layout, self.settings.window_length);
            let mut prepared = match prepare(&part, topic_ref, layout, &self.owned, window_length, &self.runs) {
                Ok(prepared) => prepared,
                Err(refused) => return Ok(Some(refused.to_string())),
            };
            let processed_at = self.settings.clock.now();
            prepared.rows.stamp(processed_at);
            let written = self.try_write(&prepared, processed_at, patience).await;
            let committed_at = self.settings.clock.now();
            let is_committed = match written {
                Ok(()) => Some(committed_at),
                Err(Failure::Broken(what)) => return Err(SinkError::Broken { topic_ref, what }),
                Err(Failure::Database(error)) => match classify(&error) {
                    Class::Data => return Ok(Some(error.to_string())),
                    Class::Broken => return Err(broken(topic_ref, &error)),
                    Class::Outage => {
                        self.recover(error.into(), patience, part.items.len()).await?;
                        None
                    }
                },
                Err(Failure::Moved) => None,
            };
            if is_committed.is_none() {
                match self.compare(&prepared.moves, patience).await? {
                    Found::Committed => {}
                    Found::Untouched => continue,
                    Found::Fenced(partitions) => {
                        drop(prepared);
                        self.release(&partitions);
                        part.items.retain(|item| !partitions.contains(&item.partition));
                        committed.fenced.extend(partitions);
                        continue;
                    }
                }
            }
            patience.reset();
            self.advance(&prepared.moves, is_committed);
            committed.parts.push(stored_part(&part, &prepared.moves, processed_at, is_committed));
            break;
        }
        Ok(None)
    }

    /// Writes a prepared part, within the time that there is for it.
    async fn try_write(
        &mut self,
        prepared: &Prepared<'_>,
        processed_at: Micros,
        patience: &mut Patience,
    ) -> Result<(), Failure> {
        let context = Context {
            topic_ref: self.settings.topic_ref,
            processed_at: Time(processed_at),
            layout: self.settings.latency_layout,
            seen: &self.seen,
            record_changes: self.settings.record_changes,
        };
        // Taken, so that a broken or half-used connection is never used again.
        let Some(mut connection) = self.connection.take() else { return Err(Failure::Database(not_connected())) };
        let (deadline, began) = (self.write_deadline, Instant::now());
        let Some(written) = patience.within(deadline, write(&mut connection, prepared, context)).await else {
            self.write_deadline = (deadline * 2).min(TRANSACTION_DEADLINE_MAX);
            return Err(Failure::Database(no_answer(began.elapsed())));
        };
        // What was slow once is given that time again.
        if began.elapsed() < self.deadlines.transaction {
            self.write_deadline = self.deadlines.transaction;
        }
        self.connection = Some(connection);
        written
    }

    async fn try_claim(&mut self, partition: i32) -> Result<Claimed, SinkError> {
        let Some(mut connection) = self.connection.take() else {
            return Err(not_connected().into());
        };
        let settings = &self.settings;
        let claimed = claim(&mut connection, settings.topic_ref, partition, &settings.instance, self.backend);
        let claimed = answered(self.deadlines.transaction, claimed).await;
        self.connection = Some(connection);
        claimed
    }

    async fn register_runs(&mut self, batch: &Batch, patience: &mut Patience) -> Result<(), SinkError> {
        loop {
            match self.try_register_runs(batch).await {
                Err(error @ SinkError::Database(_)) if error.class() == Class::Outage => {
                    self.recover(error, patience, batch.len()).await?;
                }
                registered => return registered,
            }
        }
    }

    async fn try_register_runs(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let Some(connection) = self.connection.as_mut() else {
            return Err(not_connected().into());
        };
        let deadline = self.deadlines.transaction;
        for (run, info) in batch.runs() {
            answered(deadline, describe(connection, *run, info)).await?;
        }
        let mut runs: Vec<_> = batch.items().iter().filter_map(|item| item.identity.map(|id| id.run)).collect();
        runs.dedup();
        answered(deadline, self.runs.register(connection, runs)).await
    }

    /// Waits for PostgreSQL and connects again.
    async fn recover(&mut self, error: SinkError, patience: &mut Patience, messages: usize) -> Result<(), SinkError> {
        self.connection = None;
        patience.failed(&error);
        metrics::counter!(SINK_RETRIES_TOTAL).increment(1);
        let mut last = error;
        loop {
            if !patience.wait().await {
                return Err(match last {
                    SinkError::Database(last) => SinkError::GaveUp { messages, last },
                    other => other,
                });
            }
            match self.reconnect().await {
                Ok(()) => return Ok(()),
                Err(error) if error.class() == Class::Outage => {
                    patience.failed(&error);
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A new connection, registered for what is still owned. What is fenced shows when the next batch is compared.
    async fn reconnect(&mut self) -> Result<(), SinkError> {
        let connection = connect(&self.settings.database, self.deadlines.connect).await?;
        let renewed = answered(self.deadlines.transaction, self.renew(connection)).await?;
        (self.connection, self.backend) = (Some(renewed.0), renewed.1);
        Ok(())
    }

    async fn renew(&self, mut connection: PgConnection) -> Result<(PgConnection, Backend), SinkError> {
        let backend = begin_session(&mut connection, &self.settings.database).await?;
        // Out of reach is not gone: the old backend may hold locks of a claim or a batch, for as long as TCP is patient.
        self.backend.terminate(&mut connection).await?;
        let owned: Vec<(i32, i64)> = self.owned.iter().map(|(partition, owned)| (*partition, owned.epoch)).collect();
        if !owned.is_empty() {
            renew(&mut connection, self.settings.topic_ref, &owned, self.backend, backend).await?;
        }
        Ok((connection, backend))
    }

    /// What PostgreSQL holds of a part whose transaction did not report success.
    async fn compare(&mut self, moves: &[Move], patience: &mut Patience) -> Result<Found, SinkError> {
        let topic_ref = self.settings.topic_ref;
        let partitions: Vec<i32> = moves.iter().map(|step| step.partition).collect();
        let rows = loop {
            let Some(connection) = self.connection.as_mut() else {
                self.recover(not_connected().into(), patience, 0).await?;
                continue;
            };
            let read = read_progress(connection, topic_ref, &partitions);
            match answered(self.deadlines.transaction, read).await {
                Ok(rows) => break rows,
                Err(error) if classify(&error) == Class::Outage => self.recover(error.into(), patience, 0).await?,
                Err(error) => return Err(error.into()),
            }
        };
        judge(topic_ref, moves, &rows)
    }

    fn advance(&mut self, moves: &[Move], committed_at: Option<Micros>) {
        if committed_at.is_some() {
            // They were written with this transaction.
            self.seen.clear();
        }
        for step in moves {
            if let Some(owned) = self.owned.get_mut(&step.partition) {
                owned.next_offset = step.next_offset();
                owned.watermark = step.watermark;
            }
            if let Some(committed_at) = committed_at
                && self.seen.len() < SEEN_COMMITS_MAX
            {
                self.seen.push(SeenCommit {
                    partition: step.partition,
                    first_offset: step.first_offset,
                    last_offset: step.last_offset,
                    committed_at: Time(committed_at),
                });
            }
        }
    }
}

/// The backend of a new connection, if it serves this connection alone, with the schema that was asked for.
async fn begin_session(connection: &mut PgConnection, options: &PgConnectOptions) -> Result<Backend, SinkError> {
    let backend = Backend::of(connection).await?;
    if let Some(schema) = search_path(options) {
        check_schema(connection, schema).await?;
    }
    let second = backend_pid(connection).await?;
    if second != backend.pid {
        return Err(SessionError::Pooled { first: backend.pid, second }.into());
    }
    plan_by_key(connection).await?;
    Ok(backend)
}

fn not_connected() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::NotConnected.into())
}
