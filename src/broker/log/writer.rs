//! The writer thread: takes all that waits, makes it durable as one group, then lets readers see it.
//!
//! Order of one round: journal, sync, segments (page cache), state, high watermarks, completions. With
//! `Durability::Os` batches skip the journal, and most of them this thread (`shortcut`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::{Core, FileError, PoisonOnPanic, make_directory};
use super::journal::{Journal, JournalError, journals_batches};
use super::partition::Partition;
use super::queue::{Completion, Entry, Origin, PendingBatch, Taken};
use super::records::{Change, GroupBuffer, PartitionRecord};
use super::room::{check_room, has_room, has_room_for_coordinators, room};
use super::{AppendError, Durability, disk, lock};
use crate::metrics::{BROKER_APPENDED_BYTES_TOTAL, BROKER_SYNC_SECONDS};

/// Between two tries of what passes by itself.
const PASSING_PAUSE: Duration = Duration::from_millis(50);
/// So many tries after one that asked for a checkpoint, which may free room, the next one does: about a second.
const TRIES_PER_CHECKPOINT: u32 = 20;
/// How often it is tried once the log is to be closed: about five seconds.
const STOP_TRIES_MAX: u32 = 100;

/// Runs until the queue is stopped.
pub(super) fn run(core: &Arc<Core>, sequence: u64) {
    let _guard = PoisonOnPanic(core, "the writer of the log");
    let mut journal = Journal::new(&core.journal_files, sequence);
    loop {
        if !serve(core, &mut journal, core.queue.take()) {
            break;
        }
    }
    fail_all(core.queue.clear(), &AppendError::Storage("the log is closed".to_owned()));
}

/// One round. False when it was the last.
pub(super) fn serve(core: &Arc<Core>, journal: &mut Journal<'_>, taken: Taken) -> bool {
    match taken {
        Taken::Entries(entries) => {
            round(core, journal, entries);
            core.queue.end_turn();
        }
        Taken::LookForRoom => look_for_room(core, journal),
        Taken::Stop => return false,
    }
    true
}

fn broken(core: &Core, path: &Path, error: &io::Error) {
    core.poison(&format!(
        "writing {} failed: {error}; nothing is acknowledged any more; check the disk, then restart the broker",
        path.display()
    ));
}

/// Opens what the group will need before it is promised anything: so that too many open files refuse it, and are no
/// reason to give the log up.
fn open_files(core: &Core, entries: &[Entry]) -> Result<(), JournalError> {
    let mut looked_at: Vec<u64> = Vec::new();
    for entry in entries {
        let (path, opened) = match entry {
            Entry::Batch(pending) if !looked_at.contains(&pending.partition.number()) => {
                looked_at.push(pending.partition.number());
                if pending.partition.is_deleted() {
                    continue;
                }
                (pending.partition.0.path.clone(), pending.partition.prepare_segment(pending))
            }
            Entry::Change(Change::Create(record), _) => {
                let path = core.directory.join(&record.directory);
                let made = make_directory(&*core.disk, &path, record.number);
                (path, made)
            }
            _ => continue,
        };
        opened.map_err(|error| {
            if disk::is_full(&error) || disk::is_passing(&error) {
                JournalError::Refused(error)
            } else {
                JournalError::Broken(path, error)
            }
        })?;
    }
    Ok(())
}

/// Does what the journal has promised already: what passes is waited for. Meanwhile nothing is acknowledged, and
/// producers are told that the disk is behind.
fn patiently(core: &Core, path: &Path, mut action: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut tries_left_at_stop = STOP_TRIES_MAX;
    let mut tries = 0;
    let done = loop {
        match action() {
            // Room that somebody else took since the look: the journal's own reserve is more than a group.
            Err(error) if disk::is_full(&error) && core.journal_files.give_reserve() => {}
            Err(error) if (disk::is_full(&error) || disk::is_passing(&error)) && tries_left_at_stop > 0 => {
                if core.queue.is_stopping() {
                    tries_left_at_stop -= 1;
                }
                if tries % TRIES_PER_CHECKPOINT == 0 && core.journal_files.has_closed() {
                    core.request_checkpoint();
                }
                if tries == 0 {
                    let why = format!("writing {} must wait: {error}; {}", path.display(), disk::cure(&error));
                    tracing::error!("{why}");
                    core.queue.stalled(Some(why));
                }
                tries += 1;
                std::thread::sleep(PASSING_PAUSE);
            }
            done => break done,
        }
    };
    if tries > 0 {
        core.queue.stalled(None);
    }
    done
}

