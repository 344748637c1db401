//! yfinance files -> bars. What cannot be used is counted, and the first of each kind is explained.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use csv::StringRecord;

use super::layout::{self, Columns};
use super::number::{parse_scaled, parse_whole};
use crate::clock::Micros;
use crate::source::files::parse_time;
use crate::source::{SkipReport, SourceError};
use crate::transaction::QUANTITY_MAX;

/// Decimals that prices are kept at; what a file has beyond them is float noise.
pub(in crate::source) const PRICE_SCALE: u32 = 4;
/// Bars held in memory, at most: about 150 MB.
const BARS_MAX: usize = 2_000_000;
/// 10^15 at [`PRICE_SCALE`], the first amount that is too large.
pub(in crate::source) const NOTIONAL_END: i128 = 10_i128.pow(15 + PRICE_SCALE);
/// A price so many times another is of another unit, or of another instrument.
const UNIT_JUMP: i64 = 50;
/// A daily bar, and any longer one.
const BAR_LENGTH_US_MAX: i64 = 86_400_000_000;

/// One bar of one symbol; prices at [`PRICE_SCALE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) struct Bar {
    pub(in crate::source) start: Micros,
    pub(in crate::source) length_us: i64,
    /// Index into [`Bars::symbols`].
    pub(in crate::source) symbol: u32,
    pub(in crate::source) open: i64,
    pub(in crate::source) high: i64,
    pub(in crate::source) low: i64,
    pub(in crate::source) close: i64,
    pub(in crate::source) volume: i64,
    /// All four prices are the close, and nobody knows the volume.
    pub(in crate::source) is_close_only: bool,
}

/// All bars of all files, in time order.
#[derive(Debug, Default)]
pub(super) struct Bars {
    pub(super) symbols: Vec<String>,
    pub(super) bars: Vec<Bar>,
    pub(super) skipped: SkipReport,
}

impl Bars {
    /// Adds one file's bars at the end; [`Self::sort`] comes last.
    pub(super) fn read(&mut self, path: &Path, symbol: Option<&str>) -> Result<(), SourceError> {
        let unreadable = |source: std::io::Error| SourceError::Unreadable { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(unreadable)?;
        // pandas quotes none of these cells. Without quoting, a stray quotation mark spoils its own row; with it, all
        // rows up to the next one would vanish into a single cell.
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).quoting(false).from_reader(file);
        let mut bytes = csv::ByteRecord::new();
        let mut header = Vec::new();
        let mut columns: Option<Vec<(u32, Columns)>> = None;
        let first_bar = self.bars.len();
        loop {
            let more = reader.read_byte_record(&mut bytes).map_err(|error| unreadable(error.into()))?;
            if columns.is_none() && (!more || header.len() == layout_rows(&header)) {
                let (found, _) = layout::detect(path, &header, symbol)?;
                columns =
                    Some(found.into_iter().map(|columns| (self.symbol_index(&columns.symbol), columns)).collect());
            }
            if !more {
                break;
            }
            // Bytes that are not UTF-8 become characters that no number and no header has.
            let row: StringRecord =
                bytes.iter().map(|cell| unquoted(&String::from_utf8_lossy(cell)).to_owned()).collect();
            match &columns {
                None => header.push(row),
                Some(columns) => {
                    let line = bytes.position().map_or(0, |position| position.line());
                    self.read_row(path, line, &row, columns)?;
                }
            }
        }
        let length_us = bar_length_us(&self.bars[first_bar..]);
        self.bars[first_bar..].iter_mut().for_each(|bar| bar.length_us = length_us);
        self.bars[first_bar..].sort_by_key(|bar| bar.start);
        self.wonder_at_units(path, first_bar);
        Ok(())
    }

    /// Yahoo mixes up units now and then, such as pence and pounds. Which of two prices is right cannot be known: both are kept.
    fn wonder_at_units(&mut self, path: &Path, first_bar: usize) {
        let mut closes: Vec<Option<i64>> = vec![None; self.symbols.len()];
        for bar in &self.bars[first_bar..] {
            let before = closes[bar.symbol as usize].replace(bar.close);
            let Some(before) = before.filter(|before| *before > 0 && bar.close > 0) else { continue };
            if before / bar.close >= UNIT_JUMP || bar.close / before >= UNIT_JUMP {
                self.skipped.note_kept("price that is 50 times its neighbour's, or a fiftieth: another unit?", || {
                    let price = |units| rust_decimal::Decimal::new(units, PRICE_SCALE);
                    let (symbol, time) = (&self.symbols[bar.symbol as usize], bar.start);
                    format!("{}, {symbol} at {time}: {} beside {}", path.display(), price(bar.close), price(before))
                });
            }
        }
    }

    /// Puts the bars into time order; those of one moment stay as they were read.
    pub(super) fn sort(&mut self) {
        self.bars.sort_by_key(|bar| bar.start);
    }

    fn symbol_index(&mut self, symbol: &str) -> u32 {
        let known = self.symbols.iter().position(|known| known == symbol);
        known.unwrap_or_else(|| {
            self.symbols.push(symbol.to_owned());
            self.symbols.len() - 1
        }) as u32
    }

