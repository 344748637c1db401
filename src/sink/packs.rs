//! Messages packed into arrays: one row of `message_packs` a batch and partition, where their numbers fit.
//!
//! Each element is a distance from the pack's first value in four bytes: what lies farther away begins a pack of its own.

use super::copy::{CopyBytes, Row};
use crate::clock::Micros;

const COPY_PACKS: &str = "copy message_packs (topic_ref, partition, first_offset, last_offset, messages, run_ref, \
                          first_sequence, scheduled_at, sent_at, received_at, processed_at, offsets, run_refs, sequences, \
                          transaction_ids, scheduled_us, sent_us, received_us) from stdin with (format binary)";
const COLUMNS: i16 = 18;
/// Distance between the first and the last offset, at most: the table's check constraint.
pub(super) const SPAN_MAX: i64 = 65_535;
const INT4: i32 = 23;
const TEXT: i32 = 25;

/// Packs on their way to PostgreSQL.
#[derive(Debug, Default)]
pub(super) struct CopyPacks<'a> {
    out: Option<CopyBytes>,
    rows: u64,
    stamps: Vec<usize>,
    open: Vec<Row<'a>>,
    base: Base,
}

/// What the distances of the open pack are counted from: the first value that is there.
#[derive(Clone, Copy, Debug, Default)]
struct Base {
    sequence: Option<i64>,
    scheduled_at: Option<i64>,
    sent_at: Option<i64>,
    received_at: Option<i64>,
}

impl Base {
    fn of(self, row: &Row<'_>) -> Base {
        Base {
            sequence: self.sequence.or(row.sequence),
            scheduled_at: self.scheduled_at.or(row.scheduled_at.map(|time| time.0)),
            sent_at: self.sent_at.or(row.sent_at.map(|time| time.0)),
            received_at: self.received_at.or(Some(row.received_at.0)),
        }
    }

    /// Whether every distance of this row fits.
    fn reaches(self, row: &Row<'_>) -> bool {
        let fits = |base: Option<i64>, value: Option<i64>| {
            value.is_none_or(|value| base.is_none_or(|base| distance(base, value).is_some()))
        };
        fits(self.sequence, row.sequence)
            && fits(self.scheduled_at, row.scheduled_at.map(|time| time.0))
            && fits(self.sent_at, row.sent_at.map(|time| time.0))
            && fits(self.received_at, Some(row.received_at.0))
    }
}

impl<'a> CopyPacks<'a> {
    pub(super) fn push(&mut self, row: Row<'a>) {
        let fits = self.open.first().is_none_or(|first| {
            first.partition == row.partition && row.offset - first.offset <= SPAN_MAX && self.base.reaches(&row)
        });
        if !fits {
            self.close();
        }
        self.base = self.base.of(&row);
        self.open.push(row);
    }

    /// Statement, rows, stream, and where the times of processing belong in it.
    pub(super) fn finish(mut self) -> (&'static str, u64, Vec<u8>, Vec<usize>) {
        self.close();
        let bytes = self.out.map(CopyBytes::finish).unwrap_or_default();
        (COPY_PACKS, self.rows, bytes, self.stamps)
    }

    fn close(&mut self) {
        let (rows, base) = (std::mem::take(&mut self.open), std::mem::take(&mut self.base));
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        let out = self.out.get_or_insert_with(|| CopyBytes::with_capacity(rows.len() * 5 * 8 + 512));
        self.rows += 1;
        let one_run = rows.iter().all(|row| row.run_ref == first.run_ref);
        let has_gaps = last.offset - first.offset + 1 != rows.len() as i64;
        out.columns(COLUMNS);
        out.int4(Some(first.topic_ref));
        out.int4(Some(first.partition));
        out.int8(Some(first.offset));
        out.int8(Some(last.offset));
        out.int4(Some(rows.len() as i32));
        out.int4(first.run_ref.filter(|_| one_run));
        out.int8(base.sequence);
        out.time(base.scheduled_at.map(Micros));
        out.time(base.sent_at.map(Micros));
        out.time(base.received_at.map(Micros));
        // The time of processing comes when the rest is done.
        out.int8(Some(0));
        self.stamps.push(out.len() - 8);
        let place = |row: &Row<'_>| distance(first.offset, row.offset);
        integers(out, &rows, |row| has_gaps.then(|| place(row)).flatten());
        integers(out, &rows, |row| row.run_ref.filter(|_| !one_run));
        integers(out, &rows, |row| between(base.sequence, row.sequence));
        texts(out, &rows);
        integers(out, &rows, |row| between(base.scheduled_at, row.scheduled_at.map(|time| time.0)));
        integers(out, &rows, |row| between(base.sent_at, row.sent_at.map(|time| time.0)));
        integers(out, &rows, |row| between(base.received_at, Some(row.received_at.0)));
    }
}

/// One element a row; null instead of an array of nulls.
fn integers(out: &mut CopyBytes, rows: &[Row<'_>], value: impl Fn(&Row<'_>) -> Option<i32>) {
    let elements: Vec<Option<i32>> = rows.iter().map(value).collect();
    match elements.iter().all(Option::is_none) {
        true => out.null(),
        false => out.array(INT4, &elements, |out, element| out.int4(Some(element))),
    }
}

fn texts(out: &mut CopyBytes, rows: &[Row<'_>]) {
    let elements: Vec<Option<&str>> = rows.iter().map(|row| row.transaction_id).collect();
    match elements.iter().all(Option::is_none) {
        true => out.null(),
        false => out.array(TEXT, &elements, |out, element| out.text(Some(element))),
    }
}

fn between(base: Option<i64>, value: Option<i64>) -> Option<i32> {
    distance(base?, value?)
}

fn distance(base: i64, value: i64) -> Option<i32> {
    value.checked_sub(base).and_then(|distance| i32::try_from(distance).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(offset: i64) -> Row<'static> {
        Row {
            offset,
            sequence: Some(offset * 3),
            scheduled_at: Some(Micros(offset)),
            sent_at: None,
            received_at: Micros(offset + 10),
            topic_ref: 1,
            partition: 0,
            run_ref: Some(1),
            transaction_id: None,
        }
    }

    fn packs_of(rows: &[Row<'static>]) -> u64 {
        let mut packs = CopyPacks::default();
        rows.iter().for_each(|row| packs.push(*row));
        packs.finish().1
    }

    #[test]
    fn what_does_not_fit_into_a_pack_begins_the_next() {
        assert_eq!(packs_of(&[]), 0);
        assert_eq!(packs_of(&[row(0), row(1), row(SPAN_MAX)]), 1);
        assert_eq!(packs_of(&[row(0), row(1), row(SPAN_MAX + 1)]), 2);
        assert_eq!(packs_of(&[row(0), Row { partition: 1, ..row(1) }, Row { partition: 1, ..row(2) }]), 2);
        let far = i64::from(i32::MAX);
        for (distance, packs) in [(far, 1), (far + 1, 2), (i64::MAX - 20, 2), (-far - 1, 1), (-far - 2, 2)] {
            assert_eq!(packs_of(&[row(0), Row { scheduled_at: Some(Micros(distance)), ..row(1) }]), packs);
            assert_eq!(packs_of(&[row(0), Row { sequence: Some(distance), ..row(1) }]), packs);
            let first = Row { scheduled_at: None, ..row(0) };
            assert_eq!(packs_of(&[first, Row { scheduled_at: Some(Micros(distance)), ..row(1) }]), 1);
        }
    }
}
