//! What a client saw, in a file that outlives it: each note is one write(2), so it is in the page cache when the client
//! is killed.

use std::fs::File;
use std::io::Write;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub const NOTE_BYTES: usize = 24;

/// What a note is made of, whatever it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub kind: u32,
    pub place: u32,
    pub first: u64,
    pub second: u64,
}

/// One thing that a client saw.
pub trait Note: Copy {
    fn fields(self) -> Fields;
    fn of(fields: Fields) -> Self;
}

fn encode(Fields { kind, place, first, second }: Fields) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[4..8].copy_from_slice(&place.to_le_bytes());
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    bytes[16..].copy_from_slice(&second.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Fields {
    let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    Fields { kind: short(0), place: short(4), first: long(8), second: long(16) }
}

/// Microseconds since 1970, the same clock for all processes.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A client's notes, while it lives.
pub struct Notebook<N>(File, PhantomData<N>);

impl<N: Note> Notebook<N> {
    pub fn create(path: &Path) -> Notebook<N> {
        Notebook(File::options().append(true).create_new(true).open(path).unwrap(), PhantomData)
    }

    pub fn write(&mut self, note: N) {
        self.0.write_all(&encode(note.fields())).unwrap();
    }
}

/// The notes of a client, and its name.
#[derive(Clone, Debug)]
pub struct Life<N> {
    pub name: String,
    pub notes: Vec<N>,
}

/// All lives whose file names begin so. A note that its writer was killed in is no note.
pub fn read<N: Note>(directory: &Path, prefix: &str) -> Vec<Life<N>> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| name(path).starts_with(prefix)).collect();
    paths.sort();
    let notes = |bytes: &[u8]| bytes.chunks_exact(NOTE_BYTES).map(decode).map(N::of).collect();
    paths.iter().map(|path| Life { name: name(path), notes: notes(&std::fs::read(path).unwrap()) }).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
