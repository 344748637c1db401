//! What a member of a group saw.

use super::support::notes::{self, Fields};

pub type Life = notes::Life<Note>;
pub type Notebook = notes::Notebook<Note>;

/// One thing that a member saw of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The group gave it to this member.
    Assigned { partition: u32, at_us: u64 },
    /// A message was processed.
    Read { partition: u32, offset: u64, at_us: u64 },
    /// The broker acknowledged a commit.
    Committed { partition: u32, next_offset: u64, at_us: u64 },
    /// The member gives it back, and what it processed is committed.
    Revoked { partition: u32, at_us: u64 },
    /// It was taken away, or what was processed could not be committed.
    Lost { partition: u32, at_us: u64 },
}

impl Note {
    pub fn partition(self) -> u32 {
        notes::Note::fields(self).place
    }
}

impl notes::Note for Note {
    fn fields(self) -> Fields {
        let (kind, place, first, second) = match self {
            Note::Assigned { partition, at_us } => (0, partition, 0, at_us),
            Note::Read { partition, offset, at_us } => (1, partition, offset, at_us),
            Note::Committed { partition, next_offset, at_us } => (2, partition, next_offset, at_us),
            Note::Revoked { partition, at_us } => (3, partition, 0, at_us),
            Note::Lost { partition, at_us } => (4, partition, 0, at_us),
        };
        Fields { kind, place, first, second }
    }

    fn of(Fields { kind, place: partition, first, second: at_us }: Fields) -> Note {
        match kind {
            0 => Note::Assigned { partition, at_us },
            1 => Note::Read { partition, offset: first, at_us },
            2 => Note::Committed { partition, next_offset: first, at_us },
            3 => Note::Revoked { partition, at_us },
            4 => Note::Lost { partition, at_us },
            kind => panic!("no note has the kind {kind}"),
        }
    }
}

#[test]
fn notes_are_read_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let written = [
        Note::Assigned { partition: 11, at_us: 1 },
        Note::Read { partition: 11, offset: 1 << 40, at_us: 2 },
        Note::Committed { partition: 0, next_offset: 7, at_us: 3 },
        Note::Revoked { partition: 11, at_us: notes::now_us() },
        Note::Lost { partition: 1, at_us: 5 },
    ];
    let mut notebook = Notebook::create(&dir.path().join("a"));
    written.iter().for_each(|note| notebook.write(*note));
    let lives: Vec<Life> = notes::read(dir.path(), "");
    assert_eq!((lives.len(), lives[0].notes.as_slice()), (1, written.as_slice()));
}
