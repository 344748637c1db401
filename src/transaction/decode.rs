//! JSON bytes -> transaction, totally: every field that comes out is within its documented range.
//!
//! Members that are not known are ignored, so that the schema can grow. A member that is counted and appears twice is an
//! error: which of the two counted would be a guess. Of the others the first text is taken.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::decimal::{is_product, parse_plain};
use super::plain::read_plain;
use super::time::{TIME_MAX, TIME_MIN, parse_rfc3339};
use super::{
    CATEGORY_CHARS_MAX, CardInfo, Currency, Detail, ID_CHARS_MAX, LABEL_CHARS_MAX, MERCHANT_CHARS_MAX, QUANTITY_MAX,
    SYMBOL_CHARS_MAX, Side, Transaction,
};
use crate::clock::Micros;

/// Characters of a refused value that an error repeats.
const SHOWN_CHARS_MAX: usize = 32;

/// Why a message is not a transaction. Its text becomes a dead letter's reason.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct DecodeError(pub String);

impl<'a> Transaction<'a> {
    /// Reads one transaction; strings without escapes are borrowed from `bytes`.
    ///
    /// # Errors
    /// Names the field, the value (shortened) and the limit that it breaks.
    pub fn decode(bytes: &'a [u8]) -> Result<Transaction<'a>, DecodeError> {
        let members = match read_plain(bytes) {
            Some(members) => members,
            None => Members::read(bytes)?,
        };
        members.check()
    }
}

/// The members as they were found, unchecked but for their JSON type.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Members<'a> {
    pub transaction_id: Option<Cow<'a, str>>,
    pub kind: Option<Cow<'a, str>>,
    pub user_id: Option<Cow<'a, str>>,
    pub amount: Option<Cow<'a, str>>,
    pub currency: Option<Cow<'a, str>>,
    pub merchant: Option<Cow<'a, str>>,
    pub category: Option<Cow<'a, str>>,
    pub mcc: Option<Cow<'a, str>>,
    pub country: Option<Cow<'a, str>>,
    pub refund_of: Option<Cow<'a, str>>,
    pub declined: Option<Cow<'a, str>>,
    pub requested_amount: Option<Cow<'a, str>>,
    pub fraud: Option<Cow<'a, str>>,
    pub symbol: Option<Cow<'a, str>>,
    pub side: Option<Cow<'a, str>>,
    pub quantity: Option<i64>,
    pub price: Option<Cow<'a, str>>,
    pub event_time: Option<Cow<'a, str>>,
    pub scheduled_at_us: Option<i64>,
    pub sent_at_us: Option<i64>,
}

impl<'a> Members<'a> {
    /// Reads any JSON object.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Members<'a>, DecodeError> {
        serde_json::from_slice(bytes).map_err(|error| DecodeError(format!("not a transaction: {error}")))
    }

    fn check(self) -> Result<Transaction<'a>, DecodeError> {
        let kind = required("type", self.kind)?;
        let amount = decimal("amount", self.amount)?;
        let card = |merchant, category| {
            Ok((text("merchant", merchant, MERCHANT_CHARS_MAX)?, text("category", category, CATEGORY_CHARS_MAX)?))
        };
        let detail = match &*kind {
            "purchase" => card(self.merchant, self.category)
                .map(|(merchant, category)| Detail::Purchase { merchant, category })?,
            "refund" => {
                card(self.merchant, self.category).map(|(merchant, category)| Detail::Refund { merchant, category })?
            }
            "trade" => trade(self.symbol, self.side, self.quantity, self.price, amount)?,
            other => return Err(refuse("type", other, "is none of purchase, refund, trade")),
        };
        let card = CardInfo {
            mcc: self.mcc.filter(|mcc| mcc.len() == 4 && mcc.bytes().all(|byte| byte.is_ascii_digit())),
            country: self.country.filter(|code| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase())),
            refund_of: self.refund_of.filter(|id| is_text(id, ID_CHARS_MAX)),
            declined: self.declined.filter(|why| is_text(why, LABEL_CHARS_MAX)),
            requested_amount: self.requested_amount.and_then(|amount| parse_plain(&amount).ok()),
            fraud: self.fraud.filter(|label| is_text(label, LABEL_CHARS_MAX)),
        };
        let currency = required("currency", self.currency)?;
        let event_time = required("event_time", self.event_time)?;
        Ok(Transaction {
            transaction_id: text("transaction_id", self.transaction_id, ID_CHARS_MAX)?,
            user_id: text("user_id", self.user_id, ID_CHARS_MAX)?,
            amount,
            currency: Currency::from_str(&currency)
                .map_err(|_| refuse("currency", &currency, "is not three upper-case letters such as USD"))?,
            event_time: parse_rfc3339(&event_time).ok_or_else(|| {
                refuse("event_time", &event_time, "is not an RFC 3339 time in the years 0001 to 9999")
            })?,
            scheduled_at: micros("scheduled_at_us", self.scheduled_at_us)?,
            sent_at: micros("sent_at_us", self.sent_at_us)?,
            detail,
            card,
        })
    }
}

/// Whether it would be accepted as a text.
fn is_text(value: &str, chars_max: usize) -> bool {
    text("", Some(Cow::Borrowed(value)), chars_max).is_ok()
}

