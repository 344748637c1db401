//! What a client saw, in a file that outlives it: each note is one write(2), so it is in the page cache when the client
//! is killed.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::message::Place;

const NOTE_BYTES: usize = 24;

/// One thing that a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The broker acknowledged a message. `None`: it did not say where.
    Delivered { place: Place, offset: Option<u64>, life: u32, sequence: u32 },
    /// A consumer begins to read a partition, from what its group committed.
    Assigned { place: Place, at_us: u64 },
    /// A consumer read a message; `life` 0 when its bytes are not what anybody sent.
    Read { place: Place, offset: u64, life: u32, sequence: u32 },
    /// The broker acknowledged a commit.
    Committed { place: Place, next_offset: u64, at_us: u64 },
}

impl Note {
    fn encode(self) -> [u8; NOTE_BYTES] {
        let pair = |life: u32, sequence: u32| u64::from(life) << 32 | u64::from(sequence);
        let (kind, place, first, second) = match self {
            Note::Delivered { place, offset, life, sequence } => {
                (0u32, place, offset.unwrap_or(u64::MAX), pair(life, sequence))
            }
            Note::Assigned { place, at_us } => (1, place, 0, at_us),
            Note::Read { place, offset, life, sequence } => (2, place, offset, pair(life, sequence)),
            Note::Committed { place, next_offset, at_us } => (3, place, next_offset, at_us),
        };
        let mut bytes = [0; NOTE_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&place.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&first.to_le_bytes());
        bytes[16..].copy_from_slice(&second.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Note {
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (place, first, second) = (Place(short(4)), long(8), long(16));
        let (life, sequence) = ((second >> 32) as u32, second as u32);
        match short(0) {
            0 => Note::Delivered { place, offset: (first != u64::MAX).then_some(first), life, sequence },
            1 => Note::Assigned { place, at_us: second },
            2 => Note::Read { place, offset: first, life, sequence },
            3 => Note::Committed { place, next_offset: first, at_us: second },
            kind => panic!("no note has the kind {kind}"),
        }
    }
}

/// Microseconds since 1970, the same clock for all processes.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A client's notes, while it lives.
pub struct Notebook(File);

impl Notebook {
    pub fn create(path: &Path) -> Notebook {
        Notebook(File::options().append(true).create_new(true).open(path).unwrap())
    }

    pub fn write(&mut self, note: Note) {
        self.0.write_all(&note.encode()).unwrap();
    }
}

/// The notes of a client, and its name.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub name: String,
    pub notes: Vec<Note>,
}

/// All lives whose file names begin so. A note that its writer was killed in is no note.
pub fn read(directory: &Path, prefix: &str) -> Vec<Life> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| name(path).starts_with(prefix)).collect();
    paths.sort();
    let life = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        Life { name: name(path), notes: bytes.chunks_exact(NOTE_BYTES).map(Note::decode).collect() }
    };
    paths.iter().map(life).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn notes_are_read_as_they_were_written_and_a_torn_one_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reader-1");
    let notes = [
        Note::Assigned { place: Place(199), at_us: now_us() },
        Note::Read { place: Place(199), offset: 1 << 40, life: 5, sequence: u32::MAX },
        Note::Committed { place: Place(0), next_offset: 7, at_us: 9 },
        Note::Delivered { place: Place(3), offset: Some(8), life: u32::MAX, sequence: 0 },
        Note::Delivered { place: Place(3), offset: None, life: 1, sequence: 2 },
    ];
    let mut notebook = Notebook::create(&path);
    notes.iter().for_each(|note| notebook.write(*note));
    notebook.0.write_all(&[0; NOTE_BYTES - 1]).unwrap();
    let lives = read(dir.path(), "reader-");
    assert_eq!((lives.len(), lives[0].name.as_str(), lives[0].notes.as_slice()), (1, "reader-1", notes.as_slice()));
}
