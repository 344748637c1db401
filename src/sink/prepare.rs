//! A part of a batch, encoded: everything that can be done before BEGIN is done here.

use std::collections::BTreeMap;

use super::batch::{Batch, Body, Item};
use super::columns::{
    CategoryWindowColumns, ChangeColumns, SymbolColumns, SymbolWindowColumns, UserColumns, category_window_columns,
    change_columns, symbol_columns, symbol_window_columns, user_columns,
};
use super::copy::{CopyRows, EncodedRows, Row};
use super::ownership::Owned;
use super::runs::Runs;
use super::values::Time;
use crate::aggregate::{Event, NotExact, WindowLength, Windowing, aggregate};
use crate::clock::Micros;
use crate::config::LatencyLayout;

/// Consecutive items of a batch that go into one PostgreSQL transaction.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub batch: &'a Batch,
    pub items: Vec<&'a Item>,
    /// Set when the one item of this part is refused for its data.
    pub refused: Option<String>,
}

/// What one partition's share of a part moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub partition: i32,
    pub owned: Owned,
    pub first_offset: i64,
    pub last_offset: i64,
    pub messages: i32,
    pub dead_letters: i32,
    /// The latest event time after it.
    pub watermark: Option<Micros>,
    fingerprint: [u8; 16],
}

impl Move {
    pub(super) fn next_offset(&self) -> i64 {
        self.last_offset + 1
    }
}

/// Arrays of the compare-and-set and of the batches' rows, one element a partition.
#[derive(Debug, Default)]
pub(super) struct MoveColumns {
    pub partitions: Vec<i32>,
    pub epochs: Vec<i64>,
    pub expected: Vec<i64>,
    pub next_offsets: Vec<i64>,
    pub fingerprints: Vec<Vec<u8>>,
    pub watermarks: Vec<Option<Time>>,
    pub messages: Vec<i32>,
    pub dead_letters: Vec<i32>,
    pub first_offsets: Vec<i64>,
    pub last_offsets: Vec<i64>,
}

/// Arrays of `dead_letters`.
#[derive(Debug, Default)]
pub(super) struct DeadLetterColumns<'a> {
    pub partitions: Vec<i32>,
    pub offsets: Vec<i64>,
    pub received_at: Vec<Time>,
    pub reasons: Vec<String>,
    pub run_refs: Vec<Option<i32>>,
    pub sequences: Vec<Option<i64>>,
    pub keys: Vec<Option<&'a [u8]>>,
    pub payloads: Vec<Option<&'a [u8]>>,
    pub watermarks: Vec<Option<Time>>,
}

/// All that one transaction writes.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    pub moves: Vec<Move>,
    pub move_columns: MoveColumns,
    pub rows: EncodedRows,
    pub users: UserColumns<'a>,
    pub symbols: SymbolColumns<'a>,
    pub category_windows: CategoryWindowColumns<'a>,
    pub symbol_windows: SymbolWindowColumns<'a>,
    pub dead_letters: DeadLetterColumns<'a>,
    pub changes: ChangeColumns,
}

impl Prepared<'_> {
    /// For a message of before there were windows.
    pub(super) fn leave_out_windows(&mut self) {
        self.category_windows = CategoryWindowColumns::default();
        self.symbol_windows = SymbolWindowColumns::default();
        for names in [&mut self.changes.category_windows, &mut self.changes.symbol_windows] {
            names.iter_mut().for_each(|names| *names = "{}".to_owned());
        }
    }
}

