//! What was published to `finance.aggregates`, against what PostgreSQL holds.
//!
//! The topic is read to its end before PostgreSQL's snapshot is taken. So a published total is never newer than the
//! snapshot's, and one that is older, or absent, has its change noted there, waiting to be published.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use rdkafka::Message;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::AuditError;
use super::check::parse_units;
use super::log::{LogRange, LogReader};
use super::notebook::Notebook;
use super::report::DifferenceKind;
use super::rows::StoredTotal;
use super::stored::Overview;
use crate::transaction::parse_rfc3339;

/// Members that a published value has, about.
const MEMBERS_USUAL: usize = 16;

/// What the topic says of one total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Latest {
    version: i64,
    fingerprint: u64,
}

/// The values of each key.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Whose values count.
    identity: Identity,
    /// The last ones before the snapshot.
    totals: HashMap<Box<str>, Latest>,
    /// Those that came since.
    since: HashMap<Box<str>, Vec<Latest>>,
    /// Keys whose last value is of other books, that are published to the same topic.
    of_others: HashSet<Box<str>>,
    /// The highest offset of each partition of the transactions that a value says it includes.
    included: HashMap<i32, i64>,
    /// How far each partition of the topic was read.
    read_to: HashMap<i32, i64>,
    has_snapshot: bool,
}

/// Whose books are audited.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// `schema_owner.books_id`; none where no consumer was yet.
    pub books_id: Option<String>,
    /// The current life of the topic.
    pub topic_ref: Option<i32>,
}

impl Published {
    pub(super) fn of(identity: Identity) -> Published {
        Published { identity, ..Published::default() }
    }

