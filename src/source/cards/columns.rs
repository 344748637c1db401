//! Which columns of a card file hold what.
//!
//! Two layouts are known by their headers: Kaggle's (commas, an unnamed first column, `trans_date_trans_time`), and that of
//! Sparkov's generator itself (bars, `trans_date` and `trans_time`). Any other file needs `--map`.

use std::path::Path;

use super::lines::Cells;
use crate::source::SourceError;
use crate::source::files::shorten;

/// The fields that a column can be given for; the first three are needed.
const FIELDS: [&str; 8] = ["user", "amount", "time", "merchant", "category", "id", "currency", "fraud"];
/// Characters of a header that an error repeats.
const SHOWN_CHARS_MAX: usize = 120;

/// Places of the columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) user: usize,
    pub(super) amount: usize,
    /// The time, or a date.
    pub(super) time: usize,
    /// The time of day, where it has a column of its own.
    pub(super) time_of_day: Option<usize>,
    pub(super) merchant: Option<usize>,
    pub(super) category: Option<usize>,
    pub(super) id: Option<usize>,
    pub(super) currency: Option<usize>,
    pub(super) fraud: Option<usize>,
}

/// The byte between two cells: the one of `,|;` and tab that the header has most of.
pub(super) fn delimiter(header: &[u8]) -> u8 {
    let count = |delimiter: u8| header.iter().filter(|byte| **byte == delimiter).count();
    // The first of equals: a comma where there is none of all.
    b"|;\t,".iter().copied().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}

/// Finds the columns by `map` (field, column), or by the header alone.
pub(super) fn find(path: &Path, header: Cells<'_>, map: &[(String, String)]) -> Result<Columns, SourceError> {
    let names: Vec<String> = header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    let refuse = |found: String| SourceError::UnknownColumns { path: path.to_path_buf(), found };
    let place = |name: &str| names.iter().position(|found| found == name);
    if map.is_empty() {
        let known = |time: &str, time_of_day: Option<&str>| {
            let time_of_day = match time_of_day {
                Some(name) => Some(place(name)?),
                None => None,
            };
            Some(Columns {
                user: place("cc_num")?,
                amount: place("amt")?,
                time: place(time)?,
                time_of_day,
                merchant: Some(place("merchant")?),
                category: Some(place("category")?),
                id: Some(place("trans_num")?),
                currency: None,
                fraud: place("is_fraud"),
            })
        };
        return known("trans_date_trans_time", None)
            .or_else(|| known("trans_date", Some("trans_time")))
            .ok_or_else(|| refuse(format!("its header is {:?}", shorten(&names.join(","), SHOWN_CHARS_MAX))));
    }
    let column = |field: &str| match map.iter().find(|(known, _)| known == field) {
        None => Ok(None),
        Some((_, name)) => place(name).map(Some).ok_or_else(|| {
            refuse(format!(
                "it has no column {name:?} for {field}; it has {}",
                shorten(&names.join(", "), SHOWN_CHARS_MAX)
            ))
        }),
    };
    if let Some((field, _)) = map.iter().find(|(field, _)| !FIELDS.contains(&field.as_str())) {
        return Err(SourceError::Setting(format!("--map {field}=…: the fields are {}", FIELDS.join(", "))));
    }
    if let Some((place, (field, _))) =
        map.iter().enumerate().find(|(at, (field, _))| map[..*at].iter().any(|(before, _)| before == field))
    {
        return Err(SourceError::Setting(format!("--map names {field} again in place {}", place + 1)));
    }
    let needed = |field: &str| {
        column(field)?.ok_or_else(|| SourceError::Setting(format!("--map needs a column for {field}: {field}=COLUMN")))
    };
    Ok(Columns {
        user: needed("user")?,
        amount: needed("amount")?,
        time: needed("time")?,
        time_of_day: None,
        merchant: column("merchant")?,
        category: column("category")?,
        id: column("id")?,
        currency: column("currency")?,
        fraud: column("fraud")?,
    })
}
