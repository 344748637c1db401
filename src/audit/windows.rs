//! The windows of one partition, summed again from the log, and compared with PostgreSQL's.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::check::{Check, Scope, UNIT_SCALE, missing, units};
use super::notebook::Notebook;
use super::rows::{StoredCategoryWindow, StoredSymbolWindow};
use crate::clock::Micros;
use crate::transaction::{Currency, Detail, Transaction};

/// Which window: its start, the number of what it is about, the currency.
type Key = (i64, u32, Currency);

/// Numbers for categories and symbols: a message must not cost an allocation.
#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<Box<str>, u32, RandomState>,
    names: Vec<Box<str>>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.into(), number);
        self.names.push(name.into());
        number
    }

    fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", |name| name)
    }
}

#[derive(Clone, Debug, Default)]
struct Lateness {
    messages: i64,
    us_max: i64,
}

#[derive(Clone, Debug, Default)]
struct CategorySums {
    /// purchases, refunds
    counts: [i64; 2],
    /// spend, refunded
    sums: [i128; 2],
    /// The smallest and the largest purchase.
    range: Option<[i128; 2]>,
    late: Lateness,
}

/// (event time, offset) and price of a trade.
type Trade = ((i64, i64), i128);

#[derive(Clone, Debug)]
struct SymbolSums {
    trades: i64,
    quantity: i128,
    notional: i128,
    first: Trade,
    last: Trade,
    high: i128,
    low: i128,
    late: Lateness,
}

/// What the messages of one partition add up to, window by window.
#[derive(Debug)]
pub(super) struct Windows {
    length_us: i64,
    /// Windows count from this offset on.
    from_offset: i64,
    /// The latest event time so far.
    seen_us: Option<i64>,
    names: Names,
    categories: HashMap<Key, CategorySums, RandomState>,
    symbols: HashMap<Key, SymbolSums, RandomState>,
}

impl Windows {
    pub(super) fn new(length_us: i64, from_offset: i64) -> Self {
        Windows {
            length_us: length_us.max(1),
            from_offset,
            seen_us: None,
            names: Names::default(),
            categories: HashMap::default(),
            symbols: HashMap::default(),
        }
    }

    /// Adds one message that PostgreSQL should have counted; they come in the order of the log. `replayed`: it had been a
    /// dead letter, so those behind it were applied before it.
    pub(super) fn add(&mut self, transaction: &Transaction<'_>, offset: i64, replayed: bool) {
        if offset < self.from_offset {
            return;
        }
        let event_us = transaction.event_time.0;
        let start = event_us - event_us.rem_euclid(self.length_us);
        let end = start + self.length_us;
        let late_us = self.seen_us.filter(|seen| *seen >= end).map(|seen| seen - end);
        if !replayed {
            self.seen_us = self.seen_us.max(Some(event_us));
        }
        if transaction.is_declined() {
            return;
        }
        let amount = units(transaction.amount).unwrap_or_default();
        match &transaction.detail {
            Detail::Purchase { category, .. } => {
                let sums = self.category(start, category, transaction.currency, late_us);
                sums.counts[0] += 1;
                sums.sums[0] += amount;
                let [low, high] = sums.range.unwrap_or([amount; 2]);
                sums.range = Some([low.min(amount), high.max(amount)]);
            }
            Detail::Refund { category, .. } => {
                let sums = self.category(start, category, transaction.currency, late_us);
                sums.counts[1] += 1;
                sums.sums[1] += amount;
            }
            Detail::Trade { symbol, quantity, price, .. } => {
                let price = units(*price).unwrap_or_default();
                let trade = ((event_us, offset), price);
                let key = (start, self.names.number(symbol), transaction.currency);
                let sums = self.symbols.entry(key).or_insert_with(|| SymbolSums {
                    trades: 0,
                    quantity: 0,
                    notional: 0,
                    first: trade,
                    last: trade,
                    high: price,
                    low: price,
                    late: Lateness::default(),
                });
                sums.trades += 1;
                sums.quantity += i128::from(*quantity);
                sums.notional += amount;
                sums.first = if trade.0 < sums.first.0 { trade } else { sums.first };
                sums.last = if trade.0 > sums.last.0 { trade } else { sums.last };
                sums.high = sums.high.max(price);
                sums.low = sums.low.min(price);
                sums.late.count(late_us);
            }
        }
    }

