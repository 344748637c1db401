//! One row of a card file -> a transaction, or the reason why it is left out.

use std::fmt::Write;
use std::str;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime};

use super::columns::Columns;
use super::lines::Cells;
use crate::clock::Micros;
use crate::source::files::{parse_time, within};
use crate::source::{Draft, Kind};
use crate::transaction::{CATEGORY_CHARS_MAX, Currency, ID_CHARS_MAX, MERCHANT_CHARS_MAX, parse_amount};

/// What a row without a merchant or a category says.
const UNKNOWN: &str = "unknown";
/// What a card file says of fraud: that it is one.
const FRAUD: &str = "reported";
/// Numbers from here on are milliseconds, and from there on microseconds: as seconds they would lie beyond the year 5000.
const MILLIS_FROM: i64 = 100_000_000_000;
const MICROS_FROM: i64 = 100_000_000_000_000;

/// Kind and reason of a row that is left out.
pub(super) type Skip = (&'static str, String);

/// Fills `out` from a row; its buffers are used again.
pub(super) fn read(row: Cells<'_>, columns: &Columns, currency: Currency, out: &mut Draft) -> Result<(), Skip> {
    let cell = |place: usize| {
        let bytes = row.get(place).ok_or_else(|| ("row that ends early", format!("it has {} cells", row.len())))?;
        let text =
            str::from_utf8(bytes).map_err(|_| ("cell that is not UTF-8", String::from_utf8_lossy(bytes).into()))?;
        Ok::<&str, Skip>(text.trim())
    };
    let user = text("user", cell(columns.user)?, ID_CHARS_MAX)?;
    let amount = cell(columns.amount)?;
    let (kind, digits) = match amount.strip_prefix('-') {
        Some(digits) => (Kind::Refund, digits),
        None => (Kind::Purchase, amount),
    };
    out.amount =
        parse_amount(digits).map_err(|why| ("amount that is no plain decimal", format!("amount {amount:?} {why}")))?;
    out.kind = kind;
    let time = cell(columns.time)?;
    let event_time = match columns.time_of_day {
        Some(place) => date_and_time(time, cell(place)?),
        None => point_in_time(time),
    };
    out.event_time = Some(event_time.ok_or_else(|| {
        let known = "2019-01-01 00:00:18, 20190101, RFC 3339, or seconds, milliseconds or microseconds since 1970";
        ("row without a readable time", format!("{time:?} is not a time such as {known}"))
    })?);
    let optional = |place: Option<usize>| place.map_or(Ok(""), cell);
    let merchant = match optional(columns.merchant)? {
        "" => UNKNOWN,
        merchant => text("merchant", merchant, MERCHANT_CHARS_MAX)?,
    };
    let category = match optional(columns.category)? {
        "" => UNKNOWN,
        category => text("category", category, CATEGORY_CHARS_MAX)?,
    };
    let id = match optional(columns.id)? {
        "" => "",
        id => text("id", id, ID_CHARS_MAX)?,
    };
    out.currency = match optional(columns.currency)? {
        "" => currency,
        code => code.parse().map_err(|error| ("currency that is none", format!("{error}")))?,
    };
    out.fraud = match optional(columns.fraud)? {
        "1" | "1.0" | "true" | "True" | "TRUE" | "yes" | "Y" | "y" => Some(FRAUD),
        _ => None,
    };
    for (place, value) in [
        (&mut out.user_id, user),
        (&mut out.transaction_id, id),
        (&mut out.merchant, merchant),
        (&mut out.category, category),
    ] {
        place.clear();
        // Writing to a String cannot fail.
        let _ = place.write_str(value);
    }
    Ok(())
}

fn text<'a>(field: &str, value: &'a str, chars_max: usize) -> Result<&'a str, Skip> {
    if value.is_empty() {
        return Err(("empty cell", format!("{field} is empty")));
    }
    if value.chars().any(char::is_control) {
        return Err(("cell with a control character", format!("{field} {value:?}")));
    }
    let chars = value.chars().count();
    if chars > chars_max {
        let shown: String = value.chars().take(chars_max).collect();
        return Err(("cell that is too long", format!("{field} {shown}… has {chars} characters, at most {chars_max}")));
    }
    Ok(value)
}

fn point_in_time(text: &str) -> Option<Micros> {
    let number = text.strip_suffix(".0").unwrap_or(text);
    if let Some(time) = written_together(number) {
        return within(time.and_utc().timestamp_micros());
    }
    if let Ok(number) = number.parse::<i64>() {
        let micros = match number.unsigned_abs() as i64 {
            ..MILLIS_FROM => number.checked_mul(1_000_000),
            MILLIS_FROM..MICROS_FROM => number.checked_mul(1_000),
            _ => Some(number),
        };
        return within(micros?);
    }
    parse_time(text).or_else(|| {
        let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M"));
        within(time.ok()?.and_utc().timestamp_micros())
    })
}

/// `20190101` and `20190101001830`: as seconds or milliseconds they would lie in 1970, or far in the future.
fn written_together(digits: &str) -> Option<NaiveDateTime> {
    let years = 1900..=2100;
    let time = match digits.len() {
        8 => NaiveDate::parse_from_str(digits, "%Y%m%d").ok()?.and_time(NaiveTime::MIN),
        14 => NaiveDateTime::parse_from_str(digits, "%Y%m%d%H%M%S").ok()?,
        _ => return None,
    };
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_plain && years.contains(&time.year())).then_some(time)
}

fn date_and_time(date: &str, time: &str) -> Option<Micros> {
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let time = NaiveTime::parse_from_str(time, "%H:%M:%S%.f").ok()?;
    within(date.and_time(time).and_utc().timestamp_micros())
}
