//! The last step: every intent is settled from what log and PostgreSQL have shown.

use std::collections::HashMap;

use super::books::{ACKNOWLEDGED, Books, DEAD_LETTER, IN_LOG, IN_LOG_TWICE, INTENDED, ROW, ROW_TWICE, Run, SKIPPED};
use super::notebook::Notebook;
use super::report::{Difference, DifferenceKind};
use super::stored::Overview;
use crate::transaction::RunId;

/// Anything that shows that a message is there.
const FOUND: u8 = IN_LOG | ROW | DEAD_LETTER;

pub(super) fn run(books: &mut Books, book: &mut Notebook, overview: &Overview) {
    for run in books.runs.iter_mut().filter(|run| run.ledger.is_some()) {
        book.counts.acknowledged += run.came_and_answered();
        let absent = settle(run, book) + run.missing_since();
        if absent > 0 {
            name_absent(run, absent, book, overview);
        }
    }
    if book.counts.not_yet_applied > 0 {
        book.undecided.push(format!(
            "not yet applied: {} messages; start a consumer (finstream --role consumer), then verify again",
            book.counts.not_yet_applied
        ));
    }
    if books.other_topics > 0 {
        book.notes
            .push(format!("{} run(s) in the ledgers wrote to another topic and are not judged", books.other_topics));
    }
    describe(books, book);
}

/// Settles the messages of a run; returns how many were acknowledged and are nowhere.
fn settle(run: &Run, book: &mut Notebook) -> u64 {
    let mut absent = 0;
    for (sequence, marks) in run.marks.iter().copied().enumerate() {
        if marks & ROW_TWICE != 0 && marks & IN_LOG_TWICE == 0 {
            book.differ(DifferenceKind::CountedTwice, |difference| name(difference, run.id, run.sequence_at(sequence)));
        }
        match (marks & ACKNOWLEDGED != 0, marks & FOUND != 0) {
            (true, false) => absent += 1,
            (false, true) if marks & INTENDED != 0 => book.counts.unknown_stored += 1,
            (false, false) if marks & INTENDED != 0 && run.live => book.counts.in_flight += 1,
            (false, false) if marks & INTENDED != 0 => book.counts.unknown_not_stored += 1,
            _ => {}
        }
    }
    absent
}

/// What was acknowledged and is nowhere: skipped on record, out of sight, or lost.
fn name_absent(run: &mut Run, absent: u64, book: &mut Notebook, overview: &Overview) {
    if run.elsewhere {
        book.undecided.push(format!(
            "{absent} messages of run {} were acknowledged by another cluster and have no rows; audit them with that cluster (--brokers)",
            run.id
        ));
        return;
    }
    // The last place of each holds, so all are collected before any is judged; bounded by what is absent.
    let mut places: HashMap<i64, (i32, i64)> = HashMap::new();
    run.acknowledged_places(|sequence, partition, offset| {
        if run.is_missing(sequence) {
            places.insert(sequence, (partition, offset));
        }
    });
    let mut places: Vec<_> = places.into_iter().collect();
    places.sort_unstable();
    for (sequence, (partition, offset)) in places {
        let skipped = overview
            .partitions
            .get(&partition)
            .is_some_and(|state| state.skipped.iter().any(|(from, to)| (*from..*to).contains(&offset)));
        if skipped {
            book.counts.skipped += 1;
            if let Some(place) = run.place_of(sequence)
                && let Some(marks) = run.marks.get_mut(place)
            {
                *marks |= SKIPPED;
            }
            continue;
        }
        book.differ(DifferenceKind::Lost, |difference| {
            name(difference, run.id, sequence);
            difference.partition = Some(partition);
            difference.offset = Some(offset);
        });
    }
}

fn name(difference: &mut Difference, run: RunId, sequence: i64) {
    difference.run = Some(run);
    difference.sequence = Some(sequence);
}

/// Adds to each named message what its ledger says: whose money it is. One more pass over the ledgers concerned.
fn describe(books: &Books, book: &mut Notebook) {
    let mut wanted: HashMap<RunId, HashMap<i64, Vec<usize>>> = HashMap::new();
    for (index, difference) in book.differences.iter().enumerate() {
        if let (Some(run), Some(sequence)) = (difference.run, difference.sequence) {
            wanted.entry(run).or_default().entry(sequence).or_default().push(index);
        }
    }
    for run in &books.runs {
        let (Some(dir), Some(sequences)) = (&run.ledger, wanted.get(&run.id)) else { continue };
        Run::describe(dir, run.id, |intent| {
            for index in sequences.get(&intent.sequence).into_iter().flatten() {
                let difference = &mut book.differences[*index];
                let intended = format!("{} {} {}", intent.user_id, intent.amount, intent.currency);
                if difference.kind == DifferenceKind::WrongAmount {
                    difference.expected = Some(intended);
                } else {
                    difference.subject = Some(intended);
                }
            }
        });
    }
}
