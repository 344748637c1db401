//! Reads: whole batches from an offset on, and offsets by time. Plain file reads; the writer is never waited for.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::batch::{BatchHeader, CheckedBatch, Records};
use super::file_range::FileRange;
use super::partition::Partition;
use super::segment::{HeaderWalk, Segment};
use super::{ReadError, lock};

/// Read at once where a batch is looked for: one interval of the index and the batch that ends it, as a rule. What lies
/// in there needs no second read.
const LOOK_BYTES: usize = 8 * 1024;
/// Larger than this, batches are sent from their file; smaller ones are copied beside the fields of the answer
/// (docs/decisions/0012-file-to-socket.md has the figures).
const COPIED_BYTES_MAX: u64 = 16 * 1024;

/// Whole raw batches, the first of which contains the offset asked for; empty when the offset is the high watermark.
#[derive(Clone, Debug)]
pub struct Read {
    /// The batches as they lie on disk.
    pub batches: Bytes,
    /// The end of what may be read, when this was read.
    pub high_watermark: i64,
    /// The first offset that may be read.
    pub log_start_offset: i64,
}

/// As [`Read`], with the batches where they lie.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where the batches are.
    pub batches: Batches,
    /// The end of what may be read, when this was looked for.
    pub high_watermark: i64,
    /// The first offset that may be read.
    pub log_start_offset: i64,
}

/// Whole raw batches.
#[derive(Clone, Debug)]
pub enum Batches {
    /// Few, or none.
    Copied(Bytes),
    /// Where they lie, for as long as this is held.
    InFile(FileRange),
}

