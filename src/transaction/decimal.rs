//! Plain decimals: digits, optionally a point and more digits. No sign, no exponent, no float in between.

use rust_decimal::Decimal;

use super::{AMOUNT_INTEGER_DIGITS_MAX, AMOUNT_SCALE_MAX};

/// Reads a plain decimal within the limits of amounts; the error says what is wrong, without the value.
pub(crate) fn parse_plain(text: &str) -> Result<Decimal, &'static str> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err("is empty");
    }
    if bytes[0] == b'-' && bytes[1..].iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return Err("is negative; the type says which way money moves");
    }
    let mut mantissa: i128 = 0;
    let mut integer_digits = 0u32;
    let mut scale: Option<u32> = None;
    for &byte in bytes {
        match (byte, &mut scale) {
            (b'0'..=b'9', None) => integer_digits += 1,
            (b'0'..=b'9', Some(scale)) => *scale += 1,
            (b'.', None) => {
                scale = Some(0);
                continue;
            }
            _ => return Err("is not a plain decimal such as 12.50"),
        }
        if integer_digits > AMOUNT_INTEGER_DIGITS_MAX {
            return Err("has more than 15 digits before the point");
        }
        if scale.is_some_and(|scale| scale > AMOUNT_SCALE_MAX) {
            return Err("has more than 8 digits behind the point");
        }
        // 23 digits at most: far from the end of an i128.
        mantissa = mantissa * 10 + i128::from(byte - b'0');
    }
    if integer_digits == 0 || scale == Some(0) {
        return Err("is not a plain decimal such as 12.50");
    }
    Decimal::try_from_i128_with_scale(mantissa, scale.unwrap_or(0)).map_err(|_| "is not a plain decimal such as 12.50")
}

/// Appends a decimal in plain digits with exactly its scale.
pub(super) fn push_plain(out: &mut Vec<u8>, value: Decimal) {
    let mantissa = value.mantissa();
    let scale = value.scale() as usize;
    if mantissa < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let magnitude = mantissa.unsigned_abs();
    // Nearly every amount fits 64 bits, whose formatting is several times faster.
    let digits = match u64::try_from(magnitude) {
        Ok(small) => buffer.format(small).as_bytes(),
        Err(_) => buffer.format(magnitude).as_bytes(),
    };
    if scale == 0 {
        out.extend_from_slice(digits);
    } else if digits.len() > scale {
        let (integer, fraction) = digits.split_at(digits.len() - scale);
        out.extend_from_slice(integer);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + scale - digits.len(), b'0');
        out.extend_from_slice(digits);
    }
}

/// Whether `price * quantity` is exactly `amount`, with no rounding on the way.
pub(super) fn is_product(amount: Decimal, price: Decimal, quantity: i64) -> bool {
    // Mantissas have at most 23 digits and a quantity 16: the product fits an i128. An overflow beyond that means
    // that the sides differ, since the other one is small.
    let Some(product) = price.mantissa().checked_mul(i128::from(quantity)) else { return false };
    let scaled = |value: i128, by: u32| value.checked_mul(10i128.pow(by));
    if price.scale() >= amount.scale() {
        scaled(amount.mantissa(), price.scale() - amount.scale()) == Some(product)
    } else {
        scaled(product, amount.scale() - price.scale()) == Some(amount.mantissa())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text_of(value: Decimal) -> String {
        let mut out = Vec::new();
        push_plain(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_decimals_keep_their_digits_and_scale() {
        for text in ["0", "0.00", "0.05", "12.50", "999999999999999.99999999", "100"] {
            assert_eq!(text_of(parse_plain(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_not_a_plain_decimal_is_refused() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "NaN", "inf", " 1", "1_0", "1,0", "1.2.3", "\u{0663}"] {
            assert!(parse_plain(text).is_err(), "{text:?}");
        }
        assert!(parse_plain("1000000000000000").is_err());
        assert!(parse_plain("0.123456789").is_err());
    }

    #[test]
    fn a_product_is_compared_without_rounding() {
        let largest = parse_plain("999999999999999.99999999").unwrap();
        assert!(is_product(parse_plain("0.30").unwrap(), parse_plain("0.1").unwrap(), 3));
        assert!(is_product(parse_plain("3").unwrap(), parse_plain("1.50000000").unwrap(), 2));
        assert!(!is_product(parse_plain("0.31").unwrap(), parse_plain("0.1").unwrap(), 3));
        assert!(!is_product(largest, largest, 1_000_000_000_000_000));
        assert!(is_product(largest, largest, 1));
    }
}
