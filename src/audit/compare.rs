//! The comparison: log and rows of a partition side by side, both in the order of their offsets.

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use tokio::sync::mpsc;

use super::books::{Books, DEAD_LETTER, ROW, SKIPPED, Sighting};
use super::check::Scope;
use super::checkpoint::{Checkpoint, CheckpointWriter, PartitionMark};
use super::log::{LogRange, LogReader, identity};
use super::notebook::Notebook;
use super::published::Published;
use super::report::{DifferenceKind, PartitionRange};
use super::rows::StoredMessage;
use super::settle;
use super::spool::Piece;
use super::stored::{Overview, PartitionState};
use super::totals::Totals;
use super::windows::Windows;
use super::{AuditError, AuditProgress};
use crate::transaction::{Transaction, derived_from};

/// Records between two reports of progress.
const PROGRESS_RECORDS: u64 = 50_000;

pub(super) type OnProgress = Box<dyn FnMut(AuditProgress) + Send>;

/// Runs on a thread of its own: decoding is the work, and the log's reader blocks.
pub(super) struct Comparison {
    pub books: Books,
    pub book: Notebook,
    pub overview: Overview,
    /// What finance.aggregates said before the snapshot.
    pub published: Published,
    pub pieces: mpsc::Receiver<Piece>,
    /// A piece that was looked at too early.
    pub held: Option<Piece>,
    /// The reference that was looked up last, and its place in the books: rows of a run come one after the other.
    pub last_run: Option<(i32, u32)>,
    /// Where a former audit has got to.
    pub checkpoint: Option<Checkpoint>,
    /// Takes down the totals for the next one.
    pub writer: Option<CheckpointWriter>,
    /// Of each partition compared.
    pub proven: Vec<PartitionMark>,
    /// Records that are expected.
    pub total: u64,
    pub on_progress: OnProgress,
}

/// What the comparison gives back.
pub(super) struct Compared {
    pub books: Books,
    pub book: Notebook,
    pub ranges: Vec<PartitionRange>,
    pub proven: Vec<PartitionMark>,
    pub writer: Option<CheckpointWriter>,
}

/// One partition's comparison.
struct Partition {
    range: LogRange,
    state: PartitionState,
    dead_letters: std::iter::Peekable<std::vec::IntoIter<StoredMessage>>,
    rows: std::iter::Peekable<std::vec::IntoIter<StoredMessage>>,
    rows_ended: bool,
    totals: Totals,
    windows: Windows,
    /// Proven before: everything below this offset.
    from: i64,
    /// Messages that were applied and are no dead letters: those of the checkpoint and of the log.
    counted: i64,
    below: u64,
}

impl Comparison {
    pub(super) fn run(
        mut self,
        log: &LogReader,
        ranges: &[LogRange],
        partitions: &[i32],
    ) -> Result<Compared, AuditError> {
        self.earlier_lives();
        let mut compared = Vec::new();
        for partition in partitions {
            let range = ranges.iter().find(|range| range.partition == *partition).copied();
            compared.push(self.partition(log, *partition, range)?);
        }
        self.published()?;
        settle::run(&mut self.books, &mut self.book, &self.overview);
        Ok(Compared { books: self.books, book: self.book, ranges: compared, proven: self.proven, writer: self.writer })
    }

    fn next(&mut self) -> Result<Piece, AuditError> {
        if let Some(piece) = self.held.take() {
            return Ok(piece);
        }
        self.pieces.blocking_recv().ok_or_else(|| AuditError::CutShort("PostgreSQL's rows ended early".to_owned()))
    }

    /// What earlier lives stored counts for its message, wherever that was in the log of its time.
    fn earlier_lives(&mut self) {
        if !self.overview.earlier.is_empty() {
            self.book.notes.push(format!(
                "{} earlier life(s) of the topic: their rows are matched by run and sequence, their totals cannot be summed again from this log",
                self.overview.earlier.len()
            ));
        }
        // Without partitions there is nothing behind the earlier lives.
        while let Some(piece) = self.held.take().or_else(|| self.pieces.blocking_recv()) {
            match piece {
                Piece::EarlierRows(rows) => {
                    self.book.counts.rows += rows.len() as u64;
                    rows.iter().for_each(|row| self.mark(row, ROW));
                }
                Piece::EarlierDeadLetters(letters) => {
                    self.book.counts.dead_letters += letters.len() as u64;
                    letters.iter().for_each(|letter| self.mark(letter, DEAD_LETTER));
                }
                other => {
                    self.held = Some(other);
                    break;
                }
            }
        }
    }

