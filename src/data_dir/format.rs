//! `DATA/FORMAT`: which finstream wrote the directory, and how.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DataDirError, create_private, lock};

/// The format that this finstream writes. 1 knows no transactions, and looks for groups where they are no longer.
pub const FORMAT_VERSION: u32 = 2;

/// The contents of `DATA/FORMAT`, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// [`FORMAT_VERSION`] of the writer.
    pub format: u32,
    /// The finstream that made the directory, or raised its format.
    pub finstream: String,
    /// Made once; names this data directory to the outside.
    pub id: Uuid,
    /// The major version of the private cluster, once there is one.
    pub postgresql_major: Option<u32>,
}

/// Reads FORMAT; None where there is none.
pub(super) fn read(data_dir: &Path) -> Result<Option<Format>, DataDirError> {
    /// What every version, also a later one, is promised to have.
    #[derive(Deserialize)]
    struct Head {
        format: u32,
        #[serde(default)]
        finstream: String,
    }
    let path = data_dir.join("FORMAT");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataDirError::io("read", &path)(error)),
    };
    let garbage = |error: serde_json::Error| DataDirError::Garbage { path: path.clone(), reason: error.to_string() };
    let head: Head = serde_json::from_slice(&text).map_err(garbage)?;
    if head.format > FORMAT_VERSION {
        let finstream = head.finstream.chars().take(32).collect();
        return Err(DataDirError::Newer { path: data_dir.to_owned(), found: head.format, finstream });
    }
    serde_json::from_slice(&text).map(Some).map_err(garbage)
}

/// Writes the first FORMAT, unless another process was first.
pub(super) fn create(data_dir: &Path) -> Result<Format, DataDirError> {
    let _guard = guard(data_dir)?;
    if let Some(format) = read(data_dir)? {
        return Ok(format);
    }
    let format = Format {
        format: FORMAT_VERSION,
        finstream: env!("CARGO_PKG_VERSION").to_owned(),
        id: Uuid::now_v7(),
        postgresql_major: None,
    };
    write(data_dir, &format)?;
    Ok(format)
}

/// Changes FORMAT under its lock.
pub(super) fn update(data_dir: &Path, change: impl FnOnce(&mut Format)) -> Result<(), DataDirError> {
    let _guard = guard(data_dir)?;
    let mut format = read(data_dir)?.ok_or_else(|| DataDirError::Foreign(data_dir.to_owned()))?;
    change(&mut format);
    write(data_dir, &format)
}

fn guard(data_dir: &Path) -> Result<File, DataDirError> {
    create_private(&data_dir.join("locks"))?;
    lock::wait_exclusive(&data_dir.join("locks").join("format.lock"))
}

fn write(data_dir: &Path, format: &Format) -> Result<(), DataDirError> {
    let path = data_dir.join("FORMAT");
    let text = serde_json::to_vec_pretty(format)
        .map_err(|error| DataDirError::Garbage { path: path.clone(), reason: error.to_string() })?;
    write_atomically(&path, &text).map_err(DataDirError::io("write", &path))
}

/// Replaces a small file so that a reader, and a crash, see either the old or the new one.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(directory) = path.parent() {
        // Sync the directory too: a crash could otherwise lose the new file's name.
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}