fn look_for_room(core: &Core, journal: &mut Journal<'_>) {
    if !has_room(core) && core.journal_files.has_closed() {
        core.request_checkpoint();
    }
    if !has_room_for_coordinators(core) {
        return;
    }
    // What failed last may have been any open.
    if core.disk.open_directory(&core.directory).is_err_and(|error| disk::is_passing(&error)) {
        return;
    }
    match make_room(core, journal, 0) {
        Ok(()) if has_room(core) => {
            tracing::info!("the log takes appends again");
            core.queue.accept();
        }
        // The file may have taken the room.
        Ok(()) if !has_room_for_coordinators(core) => {}
        Ok(()) => core.queue.accept_coordinators(),
        // What a checkpoint frees may be enough.
        Err(JournalError::Refused(_)) => core.request_checkpoint(),
        Err(JournalError::Broken(path, error)) => broken(core, &path, &error),
    }
}

fn round(core: &Core, journal: &mut Journal<'_>, entries: Vec<Entry>) {
    if let Some(promised) = promise(core, journal, entries) {
        apply(core, promised);
    }
}

/// Makes what the entries are durable as one group, and gives them back to be applied; none when they were answered
/// already, because that could not be.
pub(super) fn promise(core: &Core, journal: &mut Journal<'_>, entries: Vec<Entry>) -> Option<Vec<Entry>> {
    let ready = check_room(core, &entries).and_then(|()| open_files(core, &entries));
    match ready.and_then(|()| write_group(core, journal, &entries)) {
        Ok(()) => return Some(entries),
        Err(JournalError::Refused(error)) => refuse(core, entries, &error),
        Err(JournalError::Broken(path, error)) => {
            broken(core, &path, &error);
            fail_all(entries, &core.storage_error());
        }
    }
    None
}

fn make_room(core: &Core, journal: &mut Journal<'_>, payload_bytes: u64) -> Result<(), JournalError> {
    if journal.make_room(payload_bytes)? {
        // A full file was left behind.
        core.request_checkpoint();
    }
    Ok(())
}

fn write_group(core: &Core, journal: &mut Journal<'_>, entries: &[Entry]) -> Result<(), JournalError> {
    let durability = core.settings.durability;
    let mut group = GroupBuffer::default();
    let mut sync = durability == Durability::Fsync;
    for entry in entries {
        match entry {
            // A checkpoint may know no longer of a partition that is deleted: a batch of it would be one of nobody's.
            Entry::Batch(pending) if journals_batches(durability) && !pending.partition.is_deleted() => {
                group.batch(pending);
            }
            Entry::Batch(_) => {}
            Entry::Change(change, _) => {
                sync |= change.always_synced();
                group.change(change);
            }
        }
    }
    if group.is_empty() {
        return Ok(());
    }
    let parts = group.parts();
    make_room(core, journal, parts.iter().map(|part| part.len() as u64).sum())?;
    // Again: the journal may have taken a file since.
    check_room(core, entries)?;
    let written = journal.write(&parts, group.crc(), sync)?;
    core.written_sequence.store(written.sequence, Ordering::Release);
    if let Some(seconds) = written.sync_seconds {
        metrics::histogram!(BROKER_SYNC_SECONDS).record(seconds);
    }
    if written.next_is_due {
        core.request_journal_file();
    }
    Ok(())
}

/// Nothing of the group was written, so nothing needs to be poisoned: everyone hears why, and may try again.
fn refuse(core: &Core, entries: Vec<Entry>, error: &io::Error) {
    let (directory, cure) = (core.directory.display(), disk::cure(error));
    let why = match disk::is_passing(error) {
        true => format!("no file can be opened for the log in {directory}: {error}; {cure}"),
        false => format!("no room for the log in {directory}: {error}: {}; {cure}", room(core)),
    };
    tracing::error!("{why}; appends are refused until then");
    let waiting = core.queue.refuse(why.clone());
    for partition in core.all_partitions() {
        partition.refuse_waiting();
    }
    // Without clients' batches a group may find room.
    if entries.iter().any(|entry| matches!(entry, Entry::Batch(PendingBatch { origin: Origin::Client, .. }))) {
        core.queue.accept_coordinators();
    }
    fail_all(entries, &AppendError::Storage(why.clone()));
    fail_all(waiting, &AppendError::Storage(why));
}

/// Tells those who wait for changes; those who wait for batches hear it from their partition.
pub(super) fn fail_all(entries: Vec<Entry>, error: &AppendError) {
    for entry in entries {
        if let Entry::Change(_, completion) = entry {
            completion.complete(Err(error.clone()));
        }
    }
}

/// Batches that the journal has promised to nobody, and that cannot be stored now.
#[derive(Default)]
struct Left {
    batches: Vec<Entry>,
    why: Option<io::Error>,
}

