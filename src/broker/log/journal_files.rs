//! The journal's files: full ones that wait for a checkpoint, spare ones, and one prepared ahead of the writer.
//!
//! Must not know what a group holds.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::{Disk, DiskFile, OpenMode};
use super::journal::{FIRST_GROUP_AT, FileHeader, file_name};
use super::{lock, wait};

/// The writer waits for the checkpoint when this many full files wait for it.
const CLOSED_FILES_MAX: usize = 8;
/// Emptied files kept for the next use: overwriting what is allocated makes a sync cheap.
const SPARE_FILES_MAX: usize = 2;

/// A log's first file is no larger than this: it is needed at once. Nor is any while the disk is nearly full.
const SMALL_FILE_BYTES: u64 = 4 << 20;
/// A file of the usual size leaves this free.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// Zeros are written, and synced, in pieces of this, with a pause: the writer's syncs come in between.
const ZEROS_BYTES: usize = 64 << 10;
const ZEROS_PAUSE: Duration = Duration::from_millis(5);

/// What is done about a file's blocks before groups are written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocks {
    /// They are reserved. The first write to each of them changes the file system's own records, and its sync is slower.
    Reserved,
    /// They were written once.
    Written,
}

/// A file that takes groups.
pub(super) struct JournalFile {
    pub file: Arc<dyn DiskFile>,
    pub header: FileHeader,
    pub path: PathBuf,
    pub length: u64,
    /// Where the next group goes.
    pub position: u64,
}

/// A full file; free once a checkpoint holds all of it.
struct ClosedFile {
    number: u64,
    path: PathBuf,
    last_sequence: u64,
}

#[derive(Default)]
struct Files {
    closed: VecDeque<ClosedFile>,
    spares: Vec<PathBuf>,
    prepared: Option<JournalFile>,
    /// The number of the one that is written.
    current: Option<u64>,
    /// One is being made, by whom ever: files must be used in the order of their numbers, so never two at once.
    making: bool,
    next_number: u64,
    /// None was made yet.
    is_first: bool,
    /// The writer waits for one.
    is_wanted: bool,
    /// A checkpoint waits for whoever prepares one.
    is_hurried: bool,
    gave_up: bool,
    /// The last checkpoint found no room: waiting for it would be waiting for ever.
    stuck: bool,
}

impl Files {
    fn waits_for_checkpoint(&self) -> bool {
        self.closed.len() >= CLOSED_FILES_MAX && !self.gave_up
    }
}

/// The journal's files apart from the one that is written: full ones, spare ones, and one prepared ahead.
pub(super) struct JournalFiles {
    disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    bytes_each: u64,
    files: Mutex<Files>,
    changed: Condvar,
}

impl JournalFiles {
    pub fn new(disk: Arc<dyn Disk>, directory: &Path, bytes_each: u64, next_number: u64) -> JournalFiles {
        let files = Mutex::new(Files { next_number, is_first: true, ..Files::default() });
        JournalFiles { disk, directory: directory.to_owned(), bytes_each, files, changed: Condvar::new() }
    }

    /// Makes the next file ready, so that the writer need not wait for it.
    pub fn prepare(&self) {
        let mut files = lock(&self.files);
        while files.making {
            files = wait(&self.changed, files);
        }
        if files.prepared.is_some() {
            return;
        }
        let bytes = if files.is_first { self.small_bytes() } else { self.usual_bytes() };
        files.is_first = false;
        let (mut files, made) = self.make(files, bytes, Blocks::Written);
        match made {
            Ok(file) => files.prepared = Some(file),
            // The writer will try again when it needs one, and tell the producers.
            Err(error) => tracing::warn!("cannot prepare a journal file in {}: {error}", self.directory.display()),
        }
    }

