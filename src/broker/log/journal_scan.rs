//! Reads the journal at start: which groups count, and whether what does not count may be cut.
//!
//! A bad group may be cut only if no later group says that it had been synced.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::OpenError;
use super::disk::{Disk, DiskFile, OpenMode};
use super::journal::{
    ALIGNMENT, FIRST_GROUP_AT, FileHeader, GROUP_HEADER_BYTES, GroupHeader, aligned, file_name, number_of,
};

/// Read at once when a beginning is looked for.
const WINDOW_BYTES: usize = 1 << 20;

/// Where a group that counts lies.
#[derive(Clone, Debug)]
pub(super) struct GroupPlace {
    pub file: usize,
    pub position: u64,
    header: GroupHeader,
}

/// What was found.
pub(super) struct JournalScan {
    files: Vec<OpenFile>,
    /// The groups behind the checkpoint, in order.
    pub groups: Vec<GroupPlace>,
    pub last_sequence: u64,
    pub cut_bytes: u64,
    /// The number after the last file's.
    pub next_number: u64,
    pub paths: Vec<PathBuf>,
}

struct OpenFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    /// Its header is whole.
    counts: bool,
}

/// The first place where something is wrong: a group with this sequence should begin there.
struct Bad {
    path: PathBuf,
    position: u64,
    sequence: u64,
}

impl JournalScan {
    /// Looks through all journal files for the groups behind `checkpoint_sequence`.
    ///
    /// # Errors
    /// `Damaged` when a group that was synced is not whole.
    pub fn scan(disk: &dyn Disk, directory: &Path, checkpoint_sequence: u64) -> Result<JournalScan, OpenError> {
        let numbers = list(disk, directory)?;
        let mut scan = JournalScan {
            files: Vec::new(),
            groups: Vec::new(),
            last_sequence: checkpoint_sequence,
            cut_bytes: 0,
            next_number: numbers.last().map_or(0, |last| last + 1),
            paths: numbers.iter().map(|number| directory.join(file_name(*number))).collect(),
        };
        let mut bad: Option<Bad> = None;
        for number in numbers {
            scan.scan_file(disk, &directory.join(file_name(number)), number, &mut bad)?;
        }
        Ok(scan)
    }

    fn scan_file(&mut self, disk: &dyn Disk, path: &Path, number: u64, bad: &mut Option<Bad>) -> Result<(), OpenError> {
        let file = disk.open(path, OpenMode::Read).map_err(OpenError::io("open", path))?;
        let length = file.length().map_err(OpenError::io("read", path))?;
        let mut start = [0; ALIGNMENT as usize];
        file.read_up_to(&mut start, 0).map_err(OpenError::io("read", path))?;
        let header = FileHeader::decode(&start).filter(|header| header.number == number);
        let index = self.files.len();
        self.files.push(OpenFile { path: path.to_owned(), file, length, counts: header.is_some() });
        let Some(header) = header else {
            // The header is synced with, or before, the first group: without it nothing here was promised, unless a
            // later file knows better.
            bad.get_or_insert(Bad { path: path.to_owned(), position: 0, sequence: self.last_sequence + 1 });
            return Ok(());
        };
        let mut position = FIRST_GROUP_AT;
        loop {
            let found = match self.group_at(index, position, header.salt)? {
                Some(found) => Some((position, found)),
                None => {
                    let expected = Bad { path: path.to_owned(), position, sequence: self.last_sequence + 1 };
                    bad.get_or_insert(expected);
                    self.next_group(index, position + ALIGNMENT, header.salt)?
                }
            };
            let Some((at, group)) = found else { return Ok(()) };
            if !self.accept(index, at, group, bad)? {
                return Ok(());
            }
            position = at + aligned(GROUP_HEADER_BYTES as u64 + group.payload_bytes);
        }
    }

    /// Counts a whole group, or says why it cannot count. False: it stands behind a gap that may be cut.
    fn accept(&mut self, file: usize, at: u64, group: GroupHeader, bad: &mut Option<Bad>) -> Result<bool, OpenError> {
        let expected = self.last_sequence + 1;
        #[cfg(test)]
        let expected = match super::simulation::is_left_out(super::simulation::Check::GroupSequence) {
            true => group.sequence.max(expected),
            false => expected,
        };
        if group.sequence == expected {
            self.groups.push(GroupPlace { file, position: at, header: group });
            self.last_sequence = expected;
        }
        if group.sequence <= expected {
            // A gap before the checkpoint does not matter.
            *bad = None;
            return Ok(true);
        }
        let bad = bad.get_or_insert(Bad { path: self.files[file].path.clone(), position: at, sequence: expected });
        if group.durable_sequence >= expected {
            let what = format!(
                "group {} is not whole, though group {} in {} at byte {at} was written after it had been synced",
                bad.sequence,
                group.sequence,
                self.files[file].path.display()
            );
            return Err(OpenError::damaged(&bad.path, bad.position, what));
        }
        self.cut_bytes += aligned(GROUP_HEADER_BYTES as u64 + group.payload_bytes);
        Ok(true)
    }

