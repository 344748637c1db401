//! Walks the whole batches of a closed segment, some ahead at once, and checks each.

use std::io::{self, ErrorKind};

use bytes::Bytes;

use super::super::batch::{BatchHeader, CheckedBatch, HEADER_BYTES};
use super::super::segment::Segment;
use super::{Pass, PassError, failed};

/// Read at once, unless a batch is larger.
const WINDOW_BYTES: usize = 1 << 20;

pub(super) struct Batches<'a> {
    pass: &'a Pass<'a>,
    segment: &'a Segment,
    position: u64,
    end: u64,
    window: Bytes,
    window_from: u64,
}

impl<'a> Pass<'a> {
    /// The batches from one position to another; both are where batches begin.
    pub(super) fn batches(&'a self, segment: &'a Segment, position: u64, end: u64) -> Batches<'a> {
        Batches { pass: self, segment, position, end, window: Bytes::new(), window_from: position }
    }
}

impl Batches<'_> {
    /// The next batch and its position.
    ///
    /// # Errors
    /// What lies there is no whole batch: nothing may be concluded from it.
    pub fn next(&mut self) -> Result<Option<(u64, CheckedBatch)>, PassError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let damaged = || {
            let error = io::Error::new(ErrorKind::InvalidData, format!("no valid batch at byte {position}"));
            failed(self.segment.log_path(), error)
        };
        let head = self.at(HEADER_BYTES)?.ok_or_else(damaged)?;
        let header = BatchHeader::read(&head).filter(|header| header.magic == 2).ok_or_else(damaged)?;
        let total = header.total_bytes().ok_or_else(damaged)?;
        let bytes = self.at(total)?.ok_or_else(damaged)?;
        let batch = CheckedBatch::split(&bytes, header).ok_or_else(damaged)?;
        if batch.computed_crc() != header.crc {
            return Err(damaged());
        }
        self.position += total as u64;
        Ok(Some((position, batch)))
    }

    /// So many bytes from the position on; none when there are fewer.
    fn at(&mut self, count: usize) -> Result<Option<Bytes>, PassError> {
        if count as u64 > self.end - self.position {
            return Ok(None);
        }
        let mut from = (self.position - self.window_from) as usize;
        if from + count > self.window.len() {
            self.pass.go_on()?;
            let mut window = vec![0; (WINDOW_BYTES.max(count) as u64).min(self.end - self.position) as usize];
            let read = self.segment.file.read_exact_at(&mut window, self.position);
            read.map_err(|error| failed(self.segment.log_path(), error))?;
            self.window = window.into();
            self.window_from = self.position;
            from = 0;
        }
        Ok(Some(self.window.slice(from..from + count)))
    }
}
