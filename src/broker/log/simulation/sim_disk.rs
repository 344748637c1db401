//! A disk in memory that runs the log's own code, counts what is done to it, and keeps an image after each step.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use super::super::disk::{Disk, DiskFile, Name, OpenMode};
use super::super::lock;
use super::image::{DirectoryNode, FileNode, Image, Node};

/// What this disk does wrong on purpose, to see whether the simulation notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Syncs of files do nothing.
    pub no_file_sync: bool,
    /// Syncs of directories do nothing.
    pub no_directory_sync: bool,
    /// The sync with this number fails, and its pages are lost.
    pub failing_sync: Option<u64>,
    /// Opening to write fails at this number of opens: too many files are open.
    pub failing_open: Option<u64>,
    /// The write with this number finds no room, whatever was said before.
    pub failing_write: Option<u64>,
    /// So many bytes have room. Whoever looks before writing never meets the end.
    pub room: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    image: Image,
    rng: ChaCha8Rng,
    faults: Faults,
    now_ms: i64,
    syncs: u64,
    opens: u64,
    writes: u64,
    steps_taken: usize,
    /// An image after each step that changed something, if they are wanted.
    steps: Option<Vec<Image>>,
    /// CRC-32C over all that was done, in order.
    trace: u32,
}

impl Shared {
    fn step(&mut self, what: &str, which: u64, bytes: &[u8]) {
        self.trace = crc32c::crc32c_append(self.trace, what.as_bytes());
        self.trace = crc32c::crc32c_append(self.trace, &which.to_le_bytes());
        self.trace = crc32c::crc32c_append(self.trace, bytes);
        self.steps_taken += 1;
        if let Some(steps) = &mut self.steps {
            steps.push(self.image.clone());
        }
    }

    fn count_open(&mut self) -> io::Result<()> {
        self.opens += 1;
        match self.faults.failing_open == Some(self.opens) {
            true => Err(rustix::io::Errno::MFILE.into()),
            false => Ok(()),
        }
    }

    fn next_sync_fails(&mut self) -> bool {
        self.syncs += 1;
        self.faults.failing_sync == Some(self.syncs)
    }
}

/// One machine's life with its disk.
#[derive(Clone, Debug)]
pub(super) struct SimDisk(Arc<Mutex<Shared>>);

impl SimDisk {
    pub fn new(image: Image, seed: u64, faults: Faults, keeps_steps: bool) -> SimDisk {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let steps = keeps_steps.then(Vec::new);
        let now_ms = 1_700_000_000_000;
        let shared =
            Shared { image, rng, faults, now_ms, syncs: 0, opens: 0, writes: 0, steps_taken: 0, steps, trace: 0 };
        SimDisk(Arc::new(Mutex::new(shared)))
    }

    /// How many steps were taken.
    pub fn steps_taken(&self) -> usize {
        lock(&self.0).steps_taken
    }

    /// The images after each step, in order.
    pub fn take_steps(&self) -> Vec<Image> {
        lock(&self.0).steps.take().unwrap_or_default()
    }

    pub fn trace(&self) -> u32 {
        lock(&self.0).trace
    }

