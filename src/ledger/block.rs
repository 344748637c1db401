//! Files of checksummed blocks: appended whole, read up to the last whole one.
//!
//! A block is a header of 12 bytes (length of the payload, CRC-32C of the payload, CRC-32C of those eight bytes; all
//! little-endian) and its payload. The header's own checksum tells a torn tail, which a crash leaves and which is cut,
//! from rot in the middle, which would otherwise look like a tail as soon as it hits a length.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::{LedgerError, io_error};

const HEADER_BYTES: usize = 12;
/// Payload of one block, at most: a header that says more is damaged.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The appending side of one file.
#[derive(Debug)]
pub(super) struct BlockWriter {
    file: File,
    path: PathBuf,
    length: u64,
    buffer: Vec<u8>,
}

impl BlockWriter {
    /// Opens for appending; whatever lies behind `length` bytes (a torn tail) is cut.
    pub(super) fn open(path: PathBuf, length: u64) -> Result<Self, LedgerError> {
        let file =
            OpenOptions::new().create(true).append(true).open(&path).map_err(io_error("open for appending", &path))?;
        file.set_len(length).map_err(io_error("cut the torn end of", &path))?;
        Ok(BlockWriter { file, path, length, buffer: Vec::new() })
    }

    /// Appends one block with one `write(2)`. If that fails, nothing of the block stays, and it may be tried again.
    pub(super) fn append(&mut self, payload: &[u8]) -> Result<(), LedgerError> {
        assert!(!payload.is_empty() && payload.len() <= PAYLOAD_BYTES_MAX, "block of {} bytes", payload.len());
        self.buffer.clear();
        self.buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        self.buffer.extend_from_slice(&crc32c::crc32c(&self.buffer).to_le_bytes());
        self.buffer.extend_from_slice(payload);
        if let Err(error) = self.file.write_all(&self.buffer) {
            // A full disk may have taken a part of it: what is appended next must not lie behind a torn block.
            self.file.set_len(self.length).map_err(io_error("cut the torn end of", &self.path))?;
            return Err(io_error("append to", &self.path)(error));
        }
        self.length += self.buffer.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

/// The reading side of one file; a writer may be appending at the same time.
pub(super) struct BlockReader {
    input: BufReader<File>,
    path: PathBuf,
    /// Length of the file when it was opened: what comes later is left for later.
    length: u64,
    position: u64,
    payload: Vec<u8>,
}

impl BlockReader {
    /// None if there is no such file: a run that crashed before its first block.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, LedgerError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", path)(error)),
        };
        let length = file.metadata().map_err(io_error("read the size of", path))?.len();
        let input = BufReader::with_capacity(1 << 18, file);
        Ok(Some(BlockReader { input, path: path.to_path_buf(), length, position: 0, payload: Vec::new() }))
    }

    /// The end of the last whole block that was read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next whole block; None at the end or at a torn last block.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, LedgerError> {
        let left = self.length - self.position;
        if left < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut header = [0u8; HEADER_BYTES];
        self.read_exact_into(&mut header)?;
        let [length, payload_crc, header_crc] = split_header(header);
        if crc32c::crc32c(&header[..8]) != header_crc || !(1..=PAYLOAD_BYTES_MAX).contains(&(length as usize)) {
            // A power failure may leave a tail of zeros, whose size was stored before its bytes.
            return match header == [0; HEADER_BYTES] && self.rest_is_zero()? {
                true => Ok(None),
                false => Err(self.damaged("its header does not match its checksum")),
            };
        }
        let end = HEADER_BYTES as u64 + u64::from(length);
        if end > left {
            return Ok(None);
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length as usize, 0);
        self.read_exact_into(&mut payload)?;
        self.payload = payload;
        if crc32c::crc32c(&self.payload) != payload_crc {
            return if end == left { Ok(None) } else { Err(self.damaged("its content does not match its checksum")) };
        }
        self.position += end;
        Ok(Some(&self.payload))
    }

    /// An error about the block that ends at [`Self::position`], for codecs that cannot make sense of it.
    pub(super) fn senseless(&self) -> LedgerError {
        let why = "the block that ends here has a valid checksum but no valid content".to_owned();
        LedgerError::Damaged { path: self.path.clone(), offset: self.position, why }
    }

    fn damaged(&self, why: &str) -> LedgerError {
        LedgerError::Damaged { path: self.path.clone(), offset: self.position, why: why.to_owned() }
    }

    fn read_exact_into(&mut self, place: &mut [u8]) -> Result<(), LedgerError> {
        self.input.read_exact(place).map_err(io_error("read", &self.path))
    }

    fn rest_is_zero(&mut self) -> Result<bool, LedgerError> {
        let mut chunk = [0u8; 4096];
        loop {
            match self.input.read(&mut chunk).map_err(io_error("read", &self.path))? {
                0 => return Ok(true),
                count if chunk[..count].iter().any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}

fn split_header(header: [u8; HEADER_BYTES]) -> [u32; 3] {
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    [word(0), word(4), word(8)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks");
        let mut writer = BlockWriter::open(path.clone(), 0).unwrap();
        for payload in [b"first".as_slice(), b"second", b"third"] {
            writer.append(payload).unwrap();
        }
        (dir, path)
    }

    fn read(path: &Path) -> Result<Vec<String>, LedgerError> {
        let mut reader = BlockReader::open(path)?.unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next()? {
            blocks.push(String::from_utf8(block.to_vec()).unwrap());
        }
        Ok(blocks)
    }

    #[test]
    fn a_file_cut_at_any_length_gives_its_whole_blocks() {
        let (_dir, path) = written();
        let bytes = std::fs::read(&path).unwrap();
        let ends = [17, 35, 52];
        assert_eq!(bytes.len(), 52);
        for length in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(read(&path).unwrap().len(), whole, "{length} bytes");
        }
    }

    #[test]
    fn any_flipped_bit_before_the_last_block_is_an_error_and_never_a_shorter_file() {
        let (_dir, path) = written();
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..35 * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            assert!(matches!(read(&path), Err(LedgerError::Damaged { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn_and_a_zeroed_middle_is_damage() {
        let (_dir, path) = written();
        let bytes = std::fs::read(&path).unwrap();
        let mut tail = bytes[..35].to_vec();
        tail.resize(10_000, 0);
        std::fs::write(&path, &tail).unwrap();
        assert_eq!(read(&path).unwrap(), ["first", "second"]);
        let mut middle = bytes;
        middle[17..35].fill(0);
        std::fs::write(&path, &middle).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn appending_after_a_torn_block_cuts_it_first() {
        let (_dir, path) = written();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..50]).unwrap();
        let mut reader = BlockReader::open(&path).unwrap().unwrap();
        while reader.next().unwrap().is_some() {}
        BlockWriter::open(path.clone(), reader.position()).unwrap().append(b"again").unwrap();
        assert_eq!(read(&path).unwrap(), ["first", "second", "again"]);
    }
}
