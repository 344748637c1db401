//! Reads: whole batches from an offset on, and offsets by time. Plain file reads; the writer is never waited for.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::batch::{BatchHeader, CheckedBatch};
use super::compressed::{CompressedRecords, UNFOLDED_BYTES_MAX};
use super::file_range::FileRange;
use super::header_walk::HeaderWalk;
use super::partition::Partition;
use super::record::Records;
use super::segment::Segment;
use super::{ReadError, lock};

/// Read at once where a batch is looked for: one interval of the index and the batch that ends it, as a rule. What lies
/// in there needs no second read.
const LOOK_BYTES: usize = 8 * 1024;
/// Larger than this, batches are sent from their file; smaller ones are copied beside the fields of the answer
/// (docs/decisions/0013-file-to-socket.md has the figures).
const COPIED_BYTES_MAX: u64 = 16 * 1024;

/// Whole raw batches, the first of which contains the offset asked for; empty when the offset is the high watermark.
#[derive(Clone, Debug)]
pub struct Read {
    /// The batches as they lie on disk.
    pub batches: Bytes,
    /// The end of what may be read, when this was read.
    pub high_watermark: i64,
    /// The end of what a reader of committed records may read, when this was read.
    pub last_stable_offset: i64,
    /// The first offset that may be read.
    pub log_start_offset: i64,
}

/// Which records a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All that are durable.
    Uncommitted,
    /// Those below the last stable offset; the reader skips aborted ones itself, see
    /// [`Partition::aborted_transactions`].
    Committed,
}

/// As [`Read`], with the batches where they lie.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where the batches are.
    pub batches: Batches,
    /// No record in the batches has this offset or a later one.
    pub end_offset: i64,
    /// The end of what may be read, when this was looked for.
    pub high_watermark: i64,
    /// The end of what a reader of committed records may read.
    pub last_stable_offset: i64,
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
    /// Batches from here on are not read.
    end_offset: i64,
    bytes_max: usize,
    /// One batch is returned even if it is larger.
    at_least_one: bool,
    copied_bytes_max: u64,
}

fn storage(error: &io::Error, segment: &Segment) -> ReadError {
    ReadError::Storage(format!("{}: {error}", segment.log_path().display()))
}

impl Read {
    /// The offset behind the last batch; none if there is no batch.
    pub fn end_offset(&self) -> Option<i64> {
        let mut rest: &[u8] = &self.batches;
        let mut end = None;
        while let Some(header) = BatchHeader::read(rest) {
            end = Some(header.last_offset() + 1);
            rest = header.total_bytes().and_then(|total| rest.get(total..)).unwrap_or_default();
        }
        end
    }
}

impl Partition {
    /// Whole batches from the one that contains `offset`, up to the high watermark. At least one batch even if it is
    /// larger than `max_bytes` when `at_least_one`, else may be empty. Blocking file read (page cache).
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start and beyond the high watermark.
    pub fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Result<Read, ReadError> {
        self.read_isolated(offset, max_bytes, at_least_one, Isolation::Uncommitted)
    }

    /// As [`Partition::read`], up to where this isolation goes.
    ///
    /// # Errors
    /// Those of `read`; an offset between the last stable offset and the high watermark is none.
    pub fn read_isolated(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
        isolation: Isolation,
    ) -> Result<Read, ReadError> {
        let found = self.find(offset, max_bytes, at_least_one, 0, isolation)?;
        let batches = match found.batches {
            Batches::Copied(bytes) => bytes,
            Batches::InFile(range) => range.read().map_err(|error| ReadError::Storage(error.to_string()))?,
        };
        let Found { high_watermark, last_stable_offset, log_start_offset, .. } = found;
        Ok(Read { batches, high_watermark, last_stable_offset, log_start_offset })
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
        isolation: Isolation,
    ) -> Result<Found, ReadError> {
        self.check_deleted()?;
        // In this order: the one never lies beyond the other.
        let last_stable_offset = self.last_stable_offset();
        let high_watermark = self.high_watermark();
        let end_offset = match isolation {
            Isolation::Uncommitted => high_watermark,
            Isolation::Committed => last_stable_offset,
        };
        let (mut next, log_start_offset) = if offset < end_offset {
            let store = lock(&self.0.store);
            // The writer counts first and publishes then: what was published is never more than this.
            (store.segment_at(offset), store.log_start)
        } else {
            (None, self.log_start_offset())
        };
        if offset < log_start_offset || offset > high_watermark {
            return Err(ReadError::OffsetOutOfRange { offset, log_start: log_start_offset, high_watermark });
        }
        let copied_bytes_max = COPIED_BYTES_MAX.min(copied_bytes_max as u64);
        let limits = Limits { end_offset, bytes_max: max_bytes, at_least_one, copied_bytes_max };
        let mut found = Found {
            batches: Batches::none(),
            end_offset: offset,
            high_watermark,
            last_stable_offset,
            log_start_offset,
        };
        let mut looked_for_more = false;
        while let Some((segment, segment_end)) = next.take() {
            match find_in(&segment, offset, limits).map_err(|error| storage(&error, &segment))? {
                Some((batches, end)) => {
                    found.batches = batches;
                    found.end_offset = end.unwrap_or(segment_end).min(end_offset);
                }
                // Offsets may be missing at a segment's end, or all of them: then a later one begins with what follows.
                None if segment_end < end_offset => next = lock(&self.0.store).segment_at(segment_end),
                None => looked_for_more = true,
            }
        }
        // Compaction keeps the last batch, so there is one; an open transaction may have nothing left before it.
        if looked_for_more && at_least_one && isolation == Isolation::Uncommitted {
            // Said, as the reader would wait for it for ever.
            let missing = format!("no batch holds offset {offset}, though the log goes on to {high_watermark}");
            return Err(ReadError::Storage(missing));
        }
        Ok(found)
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

    /// (offset, timestamp) of the first record whose timestamp is at least `timestamp_ms`.
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

    /// (offset, timestamp) of the first record with the largest timestamp.
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
            let found =
                find_record(segment, position, &header, |offset, time| offset >= log_start && time >= timestamp_ms)?;
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
        let mut largest: Option<(i64, i64)> = None;
        find_record(segment, position, &header, |offset, time| {
            // The first of equals.
            if offset >= log_start && largest.is_none_or(|(_, known)| time > known) {
                largest = Some((offset, time));
            }
            false
        })?;
        Ok(largest)
    }
}