    fn missing(path: &Path) -> io::Error {
        io::Error::new(ErrorKind::NotFound, format!("{} is not there", path.display()))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut shared = lock(&self.0);
        if mode != OpenMode::Read {
            shared.count_open()?;
        }
        let found = shared.image.find(path);
        let node = match (found, mode) {
            (Some(node), OpenMode::Truncate) => {
                let file = shared.image.file(node).ok_or(ErrorKind::IsADirectory)?;
                file.set_length(0);
                shared.step("truncate", node, &[]);
                node
            }
            (Some(node), _) => node,
            (None, OpenMode::Read | OpenMode::Write) => return Err(Self::missing(path)),
            (None, OpenMode::Create | OpenMode::Truncate) => {
                let place = shared.image.place(path).ok_or_else(|| Self::missing(path))?;
                let node = shared.image.link(Node::File(FileNode::default()), place);
                shared.step("create", node, path.as_os_str().as_encoded_bytes());
                node
            }
        };
        match shared.image.node(node) {
            Some(Node::File(_)) => Ok(Arc::new(SimFile { disk: self.clone(), node })),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut shared = lock(&self.0);
        shared.count_open()?;
        let node = shared.image.find(path).ok_or_else(|| Self::missing(path))?;
        shared.image.directory(node).ok_or(ErrorKind::NotADirectory)?;
        Ok(Arc::new(SimFile { disk: self.clone(), node }))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut shared = lock(&self.0);
        if shared.image.find(path).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let place = shared.image.place(path).ok_or_else(|| Self::missing(path))?;
        let node = shared.image.link(Node::Directory(DirectoryNode::default()), place);
        shared.step("create directory", node, path.as_os_str().as_encoded_bytes());
        Ok(())
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        for ancestor in ancestors {
            match self.create_directory(ancestor) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut shared = lock(&self.0);
        let node = shared.image.find(from).ok_or_else(|| Self::missing(from))?;
        let places = shared.image.place(from).zip(shared.image.place(to));
        let (from, to) = places.ok_or_else(|| Self::missing(to))?;
        shared.image.rename(node, from, to);
        shared.step("rename", node, &[]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut shared = lock(&self.0);
        let node = shared.image.find(path).ok_or_else(|| Self::missing(path))?;
        let place = shared.image.place(path).ok_or_else(|| Self::missing(path))?;
        shared.image.unlink(node, place);
        shared.step("remove", node, &[]);
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        for entry in self.list(path)? {
            self.remove(&path.join(&entry.name), entry.is_directory)?;
        }
        self.remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Name>> {
        let shared = lock(&self.0);
        let node = shared.image.find(directory).ok_or_else(|| Self::missing(directory))?;
        let directory = shared.image.directory(node).ok_or(ErrorKind::NotADirectory)?;
        let entry = |(name, node): (&String, &u64)| Name {
            name: name.clone(),
            is_directory: shared.image.directory(*node).is_some(),
        };
        Ok(directory.current.iter().map(entry).collect())
    }

    fn free_bytes(&self, _directory: &Path) -> Option<u64> {
        let room = lock(&self.0).faults.room?;
        Some(room.saturating_sub(self.used_bytes(Path::new("/"))))
    }

    fn used_bytes(&self, path: &Path) -> u64 {
        let shared = lock(&self.0);
        shared.image.files().iter().filter(|(at, _)| at.starts_with(path)).map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn random(&self) -> u64 {
        lock(&self.0).rng.next_u64()
    }
}

/// A handle: it outlives the file's name.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: u64,
}

impl SimFile {
    fn change<T>(&self, what: &str, bytes: &[u8], change: impl FnOnce(&mut FileNode) -> T) -> io::Result<T> {
        let mut shared = lock(&self.disk.0);
        shared.now_ms += 1;
        let now_ms = shared.now_ms;
        let file = shared.image.file(self.node).ok_or(ErrorKind::IsADirectory)?;
        file.modified_ms = now_ms;
        let changed = change(file);
        shared.step(what, self.node, bytes);
        Ok(changed)
    }

    fn look<T>(&self, look: impl FnOnce(&FileNode) -> T) -> io::Result<T> {
        match lock(&self.disk.0).image.node(self.node) {
            Some(Node::File(file)) => Ok(look(file)),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.look(|file| {
            let rest = file.content().get(position as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            count
        })
    }

    fn write_all_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let bytes = parts.concat();
        {
            let mut shared = lock(&self.disk.0);
            shared.writes += 1;
            if shared.faults.failing_write == Some(shared.writes) {
                return Err(ErrorKind::StorageFull.into());
            }
        }
        self.change("write", &bytes.clone(), |file| file.write(position, bytes))
    }

    fn length(&self) -> io::Result<u64> {
        self.look(|file| file.content().len() as u64)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.change("set length", &bytes.to_le_bytes(), |file| file.set_length(bytes))
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.set_length(bytes.max(self.length()?))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut shared = lock(&self.disk.0);
        let (faults, fails, node) = (shared.faults, shared.next_sync_fails(), self.node);
        let is_directory = shared.image.directory(node).is_some();
        if is_directory && !faults.no_directory_sync && !fails {
            shared.image.sync_directory(node);
        }
        if let Some(file) = shared.image.file(node) {
            match (fails, faults.no_file_sync) {
                (true, _) => file.fail_to_sync(),
                (false, true) => {}
                (false, false) => file.sync(),
            }
        }
        shared.step("sync", node, &[]);
        if fails { Err(io::Error::other("the simulated disk failed to sync")) } else { Ok(()) }
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.look(|file| file.modified_ms)
    }
}
