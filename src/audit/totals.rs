//! The totals of one partition, summed again from the log, and compared with PostgreSQL's.

use std::collections::HashMap;

use rust_decimal::Decimal;

use super::notebook::Notebook;
use super::report::{Difference, DifferenceKind};
use super::stored::{StoredSymbol, StoredUser};
use crate::clock::Micros;
use crate::transaction::{AMOUNT_SCALE_MAX, Currency, Detail, Transaction};

/// Sums are integers of 10^-8 units.
const UNIT_SCALE: u32 = AMOUNT_SCALE_MAX;

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

/// Where differences are, and whether the log has all messages that were counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    pub partition: i32,
    /// False: retention has cut some; totals may be larger than their sum, but not smaller.
    pub complete: bool,
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

fn missing(kind: &str, name: &str, currency: Currency, scope: Scope, expected: String, book: &mut Notebook) {
    book.differ(DifferenceKind::WrongTotal, |difference| {
        difference.partition = Some(scope.partition);
        difference.subject = Some(format!("{kind} {name} {currency}"));
        difference.expected = Some(expected);
        difference.found = Some("no total".to_owned());
    });
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

/// Compares the fields of one total.
struct Check<'a> {
    kind: &'static str,
    name: &'a str,
    currency: &'a str,
    scope: Scope,
    book: &'a mut Notebook,
}

impl Check<'_> {
    fn count(&mut self, field: &'static str, expected: i128, found: i128) {
        self.check(field, expected, Some(found), |count| count.to_string(), None);
    }

    fn sum(&mut self, field: &'static str, expected: i128, found: &str) {
        self.check(field, expected, parse_units(found), show_units, Some(found));
    }

    fn time(&mut self, field: &'static str, expected: i64, found: i64) {
        let show = |micros: i128| Micros(micros as i64).to_string();
        self.check(field, i128::from(expected), Some(i128::from(found)), show, None);
    }

    fn check(
        &mut self,
        field: &'static str,
        expected: i128,
        found: Option<i128>,
        show: impl Fn(i128) -> String,
        text: Option<&str>,
    ) {
        let good = found.is_some_and(|found| if self.scope.complete { found == expected } else { found >= expected });
        if good {
            return;
        }
        let Check { kind, name, currency, scope, .. } = *self;
        self.book.differ(DifferenceKind::WrongTotal, |difference: &mut Difference| {
            let at_least = if scope.complete { "" } else { "at least " };
            difference.partition = Some(scope.partition);
            difference.subject = Some(format!("{kind} {name} {currency}"));
            difference.field = Some(field);
            difference.expected = Some(format!("{at_least}{}", show(expected)));
            difference.found = Some(match (text, found) {
                (Some(text), _) => text.to_owned(),
                (None, Some(found)) => show(found),
                (None, None) => "nothing".to_owned(),
            });
        });
    }
}

/// An amount in 10^-8 units; None when it has more decimals or does not fit.
fn units(amount: Decimal) -> Option<i128> {
    let amount = amount.normalize();
    amount.mantissa().checked_mul(10i128.checked_pow(UNIT_SCALE.checked_sub(amount.scale())?)?)
}

/// A plain decimal of PostgreSQL in 10^-8 units; None for NaN, for more decimals, and for what does not fit.
fn parse_units(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty()
        || fraction.len() > UNIT_SCALE as usize
        || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        return None;
    }
    let padded = format!("{whole}{fraction:0<width$}", width = UNIT_SCALE as usize);
    let units: i128 = padded.parse().ok()?;
    Some(if negative { -units } else { units })
}

/// As people write it: at least two decimals, no zeros beyond.
fn show_units(units: i128) -> String {
    let one = 10i128.pow(UNIT_SCALE).unsigned_abs();
    let (whole, fraction) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
    let fraction = format!("{fraction:0>width$}", width = UNIT_SCALE as usize);
    let shown = fraction.trim_end_matches('0');
    format!("{}{whole}.{shown:0<2}", if units < 0 { "-" } else { "" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sums_beyond_a_decimals_digits_are_read_exactly() {
        assert_eq!(parse_units("123456789012345678901234567.12345678"), Some(12345678901234567890123456712345678));
        assert_eq!(parse_units("-0.01"), Some(-1_000_000));
        assert_eq!(parse_units("1.500000000000"), Some(150_000_000));
        assert_eq!(parse_units("7"), Some(700_000_000));
        for wrong in ["NaN", "", ".", "1.123456789", "1e5", "Infinity", "1.2.3"] {
            assert_eq!(parse_units(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn amounts_are_shown_as_people_write_them() {
        assert_eq!(show_units(150_000_000), "1.50");
        assert_eq!(show_units(-1), "-0.00000001");
        assert_eq!(show_units(units(Decimal::new(1999, 2)).unwrap()), "19.99");
    }
}
