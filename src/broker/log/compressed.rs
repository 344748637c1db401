//! Looks into compressed batches: they must hold the records that their header says, and not unfold without end.
//!
//! What is stored stays compressed, but for what compaction leaves of it. Were it not checked, a batch that holds more records than it says would take the
//! offsets of the next one, and consumers would pass over acknowledged records.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read, Write};

use super::batch::CheckedBatch;

/// The batches of one append may unfold to this much, at most: no client's do, and hostile ones cost a fraction of a
/// second.
pub(super) const UNFOLDED_BYTES_MAX: u64 = 64 << 20;
/// zstd's window, as a power of two: its highest levels use as much, and a decoder takes it while it works.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// How an lz4 frame begins.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// What the Java client puts before its snappy blocks: magic and two version numbers.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// No byte of snappy unfolds to more: three bytes copy 64 at most.
const SNAPPY_RATIO_MAX: usize = 22;

/// Blocks of Java's snappy as that library writes them.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// What the door looks at in one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordStamp {
    pub offset_delta: i64,
    pub timestamp_delta: i64,
    pub has_key: bool,
}

/// Walks the records of a compressed batch. Yields an error at the first thing that is wrong, then ends.
pub(super) struct CompressedRecords<'a> {
    unfolded: io::Take<BufReader<Box<dyn Read + 'a>>>,
    ended: bool,
}

impl<'a> CompressedRecords<'a> {
    /// `codec`: the lowest three bits of the attributes. Unfolds no more than `bytes_max`.
    pub fn of(codec: i16, records: &'a [u8], bytes_max: u64) -> io::Result<Self> {
        let unfolded = BufReader::new(reader(codec, records)?).take(bytes_max);
        Ok(CompressedRecords { unfolded, ended: false })
    }

    /// How much more may be unfolded.
    pub fn left(&self) -> u64 {
        self.unfolded.limit()
    }

    fn parse(&mut self) -> io::Result<Option<RecordStamp>> {
        if self.unfolded.fill_buf()?.is_empty() {
            return if self.unfolded.limit() == 0 { Err(bad("it unfolds to more than 64 MiB")) } else { Ok(None) };
        }
        let length = varint(&mut self.unfolded)?;
        let length = u64::try_from(length).map_err(|_| bad("a record has a negative length"))?;
        let mut record = self.unfolded.by_ref().take(length);
        let mut attributes = [0];
        record.read_exact(&mut attributes)?;
        let timestamp_delta = varint(&mut record)?;
        let offset_delta = varint(&mut record)?;
        let has_key = skip_nullable(&mut record)?;
        skip_nullable(&mut record)?;
        let left = record.limit();
        // The count of headers follows; a record without it is cut off.
        if left < 1 || io::copy(&mut record, &mut io::sink())? < left {
            return Err(bad("a record is cut off"));
        }
        Ok(Some(RecordStamp { offset_delta, timestamp_delta, has_key }))
    }
}

/// Passes over a length and so many bytes; false for -1, which is none at all.
fn skip_nullable(record: &mut io::Take<impl Read>) -> io::Result<bool> {
    let length = match varint(record)? {
        -1 => return Ok(false),
        length => u64::try_from(length).map_err(|_| bad("a key or value has a negative length"))?,
    };
    if length > record.limit() || io::copy(&mut record.by_ref().take(length), &mut io::sink())? < length {
        return Err(bad("a record is cut off"));
    }
    Ok(true)
}

/// A batch's records without compression.
pub(super) fn plain_records(batch: &CheckedBatch) -> io::Result<Cow<'_, [u8]>> {
    match batch.header.codec() {
        0 => Ok(Cow::Borrowed(&batch.records)),
        codec => unfold(codec, &batch.records).map(Cow::Owned),
    }
}

fn unfold(codec: i16, records: &[u8]) -> io::Result<Vec<u8>> {
    let mut unfolded = Vec::new();
    reader(codec, records)?.take(UNFOLDED_BYTES_MAX).read_to_end(&mut unfolded)?;
    if unfolded.len() as u64 == UNFOLDED_BYTES_MAX { Err(bad("it unfolds to more than 64 MiB")) } else { Ok(unfolded) }
}

/// Compresses records in the way of `before`, compressed records of the same codec, where there are some.
pub(super) fn fold(codec: i16, before: &[u8], records: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        1 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(records)?;
            encoder.finish()
        }
        2 if before.starts_with(&XERIAL_MAGIC) => fold_xerial(before, records),
        2 => snap::raw::Encoder::new().compress_vec(records).map_err(io::Error::other),
        3 => {
            // Java's reader takes independent blocks only, and takes memory for the largest.
            let frame = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, Vec::new());
            encoder.write_all(records)?;
            encoder.finish().map_err(io::Error::other)
        }
        4 => zstd::encode_all(records, zstd::DEFAULT_COMPRESSION_LEVEL),
        unknown => Err(bad(&format!("compression {unknown} is unknown"))),
    }
}

