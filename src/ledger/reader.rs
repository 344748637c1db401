//! The reading side, for the audit and for continuing a run; a writer may be at work.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::block::BlockReader;
use super::intents::{self, UserTable};
use super::{INTENTS_FILE, Intent, LOCK_FILE, LedgerError, OUTCOMES_FILE, Outcome, RunRecord, io_error, run_dir};
use super::{outcomes, segments};
use crate::transaction::RunId;

/// Reads the ledgers below one directory (`DATA/ledger`).
#[derive(Clone, Debug)]
pub struct LedgerReader {
    dir: PathBuf,
}

impl LedgerReader {
    /// Nothing is opened yet; a directory that is not there holds no runs.
    pub fn new(dir: &Path) -> LedgerReader {
        LedgerReader { dir: dir.to_path_buf() }
    }

    /// The runs, oldest first (run ids of version 7 sort by time). A directory without `run.json`, left by a crash
    /// within its first moment, holds no run: nothing was sent.
    ///
    /// # Errors
    /// If the directory or a record does not read.
    pub fn runs(&self) -> Result<Vec<RunRecord>, LedgerError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list", &self.dir)(error)),
        };
        let mut runs = Vec::new();
        for entry in entries {
            let path = entry.map_err(io_error("list", &self.dir))?.path();
            let is_run = path.file_name().is_some_and(|name| Uuid::try_parse_ascii(name.as_encoded_bytes()).is_ok());
            if !is_run {
                continue;
            }
            match RunRecord::read(&path) {
                Ok(record) => runs.push(record),
                Err(LedgerError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        runs.sort_by_key(|record| record.run);
        Ok(runs)
    }

    /// Whether a process holds the run's ledger open for writing.
    pub fn is_being_written(&self, run: RunId) -> bool {
        // A shared lock for a moment: it excludes no other reader, and a writer that starts right now tries again.
        let lock = File::open(run_dir(&self.dir, run).join(LOCK_FILE));
        lock.is_ok_and(|file| file.try_lock_shared().is_err())
    }

    /// Hands every intent to `each`, in the order in which they were written, up to the last whole block.
    ///
    /// # Errors
    /// `Damaged` if a block in the middle is bad.
    pub fn read_intents(&self, run: RunId, mut each: impl FnMut(Intent<'_>)) -> Result<(), LedgerError> {
        let mut users = UserTable::default();
        self.read(run, INTENTS_FILE, |payload| intents::decode(payload, &mut users, &mut each))
    }

    /// Hands every outcome to `each`, in the order in which they were written, up to the last whole block.
    ///
    /// # Errors
    /// `Damaged` if a block in the middle is bad.
    pub fn read_outcomes(&self, run: RunId, mut each: impl FnMut(Outcome)) -> Result<(), LedgerError> {
        self.read(run, OUTCOMES_FILE, |payload| outcomes::decode(payload, &mut each))
    }

    fn read(&self, run: RunId, file: &str, mut each: impl FnMut(&[u8]) -> Option<()>) -> Result<(), LedgerError> {
        let run_dir = run_dir(&self.dir, run);
        for number in segments::numbers(&run_dir, file)? {
            let Some(mut reader) = BlockReader::open(&segments::path(&run_dir, file, number))? else { continue };
            while let Some(payload) = reader.next()? {
                if each(payload).is_none() {
                    return Err(reader.senseless());
                }
            }
        }
        Ok(())
    }
}
