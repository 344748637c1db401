//! Numbers as pandas prints them -> exact integers at a declared scale.

/// Characters of a number, at most: pandas prints 17 significant digits and, for large floats, a few hundred zeros.
const NUMBER_CHARS_MAX: usize = 400;

/// A number as a count of `10^-scale`, rounded half to even exactly once. None: not a number, or beyond an `i64`.
pub(in crate::source) fn parse_scaled(text: &str, scale: i32) -> Option<i64> {
    let (negative, digits, exponent) = split(text)?;
    // The value is 0.d1d2d3… * 10^exponent; `kept` digits of it lie before the cut.
    let kept = exponent + scale;
    let mut value: i64 = 0;
    for at in 0..kept.max(0) as usize {
        let digit = digits.get(at).copied().unwrap_or(0);
        value = value.checked_mul(10)?.checked_add(i64::from(digit))?;
    }
    let rest = if kept < 0 { &[] } else { digits.get(kept as usize..).unwrap_or_default() };
    let above_half = match rest.split_first() {
        Some((&5, tail)) => tail.iter().any(|digit| *digit != 0) || value % 2 == 1,
        Some((&first, _)) => first > 5,
        None => false,
    };
    value = value.checked_add(i64::from(above_half))?;
    Some(if negative { -value } else { value })
}

/// A number that must be whole: `118387200`, `118387200.0` and `1.183872e+08` are the same.
pub(in crate::source) fn parse_whole(text: &str) -> Option<i64> {
    let (_, digits, exponent) = split(text)?;
    let fraction = digits.get(exponent.max(0) as usize..).unwrap_or_default();
    if fraction.iter().any(|digit| *digit != 0) { None } else { parse_scaled(text, 0) }
}

/// Sign, digits without leading zeros, and where the point stands relative to them.
fn split(text: &str) -> Option<(bool, Vec<u8>, i32)> {
    if text.len() > NUMBER_CHARS_MAX {
        return None;
    }
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
        None => (text, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if integer.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut digits = Vec::with_capacity(mantissa.len());
    for byte in integer.bytes().chain(fraction.bytes()) {
        digits.push(byte.is_ascii_digit().then(|| byte - b'0')?);
    }
    let leading_zeros = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..leading_zeros);
    if digits.is_empty() {
        return Some((false, digits, 0));
    }
    Some((negative, digits, integer.len() as i32 - leading_zeros as i32 + i32::from(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_noise_is_rounded_once_half_to_even() {
        for (text, expected) in [
            ("72.33386993408203", 723_339),
            ("3257.85009765625", 32_578_501),
            ("69", 690_000),
            ("0.00005", 0),
            ("0.00015", 2),
            ("0.000050000001", 1),
            ("0.00025", 2),
            ("9.999999747378752e-06", 0),
            ("9.99e-05", 1),
            ("1.5E+3", 15_000_000),
            (".5", 5_000),
            ("5.", 50_000),
            ("-1.00005", -10_000),
            ("0.99995", 10_000),
            ("-0.0", 0),
        ] {
            assert_eq!(parse_scaled(text, 4), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_large_is_none() {
        for text in ["", "-", ".", "1,5", "abc", "1e", "e5", "--1", "1.2.3", "NaN", "9e999999", "1e30", "0x10", " 1"] {
            assert_eq!(parse_scaled(text, 4), None, "{text}");
        }
        assert_eq!(parse_scaled("1e-30000", 4), Some(0));
    }

    #[test]
    fn volumes_are_whole_in_any_notation() {
        for text in ["118387200", "118387200.0", "1.183872e+08", "118387200.000"] {
            assert_eq!(parse_whole(text), Some(118_387_200), "{text}");
        }
        assert_eq!(parse_whole("0.0"), Some(0));
        for text in ["0.5", "1.5", "1e-3", "12.34e1"] {
            assert_eq!(parse_whole(text), None, "{text}");
        }
    }
}
