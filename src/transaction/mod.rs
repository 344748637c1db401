//! The business event: what a transaction is, how it is written on the wire, and who it is.
//!
//! Pure: knows no Kafka, no SQL, no runtime. Decoding is total: whatever bytes come, the answer is a transaction whose
//! every field is within its documented range, or a [`DecodeError`] that says what is wrong.

use std::borrow::Cow;

use rust_decimal::Decimal;

use crate::clock::Micros;

mod currency;
mod decimal;
mod decode;
mod encode;
mod identity;
mod plain;
mod schema;
mod time;

pub(crate) use decimal::parse_plain as parse_amount;

pub use currency::{Currency, UnknownCurrency};
pub use decode::DecodeError;
pub use encode::{patch_sent_at, read_sent_at};
pub use identity::{
    HEADER_RUN, HEADER_RUN_INFO, HEADER_SEQUENCE, MessageId, RunId, RunInfo, derived_from, derived_transaction_id,
    write_derived_transaction_id,
};
pub use schema::{WireDetail, WireMerchant, WirePurchase, WireRefund, WireTrade, WireTransaction, schema_json};
pub(crate) use time::parse_rfc3339;
pub use time::{TIME_MAX, TIME_MIN};

/// Characters in a `transaction_id` or `user_id`, at most.
pub const ID_CHARS_MAX: usize = 64;
/// Characters in a merchant's name, at most.
pub const MERCHANT_CHARS_MAX: usize = 128;
/// Characters in a category, at most.
pub const CATEGORY_CHARS_MAX: usize = 64;
/// Characters in a symbol, at most.
pub const SYMBOL_CHARS_MAX: usize = 32;
/// Characters of why an attempt was declined, and of a fraud label, at most.
pub const LABEL_CHARS_MAX: usize = 32;
/// Units in one trade, at most.
pub const QUANTITY_MAX: i64 = 1_000_000_000_000_000;
/// Digits before the decimal point in an amount or price, at most.
pub const AMOUNT_INTEGER_DIGITS_MAX: u32 = 15;
/// Digits behind the decimal point in an amount or price, at most.
pub const AMOUNT_SCALE_MAX: u32 = 8;

/// One finance transaction, borrowed from its bytes or owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// The business id; may repeat (a file replayed, a client that sends twice).
    pub transaction_id: Cow<'a, str>,
    /// Whose transaction; the message key.
    pub user_id: Cow<'a, str>,
    /// What moved, in `currency`; never negative. A trade's notional: price times quantity.
    pub amount: Decimal,
    /// ISO 4217.
    pub currency: Currency,
    /// When it happened in the business world.
    pub event_time: Micros,
    /// When the arrival process wanted it sent; absent in messages of other producers.
    pub scheduled_at: Option<Micros>,
    /// When it was handed to the Kafka client.
    pub sent_at: Option<Micros>,
    /// What kind it is.
    pub detail: Detail<'a>,
    /// What else is known of a card transaction.
    pub card: CardInfo<'a>,
}

/// What a card transaction may say beyond merchant and category. Each may be absent, and what does not fit is taken for
/// absent: nothing is counted by it, but that a declined attempt is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardInfo<'a> {
    /// ISO 18245 merchant category code: four digits.
    pub mcc: Option<Cow<'a, str>>,
    /// Where the merchant is: ISO 3166-1 alpha-2.
    pub country: Option<Cow<'a, str>>,
    /// Of a refund: the transaction id of the purchase.
    pub refund_of: Option<Cow<'a, str>>,
    /// Of a purchase: why the issuer declined it. No money moved, so `amount` is 0.
    pub declined: Option<Cow<'a, str>>,
    /// What a declined attempt asked for, in `currency`.
    pub requested_amount: Option<Decimal>,
    /// The label of a transaction that is known to be fraud, for those who train or test a detector.
    pub fraud: Option<Cow<'a, str>>,
}

impl Transaction<'_> {
    /// Whether this is an attempt that the issuer declined: it moves no money and counts in no total.
    ///
    /// All of it has to be there: another producer's purchase of amount 0 that has a member `declined` stays a purchase.
    pub fn is_declined(&self) -> bool {
        let says_so = self.card.declined.is_some() && self.card.requested_amount.is_some();
        says_so && self.amount.is_zero() && matches!(self.detail, Detail::Purchase { .. })
    }
}

/// What only one kind of transaction has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail<'a> {
    /// A card purchase.
    Purchase { merchant: Cow<'a, str>, category: Cow<'a, str> },
    /// Money back for a purchase.
    Refund { merchant: Cow<'a, str>, category: Cow<'a, str> },
    /// A trade of a listed instrument; never part of a user's card spend.
    Trade { symbol: Cow<'a, str>, side: Side, quantity: i64, price: Decimal },
}

/// The side of a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Bought.
    Buy,
    /// Sold.
    Sell,
}