/// Encodes a part.
///
/// # Errors
/// [`NotExact`] when an amount cannot be summed exactly: a data error, as if PostgreSQL had refused it.
pub(super) fn prepare<'a>(
    part: &Part<'a>,
    topic_ref: i32,
    layout: LatencyLayout,
    owned: &BTreeMap<i32, Owned>,
    window_length: WindowLength,
    runs: &Runs,
) -> Result<Prepared<'a>, NotExact> {
    let mut shares: BTreeMap<i32, Vec<&'a Item>> = BTreeMap::new();
    for item in &part.items {
        shares.entry(item.partition).or_default().push(item);
    }
    let mut moves = Vec::with_capacity(shares.len());
    let mut deltas = Vec::with_capacity(shares.len());
    let mut copy = CopyRows::new(layout, part.items.len());
    let mut dead_letters = DeadLetterColumns::default();
    for (partition, items) in shares {
        let (Some(first), Some(last), Some(owned)) = (items.first(), items.last(), owned.get(&partition)) else {
            continue;
        };
        let mut events: Vec<Event<'a>> = Vec::with_capacity(items.len());
        let dead_before = dead_letters.offsets.len();
        // As far as the message that is looked at: for dead letters.
        let mut watermark = owned.watermark;
        for item in &items {
            match (&item.body, &part.refused) {
                (Body::Transaction(stored), None) => {
                    copy.push(Row {
                        offset: item.offset,
                        sequence: item.identity.map(|id| id.sequence),
                        scheduled_at: stored.scheduled_at,
                        sent_at: stored.sent_at,
                        received_at: item.received_at,
                        topic_ref,
                        partition,
                        run_ref: item.identity.and_then(|id| runs.get(id.run)),
                        transaction_id: stored.transaction_id.map(|text| part.batch.str(text)),
                    });
                    events.push(part.batch.event(item.offset, stored));
                    watermark = watermark.max(Some(stored.event_time));
                }
                (Body::DeadLetter(reason), _) => {
                    dead_letters.push(part, item, part.batch.str(*reason), runs, watermark);
                }
                (Body::Transaction(_), Some(reason)) => dead_letters.push(part, item, reason, runs, watermark),
            }
        }
        let messages = events.len() as i32;
        let windowing = Windowing { length: window_length, watermark: owned.watermark };
        let sums = aggregate(events, windowing)?;
        moves.push(Move {
            partition,
            owned: *owned,
            first_offset: first.offset,
            last_offset: last.offset,
            messages,
            dead_letters: (dead_letters.offsets.len() - dead_before) as i32,
            watermark: sums.watermark,
            fingerprint: part.batch.fingerprint(last),
        });
        deltas.push((partition, sums));
    }
    Ok(Prepared {
        move_columns: move_columns(&moves),
        rows: copy.finish(),
        users: user_columns(&deltas),
        symbols: symbol_columns(&deltas)?,
        category_windows: category_window_columns(&deltas)?,
        symbol_windows: symbol_window_columns(&deltas)?,
        changes: change_columns(&moves, &deltas),
        dead_letters,
        moves,
    })
}

fn move_columns(moves: &[Move]) -> MoveColumns {
    let mut columns = MoveColumns::default();
    for step in moves {
        columns.partitions.push(step.partition);
        columns.epochs.push(step.owned.epoch);
        columns.expected.push(step.owned.next_offset);
        columns.next_offsets.push(step.next_offset());
        columns.fingerprints.push(step.fingerprint.to_vec());
        columns.watermarks.push(step.watermark.map(Time));
        columns.messages.push(step.messages);
        columns.dead_letters.push(step.dead_letters);
        columns.first_offsets.push(step.first_offset);
        columns.last_offsets.push(step.last_offset);
    }
    columns
}

impl<'a> DeadLetterColumns<'a> {
    fn push(&mut self, part: &Part<'a>, item: &'a Item, reason: &str, runs: &Runs, watermark: Option<Micros>) {
        self.partitions.push(item.partition);
        self.offsets.push(item.offset);
        self.received_at.push(Time(item.received_at));
        // PostgreSQL has no zero characters in texts, and a reason may quote the message.
        self.reasons.push(reason.replace('\0', "\\0"));
        self.run_refs.push(item.identity.and_then(|id| runs.get(id.run)));
        self.sequences.push(item.identity.map(|id| id.sequence));
        self.keys.push(part.batch.key(item));
        self.payloads.push(part.batch.payload(item));
        self.watermarks.push(watermark.map(Time));
    }
}