fn fold_xerial(before: &[u8], records: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = before.get(..XERIAL_HEADER_BYTES).ok_or_else(|| bad("a block is cut off"))?.to_vec();
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let block = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
        out.extend_from_slice(&(block.len() as u32).to_be_bytes());
        out.extend_from_slice(&block);
    }
    Ok(out)
}

impl Iterator for CompressedRecords<'_> {
    type Item = io::Result<RecordStamp>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.parse().transpose();
        self.ended = !matches!(record, Some(Ok(_)));
        record
    }
}

fn reader<'a>(codec: i16, records: &'a [u8]) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match codec {
        1 => Box::new(flate2::bufread::MultiGzDecoder::new(records)),
        2 => Box::new(Snappy::new(records)),
        // The format before frames has blocks of 8 MiB, and no client of Kafka's writes it.
        3 if !records.starts_with(&LZ4_MAGIC) => return Err(bad("this is no lz4 frame")),
        3 => Box::new(lz4_flex::frame::FrameDecoder::new(records)),
        4 => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(records)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        unknown => return Err(bad(&format!("compression {unknown} is unknown"))),
    })
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Snappy as Kafka's clients write it: one raw block, or the Java library's header and blocks with their lengths.
struct Snappy<'a> {
    rest: &'a [u8],
    has_lengths: bool,
    block: io::Cursor<Vec<u8>>,
}

impl<'a> Snappy<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let has_lengths = bytes.starts_with(&XERIAL_MAGIC) && bytes.len() >= XERIAL_HEADER_BYTES;
        let rest = if has_lengths { &bytes[XERIAL_HEADER_BYTES..] } else { bytes };
        Snappy { rest, has_lengths, block: io::Cursor::default() }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let block = if self.has_lengths {
            let (length, rest) = self.rest.split_first_chunk::<4>().ok_or_else(|| bad("a block is cut off"))?;
            let length = u32::from_be_bytes(*length) as usize;
            let (block, rest) = rest.split_at_checked(length).ok_or_else(|| bad("a block is cut off"))?;
            self.rest = rest;
            block
        } else {
            std::mem::take(&mut self.rest)
        };
        // Said by the block itself, so it is compared before memory is taken.
        let unfolded = snap::raw::decompress_len(block).map_err(io::Error::other)?;
        if unfolded as u64 > UNFOLDED_BYTES_MAX {
            return Err(bad("it unfolds to more than 64 MiB"));
        }
        if unfolded > block.len() * SNAPPY_RATIO_MAX {
            return Err(bad("a block says that it holds more than it can"));
        }
        self.block = io::Cursor::new(snap::raw::Decoder::new().decompress_vec(block).map_err(io::Error::other)?);
        Ok(())
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.block.read(out)?;
            if count > 0 || out.is_empty() || self.rest.is_empty() {
                return Ok(count);
            }
            self.next_block()?;
        }
    }
}

