//! What else on disk knows of the journal: whatever segments hold beyond the checkpoint went through the journal first,
//! and a checkpoint names the oldest file that it needs. A journal that tells of less was removed or damaged.
//!
//! Nothing is cut or removed here: a second start must find the same.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::OpenError;
use super::core::identity;
use super::disk::{Disk, DiskFile, OpenMode};
use super::header_walk::HeaderWalk;
use super::recovery::whole_batch;
use super::segment_name::SegmentName;

/// The first place of which the journal should tell.
struct Untold {
    position: u64,
    end_offset: i64,
}

/// What a partition's files hold beyond the checkpoint.
pub(super) struct Beyond<'a> {
    pub disk: &'a dyn Disk,
    pub directory: &'a Path,
    /// The last segment that the checkpoint knows, how many bytes of it, and the offset that comes next.
    pub last: Option<(SegmentName, u64, i64)>,
    /// Segments that it does not know, in order.
    pub strangers: &'a [SegmentName],
}

impl Beyond<'_> {
    /// # Errors
    /// `Damaged` when there are whole batches from `known_end` on.
    pub fn check_end(&self, known_end: i64) -> Result<(), OpenError> {
        let appended = self.strangers.iter().filter(|name| name.generation == 0);
        let places = self.last.into_iter().chain(appended.map(|name| (*name, 0, name.base_offset)));
        for (name, from, offset) in places {
            let path = self.directory.join(name.log());
            let found = match self.disk.open(&path, OpenMode::Read) {
                Ok(file) => end_of(&*file, from, offset).map_err(OpenError::io("read", &path))?,
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(OpenError::io("open", &path)(error)),
            };
            let Some(Untold { position, end_offset }) = found else { continue };
            if end_offset <= known_end {
                continue;
            }
            let what = format!(
                "it holds records up to offset {}, and the journal tells of none from {known_end} on: a file of the journal \
                 was removed or is damaged",
                end_offset - 1
            );
            return Err(OpenError::damaged(&path, position, what));
        }
        Ok(())
    }
}

/// Where the batches from `from` on end, and the last of them. None when there are none.
fn end_of(file: &dyn DiskFile, from: u64, offset: i64) -> io::Result<Option<Untold>> {
    let length = file.length()?;
    let mut walk = HeaderWalk::new(file, from, length);
    let mut end_offset = offset;
    let mut last = None;
    loop {
        match walk.next() {
            Ok(Some((position, header))) if header.base_offset == end_offset => {
                last = Some((position, end_offset));
                end_offset = header.last_offset() + 1;
            }
            Ok(_) => break,
            Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(last.and_then(|(position, before)| {
        // The last one may be torn; those before it were whole when it was written behind them.
        let end_offset = if whole_batch(file, position, length).is_some() { end_offset } else { before };
        (end_offset > offset).then_some(Untold { position, end_offset })
    }))
}

/// # Errors
/// `Damaged` when there are partitions of a log whose checkpoint is gone.
pub(super) fn check_checkpoint_is_there(
    disk: &dyn Disk,
    directory: &Path,
    journal: &[impl AsRef<Path>],
) -> Result<(), OpenError> {
    let partition = partitions(disk, directory)?.into_iter().next().map(|(name, _)| directory.join(name));
    let left = partition.or_else(|| journal.first().map(|path| path.as_ref().to_owned()));
    match left {
        None => Ok(()),
        Some(left) => Err(OpenError::Missing {
            path: super::checkpoint::path(directory),
            what: format!("there is a log: {}", left.display()),
        }),
    }
}

/// # Errors
/// `Damaged` when there are records of a partition that nobody tells of. `is_known`: whether the checkpoint or the
/// journal does, by number.
pub(super) fn check_partitions(
    disk: &dyn Disk,
    directory: &Path,
    is_known: impl Fn(u64) -> bool,
) -> Result<(), OpenError> {
    for (name, number) in partitions(disk, directory)? {
        if is_known(number) {
            continue;
        }
        let directory = directory.join(name);
        let entries = disk.list(&directory).map_err(OpenError::io("list", &directory))?;
        let strangers: Vec<SegmentName> =
            entries.iter().filter_map(|entry| SegmentName::parse(&entry.name, "log")).collect();
        Beyond { disk, directory: &directory, last: None, strangers: &strangers }.check_end(0)?;
    }
    Ok(())
}

/// The directories that say whose they are.
fn partitions(disk: &dyn Disk, directory: &Path) -> Result<Vec<(String, u64)>, OpenError> {
    let entries = disk.list(directory).map_err(OpenError::io("list", directory))?;
    let numbered = |name: String| identity(disk, &directory.join(&name)).map(|number| (name, number));
    Ok(entries.into_iter().filter(|entry| entry.is_directory).filter_map(|entry| numbered(entry.name)).collect())
}