    fn category(&mut self, start: i64, name: &str, currency: Currency, late_us: Option<i64>) -> &mut CategorySums {
        let sums = self.categories.entry((start, self.names.number(name), currency)).or_default();
        sums.late.count(late_us);
        sums
    }

    /// Compares PostgreSQL's windows of categories; each is compared once.
    pub(super) fn compare_categories(&mut self, stored: &[StoredCategoryWindow], scope: Scope, book: &mut Notebook) {
        for row in stored {
            book.counts.window_totals += 1;
            let expected = self.key(&row.key).and_then(|key| self.categories.remove(&key)).unwrap_or_default();
            let name = name(row.key.0, &row.key.1);
            let mut check = Check { kind: "category window", name: &name, currency: &row.key.2, scope, book };
            check.count("purchases", expected.counts[0].into(), row.counts[0].into());
            check.count("refunds", expected.counts[1].into(), row.counts[1].into());
            check.sum("spend", expected.sums[0], &row.sums[0]);
            check.sum("refunded", expected.sums[1], &row.sums[1]);
            check.late(&expected.late, row.late);
            if scope.complete {
                for (index, field) in ["purchase_min", "purchase_max"].into_iter().enumerate() {
                    let found = row.range.as_ref().map(|range| range[index].as_str());
                    check.price(field, expected.range.map(|range| range[index]), found);
                }
            }
        }
    }

    /// Compares PostgreSQL's windows of symbols; each is compared once.
    pub(super) fn compare_symbols(&mut self, stored: &[StoredSymbolWindow], scope: Scope, book: &mut Notebook) {
        for row in stored {
            book.counts.window_totals += 1;
            let name = name(row.key.0, &row.key.1);
            let mut check = Check { kind: "symbol window", name: &name, currency: &row.key.2, scope, book };
            let Some(expected) = self.key(&row.key).and_then(|key| self.symbols.remove(&key)) else {
                check.count("trades", 0, row.trades.into());
                continue;
            };
            check.count("trades", expected.trades.into(), row.trades.into());
            check.sum("quantity", expected.quantity * 10i128.pow(UNIT_SCALE), &row.sums[0]);
            check.sum("notional", expected.notional, &row.sums[1]);
            check.late(&expected.late, row.late);
            if scope.complete {
                let prices = [expected.first.1, expected.high, expected.low, expected.last.1];
                for (index, field) in ["open", "high", "low", "close"].into_iter().enumerate() {
                    check.price(field, Some(prices[index]), Some(&row.prices[index]));
                }
            }
        }
    }

    /// None where no message of the log can have such a window.
    fn key(&self, (start, about, currency): &(i64, String, String)) -> Option<Key> {
        Some((*start, *self.names.numbers.get(about.as_str())?, currency.parse().ok()?))
    }

    /// What is left has no window in PostgreSQL at all.
    pub(super) fn finish(self, scope: Scope, book: &mut Notebook) {
        let Windows { names, categories, symbols, .. } = self;
        for ((start, about, currency), sums) in categories {
            book.counts.window_totals += 1;
            let expected = format!("{} messages", sums.counts[0] + sums.counts[1]);
            missing("category window", &name(start, names.name(about)), currency, scope, expected, book);
        }
        for ((start, about, currency), sums) in symbols {
            book.counts.window_totals += 1;
            let expected = format!("{} trades", sums.trades);
            missing("symbol window", &name(start, names.name(about)), currency, scope, expected, book);
        }
    }
}

impl Lateness {
    fn count(&mut self, late_us: Option<i64>) {
        if let Some(late_us) = late_us {
            self.messages += 1;
            self.us_max = self.us_max.max(late_us);
        }
    }
}

impl Check<'_> {
    fn late(&mut self, expected: &Lateness, found: [i64; 2]) {
        self.count("late", expected.messages.into(), found[0].into());
        self.count("late_us_max", expected.us_max.into(), found[1].into());
    }
}

fn name(start: i64, about: &str) -> String {
    format!("{} of {about}", Micros(start))
}
