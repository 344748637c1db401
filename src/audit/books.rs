//! What is known of each message by (run, sequence): a byte of marks and a hash of what was to be sent.
//!
//! A byte a message of a ledger, eight more while the log can still show it, about a bit a message of a foreign run: the
//! log's limits bound the larger part, the ledgers' age the smaller one.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;

use super::AuditError;
use super::answers::Unanswered;
use super::checkpoint::RunMark;
use super::digest::Digests;
use super::notebook::Notebook;
use super::ranges::{merged, push_range};
use crate::ledger::{Intent, LedgerError, LedgerReader, Outcome};
use crate::transaction::{Currency, MessageId, RunId};

/// The ledger meant to send it.
pub(super) const INTENDED: u8 = 1;
/// The last word of the broker was yes.
pub(super) const ACKNOWLEDGED: u8 = 2;
/// In the log.
pub(super) const IN_LOG: u8 = 4;
/// In the log again.
pub(super) const IN_LOG_TWICE: u8 = 8;
/// A row.
pub(super) const ROW: u8 = 16;
/// Another row.
pub(super) const ROW_TWICE: u8 = 32;
/// A dead letter.
pub(super) const DEAD_LETTER: u8 = 64;
/// In a range that a person agreed to skip.
pub(super) const SKIPPED: u8 = 128;

/// A ledger's sequences have no gaps; a jump beyond this is no ledger of ours and must not take the memory.
const SEQUENCE_JUMP_MAX: usize = 1 << 26;
/// Sequences of one page of a foreign run.
const PAGE_BITS: u32 = 12;
/// Pages of foreign runs, at most (512 MiB): beyond that their doubles are not looked for.
const PAGES_MAX: usize = 1 << 19;

/// Everything known of one run.
#[derive(Debug)]
pub(super) struct Run {
    pub id: RunId,
    /// Where its ledger is; None for a foreign run.
    pub ledger: Option<PathBuf>,
    /// A producer writes it at this moment.
    pub live: bool,
    /// The cluster that it wrote to, where that has a name.
    wrote_to: Option<String>,
    /// It wrote to another cluster than the one that is read.
    pub elsewhere: bool,
    /// The ledger could be read in part only: absences prove nothing.
    pub damaged: bool,
    /// What a checkpoint has settled.
    pub carried: RunMark,
    /// Of what is settled: those whose answer no audit has read.
    unanswered: Unanswered,
    /// Of what a checkpoint found nowhere: those that came after all, and those whose producer was told yes since.
    came: BTreeSet<i64>,
    answered_absent: BTreeSet<i64>,
    /// By sequence, from `carried.settled_below()` on.
    pub marks: Vec<u8>,
    /// A hash of user, currency and amount, by sequence from `intents_from` on: of what the log can still show.
    intents: Vec<u64>,
    intents_from: usize,
    /// The first sequence that was acknowledged at a place that the log still holds.
    visible_from: i64,
    /// Of a foreign run: which sequences the log has shown.
    pages: HashMap<i64, Box<[u64; 64]>>,
}

/// All runs.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub runs: Vec<Run>,
    index: HashMap<RunId, u32>,
    /// The run that was asked for last: messages of a run come one after the other.
    last: Option<(RunId, u32)>,
    digests: Digests,
    pages: usize,
    /// Runs of a ledger that wrote to another topic.
    pub other_topics: u64,
    /// What the checkpoint says of runs that were not met yet.
    carried: HashMap<RunId, RunMark>,
}

/// How a log record compares with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// The ledger knows it, and this is its first copy.
    First,
    /// A copy was seen before.
    Again,
    /// The ledger of its run never meant to send it.
    Unintended,
}

impl Books {
    /// Books that go on where a checkpoint ends.
    pub(super) fn after(carried: Vec<RunMark>) -> Books {
        Books { carried: carried.into_iter().map(|mark| (mark.run, mark)).collect(), ..Books::default() }
    }

