//! Card purchases and refunds that never happened: the same ones for the same seed.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rand_distr::weighted::WeightedIndex;
use rand_distr::{Distribution, LogNormal, Zipf};
use rust_decimal::Decimal;

use super::merchants::CATEGORIES;
use super::{Draft, Kind, SkipReport, Source, SourceError, check_users, write_user_id};
use crate::transaction::Currency;

/// Share of refunds.
const REFUND_SHARE: f64 = 0.03;
/// Purchases that are remembered for refunds.
const REMEMBERED_PURCHASES: usize = 1024;
/// No purchase is larger than this many US dollars: the log-normal tail has no end of its own.
const PURCHASE_USD_MAX: f64 = 50_000.0;

/// The endless synthetic source.
pub(super) struct Synthetic {
    random: ChaCha8Rng,
    users: Zipf<f64>,
    categories: WeightedIndex<u32>,
    amounts: Vec<LogNormal<f64>>,
    remembered: Vec<Purchase>,
}

#[derive(Clone, Copy)]
struct Purchase {
    user: u64,
    category: usize,
    merchant: usize,
    minor_units: i64,
}

impl Synthetic {
    pub(super) fn new(users: u64, zipf_exponent: f64, seed: u64) -> Result<Synthetic, SourceError> {
        check_users(users)?;
        if !(0.0..=10.0).contains(&zipf_exponent) {
            return Err(SourceError::Setting(format!("--zipf {zipf_exponent} is not within 0 to 10")));
        }
        let unusable = |what: &str| SourceError::Setting(format!("cannot draw {what} from --users and --zipf"));
        let amounts = CATEGORIES.iter().map(|category| LogNormal::new(category.median_usd.ln(), category.sigma));
        Ok(Synthetic {
            random: ChaCha8Rng::seed_from_u64(seed),
            users: Zipf::new(users as f64, zipf_exponent).map_err(|_| unusable("users"))?,
            categories: WeightedIndex::new(CATEGORIES.iter().map(|category| category.weight))
                .map_err(|_| unusable("categories"))?,
            amounts: amounts.collect::<Result<_, _>>().map_err(|_| unusable("amounts"))?,
            remembered: Vec::with_capacity(REMEMBERED_PURCHASES),
        })
    }

    fn purchase(&mut self) -> Purchase {
        let user = self.users.sample(&mut self.random) as u64;
        let category = self.categories.sample(&mut self.random);
        let merchant = self.random.random_range(0..CATEGORIES[category].merchants.len());
        let usd = self.amounts[category].sample(&mut self.random).min(PURCHASE_USD_MAX);
        let (currency, per_usd) = home_currency(user);
        // A random draw, not money yet: it becomes an exact count of minor units here.
        let minor_units = (usd * per_usd * 10f64.powi(currency.minor_unit_digits() as i32)).round() as i64;
        let purchase = Purchase { user, category, merchant, minor_units: minor_units.max(1) };
        if self.remembered.len() < REMEMBERED_PURCHASES {
            self.remembered.push(purchase);
        } else {
            let place = self.random.random_range(0..REMEMBERED_PURCHASES);
            self.remembered[place] = purchase;
        }
        purchase
    }

    /// Money back, most often all of it, for a purchase that was remembered and then is forgotten.
    fn refund(&mut self) -> Option<Purchase> {
        if self.remembered.is_empty() {
            return None;
        }
        let place = self.random.random_range(0..self.remembered.len());
        let mut refund = self.remembered.swap_remove(place);
        if self.random.random_bool(0.3) {
            refund.minor_units = self.random.random_range(1..=refund.minor_units);
        }
        Some(refund)
    }
}

impl Source for Synthetic {
    fn next_into(&mut self, out: &mut Draft) -> Result<bool, SourceError> {
        let refund = if self.random.random_bool(REFUND_SHARE) { self.refund() } else { None };
        let (kind, purchase) = match refund {
            Some(refund) => (Kind::Refund, refund),
            None => (Kind::Purchase, self.purchase()),
        };
        let category = &CATEGORIES[purchase.category];
        let (currency, _) = home_currency(purchase.user);
        out.transaction_id.clear();
        write_user_id(&mut out.user_id, purchase.user);
        out.kind = kind;
        out.currency = currency;
        out.amount = Decimal::new(purchase.minor_units, currency.minor_unit_digits());
        out.event_time = None;
        out.merchant.clear();
        out.merchant.push_str(category.merchants[purchase.merchant]);
        out.category.clear();
        out.category.push_str(category.name);
        Ok(true)
    }

    fn describe(&self) -> String {
        "synthetic".to_owned()
    }

    fn total(&self) -> Option<u64> {
        None
    }

    fn skipped(&self) -> SkipReport {
        SkipReport::default()
    }

    fn fingerprint(&self) -> Option<String> {
        None
    }

    fn has_event_times(&self) -> bool {
        false
    }
}

/// A user pays in one currency: 80 of 100 in US dollars. The second value is its rough price of a dollar.
fn home_currency(user: u64) -> (Currency, f64) {
    match user % 20 {
        3 | 17 => (Currency::EUR, 0.9),
        7 => (Currency::GBP, 0.8),
        13 => (Currency::JPY, 150.0),
        _ => (Currency::USD, 1.0),
    }
}
