//! The totals of one partition, summed again from the log, and compared with PostgreSQL's.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::check::{Check, Scope, UNIT_SCALE, missing, parse_units, units};
use super::notebook::Notebook;
use super::rows::{StoredSymbol, StoredUser};
use crate::clock::Micros;
use crate::transaction::{Currency, Detail, Transaction};

const COUNT_NAMES: [&str; 4] = ["purchases", "refunds", "trades", "declines"];
const SUM_NAMES: [&str; 3] = ["spend", "refunded", "traded"];
const EVENT_NAMES: [&str; 2] = ["first_event", "last_event"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct UserSums {
    counts: [i64; 4],
    sums: [i128; 3],
    events: [i64; 2],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SymbolSums {
    trades: i64,
    quantity: i128,
    notional: i128,
    /// By (event time, offset).
    last: (Micros, i64),
    last_price: i128,
}

/// What the messages of one partition add up to.
#[derive(Debug, Default)]
pub(super) struct Totals {
    users: Named<UserSums>,
    symbols: Named<SymbolSums>,
}

/// Sums by name and currency. A name is kept once, however many currencies it has, and costs no allocation when it is met again.
#[derive(Debug)]
struct Named<T> {
    places: HashMap<Box<str>, u32, RandomState>,
    sums: Vec<Vec<(Currency, T)>>,
}

impl Totals {
    /// Adds one message that PostgreSQL should have counted.
    pub(super) fn add(&mut self, transaction: &Transaction<'_>, offset: i64) {
        // Decoding lets nothing through that does not fit: 15 digits and 8 decimals, 10^15 times over.
        let amount = units(transaction.amount).unwrap_or_default();
        let (kind, moves) = match transaction.detail {
            Detail::Purchase { .. } if transaction.is_declined() => (3, None),
            Detail::Purchase { .. } => (0, Some(0)),
            Detail::Refund { .. } => (1, Some(1)),
            Detail::Trade { .. } => (2, Some(2)),
        };
        let event = transaction.event_time.0;
        let sums = self.users.entry(&transaction.user_id, transaction.currency, || UserSums {
            events: [event, event],
            ..UserSums::default()
        });
        sums.counts[kind] += 1;
        if let Some(sum) = moves {
            sums.sums[sum] += amount;
        }
        sums.events = [sums.events[0].min(event), sums.events[1].max(event)];
        if let Detail::Trade { symbol, quantity, price, .. } = &transaction.detail {
            let price = units(*price).unwrap_or_default();
            let place = (transaction.event_time, offset);
            let sums = self.symbols.entry(symbol, transaction.currency, || SymbolSums {
                trades: 0,
                quantity: 0,
                notional: 0,
                last: place,
                last_price: price,
            });
            sums.trades += 1;
            sums.quantity += i128::from(*quantity);
            sums.notional += amount;
            if place > sums.last {
                sums.last = place;
                sums.last_price = price;
            }
        }
    }

    /// Begins with a user's total at a checkpoint; None when it is no total.
    pub(super) fn carry_user(&mut self, total: &StoredUser) -> Option<()> {
        let currency = total.currency.parse().ok()?;
        let sums = [parse_units(&total.sums[0])?, parse_units(&total.sums[1])?, parse_units(&total.sums[2])?];
        let sums = UserSums { counts: total.counts, sums, events: total.events };
        self.users.of(&total.user_id).push((currency, sums));
        Some(())
    }

    /// The same of a symbol.
    pub(super) fn carry_symbol(&mut self, total: &StoredSymbol) -> Option<()> {
        let currency = total.currency.parse().ok()?;
        let quantity = parse_units(&total.sums[0])? / 10i128.pow(UNIT_SCALE);
        let (notional, last_price) = (parse_units(&total.sums[1])?, parse_units(&total.sums[2])?);
        let last = (Micros(total.last.0), total.last.1);
        let sums = SymbolSums { trades: total.trades, quantity, notional, last, last_price };
        self.symbols.of(&total.symbol).push((currency, sums));
        Some(())
    }

    /// Compares PostgreSQL's totals of users; each is compared once.
    pub(super) fn compare_users(&mut self, stored: &[StoredUser], scope: Scope, book: &mut Notebook) {
        for row in stored {
            book.counts.user_totals += 1;
            let expected = self.users.take(&row.user_id, &row.currency).unwrap_or_default();
            let mut check = Check { kind: "user", name: &row.user_id, currency: &row.currency, scope, book };
            for (index, field) in COUNT_NAMES.into_iter().enumerate() {
                check.count(field, i128::from(expected.counts[index]), i128::from(row.counts[index]));
            }
            for (index, field) in SUM_NAMES.into_iter().enumerate() {
                check.sum(field, expected.sums[index], &row.sums[index]);
            }
            if scope.complete && expected != UserSums::default() {
                for (index, field) in EVENT_NAMES.into_iter().enumerate() {
                    check.time(field, expected.events[index], row.events[index]);
                }
            }
        }
    }

    /// Compares PostgreSQL's totals of symbols; each is compared once.
    pub(super) fn compare_symbols(&mut self, stored: &[StoredSymbol], scope: Scope, book: &mut Notebook) {
        for row in stored {
            book.counts.symbol_totals += 1;
            let mut check = Check { kind: "symbol", name: &row.symbol, currency: &row.currency, scope, book };
            let Some(expected) = self.symbols.take(&row.symbol, &row.currency) else {
                // All of its trades may have been cut from the log.
                check.count("trades", 0, i128::from(row.trades));
                continue;
            };
            check.count("trades", i128::from(expected.trades), i128::from(row.trades));
            check.sum("quantity", expected.quantity * 10i128.pow(UNIT_SCALE), &row.sums[0]);
            check.sum("notional", expected.notional, &row.sums[1]);
            // A price is no sum: of a log that was cut, a later one may have gone, else it is this one.
            let (time, offset) = expected.last;
            if scope.complete || row.last <= (time.0, offset) {
                let mut check = Check { scope: Scope { complete: true, ..scope }, ..check };
                check.sum("last_price", expected.last_price, &row.sums[2]);
                check.time("last_price_event", time.0, row.last.0);
                check.count("last_price_offset", i128::from(offset), i128::from(row.last.1));
            }
        }
    }

    /// What is left has no total in PostgreSQL at all.
    pub(super) fn finish(self, scope: Scope, book: &mut Notebook) {
        for (name, currency, sums) in self.users.left() {
            book.counts.user_totals += 1;
            let expected = format!("{} messages", sums.counts.iter().sum::<i64>());
            missing("user", &name, currency, scope, expected, book);
        }
        for (name, currency, sums) in self.symbols.left() {
            book.counts.symbol_totals += 1;
            missing("symbol", &name, currency, scope, format!("{} trades", sums.trades), book);
        }
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named { places: HashMap::default(), sums: Vec::new() }
    }
}

impl<T> Named<T> {
    /// All sums of a name.
    fn of(&mut self, name: &str) -> &mut Vec<(Currency, T)> {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None => {
                let place = self.sums.len() as u32;
                self.places.insert(name.into(), place);
                self.sums.push(Vec::with_capacity(1));
                place
            }
        };
        &mut self.sums[place as usize]
    }

    fn entry(&mut self, name: &str, currency: Currency, first: impl FnOnce() -> T) -> &mut T {
        let sums = self.of(name);
        let place = match sums.iter().position(|(known, _)| *known == currency) {
            Some(place) => place,
            None => {
                sums.push((currency, first()));
                sums.len() - 1
            }
        };
        &mut sums[place].1
    }

    fn take(&mut self, name: &str, currency: &str) -> Option<T> {
        let sums = self.sums.get_mut(*self.places.get(name)? as usize)?;
        let place = sums.iter().position(|(known, _)| known.as_str() == currency)?;
        Some(sums.swap_remove(place).1)
    }

    /// What was not taken.
    fn left(self) -> impl Iterator<Item = (Box<str>, Currency, T)> {
        let mut names: Vec<(Box<str>, u32)> = self.places.into_iter().collect();
        names.sort_unstable_by_key(|(_, place)| *place);
        let sums = names.into_iter().zip(self.sums);
        sums.flat_map(|((name, _), sums)| sums.into_iter().map(move |(currency, sums)| (name.clone(), currency, sums)))
    }
}
