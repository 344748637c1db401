//! The housekeeper thread: checkpoints, removal of files, and the next journal file, all without stalling the writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::core::{Core, PoisonOnPanic};
use super::{OpenError, checkpoint, disk};

/// What it is asked to do.
pub(super) enum Job {
    Checkpoint,
    /// The next file of the journal.
    Prepare,
    RemoveFiles(Vec<PathBuf>),
    RemoveDirectory(PathBuf),
    Stop,
}

/// Runs until it is told to stop.
pub(super) fn run(core: &Arc<Core>, jobs: &Receiver<Job>) {
    let _guard = PoisonOnPanic(core, "the housekeeper of the log");
    while let Ok(first) = jobs.recv() {
        // Several requests that came while the last one was served are one.
        if !serve(core, std::iter::once(first).chain(jobs.try_iter())) {
            return;
        }
    }
}

/// Does what is asked. False when it is to stop.
pub(super) fn serve(core: &Arc<Core>, jobs: impl Iterator<Item = Job>) -> bool {
    let mut checkpoint_due = false;
    let mut prepare_due = false;
    for job in jobs {
        match job {
            Job::Checkpoint => checkpoint_due = true,
            Job::Prepare => prepare_due = true,
            Job::RemoveFiles(paths) => paths.iter().for_each(|path| remove(core, path, false)),
            Job::RemoveDirectory(path) => remove(core, &path, true),
            Job::Stop => return false,
        }
    }
    if checkpoint_due && core.queue.poisoned().is_none() {
        take_checkpoint(core);
    }
    if prepare_due && core.queue.poisoned().is_none() {
        core.journal_files.prepare();
    }
    true
}

fn take_checkpoint(core: &Arc<Core>) {
    core.journal_files.hurry(false);
    match checkpoint::take(core, false) {
        Ok(()) => {}
        Err(OpenError::Io { action, source, path })
            if action != checkpoint::SYNC && (disk::is_full(&source) || disk::is_passing(&source)) =>
        {
            // All that was looked at is synced and the old checkpoint stands: the journal is kept meanwhile.
            tracing::warn!("cannot {action} {}: {source}; {}", path.display(), disk::cure(&source));
            core.journal_files.stuck();
        }
        // A failed sync may have lost pages for good: what the journal holds must not be given up.
        Err(error) => {
            core.poison(&format!("{error}; nothing is acknowledged any more; check the disk, then restart the broker"))
        }
    }
}

fn remove(core: &Core, path: &Path, is_directory: bool) {
    if let Err(error) = core.disk.remove(path, is_directory) {
        tracing::warn!("cannot remove {}: {error}; the next start tries again", path.display());
    }
}
