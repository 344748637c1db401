//! What was published to `finance.aggregates`, against what PostgreSQL holds.
//!
//! The topic is read to its end before PostgreSQL's snapshot is taken. So a published total is never newer than the
//! snapshot's, and one that is older, or absent, has its change noted there, waiting to be published.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use rdkafka::Message;
use serde_json::Value;

use super::AuditError;
use super::check::parse_units;
use super::log::{LogRange, LogReader};
use super::notebook::Notebook;
use super::report::DifferenceKind;
use super::rows::StoredTotal;
use super::stored::Overview;

/// What the topic says of one total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Latest {
    version: i64,
    fingerprint: u64,
}

/// The last value of each key.
#[derive(Debug, Default)]
pub(super) struct Published {
    totals: HashMap<Box<str>, Latest>,
    /// The highest offset of each partition of the transactions that a value says it includes.
    included: HashMap<i32, i64>,
}

impl Published {
    /// Reads the topic to its end; one that is not there says nothing.
    pub(super) fn read(log: &LogReader, book: &mut Notebook) -> Result<Published, AuditError> {
        let mut published = Published::default();
        for range in log.ranges()? {
            // To the end as it is when it is reached: compaction may take a value away that a later one has replaced.
            log.read(LogRange { end: i64::MAX, ..range }, |message| {
                published.note(message.key(), message.payload(), range.partition, message.offset(), book);
                Ok(())
            })?;
        }
        Ok(published)
    }

    fn note(&mut self, key: Option<&[u8]>, payload: Option<&[u8]>, partition: i32, offset: i64, book: &mut Notebook) {
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        let value: Option<Value> = payload.and_then(|payload| serde_json::from_slice(payload).ok());
        let latest = key.zip(value.as_ref()).and_then(|(key, value)| {
            let version = value.get("version")?.as_i64()?;
            Some((key, Latest { version, fingerprint: fingerprint(tokens(key, value)?.iter().map(String::as_str)) }))
        });
        let Some((key, latest)) = latest else {
            return book.differ(DifferenceKind::WrongPublished, |difference| {
                difference.subject = Some(format!("finance.aggregates partition {partition} offset {offset}"));
                difference.found = Some("no total that can be read".to_owned());
            });
        };
        self.totals.insert(key.into(), latest);
        let offsets = value.as_ref().and_then(|value| value.get("offsets")).and_then(Value::as_object);
        for (partition, offset) in offsets.into_iter().flatten() {
            if let (Ok(partition), Some(offset)) = (partition.parse(), offset.as_i64()) {
                let highest = self.included.entry(partition).or_insert(offset);
                *highest = (*highest).max(offset);
            }
        }
    }

    /// Compares PostgreSQL's totals, each once.
    pub(super) fn compare(&mut self, stored: &[StoredTotal], waiting: &HashSet<String>, book: &mut Notebook) {
        for total in stored {
            book.counts.published_totals += 1;
            let expected = format!("version {}", total.version);
            let waits = waiting.contains(&total.key);
            let (kind, found) = match self.totals.remove(total.key.as_str()) {
                Some(latest) if latest.version == total.version => {
                    if latest.fingerprint == fingerprint(total.fields.split(' ')) {
                        continue;
                    }
                    (DifferenceKind::WrongPublished, format!("version {} with other values", latest.version))
                }
                Some(latest) if latest.version > total.version => {
                    (DifferenceKind::WrongPublished, format!("version {}", latest.version))
                }
                _ if waits => {
                    book.counts.waiting_to_be_published += 1;
                    continue;
                }
                Some(latest) => (DifferenceKind::NotPublished, format!("version {}", latest.version)),
                None => (DifferenceKind::NotPublished, "nothing".to_owned()),
            };
            book.differ(kind, |difference| {
                difference.subject = Some(total.key.clone());
                difference.expected = Some(expected);
                difference.found = Some(found);
            });
        }
    }

    /// What is left was published of totals that PostgreSQL does not have.
    pub(super) fn finish(self, overview: &Overview, book: &mut Notebook) {
        for (key, latest) in self.totals {
            book.differ(DifferenceKind::WrongPublished, |difference| {
                difference.subject = Some(key.into());
                difference.expected = Some("no total".to_owned());
                difference.found = Some(format!("version {}", latest.version));
            });
        }
        for (partition, offset) in self.included {
            let applied = overview.partitions.get(&partition).map_or(0, |state| state.next_offset) - 1;
            if offset > applied {
                book.differ(DifferenceKind::WrongPublished, |difference| {
                    difference.partition = Some(partition);
                    difference.field = Some("offsets");
                    difference.expected = Some(format!("at most {applied}, which PostgreSQL has applied"));
                    difference.found = Some(offset.to_string());
                });
            }
        }
    }
}