    /// Step one: what producers were told, before the log's end is looked at.
    pub(super) fn read_outcomes(
        &mut self,
        dirs: &[PathBuf],
        topic: &str,
        log_starts: &HashMap<i32, i64>,
        book: &mut Notebook,
    ) -> Result<(), AuditError> {
        for dir in dirs {
            let reader = LedgerReader::new(dir);
            for record in reader.runs()? {
                if record.topic != topic {
                    self.other_topics += 1;
                    continue;
                }
                let place = self.place(record.run);
                let run = &mut self.runs[place as usize];
                run.belongs_to(dir, record.cluster_id, reader.is_being_written(record.run));
                let read = reader.read_outcomes(record.run, |outcome| run.told(outcome, log_starts));
                run.survive(read, book)?;
            }
        }
        Ok(())
    }

    /// Step four: what producers meant to send, after it is known how far the log is read.
    pub(super) fn read_intents(
        &mut self,
        dirs: &[PathBuf],
        topic: &str,
        cluster_id: Option<&str>,
        book: &mut Notebook,
    ) -> Result<(), AuditError> {
        // Runs that began since.
        for dir in dirs {
            let reader = LedgerReader::new(dir);
            for record in reader.runs()?.into_iter().filter(|record| record.topic == topic) {
                let place = self.place(record.run);
                let run = &mut self.runs[place as usize];
                if run.ledger.is_none() {
                    // Its outcomes were not read: whatever is not found of it may be on its way.
                    run.belongs_to(dir, record.cluster_id, true);
                }
            }
        }
        for run in &mut self.runs {
            let Some(dir) = run.ledger.clone() else { continue };
            run.elsewhere = run.wrote_to.is_some() && cluster_id.is_some() && run.wrote_to.as_deref() != cluster_id;
            if run.elsewhere {
                // Its offsets are another log's.
                run.visible_from = 0;
            }
            let digests = &self.digests;
            let read = LedgerReader::new(&dir).read_intents(run.id, |intent| run.meant(&intent, digests));
            run.survive(read, book)?;
            book.counts.intended += run.carried.settled_below() as u64;
            book.counts.acknowledged += run.carried.acknowledged + run.unanswered.answered;
            book.counts.intended += run.marks.iter().filter(|marks| **marks & INTENDED != 0).count() as u64;
            book.counts.acknowledged += run.marks.iter().filter(|marks| **marks & ACKNOWLEDGED != 0).count() as u64;
        }
        Ok(())
    }

    /// What the next checkpoint says of all runs, also of those that nothing was seen of.
    pub(super) fn settled(&self) -> Vec<RunMark> {
        let mut marks: Vec<RunMark> = self.runs.iter().map(Run::settled).collect();
        marks.extend(self.carried.values().cloned());
        marks.sort_unstable_by_key(|mark| mark.run);
        marks
    }

    /// The number of a run; a new one is foreign.
    pub(super) fn place(&mut self, id: RunId) -> u32 {
        if let Some((_, place)) = self.last.filter(|(last, _)| *last == id) {
            return place;
        }
        if let Some(place) = self.index.get(&id).copied() {
            self.last = Some((id, place));
            return place;
        }
        let place = self.runs.len() as u32;
        let carried = self.carried.remove(&id).unwrap_or_else(|| RunMark::of(id));
        self.runs.push(Run {
            unanswered: Unanswered::new(&carried.unanswered),
            came: BTreeSet::new(),
            answered_absent: BTreeSet::new(),
            carried,
            id,
            ledger: None,
            live: false,
            wrote_to: None,
            elsewhere: false,
            damaged: false,
            marks: Vec::new(),
            intents: Vec::new(),
            intents_from: 0,
            visible_from: i64::MAX,
            pages: HashMap::new(),
        });
        self.index.insert(id, place);
        place
    }

