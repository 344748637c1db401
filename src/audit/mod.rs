//! Do the books balance? Compares ledger, log and PostgreSQL, message by message and total by total.
//!
//! The three are read in an order that makes a live pipeline comparable: what producers were told (outcomes), the log's
//! end, what producers meant to send (intents), and then one snapshot of PostgreSQL. So all that was acknowledged is in
//! the log's range, all that is in the range has its intent, and the totals are compared with the log up to exactly the
//! offsets that the snapshot has applied.
//!
//! The totals are summed here a second time, in code of its own: an audit that shared the sink's sums would share its
//! mistakes. Must not know the embedded broker: the log is read over TCP, as from any cluster.

use std::path::PathBuf;

use crate::config::KafkaSettings;
use crate::ledger::LedgerError;
use crate::postgres::{Database, PostgresError};

mod books;
mod compare;
mod log;
mod notebook;
mod order;
mod report;
mod settle;
mod stored;
mod totals;

pub use report::{AuditReport, Difference, DifferenceKind, MessageCounts, PartitionRange, Verdict};

/// What is compared.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Where the log is.
    pub kafka: KafkaSettings,
    /// Where rows and totals are; its schema is prepared.
    pub database: Database,
    /// Each a `DATA/ledger`; more than one where producers ran on several machines.
    pub ledger_dirs: Vec<PathBuf>,
}

/// Why the audit could not be done: not a verdict on the books.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log cannot be read.
    #[error("cannot read the log: {0}; is the broker up and --brokers right?")]
    Kafka(String),
    /// Rows and totals cannot be read.
    #[error("cannot read rows and totals: {0}")]
    Postgres(#[from] PostgresError),
    /// A ledger cannot be read at all.
    #[error("cannot read a ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// The comparison ended before its input did.
    #[error("the audit was cut short: {0}")]
    CutShort(String),
}

impl From<sqlx::Error> for AuditError {
    fn from(error: sqlx::Error) -> Self {
        AuditError::Postgres(PostgresError::Sql(error))
    }
}

/// Audits the books. `on_progress` is told how many log records of how many have been read, from time to time.
///
/// # Errors
/// Something could not be read. Books that do not balance are no error but the report's verdict.
pub async fn verify(
    settings: AuditSettings,
    on_progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<AuditReport, AuditError> {
    order::run(settings, Box::new(on_progress)).await
}
