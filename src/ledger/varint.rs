//! Integers in as few bytes as they need: seven bits a byte, the lowest first; signed ones zigzag.

/// Bytes of an encoded `u128`, at most.
const VARINT_BYTES_MAX: usize = 19;

pub(super) fn push(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn push_signed(out: &mut Vec<u8>, value: i128) {
    push(out, ((value << 1) ^ (value >> 127)) as u128);
}

/// Takes one off the front; None if the bytes end inside of it or it is longer than any that we write.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u128> {
    // Almost all are short: stay in 64 bits as long as the value does.
    let mut low = 0u64;
    for (at, &byte) in bytes.iter().enumerate().take(9) {
        low |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Some(u128::from(low));
        }
    }
    let mut value = u128::from(low);
    for (at, &byte) in bytes.iter().enumerate().take(VARINT_BYTES_MAX).skip(9) {
        value |= u128::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}

pub(super) fn take_signed(bytes: &mut &[u8]) -> Option<i128> {
    let value = take(bytes)?;
    Some((value >> 1) as i128 ^ -((value & 1) as i128))
}

/// A value that must fit a `u64`.
pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    u64::try_from(take(bytes)?).ok()
}

/// A value that must fit an `i64`.
pub(super) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    i64::try_from(take_signed(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_size_come_back_and_cut_ones_do_not() {
        for shift in 0..128 {
            for value in [1u128 << shift, (1u128 << shift) - 1, u128::MAX >> shift] {
                let mut out = Vec::new();
                push(&mut out, value);
                assert_eq!(take(&mut out.as_slice()), Some(value));
                assert_eq!(take(&mut &out[..out.len() - 1]), None);
                for signed in [value as i128, (value as i128).wrapping_neg()] {
                    let mut out = Vec::new();
                    push_signed(&mut out, signed);
                    assert_eq!(take_signed(&mut out.as_slice()), Some(signed));
                }
            }
        }
        assert_eq!(take(&mut [0xff; 40].as_slice()), None);
    }
}
