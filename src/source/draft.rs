//! A transaction before it has an identity and times of its own way.

use std::borrow::Cow;
use std::fmt::Write;

use rust_decimal::Decimal;

use crate::clock::Micros;
use crate::transaction::{CardInfo, Currency, Detail, MessageId, Side, Transaction, write_derived_transaction_id};

/// A transaction without identity and times of its own way. Buffers are reused from message to message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Empty: derived from run and sequence.
    pub transaction_id: String,
    /// It repeats the id that is derived for this message of the run.
    pub repeats: Option<i64>,
    /// Whose transaction.
    pub user_id: String,
    /// Never negative.
    pub amount: Decimal,
    /// Of `amount` and `price`.
    pub currency: Currency,
    /// None: it happens when it is due.
    pub event_time: Option<Micros>,
    /// How long before that it happened, in microseconds.
    pub late_us: i64,
    /// Which of the following fields count.
    pub kind: Kind,
    /// Of a card transaction.
    pub merchant: String,
    /// Of a card transaction.
    pub category: String,
    /// Of a card transaction, by ISO 18245; empty: not known.
    pub mcc: &'static str,
    /// Of a card transaction, by ISO 3166-1 alpha-2; empty: not known.
    pub country: &'static str,
    /// Of a refund: the message of the run that it refers to.
    pub refund_of: Option<i64>,
    /// Of a purchase: why it was declined.
    pub declined: Option<&'static str>,
    /// What a declined attempt asked for.
    pub requested_amount: Option<Decimal>,
    /// Of a card transaction that is known to be fraud.
    pub fraud: Option<&'static str>,
    /// Of a trade.
    pub symbol: String,
    /// Of a trade.
    pub side: Side,
    /// Of a trade.
    pub quantity: i64,
    /// Of a trade.
    pub price: Decimal,
}

/// What kind of transaction a draft is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Money spent with a card, or the attempt.
    Purchase,
    /// Money back.
    Refund,
    /// A trade.
    Trade,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            transaction_id: String::new(),
            repeats: None,
            user_id: String::new(),
            amount: Decimal::ZERO,
            currency: Currency::USD,
            event_time: None,
            late_us: 0,
            kind: Kind::Purchase,
            merchant: String::new(),
            category: String::new(),
            mcc: "",
            country: "",
            refund_of: None,
            declined: None,
            requested_amount: None,
            fraud: None,
            symbol: String::new(),
            side: Side::Buy,
            quantity: 0,
            price: Decimal::ZERO,
        }
    }
}

/// Ids that are derived for messages of the run; buffers that are used again and again.
#[derive(Debug, Default)]
pub struct DerivedIds {
    own: String,
    refund_of: String,
}

impl Draft {
    /// The transaction of a message, borrowing the strings of draft and `ids`.
    pub fn transaction<'a>(
        &'a self,
        id: MessageId,
        ids: &'a mut DerivedIds,
        scheduled_at: Micros,
        sent_at: Micros,
    ) -> Transaction<'a> {
        if self.transaction_id.is_empty() {
            let sequence = self.repeats.unwrap_or(id.sequence);
            write_derived_transaction_id(&mut ids.own, MessageId { sequence, ..id });
        }
        if let Some(sequence) = self.refund_of {
            write_derived_transaction_id(&mut ids.refund_of, MessageId { sequence, ..id });
        }
        let (merchant, category) = (Cow::Borrowed(self.merchant.as_str()), Cow::Borrowed(self.category.as_str()));
        let detail = match self.kind {
            Kind::Purchase => Detail::Purchase { merchant, category },
            Kind::Refund => Detail::Refund { merchant, category },
            Kind::Trade => Detail::Trade {
                symbol: Cow::Borrowed(&self.symbol),
                side: self.side,
                quantity: self.quantity,
                price: self.price,
            },
        };
        let known = |text: &'static str| (!text.is_empty()).then_some(Cow::Borrowed(text));
        let card = CardInfo {
            mcc: known(self.mcc),
            country: known(self.country),
            refund_of: self.refund_of.map(|_| Cow::Borrowed(ids.refund_of.as_str())),
            declined: self.declined.map(Cow::Borrowed),
            requested_amount: self.requested_amount,
            fraud: self.fraud.map(Cow::Borrowed),
        };
        let id = if self.transaction_id.is_empty() { &ids.own } else { &self.transaction_id };
        let event_time = self.event_time.unwrap_or(scheduled_at);
        Transaction {
            transaction_id: Cow::Borrowed(id),
            user_id: Cow::Borrowed(&self.user_id),
            amount: self.amount,
            currency: self.currency,
            event_time: Micros(event_time.0.saturating_sub(self.late_us)),
            scheduled_at: Some(scheduled_at),
            sent_at: Some(sent_at),
            detail,
            card,
        }
    }
}

/// `user-000042`.
pub(super) fn write_user_id(out: &mut String, number: u64) {
    out.clear();
    // Writing to a String cannot fail.
    let _ = write!(out, "user-{number:06}");
}
