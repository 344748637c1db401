//! Do the books balance? Compares ledger, log and PostgreSQL, message by message and total by total.
//!
//! The three are read in an order that makes a live pipeline comparable: what producers were told (outcomes), the log's
//! end, one snapshot of PostgreSQL, and then what producers meant to send (intents). So all that was acknowledged is in
//! the log's range, all that was applied has its intent, and the totals are compared with the log up to exactly the
//! offsets that the snapshot has applied. An audit that balanced may leave a checkpoint there, where the next one begins.
//!
//! The totals are summed here a second time, in code of its own: an audit that shared the sink's sums would share its
//! mistakes. Must not know the embedded broker: the log is read over TCP, as from any cluster.

use std::path::PathBuf;

use crate::config::KafkaSettings;
use crate::ledger::LedgerError;
use crate::postgres::{Database, PostgresError};

mod answers;
mod books;
mod check;
mod checkpoint;
mod compare;
mod digest;
mod feed;
mod latency_rows;
mod log;
mod notebook;
mod order;
mod published;
mod ranges;
mod report;
mod rows;
mod settle;
mod spool;
mod stored;
mod totals;
mod windows;

pub use checkpoint::{CheckpointError, Covered, covered};
pub use report::{AuditReport, CheckpointSummary, Difference, DifferenceKind, MessageCounts, PartitionRange, Verdict};

/// What is compared.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Where the log is.
    pub kafka: KafkaSettings,
    /// Where rows and totals are; its schema is prepared.
    pub database: Database,
    /// Each a `DATA/ledger`; more than one where producers ran on several machines. The newest checkpoint among them is
    /// where the audit begins.
    pub ledger_dirs: Vec<PathBuf>,
    /// Whether books that balance leave a new checkpoint in the first of them.
    pub make_checkpoint: bool,
}

/// Why the audit could not be done: not a verdict on the books.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log cannot be read.
    #[error("cannot read the log: {0}; is the broker up and --brokers right?")]
    Kafka(String),
    /// A record cannot be had any more.
    #[error(
        "partition {partition} of {topic} cannot be read at offset {offset} ({code}): either retention cut it just now, then \
         verify again, or the log is damaged there, then restore it from a copy or a replica"
    )]
    Damaged {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Where reading stopped.
        offset: i64,
        /// librdkafka's reason.
        code: rdkafka::error::RDKafkaErrorCode,
    },
    /// Rows and totals cannot be read.
    #[error("cannot read rows and totals: {0}")]
    Postgres(#[from] PostgresError),
    /// A ledger cannot be read at all.
    #[error("cannot read a ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// What a former audit left cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Totals cannot be kept until they are compared.
    #[error("cannot keep the totals in a temporary file in {dir}: {source}; TMPDIR=FOLDER names another folder", dir = .dir.display())]
    Spool {
        /// Where temporary files are.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The comparison ended before its input did.
    #[error("the audit was cut short: {0}")]
    CutShort(String),
}

impl From<sqlx::Error> for AuditError {
    fn from(error: sqlx::Error) -> Self {
        AuditError::Postgres(PostgresError::Sql(error))
    }
}

/// What an audit is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditProgress {
    /// It waits while a consumer stores what is in the log.
    Waiting {
        /// Offsets that are not applied yet.
        behind: u64,
    },
    /// It reads the log.
    Reading {
        /// Records so far.
        read: u64,
        /// Of about this many.
        of: u64,
    },
}

/// Audits the books. `on_progress` is told from time to time what the audit is doing.
///
/// # Errors
/// Something could not be read. Books that do not balance are no error but the report's verdict.
pub async fn verify(
    settings: AuditSettings,
    on_progress: impl FnMut(AuditProgress) + Send + 'static,
) -> Result<AuditReport, AuditError> {
    order::run(settings, Box::new(on_progress)).await
}