    fn partition(
        &mut self,
        log: &LogReader,
        number: i32,
        known: Option<LogRange>,
    ) -> Result<PartitionRange, AuditError> {
        let range = known.unwrap_or(LogRange { partition: number, start: 0, end: 0 });
        let Piece::DeadLetters(mut letters) = self.next()? else { return Err(out_of_order()) };
        let mark = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.mark(number));
        let from = mark.as_ref().map_or(0, |mark| mark.offset);
        if mark.as_ref().is_some_and(|mark| !mark.complete) {
            self.book.notes.push(format!(
                "partition {number}: when the first checkpoint was made, the log had been cut already; the totals up to there \
                 were proven only not to be too small"
            ));
        }
        letters.retain(|letter| letter.offset >= from);
        self.book.counts.dead_letters += letters.len() as u64;
        let state = self.overview.partitions.get(&range.partition).cloned().unwrap_or_default();
        self.note_skipped(range.partition, &state);
        let mut partition = Partition {
            range,
            windows: Windows::new(self.overview.window_us, state.windows_from),
            state,
            dead_letters: letters.into_iter().peekable(),
            rows: Vec::new().into_iter().peekable(),
            rows_ended: false,
            totals: self.checkpoint.as_mut().map(|checkpoint| checkpoint.take_totals(number)).unwrap_or_default(),
            from,
            counted: mark.as_ref().map_or(0, |mark| mark.messages),
            below: 0,
        };
        // What was applied after the end was noted is in the totals, so it is read as well; of a partition that the log
        // does not have there is nothing to read.
        let end = if known.is_some() { range.end.max(partition.state.next_offset) } else { range.start };
        if let Some(mark) = &mark {
            self.replayed_since(log, &mut partition, mark)?;
        }
        let mut log_end = range.end;
        log.read(LogRange { start: range.start.max(from), end, ..range }, |message| {
            log_end = log_end.max(message.offset() + 1);
            self.record(&mut partition, message)
        })?;
        self.pass_stored(&mut partition, i64::MAX)?;
        let next_offset = partition.state.next_offset;
        if next_offset > log_end {
            self.book.differ(DifferenceKind::LogTooShort, |difference| {
                difference.partition = Some(range.partition);
                difference.expected = Some(format!("records up to offset {}", next_offset - 1));
                difference.found = Some(format!("the log ends at {log_end}"));
            });
        }
        self.totals(partition)
    }

    fn published(&mut self) -> Result<(), AuditError> {
        let mut published = std::mem::take(&mut self.published);
        loop {
            match self.next()? {
                Piece::Totals(totals) => published.compare(&totals, &self.overview.waiting, &mut self.book),
                Piece::End => break,
                _ => return Err(out_of_order()),
            }
        }
        published.finish(&self.overview, &mut self.book);
        Ok(())
    }

    /// Dead letters from before the checkpoint that were put through since it was made: they are in the totals now. What of
    /// them the log has lost leaves the totals larger than can be summed.
    fn replayed_since(
        &mut self,
        log: &LogReader,
        partition: &mut Partition,
        mark: &PartitionMark,
    ) -> Result<(), AuditError> {
        let is_new = |offset: &&i64| **offset < mark.offset && mark.replayed.binary_search(offset).is_err();
        let new: Vec<i64> = partition.state.replayed.iter().filter(is_new).copied().collect();
        let range = partition.range;
        for offset in new {
            if offset < range.start {
                partition.below += 1;
                continue;
            }
            log.read(LogRange { start: offset, end: offset + 1, ..range }, |message| {
                if let Some(transaction) = message.payload().and_then(|payload| Transaction::decode(payload).ok()) {
                    partition.counted += 1;
                    partition.totals.add(&transaction, offset);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn note_skipped(&mut self, partition: i32, state: &PartitionState) {
        for (from, to) in &state.skipped {
            self.book.notes.push(format!(
                "partition {partition}: offsets {from} to {} were skipped on record (finstream reset --accept-loss)",
                to - 1
            ));
        }
    }

    /// One log record against its row, its dead letter, its intent.
    fn record(&mut self, partition: &mut Partition, message: &BorrowedMessage<'_>) -> Result<(), AuditError> {
        let (at, offset) = (partition.range.partition, message.offset());
        self.pass_stored(partition, offset)?;
        self.book.counts.in_log += 1;
        if self.book.counts.in_log.is_multiple_of(PROGRESS_RECORDS) {
            (self.on_progress)(AuditProgress::Reading { read: self.book.counts.in_log, of: self.total });
        }
        let id = identity(message).map(|id| (self.books.place(id.run), id.sequence));
        let transaction = message.payload().and_then(|payload| Transaction::decode(payload).ok());
        self.book.counts.declined += u64::from(transaction.as_ref().is_some_and(Transaction::is_declined));
        self.against_ledger(id, at, offset, transaction.as_ref());
        let skipped = partition.state.skipped.iter().any(|(from, to)| (*from..*to).contains(&offset));
        if offset < partition.state.first_offset {
            // Of an earlier life, whose rows have been read already; a foreign one cannot be found among them.
            let missing = id.filter(|(place, sequence)| !self.books.is_stored(*place, *sequence));
            match missing {
                Some(_) if skipped => self.skip(id),
                Some(_) => self.differ(DifferenceKind::NotStored, id, at, offset),
                None => {}
            }
            return Ok(());
        }
        let row = self.next_row(partition, offset)?;
        let letter = partition.dead_letters.next_if(|letter| letter.offset == offset);
        for stored in row.iter().chain(&letter) {
            self.against_log(stored, id, at);
        }
        if offset >= partition.state.next_offset {
            self.book.counts.not_yet_applied += 1;
            if row.is_some() || letter.is_some() {
                self.differ(DifferenceKind::ExtraRow, id, at, offset);
            }
            return Ok(());
        }
        match (&row, &letter) {
            (None, None) if skipped => {
                self.skip(id);
                return Ok(());
            }
            (None, None) => self.differ(DifferenceKind::NotStored, id, at, offset),
            (Some(_), Some(_)) => self.differ(DifferenceKind::RowAndDeadLetter, id, at, offset),
            (Some(_), None) if transaction.is_none() => self.differ(DifferenceKind::RowAndDeadLetter, id, at, offset),
            _ => {}
        }
        if letter.is_none() || row.is_some() {
            partition.counted += 1;
            if let Some(transaction) = &transaction {
                partition.totals.add(transaction, offset);
                partition.windows.add(transaction, offset, partition.state.replayed.contains(&offset));
            }
        }
        Ok(())
    }

    fn skip(&mut self, id: Option<(u32, i64)>) {
        self.book.counts.skipped += 1;
        if let Some((place, sequence)) = id {
            self.books.mark(place, sequence, SKIPPED);
        }
    }

    fn against_ledger(
        &mut self,
        id: Option<(u32, i64)>,
        partition: i32,
        offset: i64,
        transaction: Option<&Transaction<'_>>,
    ) {
        let Some((place, sequence)) = id else {
            self.book.counts.foreign += 1;
            return;
        };
        let known = self.books.runs[place as usize].ledger.is_some();
        if !known {
            self.book.counts.foreign += 1;
        }
        match self.books.see_in_log(place, sequence, &mut self.book) {
            Sighting::Again => self.differ(DifferenceKind::StoredTwice, id, partition, offset),
            // A damaged ledger proves no absence.
            Sighting::Unintended if !self.books.runs[place as usize].damaged => {
                self.differ(DifferenceKind::NotInLedger, id, partition, offset);
            }
            Sighting::Unintended | Sighting::First => {}
        }
        let of = transaction.and_then(|sent| derived_from(&sent.transaction_id, self.books.runs[place as usize].id));
        self.book.counts.repeated += u64::from(of.is_some_and(|of| of != sequence));
        let Some(transaction) = transaction.filter(|_| known) else { return };
        let Transaction { user_id, currency, amount, .. } = transaction;
        if self.books.agrees((place, sequence), user_id, *currency, *amount) == Some(false) {
            let name = self.books.name(place, sequence);
            self.book.differ(DifferenceKind::WrongAmount, |difference| {
                difference.run = Some(name.run);
                difference.sequence = Some(name.sequence);
                difference.partition = Some(partition);
                difference.offset = Some(offset);
                difference.found = Some(format!("{user_id} {amount} {currency}"));
            });
        }
    }

    /// The row or dead letter of a record is the record's, and counts for its message.
    fn against_log(&mut self, stored: &StoredMessage, id: Option<(u32, i64)>, partition: i32) {
        let stored_id = self.id_of(stored);
        if stored_id != id {
            let name = |id: Option<(u32, i64)>| match id {
                Some((place, sequence)) => format!("run {} message {sequence}", self.books.runs[place as usize].id),
                None => "a foreign message".to_owned(),
            };
            let (expected, found) = (name(id), name(stored_id));
            self.book.differ(DifferenceKind::WrongIdentity, |difference| {
                difference.partition = Some(partition);
                difference.offset = Some(stored.offset);
                difference.expected = Some(expected);
                difference.found = Some(found);
            });
        }
    }

    /// The row at exactly this offset, if there is one; counts it for its message.
    fn next_row(&mut self, partition: &mut Partition, offset: i64) -> Result<Option<StoredMessage>, AuditError> {
        self.fill(partition)?;
        let row = partition.rows.next_if(|row| row.offset == offset);
        if let Some(row) = &row {
            self.book.counts.rows += 1;
            self.mark(row, ROW);
        }
        if let Some(letter) = partition.dead_letters.peek().filter(|letter| letter.offset == offset).copied() {
            self.mark(&letter, DEAD_LETTER);
        }
        Ok(row)
    }

    /// Passes rows and dead letters before `offset` that the log has no record for.
    fn pass_stored(&mut self, partition: &mut Partition, offset: i64) -> Result<(), AuditError> {
        loop {
            self.fill(partition)?;
            let row = partition.rows.next_if(|row| row.offset < offset);
            let Some(row) = row else { break };
            self.book.counts.rows += 1;
            self.mark(&row, ROW);
            self.without_record(partition, &row);
        }
        while let Some(letter) = partition.dead_letters.next_if(|letter| letter.offset < offset) {
            self.mark(&letter, DEAD_LETTER);
            self.without_record(partition, &letter);
        }
        Ok(())
    }

    fn without_record(&mut self, partition: &mut Partition, stored: &StoredMessage) {
        if stored.offset < partition.range.start {
            self.book.counts.below_log_start += 1;
            partition.below += 1;
        } else {
            let id = self.id_of(stored);
            self.differ(DifferenceKind::ExtraRow, id, partition.range.partition, stored.offset);
        }
    }

    /// Makes sure that the next row can be looked at, if there is one.
    fn fill(&mut self, partition: &mut Partition) -> Result<(), AuditError> {
        while !partition.rows_ended && partition.rows.peek().is_none() {
            match self.next()? {
                Piece::Rows(rows) => partition.rows = rows.into_iter().peekable(),
                Piece::RowsEnd => partition.rows_ended = true,
                _ => return Err(out_of_order()),
            }
        }
        Ok(())
    }

    fn totals(&mut self, partition: Partition) -> Result<PartitionRange, AuditError> {
        let Partition { range, state, mut totals, mut windows, from, counted, below, .. } = partition;
        let complete = below == 0 && (range.start <= state.first_offset.max(from) || state.messages <= counted);
        if !complete {
            self.book.notes.push(format!(
                "partition {}: the log begins at offset {}; older messages are proven by their rows, the totals only not to be too small",
                range.partition, range.start
            ));
        }
        let scope = Scope { partition: range.partition, complete };
        // A checkpoint does not carry windows.
        let has_all_windows = from <= state.windows_from && (complete || range.start <= state.windows_from);
        let windows_scope = Scope { complete: has_all_windows, ..scope };
        loop {
            match self.next()? {
                Piece::Users(users) => {
                    totals.compare_users(&users, scope, &mut self.book);
                    self.writer.as_mut().map_or(Ok(()), |writer| writer.users(range.partition, &users))?;
                }
                Piece::Symbols(symbols) => {
                    totals.compare_symbols(&symbols, scope, &mut self.book);
                    self.writer.as_mut().map_or(Ok(()), |writer| writer.symbols(range.partition, &symbols))?;
                }
                Piece::CategoryWindows(rows) => windows.compare_categories(&rows, windows_scope, &mut self.book),
                Piece::SymbolWindows(rows) => windows.compare_symbols(&rows, windows_scope, &mut self.book),
                Piece::PartitionEnd => break,
                _ => return Err(out_of_order()),
            }
        }
        totals.finish(scope, &mut self.book);
        windows.finish(windows_scope, &mut self.book);
        let was_complete = self.checkpoint.as_ref().and_then(|known| known.mark(range.partition));
        let complete = complete && was_complete.is_none_or(|mark| mark.complete);
        let (partition, offset, messages) = (range.partition, state.next_offset, state.messages);
        let mut replayed: Vec<i64> = state.replayed.into_iter().collect();
        replayed.sort_unstable();
        self.proven.push(PartitionMark { partition, offset, messages, complete, replayed });
        Ok(PartitionRange {
            partition: range.partition,
            log_start: range.start,
            log_end: range.end,
            next_offset: state.next_offset,
        })
    }

    fn id_of(&mut self, stored: &StoredMessage) -> Option<(u32, i64)> {
        let place = match self.last_run {
            Some((run_ref, place)) if run_ref == stored.run_ref => place,
            _ => {
                let place = self.books.place(*self.overview.runs.get(&stored.run_ref)?);
                self.last_run = Some((stored.run_ref, place));
                place
            }
        };
        (stored.sequence >= 0).then_some((place, stored.sequence))
    }

    fn mark(&mut self, stored: &StoredMessage, mark: u8) {
        if let Some((place, sequence)) = self.id_of(stored) {
            self.books.mark(place, sequence, mark);
        }
    }

    fn differ(&mut self, kind: DifferenceKind, id: Option<(u32, i64)>, partition: i32, offset: i64) {
        let name = id.map(|(place, sequence)| self.books.name(place, sequence));
        self.book.differ(kind, |difference| {
            difference.run = name.map(|name| name.run);
            difference.sequence = name.map(|name| name.sequence);
            difference.partition = Some(partition);
            difference.offset = Some(offset);
        });
    }
}

pub(super) fn out_of_order() -> AuditError {
    AuditError::CutShort("PostgreSQL's rows came out of order".to_owned())
}
