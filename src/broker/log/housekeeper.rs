//! The housekeeper thread: checkpoints, removal of files, and the next journal file, all without stalling the writer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::core::{Core, PoisonOnPanic};
use super::{OpenError, checkpoint, files};

/// What it is asked to do.
pub(super) enum Job {
    Checkpoint,
    Prepare,
    Remove(Vec<PathBuf>),
    Stop,
}

/// Runs until it is told to stop.
pub(super) fn run(core: &Arc<Core>, jobs: &Receiver<Job>) {
    let _guard = PoisonOnPanic(core, "the housekeeper of the log");
    while let Ok(first) = jobs.recv() {
        let mut checkpoint_due = false;
        let mut prepare_due = false;
        // Several requests that came while the last one was served are one.
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                Job::Checkpoint => checkpoint_due = true,
                Job::Prepare => prepare_due = true,
                Job::Remove(paths) => paths.iter().for_each(remove),
                Job::Stop => return,
            }
        }
        if checkpoint_due && core.queue.poisoned().is_none() {
            match checkpoint::take(core, false) {
                Ok(()) => {}
                Err(OpenError::Io { action, source, path })
                    if action != checkpoint::SYNC && (files::is_full(&source) || files::is_passing(&source)) =>
                {
                    // All that was looked at is synced and the old checkpoint stands: the journal is kept meanwhile.
                    tracing::warn!("cannot {action} {}: {source}; {}", path.display(), files::cure(&source));
                    core.journal_files.stuck();
                }
                // A failed sync may have lost pages for good: what the journal holds must not be given up.
                Err(error) => core.poison(&format!(
                    "{error}; nothing is acknowledged any more; check the disk, then restart the broker"
                )),
            }
            prepare_due = true;
        }
        if prepare_due && core.queue.poisoned().is_none() {
            core.journal_files.prepare();
        }
    }
}

fn remove(path: &PathBuf) {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if let Err(error) = removed {
        tracing::warn!("cannot remove {}: {error}; the next start tries again", path.display());
    }
}
