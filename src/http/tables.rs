//! The tables of the snapshot that PostgreSQL gives: read every few seconds, once for all viewers, while somebody looks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::known::{About, Known};
use super::reads::{PartitionRow, ReadError, Reads, TOP_SYMBOLS_SQL, TOP_USERS_SQL, TopSymbol, TopUser};
use super::snapshot::Top;
use crate::clock::SharedClock;

/// Between two readings, at least.
const READ_EVERY: Duration = Duration::from_secs(5);
/// One that took long is followed by a pause so many times as long: viewers take a twentieth of a core of PostgreSQL.
const PAUSE_FACTOR: u32 = 20;
/// Nobody looks any more when nobody asked for so long.
const LOOKED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether it is time.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What was read last.
#[derive(Debug)]
pub struct Tables(Mutex<State>);

#[derive(Debug)]
struct State {
    users: Top<TopUser>,
    symbols: Top<TopSymbol>,
    partitions: Vec<PartitionRow>,
    looked_at: Option<Instant>,
}

impl Tables {
    /// Nothing was read yet.
    pub fn new(about: &About) -> Tables {
        let error = match about.roles.contains(&"consumer") {
            true => "PostgreSQL was not asked yet",
            false => "no consumer runs in this process, so PostgreSQL is not known here",
        };
        Tables(Mutex::new(State {
            users: empty(TOP_USERS_SQL, &about.command, error),
            symbols: empty(TOP_SYMBOLS_SQL, &about.command, error),
            partitions: Vec::new(),
            looked_at: None,
        }))
    }

    /// Somebody looks.
    pub fn looked(&self) {
        self.lock().looked_at = Some(Instant::now());
    }

    /// Users, symbols and partitions as they were read last.
    pub fn read(&self) -> (Top<TopUser>, Top<TopSymbol>, Vec<PartitionRow>) {
        let state = self.lock();
        (state.users.clone(), state.symbols.clone(), state.partitions.clone())
    }

    /// Reads them from time to time, until it is dropped.
    pub async fn keep(&self, known: &Known, clock: &SharedClock) {
        let mut next: Option<Instant> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(reads) = known.reads() else { continue };
            // Once at the beginning, so that the first viewer finds them.
            let is_looked_at = self.lock().looked_at.is_some_and(|at| at.elapsed() < LOOKED_WITHIN);
            if next.is_some_and(|next| Instant::now() < next || !is_looked_at) {
                continue;
            }
            let began = Instant::now();
            self.refresh(reads, clock).await;
            next = Some(Instant::now() + READ_EVERY.max(began.elapsed() * PAUSE_FACTOR));
        }
    }

    async fn refresh(&self, reads: &Reads, clock: &SharedClock) {
        let (users, symbols, partitions) =
            (reads.top_users().await, reads.top_symbols().await, reads.partitions().await);
        let as_of = clock.now().to_string();
        let psql = |sql: &str| format!("{} -c '{sql}'", reads.psql_command());
        let mut state = self.lock();
        state.users.psql = Some(psql(TOP_USERS_SQL));
        state.symbols.psql = Some(psql(TOP_SYMBOLS_SQL));
        replace(&mut state.users, users, &as_of);
        replace(&mut state.symbols, symbols, &as_of);
        if let Ok(partitions) = partitions {
            state.partitions = partitions;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each table is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn empty<Row>(sql: &'static str, command: &str, error: &str) -> Top<Row> {
    Top {
        rows: Vec::new(),
        sql,
        command: format!("{command} sql '{sql}'"),
        psql: None,
        as_of: None,
        error: Some(error.to_owned()),
    }
}

/// An error keeps the rows of before: `as_of` says how old they are.
fn replace<Row>(table: &mut Top<Row>, read: Result<Vec<Row>, ReadError>, as_of: &str) {
    match read {
        Ok(rows) => {
            table.rows = rows;
            table.as_of = Some(as_of.to_owned());
            table.error = None;
        }
        Err(error) => table.error = Some(error.to_string()),
    }
}
