//! A part of a batch, encoded: everything that can be done before BEGIN is done here.

use std::collections::BTreeMap;

use super::batch::{Batch, Body, Item};
use super::copy::{CopyRows, EncodedRows, Row};
use super::ownership::Owned;
use super::runs::Runs;
use super::values::{Numeric, Time, text_array_literal};
use crate::aggregate::{Deltas, Event, ExactSum, NotExact, aggregate};
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
    pub messages: Vec<i32>,
    pub dead_letters: Vec<i32>,
    pub first_offsets: Vec<i64>,
    pub last_offsets: Vec<i64>,
}

/// Arrays of the upsert of `user_aggregates`.
#[derive(Debug, Default)]
pub(super) struct UserColumns<'a> {
    pub user_ids: Vec<&'a str>,
    pub currencies: Vec<String>,
    pub partitions: Vec<i32>,
    pub purchases: Vec<i64>,
    pub spend: Vec<Numeric>,
    pub refunds: Vec<i64>,
    pub refunded: Vec<Numeric>,
    pub trades: Vec<i64>,
    pub traded: Vec<Numeric>,
    pub first_events: Vec<Time>,
    pub last_events: Vec<Time>,
    pub last_offsets: Vec<i64>,
}

/// Arrays of the upsert of `symbol_aggregates`.
#[derive(Debug, Default)]
pub(super) struct SymbolColumns<'a> {
    pub symbols: Vec<&'a str>,
    pub currencies: Vec<String>,
    pub partitions: Vec<i32>,
    pub trades: Vec<i64>,
    pub quantities: Vec<Numeric>,
    pub notionals: Vec<Numeric>,
    pub last_prices: Vec<Numeric>,
    pub last_price_events: Vec<Time>,
    pub last_price_offsets: Vec<i64>,
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
}

/// Arrays of `aggregate_changes`, one element a partition; the last three hold array literals.
#[derive(Debug, Default)]
pub(super) struct ChangeColumns {
    pub partitions: Vec<i32>,
    pub last_offsets: Vec<i64>,
    pub user_ids: Vec<String>,
    pub user_currencies: Vec<String>,
    pub symbols: Vec<String>,
}

/// All that one transaction writes.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    pub moves: Vec<Move>,
    pub move_columns: MoveColumns,
    pub rows: EncodedRows,
    pub users: UserColumns<'a>,
    pub symbols: SymbolColumns<'a>,
    pub dead_letters: DeadLetterColumns<'a>,
    pub changes: ChangeColumns,
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
                }
                (Body::DeadLetter(reason), _) => dead_letters.push(part, item, part.batch.str(*reason), runs),
                (Body::Transaction(_), Some(reason)) => dead_letters.push(part, item, reason, runs),
            }
        }
        moves.push(Move {
            partition,
            owned: *owned,
            first_offset: first.offset,
            last_offset: last.offset,
            messages: events.len() as i32,
            dead_letters: (dead_letters.offsets.len() - dead_before) as i32,
            fingerprint: part.batch.fingerprint(last),
        });
        deltas.push((partition, aggregate(events)?));
    }
    Ok(Prepared {
        move_columns: move_columns(&moves),
        rows: copy.finish(),
        users: user_columns(&deltas),
        symbols: symbol_columns(&deltas)?,
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
        columns.messages.push(step.messages);
        columns.dead_letters.push(step.dead_letters);
        columns.first_offsets.push(step.first_offset);
        columns.last_offsets.push(step.last_offset);
    }
    columns
}

/// Sorted by key over all partitions: rows are locked in one order everywhere, so that a replay cannot deadlock.
fn user_columns<'a>(deltas: &[(i32, Deltas<'a>)]) -> UserColumns<'a> {
    let mut sorted: Vec<_> =
        deltas.iter().flat_map(|(partition, deltas)| deltas.users.iter().map(move |user| (*partition, user))).collect();
    sorted.sort_unstable_by_key(|(partition, user)| (user.user_id, user.currency, *partition));
    let mut columns = UserColumns::default();
    for (partition, user) in sorted {
        columns.user_ids.push(user.user_id);
        columns.currencies.push(user.currency.to_string());
        columns.partitions.push(partition);
        columns.purchases.push(user.purchases);
        columns.spend.push(user.spend.into());
        columns.refunds.push(user.refunds);
        columns.refunded.push(user.refunded.into());
        columns.trades.push(user.trades);
        columns.traded.push(user.traded.into());
        columns.first_events.push(Time(user.first_event));
        columns.last_events.push(Time(user.last_event));
        columns.last_offsets.push(user.last_offset);
    }
    columns
}

fn symbol_columns<'a>(deltas: &[(i32, Deltas<'a>)]) -> Result<SymbolColumns<'a>, NotExact> {
    let mut sorted: Vec<_> = deltas
        .iter()
        .flat_map(|(partition, deltas)| deltas.symbols.iter().map(move |symbol| (*partition, symbol)))
        .collect();
    sorted.sort_unstable_by_key(|(partition, symbol)| (symbol.symbol, symbol.currency, *partition));
    let mut columns = SymbolColumns::default();
    for (partition, symbol) in sorted {
        let last_price = symbol.last_price;
        columns.symbols.push(symbol.symbol);
        columns.currencies.push(symbol.currency.to_string());
        columns.partitions.push(partition);
        columns.trades.push(symbol.trades);
        columns.quantities.push(Numeric::integer(symbol.quantity));
        columns.notionals.push(symbol.notional.into());
        columns.last_prices.push(ExactSum::try_from(last_price.price)?.into());
        columns.last_price_events.push(Time(last_price.event_time));
        columns.last_price_offsets.push(last_price.offset);
        columns.last_offsets.push(symbol.last_offset);
    }
    Ok(columns)
}

fn change_columns(moves: &[Move], deltas: &[(i32, Deltas<'_>)]) -> ChangeColumns {
    let mut columns = ChangeColumns::default();
    for (step, (partition, deltas)) in moves.iter().zip(deltas) {
        if deltas.users.is_empty() {
            continue;
        }
        columns.partitions.push(*partition);
        columns.last_offsets.push(step.last_offset);
        columns.user_ids.push(text_array_literal(deltas.users.iter().map(|user| user.user_id)));
        columns.user_currencies.push(text_array_literal(deltas.users.iter().map(|user| user.currency.as_str())));
        let mut symbols: Vec<&str> = deltas.symbols.iter().map(|symbol| symbol.symbol).collect();
        symbols.dedup();
        columns.symbols.push(text_array_literal(symbols));
    }
    columns
}

impl<'a> DeadLetterColumns<'a> {
    fn push(&mut self, part: &Part<'a>, item: &'a Item, reason: &str, runs: &Runs) {
        self.partitions.push(item.partition);
        self.offsets.push(item.offset);
        self.received_at.push(Time(item.received_at));
        // PostgreSQL has no zero characters in texts, and a reason may quote the message.
        self.reasons.push(reason.replace('\0', "\\0"));
        self.run_refs.push(item.identity.and_then(|id| runs.get(id.run)));
        self.sequences.push(item.identity.map(|id| id.sequence));
        self.keys.push(part.batch.key(item));
        self.payloads.push(part.batch.payload(item));
    }
}
