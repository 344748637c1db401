//! Values in PostgreSQL's binary form: exact sums as numeric, microseconds as timestamptz, text arrays as literals.

use rust_decimal::Decimal;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

use crate::aggregate::{ExactSum, NotExact};
use crate::clock::Micros;

/// 2000-01-01T00:00:00Z, from which PostgreSQL counts.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// Microseconds that PostgreSQL reads as infinity; a message cannot carry them.
const INFINITIES: [i64; 2] = [i64::MIN, i64::MAX];

/// A point in time as timestamptz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub Micros);

impl Time {
    /// Microseconds since PostgreSQL's epoch; times outside PostgreSQL's range stay outside, so that it refuses them.
    pub(super) fn postgres_micros(self) -> i64 {
        let micros = self.0.0.saturating_sub(POSTGRES_EPOCH_US);
        if INFINITIES.contains(&micros) { i64::MAX - 1 } else { micros }
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        <chrono::DateTime<chrono::Utc> as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend(self.postgres_micros().to_be_bytes());
        Ok(IsNull::No)
    }
}

/// A numeric: an integer of 10^-`ExactSum::UNIT_SCALE` units, with the decimals to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numeric {
    units: i128,
    scale: u32,
}

impl From<ExactSum> for Numeric {
    fn from(sum: ExactSum) -> Self {
        Numeric { units: sum.units(), scale: sum.scale() }
    }
}

impl Numeric {
    /// A whole number; 10^11 of the largest quantities fit.
    pub(super) fn integer(value: i128) -> Self {
        Numeric { units: value.saturating_mul(10i128.pow(ExactSum::UNIT_SCALE)), scale: 0 }
    }

    /// An amount or a price.
    ///
    /// # Errors
    /// [`NotExact`] when it has more decimals than a total keeps.
    pub(super) fn exact(value: Decimal) -> Result<Self, NotExact> {
        ExactSum::try_from(value).map(Self::from)
    }

    /// Digits of PostgreSQL's base 10,000, most significant first, at the end of the array; and how many they are.
    fn base_10000_digits(self) -> ([i16; DIGITS_MAX], usize) {
        // UNIT_SCALE is a multiple of 4, so that digits line up with the decimal point.
        const { assert!(ExactSum::UNIT_SCALE.is_multiple_of(4)) };
        let mut digits = [0; DIGITS_MAX];
        let mut count = 0;
        let mut push = |digit: i16| {
            count += 1;
            digits[DIGITS_MAX - count] = digit;
        };
        let mut large = self.units.unsigned_abs();
        // Nearly every sum fits 64 bits, whose division is many times faster.
        let mut small = loop {
            match u64::try_from(large) {
                Ok(small) => break small,
                Err(_) => push((large % 10_000) as i16),
            }
            large /= 10_000;
        };
        while small != 0 {
            push((small % 10_000) as i16);
            small /= 10_000;
        }
        (digits, count)
    }
}

/// Digits to the base of 10,000 that 128 bits hold, at most: 2^127 has 39 decimal ones.
const DIGITS_MAX: usize = 10;

impl Type<Postgres> for Numeric {
    fn type_info() -> PgTypeInfo {
        <rust_decimal::Decimal as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Numeric {
    fn array_type_info() -> PgTypeInfo {
        <rust_decimal::Decimal as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Numeric {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let (digits, count) = self.base_10000_digits();
        let digits_behind_point = (ExactSum::UNIT_SCALE / 4) as i16;
        let weight = count as i16 - digits_behind_point - 1;
        let sign: u16 = if self.units < 0 { 0x4000 } else { 0 };
        buffer.extend((count as i16).to_be_bytes());
        buffer.extend(weight.to_be_bytes());
        buffer.extend(sign.to_be_bytes());
        buffer.extend((self.scale as i16).to_be_bytes());
        for digit in &digits[DIGITS_MAX - count..] {
            buffer.extend(digit.to_be_bytes());
        }
        Ok(IsNull::No)
    }
}

/// A text array as PostgreSQL's literal: arrays of different lengths cannot travel in one array parameter.
pub(super) fn text_array_literal<'a>(elements: impl IntoIterator<Item = &'a str>) -> String {
    let mut literal = String::from("{");
    for element in elements {
        if literal.len() > 1 {
            literal.push(',');
        }
        literal.push('"');
        for character in element.chars() {
            if matches!(character, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(character);
        }
        literal.push('"');
    }
    literal.push('}');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_a_text_array_are_quoted() {
        assert_eq!(text_array_literal([]), "{}");
        assert_eq!(text_array_literal(["a,b", r#"c"\"#, ""]), r#"{"a,b","c\"\\",""}"#);
    }

    #[test]
    fn digits_of_a_numeric_are_whole_on_both_sides_of_64_bits() {
        for units in
            [0, 1, 10_000, i128::from(u64::MAX), i128::from(u64::MAX) + 1, -12_345_678_901, i128::MAX, i128::MIN]
        {
            let (digits, count) = Numeric { units, scale: 2 }.base_10000_digits();
            let whole = digits[DIGITS_MAX - count..].iter().fold(0u128, |sum, digit| sum * 10_000 + *digit as u128);
            assert_eq!(whole, units.unsigned_abs());
            assert_eq!(count, (0u32..10).take_while(|power| whole / 10_000u128.pow(*power) > 0).count());
        }
    }

    #[test]
    fn times_count_from_the_year_2000() {
        assert_eq!(Time(Micros(POSTGRES_EPOCH_US)).postgres_micros(), 0);
        assert_eq!(Time(Micros(i64::MIN)).postgres_micros(), i64::MAX - 1);
    }
}
