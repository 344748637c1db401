//! Who the users are: each has a home, a profile and a level of spending, all derived from the seed and the user's number,
//! so that a hundred million of them need no memory.

use super::super::draw::{mix, scale};
use super::merchants::CATEGORIES;
use crate::transaction::Currency;

/// A country where users live.
pub(super) struct Home {
    /// ISO 3166-1 alpha-2.
    pub(super) country: &'static str,
    pub(super) currency: Currency,
    /// Rough price of a US dollar.
    pub(super) per_usd: f64,
    /// Hours before UTC.
    pub(super) offset_hours: i64,
    /// Out of 100.
    weight: u64,
}

const fn home(country: &'static str, currency: [u8; 3], per_usd: f64, offset_hours: i64, weight: u64) -> Home {
    let currency = Currency::of(currency);
    Home { country, currency, per_usd, offset_hours, weight }
}

pub(super) const HOMES: [Home; 9] = [
    home("US", *b"USD", 1.0, -5, 56),
    home("DE", *b"EUR", 0.9, 1, 9),
    home("FR", *b"EUR", 0.9, 1, 7),
    home("GB", *b"GBP", 0.8, 0, 9),
    home("JP", *b"JPY", 150.0, 9, 7),
    home("BR", *b"BRL", 5.0, -3, 5),
    home("IN", *b"INR", 83.0, 5, 4),
    home("CH", *b"CHF", 0.88, 1, 1),
    home("BH", *b"BHD", 0.376, 3, 2),
];

/// How many kinds of people there are.
pub(super) const PROFILES: usize = 4;

/// Percent of a category's weight that each kind of people gives it, in the order of [`CATEGORIES`]: families, commuters,
/// students, travellers.
const LIKINGS: [[u32; CATEGORIES.len()]; PROFILES] = [
    [150, 70, 110, 110, 40, 80, 80, 150, 160, 120, 60, 60],
    [90, 120, 130, 90, 190, 80, 90, 80, 90, 80, 60, 80],
    [70, 140, 40, 120, 130, 180, 200, 60, 20, 110, 40, 20],
    [50, 160, 90, 90, 130, 120, 80, 80, 70, 110, 500, 220],
];

/// What is fixed about a user.
#[derive(Clone, Copy)]
pub(super) struct Person {
    pub(super) home: &'static Home,
    pub(super) profile: usize,
    /// Times the usual amount.
    pub(super) level: f64,
}

/// All users of a seed.
pub(super) struct People {
    seed: u64,
    /// Place in [`HOMES`] by percentile.
    homes: [u8; 100],
    levels: [f64; 16],
}

impl People {
    pub(super) fn of(seed: u64) -> People {
        let mut homes = [0; 100];
        let mut places = homes.iter_mut();
        for (number, home) in HOMES.iter().enumerate() {
            places.by_ref().take(home.weight as usize).for_each(|place| *place = number as u8);
        }
        // From half of the usual amount to its double, the middle ones most often.
        let levels = std::array::from_fn(|place| {
            let side = (place as f64 - 7.5) / 7.5;
            libm::exp(0.7 * side * side * side)
        });
        People { seed: mix(seed ^ 0x70656f706c65), homes, levels }
    }

    pub(super) fn person(&self, user: u64) -> Person {
        let bits = mix(self.seed.wrapping_add(user.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let home = &HOMES[usize::from(self.homes[scale(bits << 32, 100) as usize])];
        Person { home, profile: (bits >> 32) as usize % PROFILES, level: self.levels[(bits >> 40) as usize % 16] }
    }
}

/// Percent of a category's weight for a profile.
pub(super) fn liking(profile: usize, category: usize) -> u32 {
    LIKINGS[profile][category]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn homes_have_their_weights_and_currencies() {
        assert_eq!(HOMES.iter().map(|home| home.weight).sum::<u64>(), 100);
        for home in &HOMES {
            assert_eq!(home.currency.as_str().parse::<Currency>().unwrap(), home.currency);
            assert!(home.country.len() == 2 && home.country.bytes().all(|byte| byte.is_ascii_uppercase()));
        }
        let people = People::of(1);
        let in_america = (1..=10_000).filter(|user| people.person(*user).home.country == "US").count();
        assert!((5_400..5_800).contains(&in_america), "{in_america}");
    }
}