/// A zigzag number of at most ten bytes.
fn varint(from: &mut impl Read) -> io::Result<i64> {
    let mut value = 0u64;
    for index in 0..10 {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << (7 * index);
        if byte[0] & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(bad("a number is too long"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Three records as they lie in a batch: length, attributes, deltas, empty key, value of zeros, no headers.
    fn records(value_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for delta in 0..3u8 {
            let mut record = vec![0, 0, delta * 2, 1];
            put_varint(&mut record, value_bytes as i64);
            record.extend(vec![0; value_bytes]);
            record.push(0);
            put_varint(&mut out, record.len() as i64);
            out.extend(record);
        }
        out
    }

    fn put_varint(out: &mut Vec<u8>, value: i64) {
        let mut value = ((value << 1) ^ (value >> 63)) as u64;
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn compressed(codec: i16, bytes: &[u8]) -> Vec<u8> {
        match codec {
            1 => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            2 => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
            3 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            _ => zstd::encode_all(bytes, 3).unwrap(),
        }
    }

    fn xerial(bytes: &[u8]) -> Vec<u8> {
        let mut out = XERIAL_MAGIC.to_vec();
        out.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        for block in bytes.chunks(10) {
            let block = compressed(2, block);
            out.extend((block.len() as u32).to_be_bytes());
            out.extend(block);
        }
        out
    }

    #[test]
    fn records_of_every_codec_are_walked() {
        let plain = records(20);
        let mut inputs: Vec<(i16, Vec<u8>)> = (1..=4).map(|codec| (codec, compressed(codec, &plain))).collect();
        inputs.push((2, xerial(&plain)));
        for (codec, input) in inputs {
            let walked: io::Result<Vec<_>> =
                CompressedRecords::of(codec, &input, UNFOLDED_BYTES_MAX).unwrap().collect();
            let deltas: Vec<i64> = walked.unwrap().iter().map(|record| record.offset_delta).collect();
            assert_eq!(deltas, [0, 1, 2], "codec {codec}");
        }
    }

    #[test]
    fn what_is_cut_or_garbled_is_an_error_and_never_a_panic() {
        let plain = records(20);
        for codec in 1..=4 {
            let whole = compressed(codec, &plain);
            for cut in 0..whole.len() {
                let walked: io::Result<Vec<_>> = CompressedRecords::of(codec, &whole[..cut], UNFOLDED_BYTES_MAX)
                    .and_then(|records| records.collect());
                // Without its end mark a frame may still show all records: the header's count decides.
                assert!(walked.map_or(true, |records| records.len() <= 3), "codec {codec} cut at {cut}");
            }
            for at in 0..whole.len() {
                let mut garbled = whole.clone();
                garbled[at] ^= 0x55;
                if let Ok(records) = CompressedRecords::of(codec, &garbled, UNFOLDED_BYTES_MAX) {
                    assert!(records.count() <= 200);
                }
            }
        }
        for text in [&plain[..plain.len() - 1], &[0xff; 12], &[1, 2, 3]] {
            assert!(
                CompressedRecords::of(1, &compressed(1, text), UNFOLDED_BYTES_MAX)
                    .unwrap()
                    .any(|record| record.is_err())
            );
        }
    }

    fn walk(codec: i16, input: &[u8]) -> io::Result<usize> {
        let mut records = CompressedRecords::of(codec, input, UNFOLDED_BYTES_MAX)?;
        records.try_fold(0, |count, record| record.map(|_| count + 1))
    }

    #[test]
    fn many_members_or_frames_are_counted_together() {
        let plain = records(2000);
        for codec in [1, 4] {
            let one = compressed(codec, &plain);
            let walk = |input: &[u8]| CompressedRecords::of(codec, input, 10_000)?.collect::<io::Result<Vec<_>>>();
            assert_eq!(walk(&one).unwrap().len(), 3, "codec {codec}");
            assert!(walk(&[&one[..], &one[..]].concat()).is_err(), "codec {codec}");
        }
        // A frame that holds nothing, a thousand times.
        for codec in [1, 4] {
            let nothing = compressed(codec, &[]).repeat(1000);
            assert_eq!(walk(codec, &nothing).unwrap(), 0, "codec {codec}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_before_memory_is_taken_for_them() {
        // snappy: 60 MiB announced by five bytes, alone and in the Java library's blocks; a block of 4 GiB.
        let mut lie = vec![0x80, 0x80, 0x80, 0x1e];
        lie.push(0);
        assert!(walk(2, &lie).unwrap_err().to_string().contains("more than it can"));
        let mut framed = XERIAL_MAGIC.to_vec();
        framed.extend([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 5]);
        framed.extend(&lie);
        assert!(walk(2, &framed).unwrap_err().to_string().contains("more than it can"));
        framed[16..20].copy_from_slice(&[0xff; 4]);
        assert!(walk(2, &framed).unwrap_err().to_string().contains("cut off"));
        // lz4: the frame says that it holds a terabyte.
        let plain = records(20);
        let info = lz4_flex::frame::FrameInfo::new().content_size(Some(plain.len() as u64));
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&plain).unwrap();
        let mut sized = encoder.finish().unwrap();
        assert_eq!(walk(3, &sized).unwrap(), 3);
        sized[11] = 1;
        assert!(walk(3, &sized).is_err());
        // zstd: a window of 2 GiB, beyond what a decoder here takes.
        let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0];
        assert!(walk(4, &window).unwrap_err().to_string().contains("memory"), "{:?}", walk(4, &window));
    }

    #[test]
    fn a_block_of_another_format_is_no_lz4_frame() {
        let mut legacy = vec![0x02, 0x21, 0x4c, 0x18];
        let block = lz4_flex::block::compress(&records(20));
        legacy.extend((block.len() as u32).to_le_bytes());
        legacy.extend(block);
        assert!(walk(3, &legacy).unwrap_err().to_string().contains("no lz4 frame"));
    }

    #[test]
    fn a_batch_that_unfolds_without_end_is_refused() {
        let plain = records(30 << 20);
        for codec in 1..=4 {
            let input = compressed(codec, &plain);
            let walked: io::Result<Vec<_>> =
                CompressedRecords::of(codec, &input, UNFOLDED_BYTES_MAX).and_then(|records| records.collect());
            assert!(walked.is_err(), "codec {codec}");
        }
    }
}
