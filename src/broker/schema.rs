//! Checks a request's lengths and counts against the bytes that are there, before `kafka-protocol` decodes it.
//!
//! That crate reserves memory from an array's count before it looks at the elements, so that one forged count ends the
//! process. A walk along the request's shape (tables in `schemas`) proves every count real first: whatever passes has
//! as many elements as it says, each of them present. Must not know what a request means.

/// Elements of arrays and tagged fields in one request, at most: bounds what decoding can build from a frame.
pub(crate) const ELEMENTS_MAX: usize = 200_000;
/// The decoder keeps tagged fields that it does not know in a map for each structure, which takes some 450 bytes from the
/// first entry on, for two bytes in the frame. So many are free in each request, …
const UNKNOWN_TAGS_FREE: usize = 64;
/// … and further ones must come with so many bytes each. No client sends any of its own accord.
const BYTES_PER_UNKNOWN_TAG: usize = 16;

/// What a field is on the wire.
#[derive(Debug)]
pub(crate) enum Kind {
    /// That many bytes.
    Fixed(usize),
    /// A string, null or not.
    Text,
    /// Bytes or records, null or not.
    Blob,
    /// An array of simple things, null or not.
    Array(&'static Kind),
    /// An array of structures, null or not.
    Structs(&'static [Field]),
    /// One structure.
    Struct(&'static [Field]),
}

/// A field and the versions that have it.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) first: i16,
    pub(crate) last: i16,
    /// The field travels among the tagged fields, under this number.
    pub(crate) tag: Option<u32>,
    pub(crate) kind: Kind,
}

/// The shape of one API's request.
#[derive(Debug)]
pub(crate) struct Schema {
    /// First version with compact lengths and tagged fields.
    pub(crate) flexible_from: i16,
    pub(crate) fields: &'static [Field],
}

/// Why a request was not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("it ends in the middle of a field")]
    Truncated,
    #[error("a length or count of {0} is impossible")]
    Length(i64),
    #[error("it has more than {ELEMENTS_MAX} elements")]
    TooManyElements,
    #[error("a variable-length number has more than 32 bits")]
    VarInt,
    #[error("the tagged field {0} is not what its size says")]
    Tag(u32),
    #[error("it has too many tagged fields that nobody knows for its size")]
    TooManyUnknownTags,
}

impl Schema {
    /// Walks `body` as a request of `version`; bytes beyond its end are ignored, as Kafka does.
    pub(crate) fn check(&self, body: &[u8], version: i16) -> Result<(), SchemaError> {
        let mut walk = Walk::new(body, version, version >= self.flexible_from);
        walk.structure(self.fields)
    }
}

/// A position in a request.
pub(crate) struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
    unknown_tags_left: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(rest: &'a [u8], version: i16, flexible: bool) -> Self {
        let unknown_tags_left = UNKNOWN_TAGS_FREE + rest.len() / BYTES_PER_UNKNOWN_TAG;
        Walk { rest, version, flexible, elements: 0, unknown_tags_left }
    }

    /// Bytes not walked yet.
    pub(crate) fn rest(&self) -> usize {
        self.rest.len()
    }

    fn structure(&mut self, fields: &'static [Field]) -> Result<(), SchemaError> {
        for field in fields {
            if field.tag.is_none() && (field.first..=field.last).contains(&self.version) {
                self.value(&field.kind)?;
            }
        }
        if self.flexible { self.tagged(fields) } else { Ok(()) }
    }

    fn value(&mut self, kind: &'static Kind) -> Result<(), SchemaError> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text => {
                let length = if self.flexible { self.compact_length()? } else { i64::from(self.int16()?) };
                self.skip_nullable(length)
            }
            Kind::Blob => {
                let length = if self.flexible { self.compact_length()? } else { i64::from(self.int32()?) };
                self.skip_nullable(length)
            }
            Kind::Array(element) => {
                for _ in 0..self.count()? {
                    self.value(element)?;
                }
                Ok(())
            }
            Kind::Structs(fields) => {
                for _ in 0..self.count()? {
                    self.structure(fields)?;
                }
                Ok(())
            }
            Kind::Struct(fields) => self.structure(fields),
        }
    }

    /// The tagged fields at a structure's end, `fields` being the known ones.
    pub(crate) fn tagged(&mut self, fields: &'static [Field]) -> Result<(), SchemaError> {
        let count = self.varint()? as usize;
        self.count_elements(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            if size > self.rest.len() {
                return Err(SchemaError::Truncated);
            }
            let after = self.rest.len() - size;
            match fields.iter().find(|field| field.tag == Some(tag)) {
                Some(field) if (field.first..=field.last).contains(&self.version) => self.value(&field.kind)?,
                Some(_) => return Err(SchemaError::Tag(tag)),
                None => self.unknown_tag(tag, size)?,
            }
            if self.rest.len() != after {
                return Err(SchemaError::Tag(tag));
            }
        }
        Ok(())
    }

    fn unknown_tag(&mut self, tag: u32, size: usize) -> Result<(), SchemaError> {
        // Kafka's numbers are signed.
        i32::try_from(tag).map_err(|_| SchemaError::Tag(tag))?;
        self.unknown_tags_left = self.unknown_tags_left.checked_sub(1).ok_or(SchemaError::TooManyUnknownTags)?;
        self.skip(size)
    }

    /// An array's count, proven to be possible: every element takes a byte at least.
    fn count(&mut self) -> Result<usize, SchemaError> {
        let count = if self.flexible { self.compact_length()? } else { i64::from(self.int32()?) };
        match usize::try_from(count) {
            Ok(count) => self.count_elements(count).map(|()| count),
            Err(_) if count == -1 => Ok(0),
            Err(_) => Err(SchemaError::Length(count)),
        }
    }

    fn count_elements(&mut self, count: usize) -> Result<(), SchemaError> {
        if count > self.rest.len() {
            return Err(SchemaError::Length(count as i64));
        }
        self.elements += count;
        if self.elements > ELEMENTS_MAX { Err(SchemaError::TooManyElements) } else { Ok(()) }
    }

    fn skip_nullable(&mut self, length: i64) -> Result<(), SchemaError> {
        match usize::try_from(length) {
            Ok(length) => self.skip(length),
            Err(_) if length == -1 => Ok(()),
            Err(_) => Err(SchemaError::Length(length)),
        }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), SchemaError> {
        self.rest = self.rest.get(bytes..).ok_or(SchemaError::Truncated)?;
        Ok(())
    }

    fn int16(&mut self) -> Result<i16, SchemaError> {
        let (bytes, rest) = self.rest.split_first_chunk::<2>().ok_or(SchemaError::Truncated)?;
        self.rest = rest;
        Ok(i16::from_be_bytes(*bytes))
    }

    fn int32(&mut self) -> Result<i32, SchemaError> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(SchemaError::Truncated)?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    /// A compact length: 0 is null (-1 here), n is n - 1.
    fn compact_length(&mut self) -> Result<i64, SchemaError> {
        Ok(i64::from(self.varint()?) - 1)
    }

    fn varint(&mut self) -> Result<u32, SchemaError> {
        let mut value = 0u64;
        for position in 0..5 {
            let (byte, rest) = self.rest.split_first().ok_or(SchemaError::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| SchemaError::VarInt);
            }
        }
        Err(SchemaError::VarInt)
    }
}