impl Batches {
    /// Bytes of the batches, wherever they are.
    pub fn len(&self) -> usize {
        match self {
            Batches::Copied(bytes) => bytes.len(),
            Batches::InFile(range) => range.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No batch.
    pub fn none() -> Batches {
        Batches::Copied(Bytes::new())
    }
}

/// What a read may return.
#[derive(Clone, Copy)]
struct Limits {
    high_watermark: i64,
    bytes_max: usize,
    /// One batch is returned even if it is larger.
    at_least_one: bool,
    copied_bytes_max: u64,
}

fn storage(error: &io::Error, segment: &Segment) -> ReadError {
    ReadError::Storage(format!("{}: {error}", segment.log_path().display()))
}

impl Partition {
    /// Whole batches from the one that contains `offset`, up to the high watermark. At least one batch even if it is
    /// larger than `max_bytes` when `at_least_one`, else may be empty. Blocking file read (page cache).
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start and beyond the high watermark.
    pub fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Result<Read, ReadError> {
        let Found { batches, high_watermark, log_start_offset } = self.find(offset, max_bytes, at_least_one, 0)?;
        let batches = match batches {
            Batches::Copied(bytes) => bytes,
            Batches::InFile(range) => range.read().map_err(|error| ReadError::Storage(error.to_string()))?,
        };
        Ok(Read { batches, high_watermark, log_start_offset })
    }

    /// As `read`, but says only where the batches lie; no more than `copied_bytes_max`, if they are few, are copied.
    /// Reads a few headers, so that it may wait for the disk where [`Partition::may_wait_for_disk`].
    ///
    /// # Errors
    /// As `read`.
    pub fn find(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
        copied_bytes_max: usize,
    ) -> Result<Found, ReadError> {
        self.check_deleted()?;
        let high_watermark = self.high_watermark();
        let (segments, log_start_offset) = if offset < high_watermark {
            let store = lock(&self.0.store);
            // The writer counts first and publishes then: what was published is never more than this.
            (store.segments_from(offset), store.log_start)
        } else {
            (Vec::new(), self.log_start_offset())
        };
        if offset < log_start_offset || offset > high_watermark {
            return Err(ReadError::OffsetOutOfRange { offset, log_start: log_start_offset, high_watermark });
        }
        let copied_bytes_max = COPIED_BYTES_MAX.min(copied_bytes_max as u64);
        let limits = Limits { high_watermark, bytes_max: max_bytes, at_least_one, copied_bytes_max };
        let mut batches = Batches::none();
        for segment in segments {
            // Offsets may be missing at a segment's end: then the next one begins with what follows.
            let found = find_in(&segment, offset, limits).map_err(|error| storage(&error, &segment))?;
            if let Some(found) = found {
                batches = found;
                break;
            }
        }
        Ok(Found { batches, high_watermark, log_start_offset })
    }

    /// Whether a look for `offset` may wait for the disk: what was written just now is in the page cache, older batches
    /// may not be.
    pub fn may_wait_for_disk(&self, offset: i64) -> bool {
        if offset >= self.high_watermark() {
            return false;
        }
        let Some(last) = lock(&self.0.store).segments.back().cloned() else { return false };
        if offset < last.base_offset {
            return true;
        }
        let look = last.indexed_position_of(offset);
        look.is_none_or(|from| {
            let bytes = last.length().saturating_sub(from).min(LOOK_BYTES as u64);
            !last.file.is_cached(from, bytes)
        })
    }

    /// First offset whose batch max timestamp is >= `timestamp_ms`: (offset, timestamp) of the first record >= it. Of a
    /// compressed batch, whose records are not looked at, the first offset and timestamp that it may be.
    ///
    /// # Errors
    /// `Storage` when a file cannot be read.
    pub fn offset_for_timestamp(&self, timestamp_ms: i64) -> Result<Option<(i64, i64)>, ReadError> {
        self.check_deleted()?;
        let (segments, log_start) = self.all_segments();
        for segment in segments {
            if segment.snapshot().max_timestamp < timestamp_ms {
                continue;
            }
            let found =
                self.first_at_or_after(&segment, timestamp_ms, log_start).map_err(|error| storage(&error, &segment))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// (offset, timestamp) of the record with the largest timestamp; of a compressed batch its last offset.
    ///
    /// # Errors
    /// `Storage` when a file cannot be read.
    pub fn offset_of_max_timestamp(&self) -> Result<Option<(i64, i64)>, ReadError> {
        self.check_deleted()?;
        let (segments, log_start) = self.all_segments();
        let mut best: Option<(i64, i64)> = None;
        // Newest first: as a rule the maximum is there, and nothing else needs to be read.
        for segment in segments.iter().rev() {
            if best.is_some_and(|(_, timestamp)| segment.snapshot().max_timestamp < timestamp) {
                continue;
            }
            let found = self.largest_in(segment, log_start).map_err(|error| storage(&error, segment))?;
            best = match (found, best) {
                (Some(found), Some(best)) if found.1 < best.1 => Some(best),
                (None, best) => best,
                (found, _) => found,
            };
        }
        Ok(best)
    }

    fn all_segments(&self) -> (Vec<Arc<Segment>>, i64) {
        let store = lock(&self.0.store);
        (store.segments.iter().cloned().collect(), store.log_start)
    }

    fn first_at_or_after(
        &self,
        segment: &Segment,
        timestamp_ms: i64,
        log_start: i64,
    ) -> io::Result<Option<(i64, i64)>> {
        let high_watermark = self.high_watermark();
        let mut walk = HeaderWalk::new(&*segment.file, segment.position_of_time(timestamp_ms)?, segment.length());
        while let Some((position, header)) = walk.next()? {
            if header.base_offset >= high_watermark {
                break;
            }
            if header.last_offset() < log_start || header.max_timestamp < timestamp_ms {
                continue;
            }
            if header.has_hidden_times() {
                let first = header.base_timestamp;
                let is_first = !header.is_log_append_time() && first >= timestamp_ms;
                let timestamp = if is_first { first } else { header.max_timestamp };
                return Ok(Some((header.base_offset.max(log_start), timestamp)));
            }
            let records = stamps(segment, position, &header)?;
            let found = records.into_iter().find(|(offset, time)| *offset >= log_start && *time >= timestamp_ms);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Of the batches that may be read; the largest of a segment may lie below the log start.
    fn largest_in(&self, segment: &Segment, log_start: i64) -> io::Result<Option<(i64, i64)>> {
        let (high_watermark, wanted) = (self.high_watermark(), segment.snapshot().max_timestamp);
        let from = if segment.base_offset >= log_start {
            segment.position_of_time(wanted)?
        } else {
            segment.position_of(log_start)?
        };
        let mut best: Option<(u64, BatchHeader)> = None;
        let mut walk = HeaderWalk::new(&*segment.file, from, segment.length());
        while let Some((position, header)) = walk.next()? {
            if header.base_offset >= high_watermark {
                break;
            }
            let larger = best.as_ref().is_none_or(|(_, best)| header.max_timestamp > best.max_timestamp);
            if header.last_offset() >= log_start && larger {
                best = Some((position, header));
                if header.max_timestamp == wanted {
                    break;
                }
            }
        }
        let Some((position, header)) = best else { return Ok(None) };
        if header.has_hidden_times() {
            return Ok(Some((header.last_offset(), header.max_timestamp)));
        }
        let records = stamps(segment, position, &header)?;
        let readable = records.into_iter().filter(|(offset, _)| *offset >= log_start);
        // The first of equals.
        Ok(readable.rev().max_by_key(|(_, timestamp)| *timestamp))
    }
}

/// None when the segment holds nothing at or behind `offset`.
fn find_in(segment: &Arc<Segment>, offset: i64, limits: Limits) -> io::Result<Option<Batches>> {
    let end = segment.length();
    let mut walk = HeaderWalk::reading(&*segment.file, segment.position_of(offset)?, end, LOOK_BYTES);
    let from = loop {
        match walk.next()? {
            Some((_, header)) if header.base_offset >= limits.high_watermark => return Ok(None),
            Some((position, header)) if header.last_offset() >= offset => break position,
            Some(_) => {}
            None => return Ok(None),
        }
    };
    let mut to = walk.position();
    if to - from > limits.bytes_max as u64 {
        // It does not fit: alone, or not at all.
        return if limits.at_least_one {
            take(segment, &walk, from, to, limits).map(Some)
        } else {
            Ok(Some(Batches::none()))
        };
    }
    let last = from.saturating_add(limits.bytes_max as u64).min(end);
    // The index knows how far whole batches go, but for the last few.
    walk.skip_to(segment.last_within(last, limits.high_watermark)?);
    to = to.max(walk.position());
    while walk.position() < last {
        match walk.next()? {
            Some((_, header)) if header.base_offset < limits.high_watermark && walk.position() <= last => {
                to = walk.position();
            }
            _ => break,
        }
    }
    take(segment, &walk, from, to, limits).map(Some)
}

/// Copies few bytes, and leaves many where they are.
fn take(segment: &Arc<Segment>, walk: &HeaderWalk<'_>, from: u64, to: u64, limits: Limits) -> io::Result<Batches> {
    if to - from > limits.copied_bytes_max {
        return Ok(Batches::InFile(FileRange::new(segment.clone(), from, to - from)));
    }
    let copied = match walk.seen(from, to) {
        Some(seen) => Bytes::copy_from_slice(seen),
        None => read_exact(segment, from, (to - from) as usize)?,
    };
    Ok(Batches::Copied(copied))
}

fn read_exact(segment: &Segment, position: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    segment.file.read_exact_at(&mut buffer, position)?;
    Ok(buffer.into())
}

/// Offset and timestamp of each record of an uncompressed batch.
fn stamps(segment: &Segment, position: u64, header: &BatchHeader) -> io::Result<Vec<(i64, i64)>> {
    let bytes = read_exact(segment, position, header.total_bytes().unwrap_or_default())?;
    let Some(batch) = CheckedBatch::split(&bytes, *header) else { return Ok(Vec::new()) };
    let stamp = |delta: super::batch::RecordStamp| {
        let offset = header.base_offset.saturating_add(delta.offset_delta);
        (offset, header.base_timestamp.saturating_add(delta.timestamp_delta))
    };
    Ok(Records::of(&batch).flatten().map(stamp).collect())
}
