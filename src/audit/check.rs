//! One total of PostgreSQL's against what the log adds up to, field by field.

use rust_decimal::Decimal;

use super::notebook::Notebook;
use super::report::{Difference, DifferenceKind};
use crate::clock::Micros;
use crate::transaction::{AMOUNT_SCALE_MAX, Currency};

/// Sums are integers of 10^-8 units.
pub(super) const UNIT_SCALE: u32 = AMOUNT_SCALE_MAX;

/// Where differences are, and whether the log has all messages that were counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    pub partition: i32,
    /// False: retention has cut some; totals may be larger than their sum, but not smaller.
    pub complete: bool,
}

/// Compares the fields of one total.
pub(super) struct Check<'a> {
    pub kind: &'static str,
    pub name: &'a str,
    pub currency: &'a str,
    pub scope: Scope,
    pub book: &'a mut Notebook,
}

impl Check<'_> {
    pub(super) fn count(&mut self, field: &'static str, expected: i128, found: i128) {
        self.check(field, expected, Some(found), |count| count.to_string(), None);
    }

    pub(super) fn sum(&mut self, field: &'static str, expected: i128, found: &str) {
        self.check(field, expected, parse_units(found), show_units, Some(found));
    }

    pub(super) fn time(&mut self, field: &'static str, expected: i64, found: i64) {
        let show = |micros: i128| Micros(micros as i64).to_string();
        self.check(field, i128::from(expected), Some(i128::from(found)), show, None);
    }

    /// A price is no sum: it is this one, or it is wrong.
    pub(super) fn price(&mut self, field: &'static str, expected: Option<i128>, found: Option<&str>) {
        let units = found.and_then(parse_units);
        if units == expected && found.is_some() == expected.is_some() {
            return;
        }
        let or_none = |units: Option<i128>| units.map_or_else(|| "none".to_owned(), show_units);
        self.differ(field, or_none(expected), found.map_or_else(|| "none".to_owned(), str::to_owned));
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
        let at_least = if self.scope.complete { "" } else { "at least " };
        let found = match (text, found) {
            (Some(text), _) => text.to_owned(),
            (None, Some(found)) => show(found),
            (None, None) => "nothing".to_owned(),
        };
        self.differ(field, format!("{at_least}{}", show(expected)), found);
    }

    fn differ(&mut self, field: &'static str, expected: String, found: String) {
        let Check { kind, name, currency, scope, .. } = *self;
        self.book.differ(DifferenceKind::WrongTotal, |difference: &mut Difference| {
            difference.partition = Some(scope.partition);
            difference.subject = Some(format!("{kind} {name} {currency}"));
            difference.field = Some(field);
            difference.expected = Some(expected);
            difference.found = Some(found);
        });
    }
}

/// Notes a total that PostgreSQL does not have.
pub(super) fn missing(kind: &str, name: &str, currency: Currency, scope: Scope, expected: String, book: &mut Notebook) {
    book.differ(DifferenceKind::WrongTotal, |difference| {
        difference.partition = Some(scope.partition);
        difference.subject = Some(format!("{kind} {name} {currency}"));
        difference.expected = Some(expected);
        difference.found = Some("no total".to_owned());
    });
}

/// An amount in 10^-8 units; None when it has more decimals or does not fit.
pub(super) fn units(amount: Decimal) -> Option<i128> {
    // Zeros at the end carry no value: 1.500000000 is exact.
    let amount = if amount.scale() > UNIT_SCALE { amount.normalize() } else { amount };
    amount.mantissa().checked_mul(10i128.checked_pow(UNIT_SCALE.checked_sub(amount.scale())?)?)
}

/// A plain decimal of PostgreSQL in 10^-8 units; None for NaN, for more decimals, and for what does not fit.
pub(super) fn parse_units(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() || fraction.len() > UNIT_SCALE as usize {
        return None;
    }
    let zeros = std::iter::repeat_n(b'0', UNIT_SCALE as usize - fraction.len());
    let units = whole.bytes().chain(fraction.bytes()).chain(zeros).try_fold(0_i128, |units, digit| {
        let digit = digit.is_ascii_digit().then(|| i128::from(digit - b'0'))?;
        units.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { -units } else { units })
}

/// As people write it: at least two decimals, no zeros beyond.
pub(super) fn show_units(units: i128) -> String {
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
