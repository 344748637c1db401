//! The producer's own book, outside of the system under test: what it was about to send, and what it was told.
//!
//! `DATA/ledger/RUN_ID/` holds `run.json` ([`RunRecord`]), `intents` and `outcomes`, the latter two append-only files of
//! checksummed blocks, and `lock`, held by the one process that writes. A file that is large is followed by the next
//! (`intents.1`, `intents.2`), so that what an audit has settled can be removed from a run that goes on. A block of intents is handed to `write(2)`
//! before its first message goes to the Kafka client, so a message that any log holds is known here, whatever kills the
//! process. A torn last block is cut; a bad block in the middle is an error.
//!
//! This room knows no Kafka, no SQL and no runtime. It does not sync: it must outlive the process, not the machine.

use std::path::{Path, PathBuf};

use rust_decimal::Decimal;

use crate::transaction::{Currency, RunId};

mod block;
mod cut;
mod intents;
mod outcomes;
mod reader;
mod run_record;
mod segments;
mod varint;
mod writer;

pub use cut::{Settled, cut};
pub use reader::LedgerReader;
pub use run_record::{RunRecord, SourceRecord};
pub use writer::LedgerWriter;

/// A message that was about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent<'a> {
    /// Its place in the run, from 0.
    pub sequence: i64,
    /// Whose transaction.
    pub user_id: &'a str,
    /// Of `amount`.
    pub currency: Currency,
    /// With the scale that it was sent with.
    pub amount: Decimal,
}

/// What the producer was told about a message. A message may have several outcomes over the life of a continued run:
/// the last one holds. A message with an intent and no outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored, as the broker promised (or as it was found in the log when the run was continued). A negative offset:
    /// the broker recognised a retry and did not say where the original is.
    Acknowledged { sequence: i64, partition: i32, offset: i64 },
    /// It may or may not be stored.
    Unknown { sequence: i64 },
}

/// What goes wrong with a ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}{}", cure(source), path = .path.display())]
    Io {
        /// Such as `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process writes the run.
    #[error("run {run} in {dir} is being written by another process; wait until it ends", dir = .dir.display())]
    Locked {
        /// The run.
        run: RunId,
        /// `DATA/ledger`.
        dir: PathBuf,
    },
    /// The run is there already.
    #[error("run {run} already has a ledger in {dir}; choose another --run-id", dir = .dir.display())]
    Exists {
        /// The run.
        run: RunId,
        /// `DATA/ledger`.
        dir: PathBuf,
    },
    /// Bytes that no writer wrote.
    #[error("{path} is damaged at byte {offset}: {why}; the books of this run cannot be trusted, restore the file from \
             a copy or move its directory away", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the bad block begins.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// `run.json` does not read.
    #[error("{path} is not a run's record: {why}", path = .path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

fn cure(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull => "; free space on that file system",
        std::io::ErrorKind::PermissionDenied => "; is another user running finstream on this directory?",
        _ => "",
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LedgerError {
    move |source| LedgerError::Io { action, path: path.to_path_buf(), source }
}

/// `DATA/ledger/RUN_ID`.
fn run_dir(dir: &Path, run: RunId) -> PathBuf {
    dir.join(run.to_string())
}

const INTENTS_FILE: &str = "intents";
const OUTCOMES_FILE: &str = "outcomes";
const LOCK_FILE: &str = "lock";
