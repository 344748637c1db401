//! What the readers of files share: names and patterns, times, and how much of a file an error repeats.

use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

use super::SourceError;
use crate::clock::Micros;
use crate::transaction::{TIME_MAX, TIME_MIN};

/// The first characters of a text.
pub(super) fn shorten(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `2022-01-03`, with a time of day, with an offset; without one it is UTC.
pub(super) fn parse_time(text: &str) -> Option<Micros> {
    let time = DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%:z")
        .or_else(|_| DateTime::parse_from_rfc3339(text))
        .map(|time| time.timestamp_micros())
        .or_else(|_| {
            NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
                .or_else(|_| NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|date| date.and_time(NaiveTime::MIN)))
                .map(|time| time.and_utc().timestamp_micros())
        });
    time.ok().and_then(within)
}

/// A time that a transaction may have.
pub(super) fn within(micros: i64) -> Option<Micros> {
    Some(Micros(micros)).filter(|time| (TIME_MIN..=TIME_MAX).contains(time))
}

/// The files that are meant, in order; `*`, `?` and `[…]` in a name that is not there itself stand for all that match. The
/// shell does not see them behind `yfinance:`.
pub(super) fn expand(names: &[PathBuf], kind: &str, example: &str) -> Result<Vec<PathBuf>, SourceError> {
    if names.is_empty() {
        return Err(SourceError::Setting(format!("--source {kind}: needs a file, such as {kind}:{example}")));
    }
    let mut files = Vec::new();
    for name in names {
        if name.is_dir() {
            return Err(SourceError::Setting(format!(
                "--source {kind}: {0} is a folder; for all of its CSV files write {kind}:{0}/*.csv",
                name.display()
            )));
        }
        let pattern = name.to_str().filter(|name| name.contains(['*', '?', '[']) && !Path::new(name).exists());
        match pattern {
            None if name.metadata().is_ok_and(|metadata| !metadata.is_file()) => {
                return Err(SourceError::Setting(format!(
                    "--source {kind}: {} is no regular file, and files are read twice; write it to a file first",
                    name.display()
                )));
            }
            None => files.push(name.clone()),
            Some(pattern) => files.extend(matching(pattern, kind)?),
        }
    }
    Ok(files)
}

fn matching(pattern: &str, kind: &str) -> Result<Vec<PathBuf>, SourceError> {
    let refuse = |why: String| SourceError::Setting(format!("--source {kind}:{pattern}: {why}"));
    let found = glob::glob(pattern).map_err(|error| refuse(error.to_string()))?;
    let mut files = Vec::new();
    for file in found {
        let file = file.map_err(|error| refuse(error.to_string()))?;
        if file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() { Err(refuse("no file matches".to_owned())) } else { Ok(files) }
}
