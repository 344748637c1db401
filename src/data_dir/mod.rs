//! The data directory: what it is, who uses which part of it, and where its services listen.
//!
//! Owns `DATA/FORMAT`, `DATA/locks/` and `DATA/endpoints/`. Several processes share one data directory, so locks are per
//! service (the broker's log, the private PostgreSQL, a run's ledger, a consumer's slot), never on the whole directory.
//! Must not know what a service keeps in its own folder.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

mod disk;
mod endpoint;
mod format;
mod lock;

pub use disk::DiskSpace;
pub(crate) use format::write_atomically;
pub use format::{FORMAT_VERSION, Format};
pub use lock::{Busy, InstanceSlot, ServiceLock};

/// Consumers on one data directory, at most.
pub const INSTANCE_SLOTS_MAX: u32 = 256;

/// Folders that hold what others must not read, made with mode 0700 from the start.
const PRIVATE_FOLDERS: [&str; 4] = ["locks", "endpoints", "broker", "ledger"];

/// An opened data directory. Cheap to clone; holds no lock itself.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    id: Uuid,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system said no.
    #[error("cannot {action} {}: {source}; is the path right, and does this user own it? (--data-dir chooses another)", path.display())]
    Io {
        /// Such as `create`.
        action: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something else has the name.
    #[error("{} is not a directory; name a directory with --data-dir", .0.display())]
    NotADirectory(PathBuf),
    /// Files, but none of ours.
    #[error("{} holds files but no FORMAT file, so it is not a finstream data directory; name an empty or a new one with --data-dir", .0.display())]
    Foreign(PathBuf),
    /// FORMAT cannot be read as what it should be.
    #[error("{} is damaged ({reason}); restore it from a copy, or move the directory away and start with a new one", path.display())]
    Garbage {
        /// The FORMAT file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a later finstream.
    #[error("{} was written by finstream {finstream} in format {found}, this is finstream {} which knows format {FORMAT_VERSION}; use finstream {finstream} or newer, or another --data-dir", path.display(), env!("CARGO_PKG_VERSION"))]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The finstream that wrote it.
        finstream: String,
    },
    /// A lock is held elsewhere.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// More consumers than [`INSTANCE_SLOTS_MAX`].
    #[error("{INSTANCE_SLOTS_MAX} consumers already run on {}; use another --data-dir for more", .0.display())]
    NoFreeSlot(PathBuf),
}

impl DataDirError {
    /// For `map_err`: names the action and the path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
        let path = path.to_owned();
        move |source| DataDirError::Io { action, path, source }
    }
}

impl DataDir {
    /// Opens the directory, creating it with mode 0700 (and FORMAT in it) where there is none.
    ///
    /// # Errors
    /// A directory of something else, of a newer format, or one that this user cannot write.
    pub fn open(path: impl AsRef<Path>) -> Result<DataDir, DataDirError> {
        let given = path.as_ref();
        // Absolute, because child processes run in directories of their own.
        let path = std::path::absolute(given).map_err(DataDirError::io("resolve", given))?;
        create_private(&path)?;
        let format = match format::read(&path)? {
            Some(format) => format,
            None => {
                refuse_foreign(&path)?;
                format::create(&path)?
            }
        };
        for folder in PRIVATE_FOLDERS {
            create_private(&path.join(folder))?;
        }
        Ok(DataDir { path, id: format.id })
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Identifies this data directory for ever, also after a move.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// What FORMAT says now.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn format(&self) -> Result<Format, DataDirError> {
        format::read(&self.path)?.ok_or_else(|| DataDirError::Foreign(self.path.clone()))
    }

    /// Records the PostgreSQL major version of the private cluster, once it is made.
    ///
    /// # Errors
    /// FORMAT cannot be written.
    pub fn record_postgresql_major(&self, major: u32) -> Result<(), DataDirError> {
        format::update(&self.path, |format| format.postgresql_major = Some(major))
    }

    /// Says that what is written from now on is of this finstream's format: an older one refuses the directory.
    ///
    /// # Errors
    /// FORMAT cannot be written.
    pub fn raise_format(&self) -> Result<(), DataDirError> {
        if self.format()?.format == FORMAT_VERSION {
            return Ok(());
        }
        format::update(&self.path, |format| {
            format.format = FORMAT_VERSION;
            env!("CARGO_PKG_VERSION").clone_into(&mut format.finstream);
        })
    }

    /// Lets users other than the owner traverse (not list) the directory: root's private PostgreSQL runs as another
    /// user. The folders in it stay closed.
    ///
    /// # Errors
    /// The directory belongs to someone else.
    pub fn allow_traversal(&self) -> Result<(), DataDirError> {
        let mode = fs::metadata(&self.path).map_err(DataDirError::io("read", &self.path))?.mode() & 0o7777;
        if mode & 0o011 == 0o011 {
            return Ok(());
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode | 0o011))
            .map_err(DataDirError::io("change the mode of", &self.path))
    }

    /// Space of the file system that the data directory is on.
    ///
    /// # Errors
    /// The system call failed.
    pub fn disk_space(&self) -> Result<DiskSpace, DataDirError> {
        DiskSpace::of(&self.path).map_err(DataDirError::io("measure the file system of", &self.path))
    }
}

/// Creates a directory with mode 0700 where there is none; one that exists keeps its mode.
fn create_private(path: &Path) -> Result<(), DataDirError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(DataDirError::NotADirectory(path.to_owned())),
        // Not there, or not to be seen: creating it tells.
        Err(_) => {}
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(DataDirError::io("create", parent))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        // Another process that starts at the same time was first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other.map_err(DataDirError::io("create", path)),
    }
}

/// Only an empty directory is made into a data directory: a mistyped path must not fill someone's home.
fn refuse_foreign(path: &Path) -> Result<(), DataDirError> {
    for entry in fs::read_dir(path).map_err(DataDirError::io("read", path))? {
        let name = entry.map_err(DataDirError::io("read", path))?.file_name();
        // `lost+found` is in each fresh ext4 volume; the others are ours, of a start that was cut short or runs now.
        let ours = name == "lost+found" || name == "locks" || name.to_string_lossy().starts_with("FORMAT");
        if !ours {
            return match format::read(path)? {
                Some(_) => Ok(()),
                None => Err(DataDirError::Foreign(path.to_owned())),
            };
        }
    }
    Ok(())
}
