//! Which columns of a yfinance file hold what.
//!
//! `download(...)` writes three header rows, `Price,Close,…`, `Ticker,AAPL,…` and `Date,,…` (the first two change places
//! with `group_by='ticker'`); `history(...)` writes one, which names no symbol. Columns that a bar does not need
//! (`Adj Close`, `Dividends`, `Stock Splits`, `Capital Gains`, `Repaired?`) are ignored.

use std::path::Path;

use csv::StringRecord;

use crate::source::SourceError;
use crate::source::files::shorten;
use crate::transaction::SYMBOL_CHARS_MAX;

/// The columns of one symbol; the time is in column 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) symbol: String,
    pub(super) open: usize,
    pub(super) high: usize,
    pub(super) low: usize,
    pub(super) close: usize,
    /// None: closing prices alone are known.
    pub(super) volume: Option<usize>,
}

/// Characters of a file that an error repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// Finds the columns from the first rows, and says how many rows the header takes. `symbol` names a file that does not
/// name its own, and selects one of those that a file names.
pub(super) fn detect(
    path: &Path,
    rows: &[StringRecord],
    symbol: Option<&str>,
) -> Result<(Vec<Columns>, usize), SourceError> {
    let cell = |row: usize, column: usize| rows.get(row).and_then(|row| row.get(column)).unwrap_or("").trim();
    let (columns, header_rows) = match (cell(0, 0), cell(1, 0), cell(2, 0)) {
        ("Price", "Ticker", "Date" | "Datetime") => (download(path, &rows[0], &rows[1], symbol)?, 3),
        ("Ticker", "Price", "Date" | "Datetime") => (download(path, &rows[1], &rows[0], symbol)?, 3),
        ("Date" | "Datetime", _, _) if is_wide(&rows[0]) => (wide(path, &rows[0], symbol)?, 1),
        ("Date" | "Datetime", _, _) => (vec![history(path, &rows[0], symbol)?], 1),
        _ => return Err(unknown(path, rows)),
    };
    for found in &columns {
        check_symbol(path, &found.symbol)?;
    }
    Ok((columns, header_rows))
}

fn download(
    path: &Path,
    fields: &StringRecord,
    tickers: &StringRecord,
    symbol: Option<&str>,
) -> Result<Vec<Columns>, SourceError> {
    let mut names: Vec<&str> = Vec::new();
    for ticker in tickers.iter().skip(1).map(str::trim).filter(|ticker| !ticker.is_empty()) {
        if !names.contains(&ticker) {
            names.push(ticker);
        }
    }
    select(path, &mut names, symbol)?;
    let of_ticker = |name: &str| {
        columns_by_name(path, name, |field| {
            let mut pairs = fields.iter().zip(tickers.iter());
            pairs.position(|(found, ticker)| found.trim() == field && ticker.trim() == name)
        })
    };
    if names.is_empty() {
        let found = "its header names no ticker".to_owned();
        return Err(SourceError::UnknownLayout { path: path.to_path_buf(), found });
    }
    names.into_iter().map(of_ticker).collect()
}

/// Keeps the one that `--symbol` names, or all.
fn select(path: &Path, names: &mut Vec<&str>, symbol: Option<&str>) -> Result<(), SourceError> {
    let Some(symbol) = symbol else { return Ok(()) };
    if !names.contains(&symbol) {
        let why = format!("--symbol {symbol} is not in it; it holds {}", shorten(&names.join(", "), SHOWN_CHARS_MAX));
        return Err(SourceError::Symbol { path: path.to_path_buf(), why });
    }
    names.retain(|name| *name == symbol);
    Ok(())
}

/// Closing prices, a column for each symbol: none of the names that other layouts have, in whatever case.
fn is_wide(header: &StringRecord) -> bool {
    const FIELDS: [&str; 10] = [
        "Open",
        "High",
        "Low",
        "Close",
        "Adj Close",
        "Volume",
        "Dividends",
        "Stock Splits",
        "Capital Gains",
        "Repaired?",
    ];
    let is_field = |name: &str| FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name.trim()));
    header.len() > 1 && !header.iter().skip(1).any(is_field)
}