    /// Reads the topic to its end; one that is not there says nothing. Before the snapshot, and once more after it: what
    /// was published in between, and settled, is neither old nor waiting.
    pub(super) fn read(&mut self, log: &LogReader, book: &mut Notebook) -> Result<(), AuditError> {
        for range in log.ranges()? {
            let start = self.read_to.get(&range.partition).copied().unwrap_or(range.start).max(range.start);
            // To the end as it is when it is reached: compaction may take a value away that a later one has replaced.
            log.read(LogRange { start, end: i64::MAX, ..range }, |message| {
                self.read_to.insert(range.partition, message.offset() + 1);
                self.note(message.key(), message.payload(), range.partition, message.offset(), book);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What is read from now on may be newer than the snapshot.
    pub(super) fn snapshot_is_taken(&mut self) {
        self.has_snapshot = true;
    }

    fn note(&mut self, key: Option<&[u8]>, payload: Option<&[u8]>, partition: i32, offset: i64, book: &mut Notebook) {
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        let value: Option<Members<'_>> = payload.and_then(|payload| serde_json::from_slice(payload).ok());
        let latest = key.zip(value.as_ref()).and_then(|(key, value)| {
            let version = value.get("version")?.get().parse().ok()?;
            Some((key, value, Latest { version, fingerprint: fingerprint_of(key, value)? }))
        });
        let Some((key, value, latest)) = latest else {
            return book.differ(DifferenceKind::WrongPublished, |difference| {
                difference.subject = Some(format!("finance.aggregates partition {partition} offset {offset}"));
                difference.found = Some("no total that can be read".to_owned());
            });
        };
        let books = value.get("books").and_then(text);
        if books.is_some() && books.as_deref() != self.identity.books_id.as_deref() {
            self.of_others.insert(key.into());
            return;
        }
        self.of_others.remove(key);
        if self.has_snapshot {
            self.since.entry(key.into()).or_default().push(latest);
            return;
        }
        match self.totals.get_mut(key) {
            Some(known) => *known = latest,
            None => drop(self.totals.insert(key.into(), latest)),
        }
        let stream = value.get("stream").and_then(|stream| stream.get().parse().ok());
        if stream != self.identity.topic_ref {
            // Its offsets are those of an earlier life.
            return;
        }
        for (partition, offset) in value.get("offsets").and_then(members).into_iter().flat_map(|offsets| offsets.0) {
            if let (Ok(partition), Ok(offset)) = (partition.parse(), offset.get().parse()) {
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
            let since = self.since.remove(total.key.as_str()).unwrap_or_default();
            let before = self.totals.remove(total.key.as_str());
            if self.of_others.contains(total.key.as_str()) || since.iter().any(|later| later.version > total.version) {
                continue;
            }
            let (kind, found) = match since.into_iter().rfind(|later| later.version == total.version).or(before) {
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
        if !self.of_others.is_empty() {
            book.notes.push(format!(
                "{} keys of finance.aggregates hold totals of other books, which are published to the same topic: only what \
                 is of these books was compared (give each --db-schema a --topic-prefix of its own)",
                self.of_others.len()
            ));
        }
        for (key, latest) in self.totals.into_iter().filter(|(key, _)| !self.of_others.contains(key)) {
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

/// The members of an object as they stand, in their order: nothing is copied, for an audit reads millions of them.
#[derive(Default)]
struct Members<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(MEMBERS_USUAL);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

fn members(value: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(value.get()).ok()
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let plain = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if plain.contains('\\') {
        serde_json::from_str(value.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(plain))
    }
}

/// Of the fields of a published value, in the order of `stored`'s queries.
fn fingerprint_of(key: &str, value: &Members<'_>) -> Option<u64> {
    let mut fingerprint = Fingerprint::default();
    if key.starts_with("user/") {
        fingerprint.add_all(value, &USER)?;
        // What was published before there were any has none.
        fingerprint.add(&value.get("declines").map_or(Some(Cow::Borrowed("0")), token)?);
    } else if key.starts_with("symbol/") {
        let mut currencies = members(value.get("totals")?)?.0;
        currencies.sort_by_key(|(currency, _)| *currency);
        for (currency, total) in currencies {
            fingerprint.add(currency);
            fingerprint.add_all(&members(total)?, &SYMBOL)?;
        }
    } else if key.starts_with("window/category/") {
        fingerprint.add_all(value, &CATEGORY_WINDOW)?;
    } else if key.starts_with("window/symbol/") {
        fingerprint.add_all(value, &SYMBOL_WINDOW)?;
    } else {
        return None;
    }
    Some(fingerprint.0.finish())
}

/// A count, an amount, a time as microseconds since 1970, or `-` for nothing.
fn token(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().as_bytes().first()? {
        b'n' => Some(Cow::Borrowed("-")),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value.get())),
        b'"' => {
            let text = text(value)?;
            let is_time = text.ends_with('Z');
            if is_time { Some(Cow::Owned(parse_rfc3339(&text)?.0.to_string())) } else { Some(text) }
        }
        _ => None,
    }
}

/// A hash of fields in their order.
#[derive(Default)]
struct Fingerprint(DefaultHasher);

impl Fingerprint {
    /// 2.5 and 2.50 are the same amount.
    fn add(&mut self, token: &str) {
        match parse_units(token) {
            Some(units) => units.hash(&mut self.0),
            None => token.hash(&mut self.0),
        }
    }

    fn add_all(&mut self, value: &Members<'_>, names: &[&str]) -> Option<()> {
        names.iter().try_for_each(|name| value.get(name).and_then(token).map(|token| self.add(&token)))
    }
}

/// Of a total of PostgreSQL's.
fn fingerprint<'a>(tokens: impl Iterator<Item = &'a str>) -> u64 {
    let mut fingerprint = Fingerprint::default();
    tokens.for_each(|token| fingerprint.add(token));
    fingerprint.0.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Stands for the moment of the snapshot.
    const SNAPSHOT: &str = "snapshot";

    fn user(version: i64, spend: &str) -> String {
        serde_json::json!({
            "purchases": 2, "spend": spend, "refunds": 0, "refunded": "0", "trades": 0, "traded": "0",
            "first_event": "1970-01-01T00:00:01.000000Z", "last_event": "1970-01-01T00:00:02.000001Z",
            "books": "ours", "stream": 1, "version": version, "offsets": {"0": 41}
        })
        .to_string()
    }

    fn stored(version: i64) -> StoredTotal {
        StoredTotal { key: "user/ann/USD".to_owned(), version, fields: "2 2.5 0 0 0 0 1000000 2000001 0".to_owned() }
    }

    fn differences(published: &[String], stored_version: i64, waits: bool, applied: i64) -> Vec<DifferenceKind> {
        let identity = Identity { books_id: Some("ours".to_owned()), topic_ref: Some(1) };
        let (mut all, mut book) = (Published::of(identity), Notebook::default());
        for value in published {
            if value == SNAPSHOT {
                all.snapshot_is_taken();
                continue;
            }
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

    #[test]
    fn what_is_published_and_settled_around_the_snapshot_is_no_difference() {
        use DifferenceKind::{NotPublished, WrongPublished};
        let snapshot = SNAPSHOT.to_owned();
        let round = |later: String| differences(&[user(3, "1"), snapshot.clone(), later], 4, false, 41);
        assert_eq!(round(user(4, "2.5")), []);
        assert_eq!(round(user(4, "2.6")), [WrongPublished]);
        assert_eq!(round(user(7, "9")), []);
        assert_eq!(round(user(3, "1")), [NotPublished]);
        // A key that is new since.
        assert_eq!(differences(&[snapshot, user(4, "2.5")], 4, false, 41), []);
    }

    #[test]
    fn totals_of_other_books_and_offsets_of_other_lives_are_not_compared() {
        let others = user(9, "7").replace("ours", "others");
        assert_eq!(differences(&[others], 4, false, 41), []);
        let earlier = user(4, "2.5").replace("\"stream\":1", "\"stream\":0");
        assert_eq!(differences(&[earlier], 4, false, 3), []);
    }
}
