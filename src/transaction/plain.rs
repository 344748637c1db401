//! The plain form of a transaction's JSON, which our own encoder writes, read several times faster than by serde.
//!
//! Plain is one object whose members are known and come in the encoder's order, without blanks but before numbers; its
//! strings are printable ASCII without escapes. Whatever is not plain is left to the general parser, which alone says what
//! is wrong: this one never refuses.

use std::borrow::Cow;

use super::decode::Members;

/// Digits that fit an i64 whatever they are.
const DIGITS_MAX: usize = 18;

/// Bytes that stand for themselves in a JSON string.
const STANDS_FOR_ITSELF: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        table[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    table
};

/// Reads a plain transaction; none when it is not plain, whether it is a transaction or not.
pub(super) fn read_plain(bytes: &[u8]) -> Option<Members<'_>> {
    // Once for all strings.
    let mut rest = Rest(std::str::from_utf8(bytes).ok()?);
    let members = Members {
        transaction_id: rest.text("{\"transaction_id\":\"")?,
        kind: rest.text(",\"type\":\"")?,
        user_id: rest.text(",\"user_id\":\"")?,
        amount: rest.text(",\"amount\":\"")?,
        currency: rest.text(",\"currency\":\"")?,
        merchant: rest.text(",\"merchant\":\"")?,
        category: rest.text(",\"category\":\"")?,
        mcc: rest.text(",\"mcc\":\"")?,
        country: rest.text(",\"country\":\"")?,
        refund_of: rest.text(",\"refund_of\":\"")?,
        declined: rest.text(",\"declined\":\"")?,
        requested_amount: rest.text(",\"requested_amount\":\"")?,
        fraud: rest.text(",\"fraud\":\"")?,
        symbol: rest.text(",\"symbol\":\"")?,
        side: rest.text(",\"side\":\"")?,
        quantity: rest.integer(",\"quantity\":")?,
        price: rest.text(",\"price\":\"")?,
        event_time: rest.text(",\"event_time\":\"")?,
        scheduled_at_us: rest.integer(",\"scheduled_at_us\":")?,
        sent_at_us: rest.integer(",\"sent_at_us\":")?,
    };
    // What was not read is here, too: an unknown member, one that came twice or in another order.
    (rest.0 == "}" && members.transaction_id.is_some()).then_some(members)
}

/// What was not read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// The string behind `name`, which ends with its opening quote: `Some(None)` when another member is next, none when it
    /// is not plain.
    fn text(&mut self, name: &str) -> Option<Option<Cow<'a, str>>> {
        let Some(value) = self.0.strip_prefix(name) else { return Some(None) };
        let length = value.bytes().position(|byte| !STANDS_FOR_ITSELF[usize::from(byte)])?;
        let (text, rest) = value.split_at(length);
        self.0 = rest.strip_prefix('"')?;
        Some(Some(Cow::Borrowed(text)))
    }

    /// The integer behind `name`, likewise.
    fn integer(&mut self, name: &str) -> Option<Option<i64>> {
        let Some(value) = self.0.strip_prefix(name) else { return Some(None) };
        let value = value.trim_start_matches(' ');
        let (is_negative, digits) = match value.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, value),
        };
        let length = digits.bytes().position(|byte| !byte.is_ascii_digit())?;
        let (digits, rest) = digits.split_at(length);
        // JSON has no leading zeros, and its -0 is no integer.
        let has_leading_zero = digits.starts_with('0') && (length > 1 || is_negative);
        if length == 0 || length > DIGITS_MAX || has_leading_zero || !rest.starts_with([',', '}']) {
            return None;
        }
        let magnitude = digits.bytes().fold(0, |value, byte| value * 10 + i64::from(byte - b'0'));
        self.0 = rest;
        Some(Some(if is_negative { -magnitude } else { magnitude }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::clock::Micros;
    use crate::transaction::{CardInfo, Currency, Detail, Side, Transaction};

    fn encoded(detail: Detail<'_>) -> Vec<u8> {
        let transaction = Transaction {
            transaction_id: "0198-7".into(),
            user_id: "user-00042".into(),
            amount: "12.50".parse().unwrap(),
            currency: Currency::USD,
            event_time: Micros(1_700_000_000_000_000),
            scheduled_at: Some(Micros(1_700_000_000_000_001)),
            sent_at: Some(Micros(-5)),
            detail,
            card: CardInfo {
                mcc: Some("5411".into()),
                country: Some("DE".into()),
                refund_of: Some("0198-3".into()),
                declined: Some("do_not_honor".into()),
                requested_amount: "12.50".parse().ok(),
                fraud: Some("card_testing".into()),
            },
        };
        let mut bytes = Vec::new();
        transaction.encode_into(&mut bytes);
        bytes
    }

    fn examples() -> [Vec<u8>; 3] {
        let price = "6.25".parse().unwrap();
        [
            encoded(Detail::Purchase { merchant: "Mill Lane".into(), category: "groceries".into() }),
            encoded(Detail::Refund { merchant: "Mill Lane".into(), category: "groceries".into() }),
            encoded(Detail::Trade { symbol: "EA".into(), side: Side::Buy, quantity: 2, price }),
        ]
    }

    #[test]
    fn what_we_write_is_plain() {
        for bytes in examples() {
            assert_eq!(read_plain(&bytes).unwrap(), Members::read(&bytes).unwrap());
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_general_parser() {
        let whole = String::from_utf8(examples()[0].clone()).unwrap();
        for (from, to) in [
            ("Mill Lane", "Caf\u{e9}"),
            ("Mill Lane", "a\\\"b"),
            ("{", "{ "),
            (",\"user_id\"", ",\"more\":1,\"user_id\""),
            ("\"type\"", "\"transaction_id\":\"x\",\"type\""),
            (":1700000000000001", ":1.0"),
            (":1700000000000001", ":01"),
            (":1700000000000001", ":-0"),
            (":1700000000000001", ":1700000000000000001"),
            (":1700000000000001", ":"),
            ("}", "} "),
            ("}", ""),
        ] {
            let changed = whole.replacen(from, to, 1);
            assert_ne!(changed, whole);
            assert_eq!(read_plain(changed.as_bytes()), None, "{changed}");
        }
    }

    #[test]
    fn whatever_it_reads_the_general_parser_reads_the_same() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut plain = 0;
        for _ in 0..200_000 {
            let mut bytes = examples()[random.random_range(0..3)].clone();
            for _ in 0..random.random_range(1..3) {
                let place = random.random_range(0..bytes.len());
                match random.random_range(0..3) {
                    0 => bytes[place] = b"\"\\{}:,0-9 .a\x7f\xc3\x00"[random.random_range(0..15)],
                    1 => _ = bytes.remove(place),
                    _ => bytes.insert(place, random.random_range(0x08..0x7f)),
                }
            }
            if let Some(members) = read_plain(&bytes) {
                plain += 1;
                assert_eq!(Members::read(&bytes).as_ref(), Ok(&members), "{}", String::from_utf8_lossy(&bytes));
            }
        }
        assert!(plain > 10_000, "only {plain} of the changed ones were plain");
    }
}
