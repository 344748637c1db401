//! What the files of a segment are called.

/// What tells a segment's files from others in the directory: `BASE.log`, after compaction `BASE-GENERATION.log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SegmentName {
    pub base_offset: i64,
    pub generation: u32,
}

impl SegmentName {
    /// What lies beside a segment's log, and can be made again from it.
    pub const INDEX_KINDS: [&str; 2] = ["index", "txnindex"];

    pub fn file(self, kind: &str) -> String {
        match self.generation {
            0 => format!("{:020}.{kind}", self.base_offset),
            generation => format!("{:020}-{generation}.{kind}", self.base_offset),
        }
    }

    pub fn log(self) -> String {
        self.file("log")
    }

    pub fn index(self) -> String {
        self.file("index")
    }

    pub fn aborted(self) -> String {
        self.file("txnindex")
    }

    /// Reads a file's name; none when it is not of that kind.
    pub fn parse(file_name: &str, kind: &str) -> Option<SegmentName> {
        let stem = file_name.strip_suffix(kind)?.strip_suffix('.')?;
        let (digits, generation) = stem.split_once('-').unwrap_or((stem, "0"));
        let name = SegmentName { base_offset: digits.parse().ok()?, generation: generation.parse().ok()? };
        // Written in one way only.
        (name.file(kind) == file_name).then_some(name)
    }
}
