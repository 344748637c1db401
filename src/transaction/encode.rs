//! Transaction -> JSON bytes, by hand: a message costs no allocation and about a fifth of a general serializer.

use std::borrow::Cow;

use super::decimal::push_plain;
use super::time::push_rfc3339;
use super::{CardInfo, Detail, Side, Transaction};
use crate::clock::Micros;

/// `sent_at_us` is the last member and its number is this wide, so that it can be patched in place.
const SENT_AT_WIDTH: usize = 16;
const SENT_AT_NAME: &[u8] = b",\"sent_at_us\":";
const SENT_AT_US_MIN: i64 = -999_999_999_999_999;
const SENT_AT_US_MAX: i64 = 9_999_999_999_999_999;

impl Transaction<'_> {
    /// Appends the transaction as one JSON object; `sent_at_us`, if there, is its last member.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let (kind, detail) = match &self.detail {
            Detail::Purchase { merchant, category } => ("purchase", Some((merchant, category))),
            Detail::Refund { merchant, category } => ("refund", Some((merchant, category))),
            Detail::Trade { .. } => ("trade", None),
        };
        push_string(out, b"{\"transaction_id\":", &self.transaction_id);
        push_string(out, b",\"type\":", kind);
        push_string(out, b",\"user_id\":", &self.user_id);
        out.extend_from_slice(b",\"amount\":\"");
        push_plain(out, self.amount);
        push_string(out, b"\",\"currency\":", self.currency.as_str());
        if let Some((merchant, category)) = detail {
            push_string(out, b",\"merchant\":", merchant);
            push_string(out, b",\"category\":", category);
            self.card.encode_into(out);
        }
        if let Detail::Trade { symbol, side, quantity, price } = &self.detail {
            push_string(out, b",\"symbol\":", symbol);
            push_string(out, b",\"side\":", side.as_str());
            push_integer(out, b",\"quantity\":", *quantity);
            out.extend_from_slice(b",\"price\":\"");
            push_plain(out, *price);
            out.push(b'"');
        }
        out.extend_from_slice(b",\"event_time\":\"");
        push_rfc3339(out, self.event_time);
        out.push(b'"');
        if let Some(scheduled_at) = self.scheduled_at {
            push_integer(out, b",\"scheduled_at_us\":", scheduled_at.0);
        }
        if let Some(sent_at) = self.sent_at {
            out.extend_from_slice(SENT_AT_NAME);
            let start = out.len();
            out.resize(start + SENT_AT_WIDTH, b' ');
            write_sent_at(&mut out[start..], sent_at);
        }
        out.push(b'}');
    }
}

impl CardInfo<'_> {
    fn encode_into(&self, out: &mut Vec<u8>) {
        let mut push = |name, value: &Option<Cow<'_, str>>| {
            if let Some(value) = value {
                push_string(out, name, value);
            }
        };
        push(b",\"mcc\":".as_slice(), &self.mcc);
        push(b",\"country\":", &self.country);
        push(b",\"refund_of\":", &self.refund_of);
        push(b",\"declined\":", &self.declined);
        if let Some(requested) = self.requested_amount {
            out.extend_from_slice(b",\"requested_amount\":\"");
            push_plain(out, requested);
            out.push(b'"');
        }
        if let Some(fraud) = &self.fraud {
            push_string(out, b",\"fraud\":", fraud);
        }
    }
}

impl Side {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Buy => "buy",
            Side::Sell => "sell",
        }
    }
}

/// Writes a new `sent_at_us` into an encoded transaction, for a send that is tried again.
///
/// False, and nothing changed, if `encoded` does not end in a `sent_at_us` as [`Transaction::encode_into`] writes it.
pub fn patch_sent_at(encoded: &mut [u8], sent_at: Micros) -> bool {
    let Some(number_end) = encoded.len().checked_sub(1) else { return false };
    let Some(number_start) = number_end.checked_sub(SENT_AT_WIDTH) else { return false };
    if encoded[number_end] != b'}' || !encoded[..number_start].ends_with(SENT_AT_NAME) {
        return false;
    }
    write_sent_at(&mut encoded[number_start..number_end], sent_at);
    true
}

/// The `sent_at_us` of a transaction encoded by [`Transaction::encode_into`], without decoding the rest.
pub fn read_sent_at(encoded: &[u8]) -> Option<Micros> {
    let rest = encoded.strip_suffix(b"}")?;
    let (head, number) = rest.split_at_checked(rest.len().checked_sub(SENT_AT_WIDTH)?)?;
    let digits = std::str::from_utf8(number).ok()?.trim_start();
    head.ends_with(SENT_AT_NAME).then(|| digits.parse().ok().map(Micros)).flatten()
}

/// Right-aligned; the blanks before a shorter number are legal JSON where leading zeros are not. Sixteen digits hold
/// the years 2001 to 2286; what lies beyond their range is clamped.
fn write_sent_at(place: &mut [u8], sent_at: Micros) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(sent_at.0.clamp(SENT_AT_US_MIN, SENT_AT_US_MAX)).as_bytes();
    let blanks = place.len() - digits.len();
    place[..blanks].fill(b' ');
    place[blanks..].copy_from_slice(digits);
}

fn push_integer(out: &mut Vec<u8>, name: &[u8], value: i64) {
    out.extend_from_slice(name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn push_string(out: &mut Vec<u8>, name: &[u8], text: &str) {
    out.extend_from_slice(name);
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
