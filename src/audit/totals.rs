//! The totals of one partition, summed again from the log, and compared with PostgreSQL's.

use std::collections::HashMap;

use super::check::{Check, Scope, UNIT_SCALE, missing, parse_units, units};
use super::notebook::Notebook;
use super::rows::{StoredSymbol, StoredUser};
use crate::clock::Micros;
use crate::transaction::{Currency, Detail, Transaction};

const COUNT_NAMES: [&str; 3] = ["purchases", "refunds", "trades"];
const SUM_NAMES: [&str; 3] = ["spend", "refunded", "traded"];
const EVENT_NAMES: [&str; 2] = ["first_event", "last_event"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct UserSums {
    counts: [i64; 3],
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

/// What the messages of one partition add up to. A name is kept once, however many currencies it has.
#[derive(Debug, Default)]
pub(super) struct Totals {
    users: HashMap<Box<str>, Vec<(Currency, UserSums)>>,
    symbols: HashMap<Box<str>, Vec<(Currency, SymbolSums)>>,
}

impl Totals {
    /// Adds one message that PostgreSQL should have counted.
    pub(super) fn add(&mut self, transaction: &Transaction<'_>, offset: i64) {
        // Decoding lets nothing through that does not fit: 15 digits and 8 decimals, 10^15 times over.
        let amount = units(transaction.amount).unwrap_or_default();
        let kind = match transaction.detail {
            Detail::Purchase { .. } => 0,
            Detail::Refund { .. } => 1,
            Detail::Trade { .. } => 2,
        };
        let event = transaction.event_time.0;
        let sums = entry(&mut self.users, &transaction.user_id, transaction.currency, || UserSums {
            events: [event, event],
            ..UserSums::default()
        });
        sums.counts[kind] += 1;
        sums.sums[kind] += amount;
        sums.events = [sums.events[0].min(event), sums.events[1].max(event)];
        if let Detail::Trade { symbol, quantity, price, .. } = &transaction.detail {
            let price = units(*price).unwrap_or_default();
            let place = (transaction.event_time, offset);
            let sums = entry(&mut self.symbols, symbol, transaction.currency, || SymbolSums {
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
        self.users.entry(total.user_id.as_str().into()).or_default().push((currency, sums));
        Some(())
    }

    /// The same of a symbol.
    pub(super) fn carry_symbol(&mut self, total: &StoredSymbol) -> Option<()> {
        let currency = total.currency.parse().ok()?;
        let quantity = parse_units(&total.sums[0])? / 10i128.pow(UNIT_SCALE);
        let (notional, last_price) = (parse_units(&total.sums[1])?, parse_units(&total.sums[2])?);
        let last = (Micros(total.last.0), total.last.1);
        let sums = SymbolSums { trades: total.trades, quantity, notional, last, last_price };
        self.symbols.entry(total.symbol.as_str().into()).or_default().push((currency, sums));
        Some(())
    }

    /// Compares PostgreSQL's totals of users; each is compared once.
    pub(super) fn compare_users(&mut self, stored: &[StoredUser], scope: Scope, book: &mut Notebook) {
        for row in stored {
            book.counts.user_totals += 1;
            let expected = take(&mut self.users, &row.user_id, &row.currency).unwrap_or_default();
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
            let Some(expected) = take(&mut self.symbols, &row.symbol, &row.currency) else {
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
        for (name, sums) in self.users {
            for (currency, sums) in sums {
                book.counts.user_totals += 1;
                let expected = format!("{} messages", sums.counts.iter().sum::<i64>());
                missing("user", &name, currency, scope, expected, book);
            }
        }
        for (name, sums) in self.symbols {
            for (currency, sums) in sums {
                book.counts.symbol_totals += 1;
                missing("symbol", &name, currency, scope, format!("{} trades", sums.trades), book);
            }
        }
    }
}

fn entry<'m, T>(
    map: &'m mut HashMap<Box<str>, Vec<(Currency, T)>>,
    name: &str,
    currency: Currency,
    first: impl FnOnce() -> T,
) -> &'m mut T {
    if !map.contains_key(name) {
        map.insert(name.into(), Vec::with_capacity(1));
    }
    let sums = map.entry(name.into()).or_default();
    let place = match sums.iter().position(|(known, _)| *known == currency) {
        Some(place) => place,
        None => {
            sums.push((currency, first()));
            sums.len() - 1
        }
    };
    &mut sums[place].1
}

fn take<T>(map: &mut HashMap<Box<str>, Vec<(Currency, T)>>, name: &str, currency: &str) -> Option<T> {
    let sums = map.get_mut(name)?;
    let place = sums.iter().position(|(known, _)| known.as_str() == currency)?;
    let (_, found) = sums.swap_remove(place);
    if sums.is_empty() {
        map.remove(name);
    }
    Some(found)
}
