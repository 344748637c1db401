//! The answer to a query of a person: an aligned table, or one JSON object a line.
//!
//! By the simple protocol, so that the server writes each type as text itself and any number of statements may be given.

use std::io::Write;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgColumn, PgRow};
use sqlx::{Column, Either, Executor, Row, TypeInfo, ValueRef};

use super::{Database, PostgresError};

/// Rows that the widths of a table are taken from; wider cells further down push their line to the right.
const SAMPLE_ROWS: usize = 1_000;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// As psql shows it.
    Table,
    /// One object a row and line; numbers keep all of their digits.
    Json,
}

/// Runs `sql` (one or more statements) and writes the rows; returns how many there were.
///
/// # Errors
/// The server cannot be reached or refuses the statement; or `output` cannot be written.
pub async fn write_query(
    database: &Database,
    sql: &str,
    format: OutputFormat,
    output: &mut (dyn Write + Send),
) -> Result<u64, PostgresError> {
    let mut connection = database.connect().await?;
    let mut results = connection.fetch_many(sqlx::raw_sql(sqlx::AssertSqlSafe(sql)));
    let mut writer = Writer { format, held: Vec::new(), widths: Vec::new(), rows: 0, total: 0 };
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Right(row) => writer.row(row, output).map_err(written)?,
            Either::Left(done) => writer.end(done.rows_affected(), output).map_err(written)?,
        }
    }
    Ok(writer.total)
}

fn written(error: std::io::Error) -> PostgresError {
    PostgresError::Sql(sqlx::Error::Io(error))
}

/// Holds back a table's first rows until the widths are known.
struct Writer {
    format: OutputFormat,
    held: Vec<PgRow>,
    widths: Vec<usize>,
    /// Of the present statement.
    rows: u64,
    /// Of all statements.
    total: u64,
}

impl Writer {
    fn row(&mut self, row: PgRow, output: &mut dyn Write) -> std::io::Result<()> {
        self.rows += 1;
        self.total += 1;
        if self.format == OutputFormat::Json {
            return writeln!(output, "{}", json(&row));
        }
        if !self.widths.is_empty() {
            return line(&row, &self.widths, output);
        }
        self.held.push(row);
        if self.held.len() == SAMPLE_ROWS { self.release(output) } else { Ok(()) }
    }

    fn end(&mut self, affected: u64, output: &mut dyn Write) -> std::io::Result<()> {
        if self.format == OutputFormat::Table {
            self.release(output)?;
            if self.rows > 0 {
                writeln!(output, "({} row{})", self.rows, if self.rows == 1 { "" } else { "s" })?;
            } else {
                writeln!(output, "({affected} rows)")?;
            }
        }
        self.rows = 0;
        self.widths.clear();
        Ok(())
    }

    fn release(&mut self, output: &mut dyn Write) -> std::io::Result<()> {
        let Some(first) = self.held.first() else { return Ok(()) };
        let names: Vec<&str> = first.columns().iter().map(Column::name).collect();
        self.widths = names.iter().map(|name| name.chars().count()).collect();
        for row in &self.held {
            for (index, width) in self.widths.iter_mut().enumerate() {
                *width = (*width).max(text(row, index).map_or(0, |text| text.chars().count()));
            }
        }
        let centred: Vec<String> =
            names.iter().zip(&self.widths).map(|(name, width)| format!(" {name:^width$} ")).collect();
        writeln!(output, "{}", centred.join("|").trim_end())?;
        let rules: Vec<String> = self.widths.iter().map(|width| "-".repeat(width + 2)).collect();
        writeln!(output, "{}", rules.join("+"))?;
        for row in std::mem::take(&mut self.held) {
            line(&row, &self.widths, output)?;
        }
        Ok(())
    }
}

fn line(row: &PgRow, widths: &[usize], output: &mut dyn Write) -> std::io::Result<()> {
    let cells: Vec<String> = row
        .columns()
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(index, (column, width))| {
            let text = text(row, index).unwrap_or_default();
            if is_number(column) { format!(" {text:>width$} ") } else { format!(" {text:<width$} ") }
        })
        .collect();
    writeln!(output, "{}", cells.join("|").trim_end())
}

/// A cell as the server wrote it; None for null.
fn text(row: &PgRow, index: usize) -> Option<String> {
    let value = row.try_get_raw(index).ok()?;
    if value.is_null() {
        return None;
    }
    // The table's lines must stay lines.
    value.as_str().ok().map(|text| text.replace('\n', "\\n"))
}

fn is_number(column: &PgColumn) -> bool {
    matches!(column.type_info().name(), "INT2" | "INT4" | "INT8" | "NUMERIC" | "FLOAT4" | "FLOAT8" | "OID")
}

/// One object. Numbers are copied as text, because a float would lose digits of an amount.
fn json(row: &PgRow) -> String {
    let members: Vec<String> = row
        .columns()
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let name = serde_json::Value::from(column.name());
            let value = row.try_get_raw(index).ok().filter(|value| !value.is_null());
            let text = value.as_ref().and_then(|value| value.as_str().ok());
            let value = match (text, column.type_info().name()) {
                (None, _) => "null".to_owned(),
                (Some("t"), "BOOL") => "true".to_owned(),
                (Some("f"), "BOOL") => "false".to_owned(),
                (Some(text), "JSON" | "JSONB") => text.replace('\n', " "),
                (Some(text), _) if is_number(column) && serde_json::from_str::<serde_json::Number>(text).is_ok() => {
                    text.to_owned()
                }
                (Some(text), _) => serde_json::Value::from(text).to_string(),
            };
            format!("{name}:{value}")
        })
        .collect();
    format!("{{{}}}", members.join(","))
}
