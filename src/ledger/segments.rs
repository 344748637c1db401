//! The files of one kind in a run: `intents`, `intents.1`, `intents.2`, and so on; the last one is written.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{LedgerError, io_error};

/// A file of this size is followed by the next: about a million messages.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;

/// The numbers of the files that are there, in order.
pub(super) fn numbers(run_dir: &Path, name: &str) -> Result<Vec<u32>, LedgerError> {
    let mut numbers = Vec::new();
    let entries = match fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(numbers),
        Err(error) => return Err(io_error("list", run_dir)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(io_error("list", run_dir))?;
        let file = entry.file_name();
        let Some(rest) = file.to_str().and_then(|file| file.strip_prefix(name)) else { continue };
        match rest.strip_prefix('.') {
            _ if rest.is_empty() => numbers.push(0),
            Some(number) => numbers.extend(number.parse::<u32>().ok()),
            None => {}
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The file of a number.
pub(super) fn path(run_dir: &Path, name: &str, number: u32) -> PathBuf {
    match number {
        0 => run_dir.join(name),
        number => run_dir.join(format!("{name}.{number}")),
    }
}
