//! One record inside of a batch: read where it lies, and written again with another time.
//!
//! Layout: length varint, then attributes i8, timestamp delta varint, offset delta varint, and the body: key, value (a
//! length varint each, -1 for none) and headers. Numbers are zigzag varints.

/// A record where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordView<'a> {
    pub attributes: u8,
    pub timestamp_delta: i64,
    pub offset_delta: i64,
    pub key: Option<&'a [u8]>,
    pub has_value: bool,
    /// Key, value and headers as they lie.
    pub body: &'a [u8],
}

impl RecordView<'_> {
    /// Appends it to `out` with another timestamp delta.
    pub fn write(&self, timestamp_delta: i64, out: &mut Vec<u8>) {
        let length = 1 + varint_bytes(timestamp_delta) + varint_bytes(self.offset_delta) + self.body.len();
        put_varint(out, length as i64);
        out.push(self.attributes);
        put_varint(out, timestamp_delta);
        put_varint(out, self.offset_delta);
        out.extend_from_slice(self.body);
    }
}

/// Walks uncompressed records; yields one `None` at the first malformed one, then ends.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn of(records: &'a [u8]) -> Self {
        Records { rest: records }
    }

    #[inline]
    fn parse(&mut self) -> Option<RecordView<'a>> {
        let length = usize::try_from(varint(&mut self.rest)?).ok()?;
        let (record, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let (&attributes, mut body) = record.split_first()?;
        let timestamp_delta = varint(&mut body)?;
        let offset_delta = varint(&mut body)?;
        let mut fields = body;
        let key = nullable(&mut fields)?;
        let has_value = nullable(&mut fields)?.is_some();
        // The count of headers follows; a record without it is cut off.
        let view = RecordView { attributes, timestamp_delta, offset_delta, key, has_value, body };
        (!fields.is_empty()).then_some(view)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Option<RecordView<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.parse();
        if record.is_none() {
            self.rest = &[];
        }
        Some(record)
    }
}

/// A length and so many bytes; -1 is none at all.
#[inline]
fn nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint(bytes)? {
        -1 => Some(None),
        length => {
            let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            *bytes = rest;
            Some(Some(taken))
        }
    }
}

/// A zigzag number of at most ten bytes. Nearly all have one or two.
#[inline]
pub(super) fn varint(bytes: &mut &[u8]) -> Option<i64> {
    match **bytes {
        [first @ 0..0x80, ref rest @ ..] => {
            *bytes = rest;
            Some(from_zigzag(u64::from(first)))
        }
        [first, second @ 0..0x80, ref rest @ ..] => {
            *bytes = rest;
            Some(from_zigzag(u64::from(first & 0x7f) | u64::from(second) << 7))
        }
        _ => long_varint(bytes),
    }
}

#[cold]
fn long_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some(from_zigzag(value));
        }
    }
    None
}

fn from_zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut value = zigzag(value);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_cut_of_it_is_read() {
        for timestamp_delta in [0, -1, 63, 64, -65, 1 << 40, i64::MAX, i64::MIN] {
            // Key "k", no value, no headers.
            let record = RecordView {
                attributes: 0,
                timestamp_delta: 7,
                offset_delta: 300,
                key: None,
                has_value: false,
                body: b"\x02k\x01\x00",
            };
            let mut bytes = Vec::new();
            record.write(timestamp_delta, &mut bytes);
            let read: Vec<_> = Records::of(&bytes).collect();
            assert_eq!(read, [Some(RecordView { timestamp_delta, key: Some(b"k"), ..record })]);
            for cut in 1..bytes.len() {
                assert_eq!(Records::of(&bytes[..cut]).next(), Some(None), "{timestamp_delta} cut at {cut}");
            }
        }
    }
}