    fn read_row(
        &mut self,
        path: &Path,
        line: u64,
        row: &StringRecord,
        columns: &[(u32, Columns)],
    ) -> Result<(), SourceError> {
        let place = || format!("{} line {line}", path.display());
        let time_cell = row.get(0).unwrap_or("").trim();
        let Some(start) = parse_time(time_cell) else {
            self.skipped.note("row without a readable time", || {
                format!("{}: {time_cell:?} is not a time such as 2022-01-03 or 2022-01-03 09:30:00-05:00", place())
            });
            return Ok(());
        };
        for (symbol, columns) in columns {
            match read_bar(row, columns) {
                Ok(bar) if self.bars.len() < BARS_MAX => {
                    if [bar.open, bar.high, bar.low, bar.close].contains(&0) {
                        let kind = "price of 0, or so small that four decimals show nothing of it";
                        self.skipped.note_kept(kind, || format!("{}, {}", place(), columns.symbol));
                    }
                    self.bars.push(Bar { start, symbol: *symbol, ..bar });
                }
                Ok(_) => return Err(SourceError::TooManyBars { limit: BARS_MAX, path: path.to_path_buf() }),
                Err((kind, why)) => {
                    self.skipped.note(kind, || format!("{}, {}: {why}", place(), columns.symbol));
                }
            }
        }
        Ok(())
    }
}

/// A file that was saved again with every cell quoted is read all the same.
fn unquoted(cell: &str) -> &str {
    let inner = cell.trim().strip_prefix('"').and_then(|cell| cell.strip_suffix('"'));
    inner.unwrap_or(cell)
}

/// One header row if the first one is that of `history`, else three.
fn layout_rows(header: &[StringRecord]) -> usize {
    match header.first().and_then(|row| row.get(0)).map(str::trim) {
        Some("Date" | "Datetime") => 1,
        _ => 3,
    }
}

/// The smallest distance between two bars of a file is the length of its bars.
fn bar_length_us(bars: &[Bar]) -> i64 {
    let mut starts: Vec<i64> = bars.iter().map(|bar| bar.start.0).collect();
    starts.sort_unstable();
    let gaps = starts.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0);
    gaps.min().unwrap_or(BAR_LENGTH_US_MAX).min(BAR_LENGTH_US_MAX)
}

/// The distance that most bars of a file in time order have from the one before, at most a day.
pub(super) fn usual_step_us(bars: &[Bar]) -> i64 {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for gap in bars.windows(2).map(|pair| pair[1].start.since(pair[0].start)).filter(|gap| *gap > 0) {
        *counts.entry(gap).or_default() += 1;
    }
    let usual = counts.into_iter().max_by_key(|(_, count)| *count);
    usual.map_or(BAR_LENGTH_US_MAX, |(gap, _)| gap.min(BAR_LENGTH_US_MAX))
}

type Skip = (&'static str, String);

fn read_bar(row: &StringRecord, columns: &Columns) -> Result<Bar, Skip> {
    let cell = |column: usize| match row.get(column).map(str::trim) {
        Some("NaN" | "nan" | "None" | "<NA>") | None => "",
        Some(text) => text,
    };
    let prices = [("Open", columns.open), ("High", columns.high), ("Low", columns.low), ("Close", columns.close)];
    let Some(volume_column) = columns.volume else { return read_close(cell(columns.close)) };
    let volume_cell = cell(volume_column);
    if volume_cell.is_empty() && prices.iter().all(|(_, column)| cell(*column).is_empty()) {
        return Err(("gap: a row with nothing for this symbol", "all cells are empty".to_owned()));
    }
    if volume_cell.is_empty() {
        return Err(("bar without volume", "Volume is empty".to_owned()));
    }
    let volume = parse_whole(volume_cell)
        .ok_or_else(|| ("unreadable number", format!("Volume {volume_cell:?} is not a whole number")))?;
    if volume == 0 {
        return Err(("bar without volume", "Volume is 0".to_owned()));
    }
    if !(0..=QUANTITY_MAX).contains(&volume) {
        return Err(("number out of range", format!("Volume {volume_cell} is not within 0 to 10^15")));
    }
    let mut parsed = [0i64; 4];
    for (place, (name, column)) in parsed.iter_mut().zip(prices) {
        let text = cell(column);
        if text.is_empty() {
            return Err(("missing price", format!("{name} is empty, though Volume is {volume}")));
        }
        let price = parse_scaled(text, PRICE_SCALE as i32)
            .ok_or_else(|| ("unreadable number", format!("{name} {text:?} is not a number within range")))?;
        if price < 0 {
            return Err(("number out of range", format!("{name} {text} is negative")));
        }
        if i128::from(price) * i128::from(volume) >= NOTIONAL_END {
            return Err(("number out of range", format!("{name} {text} times Volume {volume} is 10^15 or more")));
        }
        *place = price;
    }
    let [open, high, low, close] = parsed;
    Ok(Bar { start: Micros(0), length_us: 0, symbol: 0, open, high, low, close, volume, is_close_only: false })
}

fn read_close(text: &str) -> Result<Bar, Skip> {
    if text.is_empty() {
        return Err(("gap: a row with nothing for this symbol", "its cell is empty".to_owned()));
    }
    let close = parse_scaled(text, PRICE_SCALE as i32)
        .ok_or_else(|| ("unreadable number", format!("{text:?} is not a number within range")))?;
    if close < 0 || i128::from(close) >= NOTIONAL_END {
        return Err(("number out of range", format!("{text} is not within 0 to 10^15")));
    }
    let (start, symbol) = (Micros(0), 0);
    Ok(Bar { start, length_us: 0, symbol, open: close, high: close, low: close, close, volume: 1, is_close_only: true })
}