    /// Notes that the log holds a message.
    pub(super) fn see_in_log(&mut self, place: u32, sequence: i64, book: &mut Notebook) -> Sighting {
        let run = &mut self.runs[place as usize];
        if run.carried.absent.remove(&sequence) {
            // It has come after all: nobody's fault, once.
            run.came.insert(sequence);
            book.counts.unknown_stored += 1;
            return Sighting::First;
        }
        if run.carried.contains(sequence) {
            return Sighting::Again;
        }
        if run.ledger.is_none() {
            return self.see_foreign(place, sequence, book);
        }
        match run.mark(sequence) {
            Some(marks) => {
                let seen = *marks;
                *marks |= if seen & IN_LOG == 0 { IN_LOG } else { IN_LOG_TWICE };
                match seen {
                    _ if seen & IN_LOG != 0 => Sighting::Again,
                    _ if seen & (INTENDED | ACKNOWLEDGED) == 0 => Sighting::Unintended,
                    _ => Sighting::First,
                }
            }
            None => Sighting::Unintended,
        }
    }

    fn see_foreign(&mut self, place: u32, sequence: i64, book: &mut Notebook) -> Sighting {
        let (page, bit) = (sequence >> PAGE_BITS, (sequence & ((1 << PAGE_BITS) - 1)) as usize);
        let pages = &mut self.runs[place as usize].pages;
        if !pages.contains_key(&page) {
            if self.pages == PAGES_MAX {
                return Sighting::First;
            }
            self.pages += 1;
            if self.pages == PAGES_MAX {
                book.notes.push("too many foreign messages to look for doubles in all of them".to_owned());
            }
        }
        let word = &mut pages.entry(page).or_insert_with(|| Box::new([0; 64]))[bit / 64];
        let mask = 1u64 << (bit % 64);
        let seen = *word & mask != 0;
        *word |= mask;
        if seen { Sighting::Again } else { Sighting::First }
    }

    /// Whether the ledger meant to send exactly this; None where it cannot tell.
    pub(super) fn agrees(&self, id: (u32, i64), user_id: &str, currency: Currency, amount: Decimal) -> Option<bool> {
        let run = &self.runs[id.0 as usize];
        let sequence = usize::try_from(id.1.checked_sub(run.carried.settled_below())?).ok()?;
        let intended = run.marks.get(sequence)? & INTENDED != 0;
        let intent = run.intents.get(sequence.checked_sub(run.intents_from)?)?;
        intended.then(|| *intent == self.digests.of(user_id, currency, amount))
    }

    /// Adds marks to a message of a ledger; foreign ones have none.
    pub(super) fn mark(&mut self, place: u32, sequence: i64, mark: u8) {
        let run = &mut self.runs[place as usize];
        if run.ledger.is_none() {
            return;
        }
        if let Some(marks) = run.mark(sequence) {
            *marks |= if mark == ROW && *marks & ROW != 0 { ROW_TWICE } else { mark };
        } else if run.carried.absent.contains(&sequence) {
            // A row shows it also where the log has been cut since.
            run.came.insert(sequence);
        }
    }

    /// Whether a message has a row or a dead letter; of a foreign one that cannot be said here, so yes.
    pub(super) fn is_stored(&self, place: u32, sequence: i64) -> bool {
        let run = &self.runs[place as usize];
        let marks = run.place_of(sequence).and_then(|place| run.marks.get(place));
        run.ledger.is_none()
            || run.carried.contains(sequence)
            || marks.is_some_and(|marks| marks & (ROW | DEAD_LETTER) != 0)
    }

    /// Who a message is.
    pub(super) fn name(&self, place: u32, sequence: i64) -> MessageId {
        MessageId { run: self.runs[place as usize].id, sequence }
    }
}

impl Run {
    /// Where the marks of a sequence are; none where it is settled.
    pub(super) fn place_of(&self, sequence: i64) -> Option<usize> {
        sequence.checked_sub(self.carried.settled_below()).and_then(|place| usize::try_from(place).ok())
    }

    /// The sequence whose marks are there.
    pub(super) fn sequence_at(&self, place: usize) -> i64 {
        self.carried.settled_below().saturating_add_unsigned(place as u64)
    }

    /// What a checkpoint found nowhere, and that has been acknowledged and has come since: known when the log is read.
    pub(super) fn came_and_answered(&self) -> u64 {
        self.came.intersection(&self.answered_absent).count() as u64
    }