const USER: [&str; 8] = ["purchases", "spend", "refunds", "refunded", "trades", "traded", "first_event", "last_event"];
const SYMBOL: [&str; 5] = ["trades", "quantity", "notional", "last_price", "last_event"];
const CATEGORY_WINDOW: [&str; 8] =
    ["purchases", "spend", "purchase_min", "purchase_max", "refunds", "refunded", "late", "late_us_max"];
const SYMBOL_WINDOW: [&str; 9] =
    ["trades", "quantity", "notional", "open", "high", "low", "close", "late", "late_us_max"];

/// The fields of a published value, in the order of `stored`'s queries.
fn tokens(key: &str, value: &Value) -> Option<Vec<String>> {
    let fields = |value: &Value, names: &[&str]| -> Option<Vec<String>> {
        names.iter().map(|name| value.get(name).and_then(token)).collect()
    };
    if key.starts_with("user/") {
        fields(value, &USER)
    } else if key.starts_with("symbol/") {
        let mut currencies: Vec<_> = value.get("totals")?.as_object()?.iter().collect();
        currencies.sort_by_key(|(currency, _)| *currency);
        let mut all = Vec::new();
        for (currency, total) in currencies {
            all.push(currency.clone());
            all.extend(fields(total, &SYMBOL)?);
        }
        Some(all)
    } else if key.starts_with("window/category/") {
        fields(value, &CATEGORY_WINDOW)
    } else if key.starts_with("window/symbol/") {
        fields(value, &SYMBOL_WINDOW)
    } else {
        None
    }
}

/// A count, an amount, a time as microseconds since 1970, or `-` for nothing.
fn token(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("-".to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) if text.ends_with('Z') => {
            Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros().to_string())
        }
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// 2.5 and 2.50 are the same amount.
fn fingerprint<'a>(tokens: impl Iterator<Item = &'a str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for token in tokens {
        match parse_units(token) {
            Some(units) => units.hash(&mut hasher),
            None => token.hash(&mut hasher),
        }
    }
    hasher.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn user(version: i64, spend: &str) -> String {
        serde_json::json!({
            "purchases": 2, "spend": spend, "refunds": 0, "refunded": "0", "trades": 0, "traded": "0",
            "first_event": "1970-01-01T00:00:01.000000Z", "last_event": "1970-01-01T00:00:02.000001Z",
            "version": version, "offsets": {"0": 41}
        })
        .to_string()
    }

    fn stored(version: i64) -> StoredTotal {
        StoredTotal { key: "user/ann/USD".to_owned(), version, fields: "2 2.5 0 0 0 0 1000000 2000001".to_owned() }
    }

    fn differences(published: &[String], stored_version: i64, waits: bool, applied: i64) -> Vec<DifferenceKind> {
        let (mut all, mut book) = (Published::default(), Notebook::default());
        for value in published {
            all.note(Some(b"user/ann/USD"), Some(value.as_bytes()), 0, 0, &mut book);
        }
        let waiting = waits.then(|| "user/ann/USD".to_owned()).into_iter().collect();
        all.compare(&[stored(stored_version)], &waiting, &mut book);
        let mut overview = Overview::default();
        overview.partitions.entry(0).or_default().next_offset = applied + 1;
        all.finish(&overview, &mut book);
        book.differences.iter().map(|difference| difference.kind).collect()
    }

    #[test]
    fn the_last_value_of_a_key_must_be_what_postgresql_holds_or_wait_to_be_published() {
        use DifferenceKind::{NotPublished, WrongPublished};
        let (old, new) = (user(3, "1"), user(4, "2.50"));
        assert_eq!(differences(&[old.clone(), new.clone()], 4, false, 41), []);
        assert_eq!(differences(&[user(4, "2.51")], 4, false, 41), [WrongPublished]);
        assert_eq!(differences(std::slice::from_ref(&old), 4, true, 41), []);
        assert_eq!(differences(&[old], 4, false, 41), [NotPublished]);
        assert_eq!(differences(&[], 4, true, 41), []);
        assert_eq!(differences(&[], 4, false, 41), [NotPublished]);
        assert_eq!(differences(std::slice::from_ref(&new), 3, true, 41), [WrongPublished]);
        assert_eq!(differences(&[new], 4, false, 40), [WrongPublished]);
        assert_eq!(differences(&["{}".to_owned()], 4, true, 41), [WrongPublished]);
    }
}
