//! Card transactions from CSV files, row by row: a file of any size is read in constant memory.
//!
//! Each file is read twice: once to count what can be used and to say what cannot before anything is sent, once to send it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use self::columns::Columns;
use self::lines::{LINE_BYTES_MAX, Line, Lines};
use super::repeated::Rewind;
use super::{Draft, Next, SkipReport, Source, SourceError, files};
use crate::config::CardsSettings;

mod columns;
mod lines;
mod row;

/// A name as it may be written behind `cards:`.
const EXAMPLE: &str = "fraudTrain.csv";
/// Read from the disk at once.
const BUFFER_BYTES: usize = 256 << 10;
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
    lines: Lines<BufReader<Summed<File>>>,
    columns: Columns,
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
        let file = Summed { inner: File::open(path).map_err(unreadable)?, crc: 0 };
        let (lines, header) =
            Lines::open(BufReader::with_capacity(BUFFER_BYTES, file), columns::delimiter).map_err(unreadable)?;
        let found = match header {
            Line::Row => None,
            Line::End => Some("it is empty".to_owned()),
            Line::OpenQuote => Some("a quotation mark of its header is not closed".to_owned()),
            Line::TooLong => Some(format!("its header does not end within {LINE_BYTES_MAX} bytes")),
        };
        if let Some(found) = found {
            return Err(SourceError::UnknownColumns { path: path.to_path_buf(), found });
        }
        let columns = columns::find(path, lines.cells(), &settings.map)?;
        Ok(Rows { path: path.to_path_buf(), lines, columns, rows: 0 })
    }

    /// Fills `out` from the next row that can be used; false at the end.
    fn next_into(
        &mut self,
        settings: &CardsSettings,
        out: &mut Draft,
        skipped: &mut SkipReport,
    ) -> Result<bool, SourceError> {
        loop {
            let line = self.lines.next();
            let line = line.map_err(|source| SourceError::Unreadable { path: self.path.clone(), source })?;
            let read = match line {
                Line::End => return Ok(false),
                Line::Row => row::read(self.lines.cells(), &self.columns, settings.currency, out),
                Line::OpenQuote => {
                    let why = "a cell begins with one that is not closed in this line; a row is one line here";
                    Err(("quotation mark that is not closed", why.to_owned()))
                }
                Line::TooLong => Err(("line that is too long", format!("it has more than {LINE_BYTES_MAX} bytes"))),
            };
            let Err((kind, why)) = read else {
                self.rows += 1;
                return Ok(true);
            };
            skipped.note(kind, || format!("{} line {}: {why}", self.path.display(), self.lines.number()));
        }
    }

    fn crc(&self) -> u32 {
        self.lines.inner().get_ref().crc
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

impl Rewind for Cards {
    fn rewind(&mut self) {
        (self.next_file, self.open) = (0, None);
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
