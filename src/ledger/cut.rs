//! Removes what an audit has settled: whole files of a run that goes on, and the whole of a run that has ended.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::block::BlockReader;
use super::{
    INTENTS_FILE, LedgerError, LedgerReader, OUTCOMES_FILE, Outcome, intents, io_error, outcomes, run_dir, segments,
};
use crate::transaction::RunId;

/// What of a run an audit has settled, and a checkpoint remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The run.
    pub run: RunId,
    /// Every sequence before this one.
    pub below: i64,
}

/// Removes settled files that were last written before `older_than`, and as many more of the oldest as `bytes_max` asks
/// for; returns how many bytes went.
///
/// A run that a crash cut off and that its command will continue keeps everything: it must know what it has sent.
///
/// # Errors
/// A file cannot be read or removed.
pub fn cut(dir: &Path, settled: &[Settled], older_than: SystemTime, bytes_max: u64) -> Result<u64, LedgerError> {
    let reader = LedgerReader::new(dir);
    let mut files = Vec::new();
    let mut total = 0;
    for record in reader.runs()? {
        let run = run_dir(dir, record.run);
        let below = settled.iter().find(|settled| settled.run == record.run).map_or(0, |settled| settled.below);
        let is_kept = record.source.finite && !record.finished;
        let is_over = !is_kept && !reader.is_being_written(record.run);
        for name in [INTENTS_FILE, OUTCOMES_FILE] {
            let numbers = segments::numbers(&run, name)?;
            for number in &numbers {
                let path = segments::path(&run, name, *number);
                let data = fs::metadata(&path).map_err(io_error("read the size of", &path))?;
                total += data.len();
                let is_closed = is_over || numbers.last() != Some(number);
                if !is_kept && is_closed && ends_below(&path, name, below)? {
                    let written = data.modified().map_err(io_error("read the age of", &path))?;
                    files.push((written, data.len(), path, record.run));
                }
            }
        }
    }
    files.sort();
    let mut gone = 0;
    for (written, bytes, path, run) in files {
        if written >= older_than && total - gone <= bytes_max {
            break;
        }
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
        gone += bytes;
        forget_if_empty(dir, run, &reader)?;
    }
    Ok(gone)
}

/// A run without files that nobody writes is over: its record goes, too.
fn forget_if_empty(dir: &Path, run: RunId, reader: &LedgerReader) -> Result<(), LedgerError> {
    let path = run_dir(dir, run);
    let has_files =
        !segments::numbers(&path, INTENTS_FILE)?.is_empty() || !segments::numbers(&path, OUTCOMES_FILE)?.is_empty();
    if has_files || reader.is_being_written(run) {
        return Ok(());
    }
    // The record first: a directory without one holds no run.
    let record = path.join("run.json");
    fs::remove_file(&record).map_err(io_error("remove", &record))?;
    fs::remove_dir_all(&path).map_err(io_error("remove", &path))
}

/// Whether every sequence of a file is before `below`.
fn ends_below(path: &Path, name: &str, below: i64) -> Result<bool, LedgerError> {
    let Some(mut reader) = BlockReader::open(path)? else { return Ok(false) };
    let mut is_below = true;
    while is_below && let Some(payload) = reader.next()? {
        let read = match name {
            INTENTS_FILE => intents::range_of(payload).map(|(first, count)| {
                is_below = first.checked_add_unsigned(count).is_some_and(|end| end <= below);
            }),
            _ => outcomes::decode(payload, |outcome| {
                let (Outcome::Acknowledged { sequence, .. } | Outcome::Unknown { sequence }) = outcome;
                is_below &= sequence < below;
            }),
        };
        if read.is_none() {
            return Err(reader.senseless());
        }
    }
    Ok(is_below)
}
