//! `run.json`: what a run is, and what is needed to continue it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{LedgerError, io_error};
use crate::transaction::{RunId, RunInfo};

const RECORD_FILE: &str = "run.json";
const RECORD_FILE_NEW: &str = "run.json.new";

/// What a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run.
    pub run: RunId,
    /// What it says about itself.
    pub info: RunInfo,
    /// The topic that it sends to.
    pub topic: String,
    /// The cluster that it sends to, where the cluster names itself.
    pub cluster_id: Option<String>,
    /// What it reads.
    pub source: SourceRecord,
    /// Whether it ended with nothing left to send and every outcome written.
    #[serde(default)]
    pub finished: bool,
}

/// What a run reads, as far as continuing it needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The source ends by itself: a crashed run is continued.
    pub finite: bool,
    /// Identifies the content of a finite source: only the same content continues a run.
    pub fingerprint: Option<String>,
    /// Messages that were asked for, where that ends the run.
    pub count: Option<u64>,
}

impl RunRecord {
    /// Reads the record in a run's directory.
    pub(super) fn read(run_dir: &Path) -> Result<RunRecord, LedgerError> {
        let path = run_dir.join(RECORD_FILE);
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|error| LedgerError::BadRecord { path, why: error.to_string() })
    }

    /// Writes the record so that a crash leaves the old or the new one, never a part.
    pub(super) fn write(&self, run_dir: &Path) -> Result<(), LedgerError> {
        let path = run_dir.join(RECORD_FILE);
        let new = run_dir.join(RECORD_FILE_NEW);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| LedgerError::BadRecord { path: path.clone(), why: error.to_string() })?;
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(io_error("write", &path))
    }
}
