//! A card file, line by line: each row is one line, and no line is held that is longer than a row may be.
//!
//! CSV allows a quoted cell to go on in the next line. Here it may not: one quotation mark too many would swallow every row
//! up to the next one, in silence, and a file of a gigabyte might lie between them.

use std::io::{self, BufRead, Read};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

/// Bytes of a line, at most.
pub(super) const LINE_BYTES_MAX: usize = 64 << 10;

/// What came of reading a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// [`Lines::cells`] are those of this line.
    Row,
    /// A quotation mark opens a cell and is not closed.
    OpenQuote,
    /// More than [`LINE_BYTES_MAX`]; it was passed over.
    TooLong,
    End,
}

/// The lines of a file that are not blank.
pub(super) struct Lines<R> {
    inner: R,
    parser: Reader,
    line: Vec<u8>,
    /// From 1.
    number: u64,
    cells: Vec<u8>,
    ends: Vec<usize>,
    cell_count: usize,
}

/// The cells of a row, without their quotation marks.
#[derive(Clone, Copy)]
pub(super) struct Cells<'a> {
    bytes: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Cells<'a> {
    pub(super) fn len(self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(self, place: usize) -> Option<&'a [u8]> {
        let start = if place == 0 { 0 } else { *self.ends.get(place - 1)? };
        self.bytes.get(start..*self.ends.get(place)?)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).filter_map(move |place| self.get(place))
    }
}

impl<R: BufRead> Lines<R> {
    /// `delimiter`: of its header, the first line that is not blank.
    pub(super) fn open(inner: R, delimiter: impl FnOnce(&[u8]) -> u8) -> io::Result<(Lines<R>, Line)> {
        let mut lines = Lines {
            inner,
            parser: Reader::new(),
            line: Vec::new(),
            number: 0,
            // A cell is no longer than its line, and ends with a byte of it.
            cells: vec![0; LINE_BYTES_MAX + 2],
            ends: vec![0; LINE_BYTES_MAX + 2],
            cell_count: 0,
        };
        let header = match lines.read()? {
            Line::Row => {
                let delimiter = delimiter(&lines.line);
                lines.parser = ReaderBuilder::new().delimiter(delimiter).terminator(Terminator::Any(b'\n')).build();
                lines.split()
            }
            other => other,
        };
        Ok((lines, header))
    }

    /// Goes on to the next line that is not blank.
    pub(super) fn next(&mut self) -> io::Result<Line> {
        Ok(match self.read()? {
            Line::Row => self.split(),
            other => other,
        })
    }

    pub(super) fn cells(&self) -> Cells<'_> {
        Cells { bytes: &self.cells, ends: &self.ends[..self.cell_count] }
    }

    /// Of the line that was read last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn inner(&self) -> &R {
        &self.inner
    }

    /// Fills `line` with the next one, which ends with a line feed whatever ends it in the file.
    fn read(&mut self) -> io::Result<Line> {
        loop {
            self.line.clear();
            let read = self.inner.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(Line::End);
            }
            self.number += 1;
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
            } else if read == LINE_BYTES_MAX && self.skip_line()? {
                return Ok(Line::TooLong);
            }
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
            if !self.line.is_empty() {
                self.line.push(b'\n');
                return Ok(Line::Row);
            }
        }
    }

    /// Passes over what is left of a line; false if nothing was.
    fn skip_line(&mut self) -> io::Result<bool> {
        let mut is_longer = false;
        loop {
            let bytes = match self.inner.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                return Ok(is_longer);
            }
            is_longer = true;
            match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.inner.consume(end + 1);
                    return Ok(true);
                }
                None => {
                    let length = bytes.len();
                    self.inner.consume(length);
                }
            }
        }
    }

    fn split(&mut self) -> Line {
        let (result, _, _, cell_count) = self.parser.read_record(&self.line, &mut self.cells, &mut self.ends);
        if result == ReadRecordResult::Record {
            self.cell_count = cell_count;
            return Line::Row;
        }
        // The line feed became part of a cell.
        self.parser.reset();
        Line::OpenQuote
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<(Line, u64, Vec<String>)> {
        // A small buffer: lines are put together from several.
        let reader = io::BufReader::with_capacity(7, text);
        let (mut lines, mut line) = Lines::open(reader, |_| b',').unwrap();
        let mut seen = Vec::new();
        loop {
            let cells = match line {
                Line::Row => lines.cells().iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect(),
                _ => Vec::new(),
            };
            seen.push((line, lines.number(), cells));
            if line == Line::End {
                return seen;
            }
            line = lines.next().unwrap();
        }
    }

    #[test]
    fn a_quotation_mark_too_many_spoils_its_own_line_and_no_other() {
        let seen = lines(
            b"\xef\xbb\xbfa,b\r\n\r\n\"x, y\",\"say \"\"hi\"\"\"\n\"open,1\n2,3\n5\" wide,z\r\n\"\n,\nlast,\"q\"",
        );
        let row = |number, cells: [&str; 2]| (Line::Row, number, cells.map(str::to_owned).to_vec());
        assert_eq!(
            seen,
            [
                row(1, ["a", "b"]),
                row(3, ["x, y", "say \"hi\""]),
                (Line::OpenQuote, 4, Vec::new()),
                row(5, ["2", "3"]),
                row(6, ["5\" wide", "z"]),
                (Line::OpenQuote, 7, Vec::new()),
                row(8, ["", ""]),
                row(9, ["last", "q"]),
                (Line::End, 9, Vec::new()),
            ]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_in_little_memory() {
        for (length, expected) in [
            (LINE_BYTES_MAX - 1, Line::Row),
            (LINE_BYTES_MAX, Line::TooLong),
            (LINE_BYTES_MAX + 1, Line::TooLong),
            (20 * LINE_BYTES_MAX, Line::TooLong),
        ] {
            let text = [b"a,b\n".to_vec(), vec![b','; length], b"\nc,d\n".to_vec()].concat();
            let seen = lines(&text);
            let kinds: Vec<Line> = seen.iter().map(|(line, ..)| *line).collect();
            assert_eq!(kinds, [Line::Row, expected, Line::Row, Line::End], "{length}");
            assert_eq!(seen[2].2, ["c", "d"]);
        }
        // Without a line feed at its end it is a byte longer.
        assert_eq!(lines(&vec![b'x'; LINE_BYTES_MAX])[0].0, Line::Row);
        assert_eq!(lines(&vec![b'x'; LINE_BYTES_MAX + 1])[0].0, Line::TooLong);
    }
}
