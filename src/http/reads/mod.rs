//! What the windows read from PostgreSQL: totals, windows, dead letters, progress.
//!
//! Owns the questions and the few connections that ask them, in sessions that can only read and whose statements end
//! soon. Must not know HTTP, and cannot touch a role: it sees views that people see.

mod cursor;
mod letters;
mod partitions;
mod pool;
mod symbols;
mod users;
mod windows;

use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row, Type};

use crate::clock::Micros;
use crate::postgres::Database;
pub use cursor::Page;
pub use letters::DeadLetterRow;
pub use partitions::PartitionRow;
use pool::Pool;
pub use symbols::{SymbolRow, TopSymbol};
pub use users::{TopUser, UserRow};
pub use windows::{CategoryWindowRow, SymbolWindowRow, TimeRange};

/// What gives the snapshot's table of users.
pub const TOP_USERS_SQL: &str = "select user_id, currency, transactions, spend from user_totals \
     where transactions > 0 order by transactions desc, user_id, currency limit 10";
/// What gives the snapshot's table of symbols.
pub const TOP_SYMBOLS_SQL: &str = "select symbol, currency, trades, quantity, notional, last_price from symbol_totals \
     order by trades desc, symbol, currency limit 10";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No connection, or no answer on it.
    #[error("PostgreSQL does not answer ({0}); it is asked again with the next request")]
    Away(String),
    /// It has no time for viewers.
    #[error("{0}; ask for less, or again in a moment")]
    Slow(String),
    /// A cursor that is not of this answer.
    #[error("after={0:?} is not a cursor of this list: give `next` of the page before, unchanged")]
    Cursor(String),
    /// Anything else: a defect, or tables that are gone.
    #[error("PostgreSQL refuses the question: {0}")]
    Refused(String),
}

/// The questions. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Reads {
    pool: std::sync::Arc<Pool>,
    psql: String,
}

impl Reads {
    /// Of this database; nothing is opened before it is needed.
    pub fn new(database: &Database) -> Reads {
        Reads { pool: std::sync::Arc::new(Pool::new(database)), psql: database.psql_command() }
    }

    /// The psql command that opens the totals.
    pub fn psql_command(&self) -> &str {
        &self.psql
    }
}

/// A column of a row that was asked for here, so that its type is known.
fn cell<'row, T: Decode<'row, Postgres> + Type<Postgres>>(row: &'row PgRow, index: usize) -> Result<T, ReadError> {
    row.try_get(index).map_err(|error| ReadError::Refused(error.to_string()))
}

/// The same for a time, as text.
fn time(row: &PgRow, index: usize) -> Result<String, ReadError> {
    optional_time(row, index).map(Option::unwrap_or_default)
}

/// The same for one that may be null.
fn optional_time(row: &PgRow, index: usize) -> Result<Option<String>, ReadError> {
    let time: Option<chrono::DateTime<chrono::Utc>> = cell(row, index)?;
    Ok(time.map(|time| Micros(time.timestamp_micros()).to_string()))
}
