//! Checks a request's lengths and counts against the bytes that are there, before `kafka-protocol` decodes it.
//!
//! That crate reserves memory from an array's count before it looks at the elements, so that one forged count ends the
//! process. A walk along the request's shape (tables in `schemas`) proves every count real first: whatever passes has
//! as many elements as it says, each of them present. Must not know what a request means.

/// Elements of arrays and tagged fields in one request, at most: bounds what decoding can build from a frame.
pub(crate) const ELEMENTS_MAX: usize = 200_000;

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
}

impl<'a> Walk<'a> {
    pub(crate) fn new(rest: &'a [u8], version: i16, flexible: bool) -> Self {
        Walk { rest, version, flexible, elements: 0 }
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
                None => self.skip(size)?,
            }
            if self.rest.len() != after {
                return Err(SchemaError::Tag(tag));
            }
        }
        Ok(())
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

#[cfg(any(test, fuzzing))]
pub(crate) mod sample {
    //! Frames made from the tables: what the walk accepts, the crate must decode to the last byte, and the other way
    //! round. That ties the tables to the decoder that they protect.
    use super::*;

    /// A valid body with `elements` elements in each array; `lengths` gets the position of each length or count.
    pub(crate) fn body(schema: &Schema, version: i16, elements: usize, lengths: &mut Vec<usize>) -> Vec<u8> {
        let mut out = Vec::new();
        structure(schema.fields, version, version >= schema.flexible_from, elements, &mut out, lengths);
        out
    }

    fn structure(
        fields: &'static [Field],
        version: i16,
        flexible: bool,
        elements: usize,
        out: &mut Vec<u8>,
        lengths: &mut Vec<usize>,
    ) {
        let present = |field: &&Field| (field.first..=field.last).contains(&version);
        for field in fields.iter().filter(present).filter(|field| field.tag.is_none()) {
            value(&field.kind, version, flexible, elements, out, lengths);
        }
        if flexible {
            let tagged: Vec<_> = fields.iter().filter(present).filter_map(|field| Some((field.tag?, field))).collect();
            lengths.push(out.len());
            out.push(tagged.len() as u8 + 1);
            for (tag, field) in tagged {
                let mut inner = Vec::new();
                value(&field.kind, version, flexible, elements, &mut inner, &mut Vec::new());
                out.push(tag as u8);
                out.push(inner.len() as u8);
                out.extend(inner);
            }
            // One that nobody knows.
            out.extend([99, 2, 7, 7]);
        }
    }

    fn value(
        kind: &'static Kind,
        version: i16,
        flexible: bool,
        elements: usize,
        out: &mut Vec<u8>,
        lengths: &mut Vec<usize>,
    ) {
        match kind {
            Kind::Fixed(bytes) => out.extend(std::iter::repeat_n(0, *bytes)),
            Kind::Text if flexible => {
                lengths.push(out.len());
                out.extend([4, b'a', b'b', b'c']);
            }
            Kind::Text => {
                lengths.push(out.len());
                out.extend([0, 3, b'a', b'b', b'c']);
            }
            Kind::Blob if flexible => {
                lengths.push(out.len());
                out.extend([3, 1, 2]);
            }
            Kind::Blob => {
                lengths.push(out.len());
                out.extend([0, 0, 0, 2, 1, 2]);
            }
            Kind::Array(_) | Kind::Structs(_) => {
                lengths.push(out.len());
                if flexible {
                    out.push(elements as u8 + 1)
                } else {
                    out.extend((elements as u32).to_be_bytes())
                }
                for _ in 0..elements {
                    match kind {
                        Kind::Array(element) => value(element, version, flexible, elements, out, lengths),
                        Kind::Structs(fields) => structure(fields, version, flexible, elements, out, lengths),
                        _ => {}
                    }
                }
            }
            Kind::Struct(fields) => structure(fields, version, flexible, elements, out, lengths),
        }
    }
}