/// With an offset that no record in the batches reaches, if the segment knows one. None when it holds nothing at or
/// behind `offset`.
fn find_in(segment: &Arc<Segment>, offset: i64, limits: Limits) -> io::Result<Option<(Batches, Option<i64>)>> {
    let end = segment.length();
    let mut walk = HeaderWalk::reading(&*segment.file, segment.position_of(offset)?, end, LOOK_BYTES);
    let from = loop {
        match walk.next()? {
            Some((_, header)) if header.base_offset >= limits.end_offset => return Ok(None),
            // Whole batches become readable: none reaches beyond.
            Some((position, header)) if header.last_offset() >= limits.end_offset => return Err(no_batch(position)),
            Some((position, header)) if header.last_offset() >= offset => break position,
            Some(_) => {}
            None => return Ok(None),
        }
    };
    let mut to = walk.position();
    if to - from > limits.bytes_max as u64 {
        // It does not fit: alone, or not at all.
        return match limits.at_least_one {
            true => take(segment, &walk, from, to, limits).map(Some),
            false => Ok(Some((Batches::none(), Some(offset)))),
        };
    }
    let last = from.saturating_add(limits.bytes_max as u64).min(end);
    // The index knows how far whole batches go, but for the last few.
    walk.skip_to(segment.last_within(last, limits.end_offset)?);
    to = to.max(walk.position());
    while walk.position() < last {
        match walk.next()? {
            Some((_, header)) if header.base_offset < limits.end_offset && walk.position() <= last => {
                to = walk.position();
            }
            _ => break,
        }
    }
    take(segment, &walk, from, to, limits).map(Some)
}

/// Copies few bytes, and leaves many where they are.
fn take(
    segment: &Arc<Segment>,
    walk: &HeaderWalk<'_>,
    from: u64,
    to: u64,
    limits: Limits,
) -> io::Result<(Batches, Option<i64>)> {
    let end_offset = segment.offset_from(to)?;
    if to - from > limits.copied_bytes_max {
        return Ok((Batches::InFile(FileRange::new(segment.clone(), from, to - from)), end_offset));
    }
    let copied = match walk.seen(from, to) {
        Some(seen) => Bytes::copy_from_slice(seen),
        None => read_exact(segment, from, (to - from) as usize)?,
    };
    Ok((Batches::Copied(copied), end_offset))
}

fn no_batch(position: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no batch at byte {position}"))
}

fn read_exact(segment: &Segment, position: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    segment.file.read_exact_at(&mut buffer, position)?;
    Ok(buffer.into())
}

/// Offset and timestamp of the first record of a batch that is wanted. Compressed ones are looked at as they unfold, so
/// that a batch that unfolds to very much takes little memory.
fn find_record(
    segment: &Segment,
    position: u64,
    header: &BatchHeader,
    mut is_wanted: impl FnMut(i64, i64) -> bool,
) -> io::Result<Option<(i64, i64)>> {
    let bytes = read_exact(segment, position, header.total_bytes().unwrap_or_default())?;
    let Some(batch) = CheckedBatch::split(&bytes, *header) else { return Ok(None) };
    let mut find = |offset_delta: i64, timestamp_delta: i64| {
        let created = header.base_timestamp.wrapping_add(timestamp_delta);
        let timestamp = if header.is_log_append_time() { header.max_timestamp } else { created };
        let offset = header.base_offset.saturating_add(offset_delta);
        is_wanted(offset, timestamp).then_some((offset, timestamp))
    };
    if !header.is_compressed() {
        let mut records = Records::of(&batch.records).flatten();
        return Ok(records.find_map(|record| find(record.offset_delta, record.timestamp_delta)));
    }
    for record in CompressedRecords::of(header.codec(), &batch.records, UNFOLDED_BYTES_MAX)? {
        let record = record?;
        if let Some(found) = find(record.offset_delta, record.timestamp_delta) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