/// As Yahoo writes tickers: `BRK-B`, `ASAI.L`, `^GSPC`, `EURUSD=X`, `M&M.NS`. A column with any other name holds something else.
fn is_ticker(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b".^=-&".contains(&byte))
}

fn wide(path: &Path, header: &StringRecord, symbol: Option<&str>) -> Result<Vec<Columns>, SourceError> {
    let mut names: Vec<&str> = header.iter().skip(1).map(str::trim).filter(|name| !name.is_empty()).collect();
    let refuse = |found: String| Err(SourceError::UnknownLayout { path: path.to_path_buf(), found });
    if let Some(name) = names.iter().find(|name| !is_ticker(name)) {
        return refuse(format!("its column {:?} is no ticker such as AAPL", shorten(name, SHOWN_CHARS_MAX)));
    }
    if let Some((_, name)) = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
        return refuse(format!("it has two columns {:?}", shorten(name, SHOWN_CHARS_MAX)));
    }
    select(path, &mut names, symbol)?;
    let of_symbol = |name: &str| {
        let close = header.iter().position(|found| found.trim() == name).unwrap_or(0);
        Columns { symbol: name.to_owned(), open: close, high: close, low: close, close, volume: None }
    };
    let columns: Vec<Columns> = names.into_iter().map(of_symbol).collect();
    if columns.is_empty() { refuse("its header names no symbol".to_owned()) } else { Ok(columns) }
}

fn history(path: &Path, header: &StringRecord, symbol: Option<&str>) -> Result<Columns, SourceError> {
    let symbol = match symbol {
        Some(symbol) => symbol.to_owned(),
        None => symbol_from_name(path)?,
    };
    columns_by_name(path, &symbol, |field| header.iter().position(|found| found.trim() == field))
}

fn columns_by_name(path: &Path, symbol: &str, find: impl Fn(&str) -> Option<usize>) -> Result<Columns, SourceError> {
    let column = |field: &str| {
        find(field).ok_or_else(|| {
            let found = format!("there is no column {field} for {symbol:?}");
            SourceError::UnknownLayout { path: path.to_path_buf(), found }
        })
    };
    Ok(Columns {
        symbol: symbol.to_owned(),
        open: column("Open")?,
        high: column("High")?,
        low: column("Low")?,
        close: column("Close")?,
        volume: Some(column("Volume")?),
    })
}

/// The letters, digits and `.^=` that the file's name begins with: `EA-15m-no-bad-divs.csv` is EA, `ASAI.L_1h.csv` is
/// ASAI.L. A symbol with a dash in it (BTC-USD) has to be given by `--symbol`.
fn symbol_from_name(path: &Path) -> Result<String, SourceError> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    let symbol: String = stem.chars().take_while(|c| c.is_alphanumeric() || ".^=".contains(*c)).collect();
    if symbol.is_empty() {
        let why = "names no symbol, neither inside nor in its name; give --symbol".to_owned();
        return Err(SourceError::Symbol { path: path.to_path_buf(), why });
    }
    Ok(symbol)
}

fn check_symbol(path: &Path, symbol: &str) -> Result<(), SourceError> {
    if symbol.chars().count() <= SYMBOL_CHARS_MAX && !symbol.chars().any(char::is_control) {
        return Ok(());
    }
    let shown = shorten(symbol, SHOWN_CHARS_MAX);
    let why = format!("symbol {shown:?} is longer than {SYMBOL_CHARS_MAX} characters or holds a control character");
    Err(SourceError::Symbol { path: path.to_path_buf(), why })
}

fn unknown(path: &Path, rows: &[StringRecord]) -> SourceError {
    let found = match rows.first() {
        None => "it is empty".to_owned(),
        Some(row) => {
            format!("its first row is {:?}", shorten(&row.iter().collect::<Vec<_>>().join(","), SHOWN_CHARS_MAX))
        }
    };
    SourceError::UnknownLayout { path: path.to_path_buf(), found }
}
