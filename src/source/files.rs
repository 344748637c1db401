//! Files by name and by pattern.

use std::path::{Path, PathBuf};

use super::SourceError;

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
