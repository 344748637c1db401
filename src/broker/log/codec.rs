//! Reads the log's own little-endian records. Bytes from disk are hostile: every length is checked against what is left.

/// Which checkpoint is read: later ones hold more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    One,
    /// Knows transactions and compaction.
    Two,
    /// Knows which file of the journal it needs.
    Three,
}

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `count` bytes; none when fewer are left.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    pub fn i16(&mut self) -> Option<i16> {
        Some(i16::from_le_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Option<i32> {
        Some(i32::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    pub fn u128(&mut self) -> Option<u128> {
        Some(u128::from_le_bytes(self.array()?))
    }

    /// A length and that many bytes.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// A count of things of at least `bytes_each`: refused when they cannot all be there.
    pub fn count(&mut self, bytes_each: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count.checked_mul(bytes_each)? <= self.0.len()).then_some(count)
    }

    /// A flag byte and, if set, a number.
    pub fn optional_u64(&mut self) -> Option<Option<u64>> {
        match self.u8()? {
            0 => Some(None),
            1 => Some(Some(self.u64()?)),
            _ => None,
        }
    }
}

/// Appends what [`Decoder`] reads.
pub(super) trait Encoder {
    fn put(&mut self, bytes: &[u8]);

    /// A length and the bytes. Lengths beyond `u32` cannot occur: what is put comes from Kafka frames (`i32`).
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put(&(bytes.len() as u32).to_le_bytes());
        self.put(bytes);
    }

    fn put_optional_u64(&mut self, value: Option<u64>) {
        match value {
            None => self.put(&[0]),
            Some(value) => {
                self.put(&[1]);
                self.put(&value.to_le_bytes());
            }
        }
    }
}

impl Encoder for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
