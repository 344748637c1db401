//! Walks the headers of batches in a file, without reading their records.

use std::io::{self, ErrorKind};

use super::batch::{BatchHeader, HEADER_BYTES};
use super::disk::DiskFile;

/// Bytes read at once when headers are walked.
const WALK_BYTES: usize = 64 * 1024;

/// Walks batch headers in a part of a file that holds whole batches.
pub(super) struct HeaderWalk<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    /// The next batch begins there or later.
    offset_min: i64,
    window: Vec<u8>,
    window_from: u64,
    window_bytes: usize,
}

impl<'a> HeaderWalk<'a> {
    pub fn new(file: &'a dyn DiskFile, from: u64, end: u64) -> Self {
        Self::reading(file, from, end, WALK_BYTES)
    }

    /// Reads so many bytes at once.
    pub fn reading(file: &'a dyn DiskFile, from: u64, end: u64, window_bytes: usize) -> Self {
        HeaderWalk { file, position: from, end, offset_min: 0, window: Vec::new(), window_from: from, window_bytes }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at a batch further on; one that lies behind stays passed.
    pub fn skip_to(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// What was read for the headers, if it is all of `[from, to)`.
    pub fn seen(&self, from: u64, to: u64) -> Option<&[u8]> {
        let start = from.checked_sub(self.window_from)? as usize;
        self.window.get(start..start + (to - from) as usize)
    }

    /// The next header and its position.
    ///
    /// # Errors
    /// `InvalidData` when what lies there is no whole batch.
    pub fn next(&mut self) -> io::Result<Option<(u64, BatchHeader)>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let invalid = || io::Error::new(ErrorKind::InvalidData, format!("no batch at byte {position}"));
        let header = self.header()?.ok_or_else(invalid)?;
        self.position += header.fits(self.offset_min, self.end - position).ok_or_else(invalid)? as u64;
        self.offset_min = header.last_offset() + 1;
        Ok(Some((position, header)))
    }

    fn header(&mut self) -> io::Result<Option<BatchHeader>> {
        let within = |walk: &Self| (walk.position - walk.window_from) as usize;
        if within(self) + HEADER_BYTES > self.window.len() {
            let wanted = self.window_bytes.min((self.end - self.position) as usize);
            self.window.resize(wanted, 0);
            self.window_from = self.position;
            self.file.read_exact_at(&mut self.window, self.position)?;
        }
        Ok(self.window.get(within(self)..).and_then(BatchHeader::read))
    }
}
