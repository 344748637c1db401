//! Reads: whole batches from an offset on, and offsets by time. Plain file reads; the writer is never waited for.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::batch::{BatchHeader, CheckedBatch};
use super::compressed::{CompressedRecords, UNFOLDED_BYTES_MAX};
use super::partition::Partition;
use super::record::Records;
use super::segment::{HeaderWalk, Segment};
use super::{ReadError, lock};

/// Read more than was asked for, because the index points at most about this far before the batch.
const INDEX_SLACK_BYTES: usize = 8 * 1024;

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
        self.check_deleted()?;
        let (first, last_stable_offset, high_watermark, log_start) = {
            let store = lock(&self.0.store);
            // The writer counts first and publishes then: what was published is never more than this.
            (store.segment_at(offset), self.last_stable_offset(), self.high_watermark(), store.log_start)
        };
        let limit = match isolation {
            Isolation::Uncommitted => high_watermark,
            Isolation::Committed => last_stable_offset,
        };
        if offset < log_start || offset > high_watermark {
            return Err(ReadError::OffsetOutOfRange { offset, log_start, high_watermark });
        }
        let mut batches = Bytes::new();
        let mut next = first.filter(|_| offset < limit);
        while let Some((segment, end)) = next.take() {
            let found = read_segment(&segment, offset, limit, max_bytes, at_least_one)
                .map_err(|error| storage(&error, &segment))?;
            match found {
                Some(found) => batches = found,
                // Offsets may be missing at a segment's end, or all of them: then a later one begins with what follows.
                None if end < limit => next = lock(&self.0.store).segment_at(end),
                None => {}
            }
        }
        // Compaction keeps the last batch, so there is one; an open transaction may have nothing left before it.
        if batches.is_empty() && at_least_one && offset < limit && isolation == Isolation::Uncommitted {
            // Said, as the reader would wait for it for ever.
            let missing = format!("no batch holds offset {offset}, though the log goes on to {high_watermark}");
            return Err(ReadError::Storage(missing));
        }
        Ok(Read { batches, high_watermark, last_stable_offset, log_start_offset: log_start })
    }

    /// Whether a read at `offset` looks into segments before the last one, which may not be in the page cache.
    pub fn is_behind_tail(&self, offset: i64) -> bool {
        lock(&self.0.store).segments.back().is_some_and(|last| offset < last.base_offset)
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

/// None when the segment holds nothing at or behind `offset`.
fn read_segment(
    segment: &Segment,
    offset: i64,
    high_watermark: i64,
    max_bytes: usize,
    at_least_one: bool,
) -> io::Result<Option<Bytes>> {
    let end = segment.length();
    let from = segment.position_of(offset)?;
    let wanted = max_bytes.saturating_add(INDEX_SLACK_BYTES).min((end - from) as usize);
    let window = read_exact(segment, from, wanted)?;
    let mut start: Option<usize> = None;
    let (mut position, mut offset_min) = (0, 0);
    while from + (position as u64) < end {
        let rest = window.get(position..).unwrap_or_default();
        let Some(header) = BatchHeader::read(rest) else { break };
        let invalid =
            || io::Error::new(io::ErrorKind::InvalidData, format!("no batch at byte {}", from + position as u64));
        let total = header.fits(offset_min, end - from - position as u64).ok_or_else(invalid)?;
        offset_min = header.last_offset() + 1;
        if header.base_offset >= high_watermark {
            break;
        }
        // Whole batches become readable: none reaches beyond.
        if header.last_offset() >= high_watermark {
            return Err(invalid());
        }
        if start.is_none() && header.last_offset() >= offset {
            start = Some(position);
            if total > max_bytes || total > rest.len() {
                // It does not fit: alone, or not at all.
                let alone = || read_exact(segment, from + position as u64, total);
                return if at_least_one || total <= max_bytes { alone().map(Some) } else { Ok(Some(Bytes::new())) };
            }
        }
        match start {
            Some(start) if position + total - start > max_bytes || total > rest.len() => break,
            _ => position += total,
        }
    }
    match start {
        Some(start) => Ok(Some(window.slice(start..position))),
        None if from + position as u64 >= end => Ok(None),
        // The batch begins behind the window: only when a large batch precedes it in one interval of the index.
        None => far_batch(segment, from + position as u64, offset, high_watermark, max_bytes, at_least_one),
    }
}

/// Walks to the batch that contains `offset` by headers only, and reads that one.
fn far_batch(
    segment: &Segment,
    from: u64,
    offset: i64,
    high_watermark: i64,
    max_bytes: usize,
    at_least_one: bool,
) -> io::Result<Option<Bytes>> {
    let mut walk = HeaderWalk::new(&*segment.file, from, segment.length());
    while let Some((position, header)) = walk.next()? {
        if header.base_offset >= high_watermark {
            break;
        }
        if header.last_offset() >= offset {
            let total = header.total_bytes().unwrap_or_default();
            let fits = at_least_one || total <= max_bytes;
            return if fits { read_exact(segment, position, total).map(Some) } else { Ok(Some(Bytes::new())) };
        }
    }
    Ok(None)
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
