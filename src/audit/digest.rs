//! Who pays how much in 64 bits, which is what is kept of each message that a ledger meant to send.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use rust_decimal::Decimal;

use super::check::units;
use crate::transaction::Currency;

/// Makes digests; two are comparable when the same `Digests` has made them.
#[derive(Debug, Default)]
pub(super) struct Digests(RandomState);

impl Digests {
    /// 1.5 and 1.50 are the same money; what is no amount of a transaction is nobody's.
    pub(super) fn of(&self, user_id: &str, currency: Currency, amount: Decimal) -> u64 {
        self.0.hash_one((user_id, currency, units(amount)))
    }
}
