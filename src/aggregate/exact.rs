//! Sums of money that never round.

use rust_decimal::Decimal;

use crate::transaction::AMOUNT_SCALE_MAX;

/// A sum kept as an integer of 10^-8 units, next to the most decimals that a summand showed.
///
/// `Decimal` has 96 bits and rounds a sum that needs more of them, silently; 128 bits hold 10^15 amounts of the
/// largest size that decoding lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactSum {
    units: i128,
    scale: u32,
}

/// An amount that cannot be summed exactly; decoding lets none through.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{amount} has more than {AMOUNT_SCALE_MAX} decimals or is too large to be summed exactly")]
pub struct NotExact {
    /// The amount.
    pub amount: Decimal,
}

impl ExactSum {
    /// Decimals of a unit.
    pub const UNIT_SCALE: u32 = AMOUNT_SCALE_MAX;

    /// Adds an amount.
    ///
    /// # Errors
    /// [`NotExact`] when the amount has decimals beyond a unit, or the sum would leave 128 bits; the sum is unchanged.
    pub fn add(&mut self, amount: Decimal) -> Result<(), NotExact> {
        let refused = NotExact { amount };
        // Zeros at the end carry no value: 1.500000000 is exact.
        let amount = if amount.scale() > Self::UNIT_SCALE { amount.normalize() } else { amount };
        let Some(missing) = Self::UNIT_SCALE.checked_sub(amount.scale()) else { return Err(refused) };
        let units = amount.mantissa().checked_mul(10i128.pow(missing)).and_then(|units| self.units.checked_add(units));
        let Some(units) = units else { return Err(refused) };
        self.units = units;
        self.scale = self.scale.max(amount.scale());
        Ok(())
    }

    /// The sum in 10^-8 units.
    pub fn units(&self) -> i128 {
        self.units
    }

    /// Decimals to show: the most that a summand had.
    pub fn scale(&self) -> u32 {
        self.scale
    }

    /// The sum as a decimal; none when it has more digits than a `Decimal` holds.
    pub fn to_decimal(&self) -> Option<Decimal> {
        let hidden = 10i128.pow(Self::UNIT_SCALE - self.scale);
        Decimal::try_from_i128_with_scale(self.units / hidden, self.scale).ok()
    }
}

impl TryFrom<Decimal> for ExactSum {
    type Error = NotExact;

    fn try_from(amount: Decimal) -> Result<Self, NotExact> {
        let mut sum = ExactSum::default();
        sum.add(amount)?;
        Ok(sum)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_beyond_the_96_bits_of_a_decimal_keeps_its_last_digit() {
        let largest = Decimal::from_i128_with_scale(99_999_999_999_999_999_999_999, 8);
        let mut sum = ExactSum::default();
        for _ in 0..2_000_000 {
            sum.add(largest).unwrap();
        }
        assert_eq!(sum.units(), 99_999_999_999_999_999_999_999 * 2_000_000);
        assert_eq!(sum.to_decimal(), None);
    }

    #[test]
    fn a_sum_shows_as_many_decimals_as_its_finest_summand() {
        let mut sum = ExactSum::default();
        sum.add(Decimal::new(150, 2)).unwrap();
        sum.add(Decimal::new(1, 0)).unwrap();
        assert_eq!(sum.to_decimal().unwrap().to_string(), "2.50");
    }

    #[test]
    fn decimals_beyond_a_unit_are_refused_and_change_nothing() {
        let mut sum = ExactSum::try_from(Decimal::ONE).unwrap();
        assert!(sum.add(Decimal::new(1, 9)).is_err());
        assert_eq!(sum.to_decimal(), Some(Decimal::ONE));
        sum.add(Decimal::new(1_500_000_000, 9)).unwrap();
        assert_eq!(sum.to_decimal().unwrap().to_string(), "2.5");
    }

    #[test]
    fn a_sum_that_would_leave_128_bits_is_refused() {
        let mut sum = ExactSum { units: i128::MAX, scale: 0 };
        assert!(sum.add(Decimal::ONE).is_err());
        assert_eq!(sum.units(), i128::MAX);
    }
}