fn trade<'a>(
    symbol: Option<Cow<'a, str>>,
    side: Option<Cow<'a, str>>,
    quantity: Option<i64>,
    price: Option<Cow<'a, str>>,
    amount: Decimal,
) -> Result<Detail<'a>, DecodeError> {
    let side = required("side", side)?;
    let quantity = quantity.ok_or_else(|| missing("quantity"))?;
    if !(1..=QUANTITY_MAX).contains(&quantity) {
        return Err(refuse("quantity", &quantity.to_string(), "is not within 1 to 10^15"));
    }
    let price = decimal("price", price)?;
    if !is_product(amount, price, quantity) {
        return Err(DecodeError(format!("amount {amount} is not price {price} times quantity {quantity}")));
    }
    Ok(Detail::Trade {
        symbol: text("symbol", symbol, SYMBOL_CHARS_MAX)?,
        side: match &*side {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            other => return Err(refuse("side", other, "is neither buy nor sell")),
        },
        quantity,
        price,
    })
}

fn missing(field: &str) -> DecodeError {
    DecodeError(format!("{field} is missing"))
}

fn refuse(field: &str, value: &str, why: &str) -> DecodeError {
    let mut shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    DecodeError(format!("{field} {shown:?} {why}"))
}

fn required<'a>(field: &str, value: Option<Cow<'a, str>>) -> Result<Cow<'a, str>, DecodeError> {
    value.ok_or_else(|| missing(field))
}

fn text<'a>(field: &str, value: Option<Cow<'a, str>>, chars_max: usize) -> Result<Cow<'a, str>, DecodeError> {
    let value = required(field, value)?;
    if value.is_empty() {
        return Err(DecodeError(format!("{field} is empty")));
    }
    // One pass over bytes settles nearly every value; PostgreSQL refuses U+0000, terminals suffer from the rest.
    let plain = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !plain && value.chars().any(char::is_control) {
        return Err(refuse(field, &value, "holds a control character"));
    }
    if value.len() > chars_max {
        let chars = value.chars().count();
        if chars > chars_max {
            return Err(refuse(field, &value, &format!("has {chars} characters; at most {chars_max} are allowed")));
        }
    }
    Ok(value)
}

fn decimal(field: &str, value: Option<Cow<'_, str>>) -> Result<Decimal, DecodeError> {
    let value = required(field, value)?;
    parse_plain(&value).map_err(|why| refuse(field, &value, why))
}

fn micros(field: &str, value: Option<i64>) -> Result<Option<Micros>, DecodeError> {
    match value.map(Micros) {
        Some(time) if !(TIME_MIN..=TIME_MAX).contains(&time) => {
            Err(refuse(field, &time.0.to_string(), "is outside of the years 0001 to 9999"))
        }
        time => Ok(time),
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "transaction_id" => fill("transaction_id", &mut members.transaction_id, &mut map)?,
                "type" => fill("type", &mut members.kind, &mut map)?,
                "user_id" => fill("user_id", &mut members.user_id, &mut map)?,
                "amount" => fill("amount", &mut members.amount, &mut map)?,
                "currency" => fill("currency", &mut members.currency, &mut map)?,
                "merchant" => fill("merchant", &mut members.merchant, &mut map)?,
                "category" => fill("category", &mut members.category, &mut map)?,
                "mcc" => fill_if_text(&mut members.mcc, &mut map)?,
                "country" => fill_if_text(&mut members.country, &mut map)?,
                "refund_of" => fill_if_text(&mut members.refund_of, &mut map)?,
                "declined" => fill_if_text(&mut members.declined, &mut map)?,
                "requested_amount" => fill_if_text(&mut members.requested_amount, &mut map)?,
                "fraud" => fill_if_text(&mut members.fraud, &mut map)?,
                "symbol" => fill("symbol", &mut members.symbol, &mut map)?,
                "side" => fill("side", &mut members.side, &mut map)?,
                "quantity" => fill_integer("quantity", &mut members.quantity, &mut map)?,
                "price" => fill("price", &mut members.price, &mut map)?,
                "event_time" => fill("event_time", &mut members.event_time, &mut map)?,
                "scheduled_at_us" => fill_integer("scheduled_at_us", &mut members.scheduled_at_us, &mut map)?,
                "sent_at_us" => fill_integer("sent_at_us", &mut members.sent_at_us, &mut map)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

fn fill<'de, A: MapAccess<'de>>(field: &str, place: &mut Option<Cow<'de, str>>, map: &mut A) -> Result<(), A::Error> {
    if place.is_some() {
        return Err(de::Error::custom(format_args!("{field} appears twice")));
    }
    let Name(value) = map.next_value().map_err(|error| de::Error::custom(format_args!("{field}: {error}")))?;
    *place = Some(value);
    Ok(())
}

/// Others may use these names for something else, as long as nothing is counted by them.
fn fill_if_text<'de, A: MapAccess<'de>>(place: &mut Option<Cow<'de, str>>, map: &mut A) -> Result<(), A::Error> {
    // As it stands: a number beyond every range, or an escape that is none, is nothing that a total hangs on.
    let value: &RawValue = map.next_value()?;
    if let Ok(Name(text)) = serde_json::from_str(value.get()) {
        place.get_or_insert(text);
    }
    Ok(())
}

fn fill_integer<'de, A: MapAccess<'de>>(field: &str, place: &mut Option<i64>, map: &mut A) -> Result<(), A::Error> {
    if place.is_some() {
        return Err(de::Error::custom(format_args!("{field} appears twice")));
    }
    let value = map.next_value().map_err(|error| de::Error::custom(format_args!("{field}: {error}")))?;
    *place = Some(value);
    Ok(())
}

/// A string, borrowed where it holds no escapes (serde's own `Cow` always copies).
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(text.to_owned())))
    }
}
