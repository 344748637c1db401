//! A part of a segment's file that is to be sent: whole batches, which nobody changes any more.
//!
//! The file stays open for as long as this is held, also if retention removes its name meanwhile. Must not know sockets.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::KernelFile;
use super::segment::Segment;

/// Bytes read at once to have them in the page cache.
const WARM_BYTES: usize = 128 * 1024;

/// A part of a file.
#[derive(Clone)]
pub struct FileRange {
    segment: Arc<Segment>,
    position: u64,
    bytes: u64,
}

impl std::fmt::Debug for FileRange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, end) = (self.segment.log_path(), self.position + self.bytes);
        write!(formatter, "{}[{}..{end}]", path.display(), self.position)
    }
}

impl FileRange {
    pub(super) fn new(segment: Arc<Segment>, position: u64, bytes: u64) -> FileRange {
        FileRange { segment, position, bytes }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.bytes as usize
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Where it begins in the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The beginning of it, `bytes` at most.
    pub fn first(&self, bytes: usize) -> FileRange {
        FileRange { bytes: self.bytes.min(bytes as u64), ..self.clone() }
    }

    /// Goes on behind what was sent.
    pub fn advance(&mut self, bytes: usize) {
        let bytes = self.bytes.min(bytes as u64);
        self.position += bytes;
        self.bytes -= bytes;
    }

    /// The kernel's file, if it is one.
    pub fn kernel_file(&self) -> Option<&KernelFile> {
        self.segment.file.kernel_file()
    }

    /// Whether reading it would wait for no disk, as far as looks at some of its pages tell.
    pub fn is_cached(&self) -> bool {
        self.segment.file.is_cached(self.position, self.bytes)
    }

    /// Waits for the disk until all of it is in the page cache, and has the disk go on with what follows.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than it was.
    pub fn warm(&self) -> io::Result<()> {
        self.segment.file.read_ahead(self.position, 2 * self.bytes);
        let mut scratch = vec![0; WARM_BYTES.min(self.len())];
        let mut left = self.clone();
        while !left.is_empty() {
            let count = scratch.len().min(left.len());
            self.named(self.segment.file.read_exact_at(&mut scratch[..count], left.position))?;
            left.advance(count);
        }
        Ok(())
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than it was.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut buffer = vec![0; self.len()];
        self.named(self.segment.file.read_exact_at(&mut buffer, self.position))?;
        Ok(buffer.into())
    }

    fn named<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.segment.log_path().display())))
    }

    /// What to say when the file ends before this does.
    pub fn ends_early(&self) -> io::Error {
        let what = format!("{} ends before byte {}", self.segment.log_path().display(), self.position + self.bytes);
        io::Error::new(io::ErrorKind::UnexpectedEof, what)
    }
}