    /// Whether a message was acknowledged and is nowhere, as far as is known by now.
    pub(super) fn is_missing(&self, sequence: i64) -> bool {
        match self.place_of(sequence).and_then(|place| self.marks.get(place)) {
            Some(marks) => marks & ACKNOWLEDGED != 0 && marks & (IN_LOG | ROW | DEAD_LETTER) == 0,
            None => self.answered_absent.contains(&sequence) && !self.came.contains(&sequence),
        }
    }

    /// What a checkpoint found nowhere, whose producer was told yes since, and that has not come.
    pub(super) fn missing_since(&self) -> u64 {
        self.answered_absent.difference(&self.came).count() as u64
    }

    /// What the next checkpoint says of it.
    pub(super) fn settled(&self) -> RunMark {
        let below = self.carried.settled_below();
        let (mut settled, mut absent) = (self.carried.settled.clone(), &self.carried.absent - &self.came);
        for (place, marks) in self.marks.iter().copied().enumerate() {
            let sequence = self.sequence_at(place);
            let is_found = marks & (IN_LOG | ROW | DEAD_LETTER | SKIPPED) != 0;
            // Without an answer, and its producer is gone.
            let is_absent = !is_found && !self.live && marks & (INTENDED | ACKNOWLEDGED) == INTENDED;
            if is_absent {
                absent.insert(sequence);
            }
            if is_found || is_absent {
                push_range(&mut settled, sequence);
            }
        }
        for (page, words) in &self.pages {
            for bit in (0..1_i64 << PAGE_BITS).filter(|bit| words[*bit as usize / 64] >> (bit % 64) & 1 == 1) {
                push_range(&mut settled, (page << PAGE_BITS) + bit);
            }
        }
        let mut mark = RunMark { settled: merged(settled), absent, ..RunMark::of(self.id) };
        mark.acknowledged = self.carried.acknowledged + self.unanswered.answered + self.came_and_answered();
        mark.unanswered = self.unanswered.left();
        let came = self.came.difference(&self.answered_absent).map(|sequence| (*sequence, sequence + 1));
        mark.unanswered.extend(came);
        if self.ledger.is_none() && below < mark.settled_below() {
            // Its ledger is elsewhere: an audit that has it reads what was answered.
            mark.unanswered.push((below, mark.settled_below()));
        }
        mark.unanswered = merged(mark.unanswered);
        for (place, marks) in self.marks.iter().take((mark.settled_below() - below) as usize).enumerate() {
            let sequence = self.sequence_at(place);
            if marks & ACKNOWLEDGED != 0 {
                mark.acknowledged += 1;
            } else if !mark.absent.contains(&sequence) {
                push_range(&mut mark.unanswered, sequence);
            }
        }
        mark
    }

    fn belongs_to(&mut self, dir: &Path, cluster_id: Option<String>, live: bool) {
        self.ledger = Some(dir.to_owned());
        self.wrote_to = cluster_id;
        self.live = live;
        // Those before have no marks.
        let below = self.carried.settled_below();
        let beyond: Vec<_> = self.carried.settled.iter().copied().filter(|(from, _)| *from >= below).collect();
        for sequence in beyond.into_iter().flat_map(|(from, to)| from..to) {
            if !self.carried.absent.contains(&sequence)
                && let Some(marks) = self.grow(sequence)
            {
                *marks |= IN_LOG;
            }
        }
    }

    fn told(&mut self, outcome: Outcome, log_starts: &HashMap<i32, i64>) {
        if let Outcome::Acknowledged { sequence, partition, offset } = outcome
            && log_starts.get(&partition).is_none_or(|start| offset >= *start)
        {
            self.visible_from = self.visible_from.min(sequence);
        }
        // The last outcome holds.
        let (sequence, acknowledged) = match outcome {
            Outcome::Acknowledged { sequence, .. } => (sequence, true),
            Outcome::Unknown { sequence } => (sequence, false),
        };
        if let Some(marks) = self.grow(sequence) {
            *marks = if acknowledged { *marks | ACKNOWLEDGED } else { *marks & !ACKNOWLEDGED };
        } else if acknowledged && self.carried.absent.contains(&sequence) {
            self.answered_absent.insert(sequence);
        } else if acknowledged {
            self.unanswered.answer(sequence);
        }
    }