    /// Makes a file with the next number. The lock is free meanwhile; nobody else takes a number until it is made.
    fn make<'a>(
        &'a self,
        mut files: MutexGuard<'a, Files>,
        bytes: u64,
        blocks: Blocks,
    ) -> (MutexGuard<'a, Files>, io::Result<JournalFile>) {
        let (number, spare) = (files.next_number, files.spares.pop());
        files.next_number += 1;
        files.making = true;
        drop(files);
        let made = self.make_numbered(number, spare, bytes, blocks);
        let mut files = lock(&self.files);
        files.making = false;
        self.changed.notify_all();
        (files, made)
    }

    fn make_numbered(
        &self,
        number: u64,
        spare: Option<PathBuf>,
        bytes: u64,
        blocks: Blocks,
    ) -> io::Result<JournalFile> {
        let path = self.directory.join(file_name(number));
        let header = FileHeader { number, salt: self.disk.random() };
        if let Some(spare) = spare {
            self.disk.rename(&spare, &path)?;
        }
        let made = self.fill(&path, header, bytes, blocks);
        if made.is_err() {
            // Nothing was promised in it; a leftover without groups would do no harm either.
            let _ = self.disk.remove_file(&path);
        }
        made
    }

    fn fill(&self, path: &Path, header: FileHeader, bytes: u64, blocks: Blocks) -> io::Result<JournalFile> {
        let file = self.disk.open(path, OpenMode::Create)?;
        let length_before = file.length()?;
        let length = length_before.max(bytes);
        if length_before < bytes {
            file.preallocate(bytes)?;
            if blocks == Blocks::Written {
                self.write_zeros(&*file, length_before, bytes)?;
            }
        }
        file.write_all_at(&[&header.encode()], 0)?;
        file.sync_all()?;
        self.disk.sync_directory(&self.directory)?;
        Ok(JournalFile { file, header, path: path.to_owned(), length, position: FIRST_GROUP_AT })
    }

    /// As far as there is time for it: blocks that were only reserved do as well.
    fn write_zeros(&self, file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
        // A small file is written in pieces, too.
        let piece_bytes = ZEROS_BYTES.min(to as usize / 4).max(1);
        let pause = ZEROS_PAUSE.mul_f64(piece_bytes as f64 / ZEROS_BYTES as f64);
        let zeros = vec![0; piece_bytes];
        for position in (from..to).step_by(piece_bytes) {
            let count = (to - position).min(piece_bytes as u64);
            file.write_all_at(&[&zeros[..count as usize]], position)?;
            if position + count == to {
                break;
            }
            file.sync_data()?;
            let files = lock(&self.files);
            let may_wait = |files: &mut Files| !(files.is_wanted || files.is_hurried || files.gave_up);
            let waited = self.changed.wait_timeout_while(files, pause, may_wait);
            let (files, pause) = waited.unwrap_or_else(PoisonError::into_inner);
            drop(files);
            if !pause.timed_out() {
                break;
            }
        }
        Ok(())
    }

    /// The next file, with room for a group of so many bytes.
    pub fn next(&self, group_bytes: u64) -> io::Result<JournalFile> {
        let mut files = lock(&self.files);
        while files.making || (files.waits_for_checkpoint() && !files.stuck) {
            files.is_wanted = true;
            self.changed.notify_all();
            files = wait(&self.changed, files);
        }
        files.is_wanted = false;
        if files.waits_for_checkpoint() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match files.prepared.take() {
            Some(file) if FIRST_GROUP_AT + group_bytes <= file.length => {
                files.current = Some(file.header.number);
                return Ok(file);
            }
            // Too small for this group; used later, its number would be out of order.
            Some(small) => self.disk.remove_file(&small.path)?,
            None => {}
        }
        let bytes = self.usual_bytes();
        let (mut files, made) = self.make(files, bytes.max(FIRST_GROUP_AT + group_bytes), Blocks::Reserved);
        if let Ok(file) = &made {
            files.current = Some(file.header.number);
        }
        made
    }

    /// The oldest file that holds groups behind `sequence`, or will hold the next ones.
    pub fn needed(&self, sequence: u64) -> Option<u64> {
        let files = lock(&self.files);
        let closed = files.closed.iter().find(|file| file.last_sequence > sequence);
        closed.map(|file| file.number).or(files.current)
    }

    fn small_bytes(&self) -> u64 {
        self.bytes_each.min(SMALL_FILE_BYTES)
    }

    /// Small ones while a large one would take room that the segments need.
    fn usual_bytes(&self) -> u64 {
        let free = self.disk.free_bytes(&self.directory);
        if free.is_some_and(|free| free < self.bytes_each + FREE_BYTES_MIN) {
            self.small_bytes()
        } else {
            self.bytes_each
        }
    }

    /// Removes what is kept for later. False when there is nothing, or it cannot be removed.
    pub fn give_reserve(&self) -> bool {
        let mut files = lock(&self.files);
        let prepared = files.prepared.take().map(|file| file.path);
        let mut given = false;
        for path in files.spares.drain(..).chain(prepared) {
            given |= self.disk.remove_file(&path).is_ok();
        }
        given
    }

    /// A file is full.
    pub fn close(&self, full: JournalFile, last_sequence: u64) {
        let closed = ClosedFile { number: full.header.number, path: full.path, last_sequence };
        lock(&self.files).closed.push_back(closed);
    }

    /// Gives back the files whose groups are all in a checkpoint.
    pub fn free(&self, sequence: u64) -> io::Result<()> {
        let usual_bytes = self.usual_bytes();
        let mut files = lock(&self.files);
        files.stuck = false;
        while files.closed.front().is_some_and(|file| file.last_sequence <= sequence) {
            let Some(done) = files.closed.pop_front() else { break };
            let ordinary = self.disk.open(&done.path, OpenMode::Read)?.length()? == usual_bytes;
            if ordinary && files.spares.len() < SPARE_FILES_MAX {
                // Renamed, so that recovery does not look into it.
                let spare = done.path.with_extension("spare");
                self.disk.rename(&done.path, &spare)?;
                files.spares.push(spare);
            } else {
                self.disk.remove_file(&done.path)?;
            }
        }
        self.changed.notify_all();
        drop(files);
        self.disk.sync_directory(&self.directory)
    }

    /// Whether whoever prepares a file shall come to an end: a checkpoint is due.
    pub fn hurry(&self, hurried: bool) {
        lock(&self.files).is_hurried = hurried;
        self.changed.notify_all();
    }

    /// Whether a checkpoint would free files.
    pub fn has_closed(&self) -> bool {
        !lock(&self.files).closed.is_empty()
    }

    /// A checkpoint found no room.
    pub fn stuck(&self) {
        lock(&self.files).stuck = true;
        self.changed.notify_all();
    }

    /// No checkpoint will free anything any more: the writer shall not wait for it.
    pub fn give_up(&self) {
        lock(&self.files).gave_up = true;
        self.changed.notify_all();
    }

    /// The number after all that were used.
    pub fn next_number(&self) -> u64 {
        lock(&self.files).next_number
    }
}