    /// The whole group at `position`, if there is one.
    fn group_at(&mut self, index: usize, position: u64, salt: u64) -> Result<Option<GroupHeader>, OpenError> {
        let OpenFile { path, file, length, .. } = &self.files[index];
        let mut bytes = [0; GROUP_HEADER_BYTES];
        if position + GROUP_HEADER_BYTES as u64 > *length || file.read_exact_at(&mut bytes, position).is_err() {
            return Ok(None);
        }
        let Some(header) = GroupHeader::decode(&bytes).filter(|header| header.salt == salt) else { return Ok(None) };
        let room = length - position - GROUP_HEADER_BYTES as u64;
        if header.payload_bytes > room {
            return Ok(None);
        }
        let mut payload = vec![0; header.payload_bytes as usize];
        file.read_exact_at(&mut payload, position + GROUP_HEADER_BYTES as u64).map_err(OpenError::io("read", path))?;
        if crc32c::crc32c(&payload) == header.payload_crc {
            return Ok(Some(header));
        }
        self.cut_bytes += aligned(GROUP_HEADER_BYTES as u64 + header.payload_bytes);
        Ok(None)
    }

    /// The next whole group of this use of the file, wherever it begins.
    fn next_group(&mut self, index: usize, from: u64, salt: u64) -> Result<Option<(u64, GroupHeader)>, OpenError> {
        let mut window = vec![0; WINDOW_BYTES];
        let mut window_at = from;
        let cut_bytes = self.cut_bytes;
        while window_at < self.files[index].length {
            let OpenFile { path, file, .. } = &self.files[index];
            let filled = file.read_up_to(&mut window, window_at).map_err(OpenError::io("read", path))?;
            for offset in (0..filled).step_by(ALIGNMENT as usize) {
                let candidate = GroupHeader::decode(&window[offset..filled]).filter(|header| header.salt == salt);
                let position = window_at + offset as u64;
                if candidate.is_some()
                    && let Some(group) = self.group_at(index, position, salt)?
                {
                    return Ok(Some((position, group)));
                }
            }
            window_at += WINDOW_BYTES as u64;
        }
        self.cut_bytes = cut_bytes;
        Ok(None)
    }

    /// # Errors
    /// `Damaged` or `Missing` when the file that the checkpoint needs, which holds the groups behind it, does not count.
    pub fn check_needed(&self, directory: &Path, needed: Option<u64>) -> Result<(), OpenError> {
        let Some(number) = needed else { return Ok(()) };
        let path = directory.join(file_name(number));
        match self.files.iter().find(|file| file.path == path) {
            Some(file) if file.counts => Ok(()),
            Some(_) => Err(OpenError::damaged(
                &path,
                0,
                "it does not begin as a file of the journal, and the checkpoint needs it",
            )),
            None => Err(OpenError::Missing { path, what: "the checkpoint needs it".to_owned() }),
        }
    }

    /// Makes durable what was found, before anything is done on its word: the last groups may be in the page cache only,
    /// and a power cut now would otherwise leave what was done without its reason. They are written again, as pages that
    /// a failed sync has lost count as clean.
    ///
    /// # Errors
    /// `Io`: nothing that was found may be used.
    pub fn make_durable(&self, disk: &dyn Disk, directory: &Path) -> Result<(), OpenError> {
        let attested = self.groups.iter().map(|group| group.header.durable_sequence).max().unwrap_or(0);
        let mut open: Option<(usize, Arc<dyn DiskFile>)> = None;
        for place in self.groups.iter().filter(|place| place.header.sequence > attested) {
            let path = self.path_of(place);
            let file = match &open {
                Some((index, file)) if *index == place.file => file.clone(),
                _ => disk.open(path, OpenMode::Write).map_err(OpenError::io("open", path))?,
            };
            let parts: [&[u8]; 2] = [&place.header.encode(), &self.payload(place)?];
            file.write_all_at(&parts, place.position).map_err(OpenError::io("write", path))?;
            file.sync_data().map_err(OpenError::io("sync", path))?;
            open = Some((place.file, file));
        }
        disk.sync_directory(directory).map_err(OpenError::io("sync", directory))
    }

    /// Reads a group's records again.
    pub fn payload(&self, place: &GroupPlace) -> Result<Bytes, OpenError> {
        let OpenFile { path, file, .. } = &self.files[place.file];
        let mut payload = vec![0; place.header.payload_bytes as usize];
        let at = place.position + GROUP_HEADER_BYTES as u64;
        file.read_exact_at(&mut payload, at).map_err(OpenError::io("read", path))?;
        if crc32c::crc32c(&payload) != place.header.payload_crc {
            return Err(OpenError::damaged(path, place.position, "it reads differently the second time"));
        }
        Ok(payload.into())
    }

    /// For messages about a group.
    pub fn path_of(&self, place: &GroupPlace) -> &Path {
        &self.files[place.file].path
    }
}

fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, OpenError> {
    let names = disk.list(directory).map_err(OpenError::io("list", directory))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|entry| number_of(&entry.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
