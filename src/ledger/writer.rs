//! The writing side: one process a run.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rust_decimal::Decimal;

use super::block::{BlockReader, BlockWriter};
use super::intents::{self, IntentBlock};
use super::outcomes::OutcomeBlock;
use super::segments;
use super::{INTENTS_FILE, Intent, LOCK_FILE, LedgerError, OUTCOMES_FILE, Outcome, RunRecord, io_error, run_dir};
use crate::transaction::{Currency, RunId};

const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Writes the ledger of one run, under its lock, until dropped.
#[derive(Debug)]
pub struct LedgerWriter {
    record: RunRecord,
    run_dir: PathBuf,
    intents: SegmentWriter,
    outcomes: SegmentWriter,
    intent_block: IntentBlock,
    outcome_block: OutcomeBlock,
    payload: Vec<u8>,
    next_sequence: i64,
    // Held, never read: the lock lives as long as the open file.
    _lock: File,
}

impl LedgerWriter {
    /// Starts the ledger of a new run in `dir` (`DATA/ledger`).
    ///
    /// # Errors
    /// `Exists` if the run has one already, `Locked` if it is being written right now.
    pub fn create(dir: &Path, record: &RunRecord) -> Result<LedgerWriter, LedgerError> {
        let run_dir = run_dir(dir, record.run);
        fs::create_dir_all(&run_dir).map_err(io_error("create directory", &run_dir))?;
        let lock = lock(dir, &run_dir, record.run)?;
        if !segments::numbers(&run_dir, INTENTS_FILE)?.is_empty() {
            return Err(LedgerError::Exists { run: record.run, dir: dir.to_path_buf() });
        }
        record.write(&run_dir)?;
        let (intents, outcomes) =
            (SegmentWriter::first(&run_dir, INTENTS_FILE)?, SegmentWriter::first(&run_dir, OUTCOMES_FILE)?);
        Ok(Self::open(record.clone(), run_dir, lock, intents, outcomes, 0))
    }

    /// Continues the ledger of a run that a crash cut off; torn last blocks are cut.
    ///
    /// # Errors
    /// `Locked` while another process writes the run, `Damaged` if a block in the middle is bad.
    pub fn continue_run(dir: &Path, run: RunId) -> Result<LedgerWriter, LedgerError> {
        let run_dir = run_dir(dir, run);
        let lock = lock(dir, &run_dir, run)?;
        let record = RunRecord::read(&run_dir)?;
        let mut next_sequence = 0;
        let intents = SegmentWriter::last(&run_dir, INTENTS_FILE, |payload| {
            let (first, count) = intents::range_of(payload)?;
            next_sequence = next_sequence.max(first.checked_add_unsigned(count)?);
            Some(())
        })?;
        let outcomes = SegmentWriter::last(&run_dir, OUTCOMES_FILE, |_| Some(()))?;
        Ok(Self::open(record, run_dir, lock, intents, outcomes, next_sequence))
    }

    fn open(
        record: RunRecord,
        run_dir: PathBuf,
        lock: File,
        intents: SegmentWriter,
        outcomes: SegmentWriter,
        next_sequence: i64,
    ) -> LedgerWriter {
        LedgerWriter {
            intents,
            outcomes,
            record,
            run_dir,
            intent_block: IntentBlock::default(),
            outcome_block: OutcomeBlock::default(),
            payload: Vec::new(),
            next_sequence,
            _lock: lock,
        }
    }

    /// The run's record.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    /// One beyond the highest sequence ever intended.
    pub fn next_sequence(&self) -> i64 {
        self.next_sequence
    }

    /// Notes a message that is about to be sent; it must not be sent before [`Self::flush_intents`] returned.
    ///
    /// # Errors
    /// If a full block could not be written.
    pub fn intend(
        &mut self,
        sequence: i64,
        user_id: &str,
        currency: Currency,
        amount: Decimal,
    ) -> Result<(), LedgerError> {
        if self.intent_block.must_end_before(sequence) {
            self.flush_intents()?;
        }
        self.intent_block.push(Intent { sequence, user_id, currency, amount });
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
        Ok(())
    }

    /// Hands the noted intents to the operating system. After an error nothing is lost: call it again.
    ///
    /// # Errors
    /// If the file system refuses, for example because it is full.
    pub fn flush_intents(&mut self) -> Result<(), LedgerError> {
        if self.intent_block.is_empty() {
            return Ok(());
        }
        self.intent_block.payload_into(&mut self.payload);
        self.intents.append(&self.payload)?;
        self.intent_block.clear();
        Ok(())
    }