    fn meant(&mut self, intent: &Intent<'_>, digests: &Digests) {
        let visible_from = self.visible_from;
        let Some(marks) = self.grow(intent.sequence) else { return };
        *marks |= INTENDED;
        // What was not acknowledged may be anywhere in the log.
        let is_visible = *marks & ACKNOWLEDGED == 0 || intent.sequence >= visible_from;
        // `grow` has checked the sequence. The hashes count as the marks do.
        let sequence = (intent.sequence - self.carried.settled_below()) as usize;
        if self.intents.is_empty() {
            if !is_visible {
                return;
            }
            self.intents_from = sequence;
        }
        let Some(place) = sequence.checked_sub(self.intents_from) else { return };
        if self.intents.len() <= place {
            self.intents.resize((self.marks.len() - self.intents_from).max(place + 1), 0);
        }
        self.intents[place] = digests.of(intent.user_id, intent.currency, intent.amount);
    }

    fn grow(&mut self, sequence: i64) -> Option<&mut u8> {
        let place = self.place_of(sequence)?;
        if place >= self.marks.len() {
            if place - self.marks.len() > SEQUENCE_JUMP_MAX {
                self.damaged = true;
                return None;
            }
            self.marks.resize(place + 1, 0);
        }
        self.marks.get_mut(place)
    }

    fn mark(&mut self, sequence: i64) -> Option<&mut u8> {
        let place = self.place_of(sequence)?;
        self.marks.get_mut(place)
    }

    /// A damaged ledger still proves what it holds; that it is damaged is said, once.
    fn survive(&mut self, read: Result<(), LedgerError>, book: &mut Notebook) -> Result<(), AuditError> {
        match read {
            Err(error @ LedgerError::Damaged { .. }) => {
                self.damaged = true;
                book.undecided.push(error.to_string());
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Hands out the places at which messages were acknowledged, the last ones only for each message.
    pub(super) fn acknowledged_places(&self, mut each: impl FnMut(i64, i32, i64)) {
        let Some(dir) = &self.ledger else { return };
        // It was read before: what is damaged has been said.
        let _ = LedgerReader::new(dir).read_outcomes(self.id, |outcome| {
            if let Outcome::Acknowledged { sequence, partition, offset } = outcome {
                each(sequence, partition, offset);
            }
        });
    }

    /// What the ledger says of some messages, for a report.
    pub(super) fn describe(dir: &Path, id: RunId, mut each: impl FnMut(&Intent<'_>)) {
        let _ = LedgerReader::new(dir).read_intents(id, |intent| each(&intent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_intents_that_the_log_can_still_show_are_kept_for_comparison() {
        let log_starts = HashMap::from([(0, 900), (1, 100)]);
        // (sequence without an answer, hashes kept, first of them): offsets are sequences, all in partition 0.
        for (unanswered, kept, from) in [(None, 100, 900), (Some(950), 100, 900), (Some(400), 600, 400)] {
            let mut books = Books::default();
            let place = books.place(RunId(uuid::Uuid::from_u128(1)));
            let run = &mut books.runs[place as usize];
            for sequence in (0..1000).filter(|sequence| Some(*sequence) != unanswered) {
                run.told(Outcome::Acknowledged { sequence, partition: 0, offset: sequence }, &log_starts);
            }
            for sequence in 0..1000 {
                let amount = Decimal::from(sequence);
                run.meant(&Intent { sequence, user_id: "ann", currency: Currency::USD, amount }, &books.digests);
            }
            assert_eq!((run.intents.len(), run.intents_from), (kept, from), "{unanswered:?}");
            let agrees = |sequence: i64, amount: i64| {
                books.agrees((place, sequence), "ann", Currency::USD, Decimal::from(amount))
            };
            assert_eq!((agrees(999, 999), agrees(from as i64, 1)), (Some(true), Some(false)));
            assert_eq!((agrees(from as i64, from as i64), agrees(399, 399)), (Some(true), None));
        }
    }
}
