//! Card transactions from CSV files, row by row: a file of any size is read in constant memory.
//!
//! Each file is read twice: once to count what can be used and to say what cannot before anything is sent, once to send it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, Reader, ReaderBuilder};

use self::columns::Columns;
use super::{Draft, Next, SkipReport, Source, SourceError, files};
use crate::config::CardsSettings;

mod columns;
mod row;

/// A name as it may be written behind `cards:`.
const EXAMPLE: &str = "fraudTrain.csv";
/// Read from the disk at once.
const BUFFER_BYTES: usize = 256 << 10;
/// What a header may take; a file without a line break is none of ours.
const HEADER_BYTES_MAX: u64 = 64 << 10;
/// Reading a file this large takes seconds: it is said.
const LARGE_BYTES: u64 = 256 << 20;

/// A replay of card files, one after the other.
pub(super) struct Cards {
    settings: CardsSettings,
    files: Vec<Counted>,
    skipped: SkipReport,
    next_file: usize,
    open: Option<Rows>,
}

/// What the first reading has found.
struct Counted {
    path: PathBuf,
    rows: u64,
    crc: u32,
}

/// A file that is being read.
struct Rows {
    path: PathBuf,
    reader: Reader<Summed<BufReader<File>>>,
    columns: Columns,
    record: ByteRecord,
    /// Rows handed out.
    rows: u64,
}

/// Keeps a checksum of what is read.
struct Summed<R> {
    inner: R,
    crc: u32,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.crc = crc32c::crc32c_append(self.crc, &buffer[..read]);
        Ok(read)
    }
}

impl Rows {
    fn open(path: &Path, settings: &CardsSettings) -> Result<Rows, SourceError> {
        let unreadable = |source: std::io::Error| SourceError::Unreadable { path: path.to_path_buf(), source };
        let mut header = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        BufReader::new(file).take(HEADER_BYTES_MAX).read_until(b'\n', &mut header).map_err(unreadable)?;
        let file = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(unreadable)?);
        let mut reader = ReaderBuilder::new()
            .delimiter(columns::delimiter(&header))
            .flexible(true)
            .from_reader(Summed { inner: file, crc: 0 });
        let header = reader.byte_headers().map_err(|error| unreadable(error.into()))?;
        let columns = columns::find(path, header, &settings.map)?;
        Ok(Rows { path: path.to_path_buf(), reader, columns, record: ByteRecord::new(), rows: 0 })
    }

    /// Fills `out` from the next row that can be used; false at the end.
    fn next_into(
        &mut self,
        settings: &CardsSettings,
        out: &mut Draft,
        skipped: &mut SkipReport,
    ) -> Result<bool, SourceError> {
        loop {
            let more = self.reader.read_byte_record(&mut self.record);
            let unreadable =
                |error: csv::Error| SourceError::Unreadable { path: self.path.clone(), source: error.into() };
            if !more.map_err(unreadable)? {
                return Ok(false);
            }
            match row::read(&self.record, &self.columns, settings.currency, out) {
                Ok(()) => {
                    self.rows += 1;
                    return Ok(true);
                }
                Err((kind, why)) => {
                    let line = self.record.position().map_or(0, |position| position.line());
                    skipped.note(kind, || format!("{} line {line}: {why}", self.path.display()));
                }
            }
        }
    }

    fn crc(&self) -> u32 {
        self.reader.get_ref().crc
    }
}

impl Cards {
    pub(super) fn open(settings: &CardsSettings) -> Result<Cards, SourceError> {
        let mut skipped = SkipReport::default();
        let mut counted = Vec::new();
        for path in files::expand(&settings.files, "cards", EXAMPLE)? {
            if let Ok(bytes) = path.metadata().map(|metadata| metadata.len())
                && bytes >= LARGE_BYTES
            {
                tracing::info!("looking through {} ({} MB) first", path.display(), bytes / 1_000_000);
            }
            let (mut rows, mut draft) = (Rows::open(&path, settings)?, Draft::default());
            while rows.next_into(settings, &mut draft, &mut skipped)? {}
            counted.push(Counted { path, rows: rows.rows, crc: rows.crc() });
        }
        Ok(Cards { settings: settings.clone(), files: counted, skipped, next_file: 0, open: None })
    }
}

impl Cards {
    /// Whether the files are there and have the columns.
    pub(super) fn check(settings: &CardsSettings) -> Result<(), SourceError> {
        files::expand(&settings.files, "cards", EXAMPLE)?
            .iter()
            .try_for_each(|path| Rows::open(path, settings).map(drop))
    }
}

impl Source for Cards {
    fn next_into(&mut self, out: &mut Draft) -> Result<Next, SourceError> {
        loop {
            let rows = match &mut self.open {
                Some(rows) => rows,
                None => {
                    let Some(file) = self.files.get(self.next_file) else { return Ok(Next::End) };
                    self.open.insert(Rows::open(&file.path, &self.settings)?)
                }
            };
            // What was left out has been counted.
            if rows.next_into(&self.settings, out, &mut SkipReport::default())? {
                return Ok(Next::Draft);
            }
            let file = &self.files[self.next_file];
            if (rows.rows, rows.crc()) != (file.rows, file.crc) {
                return Err(SourceError::Changed { path: file.path.clone() });
            }
            self.open = None;
            self.next_file += 1;
        }
    }

    fn describe(&self) -> String {
        let files: Vec<_> = self.files.iter().map(|file| file.path.display().to_string()).collect();
        format!("cards:{}", files.join(","))
    }

    fn total(&self) -> Option<u64> {
        Some(self.files.iter().map(|file| file.rows).sum())
    }

    fn skipped(&self) -> SkipReport {
        self.skipped.clone()
    }

    fn fingerprint(&self) -> Option<String> {
        let map: Vec<String> = self.settings.map.iter().map(|(field, column)| format!("{field}={column}")).collect();
        let mut crc = crc32c::crc32c(format!("{} {}", self.settings.currency, map.join(",")).as_bytes());
        for file in &self.files {
            crc = crc32c::crc32c_append(crc, &file.crc.to_le_bytes());
        }
        Some(format!("{crc:08x}-{}-rows", self.total().unwrap_or(0)))
    }

    fn has_event_times(&self) -> bool {
        true
    }
}