    /// Notes that a message is stored at this place.
    ///
    /// # Errors
    /// If a full block could not be written.
    pub fn acknowledged(&mut self, sequence: i64, partition: i32, offset: i64) -> Result<(), LedgerError> {
        self.note(Outcome::Acknowledged { sequence, partition, offset })
    }

    /// Notes that nobody can say whether a message is stored.
    ///
    /// # Errors
    /// If a full block could not be written.
    pub fn unknown(&mut self, sequence: i64) -> Result<(), LedgerError> {
        self.note(Outcome::Unknown { sequence })
    }

    fn note(&mut self, outcome: Outcome) -> Result<(), LedgerError> {
        if self.outcome_block.is_full() {
            self.flush_outcomes()?;
        }
        self.outcome_block.push(outcome);
        Ok(())
    }

    /// Hands the noted outcomes to the operating system. After an error nothing is lost: call it again.
    ///
    /// # Errors
    /// If the file system refuses, for example because it is full.
    pub fn flush_outcomes(&mut self) -> Result<(), LedgerError> {
        if self.outcome_block.is_empty() {
            return Ok(());
        }
        self.outcome_block.payload_into(&mut self.payload);
        self.outcomes.append(&self.payload)?;
        self.outcome_block.clear();
        Ok(())
    }

    /// Writes and syncs everything; `complete` marks the run as one that is not to be continued.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn finish(mut self, complete: bool) -> Result<(), LedgerError> {
        self.flush_intents()?;
        self.flush_outcomes()?;
        self.intents.sync()?;
        self.outcomes.sync()?;
        self.record.finished = complete;
        self.record.write(&self.run_dir)
    }
}

/// Appends to the last file of a kind, and begins the next one where that is large.
#[derive(Debug)]
struct SegmentWriter {
    run_dir: PathBuf,
    name: &'static str,
    number: u32,
    blocks: BlockWriter,
}

impl SegmentWriter {
    fn first(run_dir: &Path, name: &'static str) -> Result<SegmentWriter, LedgerError> {
        Self::open(run_dir, name, 0, 0)
    }

    /// Every file must hold whole blocks that make sense; the torn end of the last one is cut.
    fn last(
        run_dir: &Path,
        name: &'static str,
        mut each: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<SegmentWriter, LedgerError> {
        let mut last = (0, 0);
        for number in segments::numbers(run_dir, name)? {
            last = (number, whole_blocks(&segments::path(run_dir, name, number), &mut each)?);
        }
        Self::open(run_dir, name, last.0, last.1)
    }

    fn open(run_dir: &Path, name: &'static str, number: u32, length: u64) -> Result<SegmentWriter, LedgerError> {
        let blocks = BlockWriter::open(segments::path(run_dir, name, number), length)?;
        Ok(SegmentWriter { run_dir: run_dir.to_owned(), name, number, blocks })
    }

    fn append(&mut self, payload: &[u8]) -> Result<(), LedgerError> {
        if self.blocks.length() >= segments::SEGMENT_BYTES {
            *self = Self::open(&self.run_dir, self.name, self.number + 1, 0)?;
        }
        self.blocks.append(payload)
    }

    fn sync(&self) -> Result<(), LedgerError> {
        for number in segments::numbers(&self.run_dir, self.name)? {
            let path = segments::path(&self.run_dir, self.name, number);
            File::open(&path).and_then(|file| file.sync_all()).map_err(io_error("sync", &path))?;
        }
        Ok(())
    }
}

fn lock(dir: &Path, run_dir: &Path, run: RunId) -> Result<File, LedgerError> {
    let path = run_dir.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open the lock", &path))?;
    // A reader that asks whether the run is alive holds a shared lock for a moment.
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
    }
    Err(LedgerError::Locked { run, dir: dir.to_path_buf() })
}

/// Length of the file up to its last whole block, each of which must make sense.
fn whole_blocks(path: &Path, mut each: impl FnMut(&[u8]) -> Option<()>) -> Result<u64, LedgerError> {
    let Some(mut reader) = BlockReader::open(path)? else { return Ok(0) };
    loop {
        match reader.next()? {
            None => return Ok(reader.position()),
            Some(payload) => {
                if each(payload).is_none() {
                    return Err(reader.senseless());
                }
            }
        }
    }
}
