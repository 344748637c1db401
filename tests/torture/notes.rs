//! What a client of the torture saw.

use super::message::Place;
use super::support::notes::{self, Fields};
pub use super::support::notes::{now_us, read};

pub type Life = notes::Life<Note>;
pub type Notebook = notes::Notebook<Note>;

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

impl notes::Note for Note {
    fn fields(self) -> Fields {
        let pair = |life: u32, sequence: u32| u64::from(life) << 32 | u64::from(sequence);
        let (kind, Place(place), first, second) = match self {
            Note::Delivered { place, offset, life, sequence } => {
                (0, place, offset.unwrap_or(u64::MAX), pair(life, sequence))
            }
            Note::Assigned { place, at_us } => (1, place, 0, at_us),
            Note::Read { place, offset, life, sequence } => (2, place, offset, pair(life, sequence)),
            Note::Committed { place, next_offset, at_us } => (3, place, next_offset, at_us),
        };
        Fields { kind, place, first, second }
    }

    fn of(Fields { kind, place, first, second }: Fields) -> Note {
        let place = Place(place);
        let (life, sequence) = ((second >> 32) as u32, second as u32);
        match kind {
            0 => Note::Delivered { place, offset: (first != u64::MAX).then_some(first), life, sequence },
            1 => Note::Assigned { place, at_us: second },
            2 => Note::Read { place, offset: first, life, sequence },
            3 => Note::Committed { place, next_offset: first, at_us: second },
            kind => panic!("no note has the kind {kind}"),
        }
    }
}

#[test]
fn notes_are_read_as_they_were_written_and_a_torn_one_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reader-1");
    let written = [
        Note::Assigned { place: Place(199), at_us: now_us() },
        Note::Read { place: Place(199), offset: 1 << 40, life: 5, sequence: u32::MAX },
        Note::Committed { place: Place(0), next_offset: 7, at_us: 9 },
        Note::Delivered { place: Place(3), offset: Some(8), life: u32::MAX, sequence: 0 },
        Note::Delivered { place: Place(3), offset: None, life: 1, sequence: 2 },
    ];
    let mut notebook = Notebook::create(&path);
    written.iter().for_each(|note| notebook.write(*note));
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &[0; notes::NOTE_BYTES - 1]).unwrap();
    let lives: Vec<Life> = read(dir.path(), "reader-");
    assert_eq!((lives.len(), lives[0].name.as_str(), lives[0].notes.as_slice()), (1, "reader-1", written.as_slice()));
}