/// Writes batches to their segments and carries out changes, and tells those who wait. By whoever has the turn.
pub(super) fn apply(core: &Core, entries: Vec<Entry>) {
    let mut left = Left::default();
    let mut runs: Vec<(Partition, Vec<PendingBatch>)> = Vec::new();
    let mut completions: Vec<(Completion, Result<(), AppendError>)> = Vec::new();
    for entry in entries {
        match entry {
            Entry::Batch(pending) => {
                let number = pending.partition.number();
                if depends_on_others(core, &pending) && runs.last().is_some_and(|(last, _)| last.number() != number) {
                    store_runs(core, &mut runs, &mut left);
                }
                match runs.iter_mut().find(|(partition, _)| partition.number() == number) {
                    Some((_, run)) => run.push(pending),
                    None => runs.push((pending.partition.clone(), vec![pending])),
                }
            }
            Entry::Change(change, completion) => {
                if !matches!(change, Change::State { .. }) {
                    store_runs(core, &mut runs, &mut left);
                }
                completions.push((completion, apply_change(core, change)));
            }
        }
    }
    store_runs(core, &mut runs, &mut left);
    if let Some(error) = left.why {
        refuse(core, left.batches, &error);
    }
    // What was applied up to here may be left to the checkpoint; never what could not be applied.
    if core.queue.poisoned().is_none() {
        core.applied_sequence.store(core.written_sequence.load(Ordering::Acquire), Ordering::Release);
    }
    for (completion, result) in completions {
        let poisoned = core.queue.poisoned().is_some();
        completion.complete(if poisoned { Err(core.storage_error()) } else { result });
    }
}

/// Whether it may have to lie behind something of another partition, as a marker behind the decision, and nothing has
/// promised yet that all of the group will be written: then it is not to be written before that.
fn depends_on_others(core: &Core, pending: &PendingBatch) -> bool {
    !journals_batches(core.settings.durability) && matches!(pending.origin, Origin::Coordinator { behind: Some(_) })
}

/// Writes all before anyone hears of it: those who are woken find all partitions of the group.
fn store_runs(core: &Core, runs: &mut Vec<(Partition, Vec<PendingBatch>)>, left: &mut Left) {
    let mut stored = Vec::with_capacity(runs.len());
    let are_promised = journals_batches(core.settings.durability);
    for (partition, mut run) in runs.drain(..) {
        if partition.is_deleted() || core.queue.poisoned().is_some() {
            continue;
        }
        if left.why.is_some() {
            left.batches.extend(run.into_iter().map(Entry::Batch));
            continue;
        }
        let path = &partition.0.path;
        let mut rest = run.as_slice();
        let done = match are_promised {
            true => patiently(core, path, || partition.store_batches(&mut rest)),
            false => partition.store_batches(&mut rest),
        };
        match done {
            Ok(()) => {}
            Err(error) if !are_promised && (disk::is_full(&error) || disk::is_passing(&error)) => {
                let written = run.len() - rest.len();
                left.batches.extend(run.split_off(written).into_iter().map(Entry::Batch));
                left.why = Some(error);
            }
            Err(error) => {
                broken(core, path, &error);
                continue;
            }
        }
        let bytes: usize = run.iter().map(|pending| pending.batch.total_bytes()).sum();
        stored.push((partition, bytes as u64));
    }
    let bytes = stored.iter().map(|(_, bytes)| bytes).sum();
    stored.iter().for_each(|(partition, bytes)| partition.publish(*bytes));
    metrics::counter!(BROKER_APPENDED_BYTES_TOTAL).increment(bytes);
    limit_unsynced(core, bytes);
}

/// Without batches the journal's files rarely fill up, so the bytes themselves ask for a checkpoint.
fn limit_unsynced(core: &Core, bytes: u64) {
    if core.settings.durability == Durability::Fsync {
        return;
    }
    let unsynced = core.unsynced_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
    if unsynced >= core.settings.journal_bytes_max {
        core.unsynced_bytes.store(0, Ordering::Release);
        core.request_checkpoint();
    }
}

fn create(core: &Core, record: &PartitionRecord) -> Result<(), FileError> {
    let path = core.directory.join(&record.directory);
    let made = patiently(core, &path, || core.apply_create(record).map(drop).map_err(|(_, error)| error));
    made.map_err(|error| (path, error))
}

fn apply_change(core: &Core, change: Change) -> Result<(), AppendError> {
    if core.queue.poisoned().is_some() {
        return Err(core.storage_error());
    }
    let applied = match change {
        Change::State { changes, .. } => {
            core.apply_state(changes);
            Ok(())
        }
        Change::Create(record) => create(core, &record),
        Change::Delete(partition) => core.apply_delete(&partition),
        Change::LogStart(partition, _) if partition.is_deleted() => return Err(AppendError::Deleted),
        Change::LogStart(partition, offset) => core.apply_log_start(&partition, offset),
        Change::Roll(partition) => {
            let mut store = lock(&partition.0.store);
            // An empty one was opened for a batch that comes next: closed, its successor would have the same name.
            store.last_is_closed |= store.segments.back().is_some_and(|last| last.length() > 0);
            Ok(())
        }
    };
    applied.map_err(|(path, error)| {
        if disk::is_full(&error) {
            tracing::error!("the disk is full");
        }
        broken(core, &path, &error);
        core.storage_error()
    })
}
