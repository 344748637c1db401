//! Frames made from the tables, for tests and fuzzers: what the walk accepts, the crate must decode to the last byte, and
//! the other way round. That ties the tables to the decoder that they protect.

use super::schema::{Field, Kind, Schema};

/// What a body holds.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Elements in each array of the request.
    pub outer: usize,
    /// Elements in each array within one of these.
    pub inner: usize,
    pub text: &'static str,
    /// Each structure has a tagged field that nobody knows.
    pub unknown_tags: bool,
}

/// A valid body with `elements` elements in each array; `lengths` gets the position of each length or count.
pub(crate) fn body(schema: &Schema, version: i16, elements: usize, lengths: &mut Vec<usize>) -> Vec<u8> {
    body_of(schema, version, Shape { outer: elements, inner: elements, text: "abc", unknown_tags: true }, lengths)
}

/// A valid body of that shape.
pub(crate) fn body_of(schema: &Schema, version: i16, shape: Shape, lengths: &mut Vec<usize>) -> Vec<u8> {
    let mut writer = Writer { version, flexible: version >= schema.flexible_from, shape, out: Vec::new(), lengths };
    writer.structure(schema.fields, 0);
    writer.out
}

struct Writer<'a> {
    version: i16,
    flexible: bool,
    shape: Shape,
    out: Vec<u8>,
    lengths: &'a mut Vec<usize>,
}

impl Writer<'_> {
    fn structure(&mut self, fields: &'static [Field], depth: usize) {
        let version = self.version;
        let present = |field: &&Field| (field.first..=field.last).contains(&version);
        for field in fields.iter().filter(present).filter(|field| field.tag.is_none()) {
            self.value(&field.kind, depth);
        }
        if !self.flexible {
            return;
        }
        let tagged: Vec<_> = fields.iter().filter(present).filter_map(|field| Some((field.tag?, field))).collect();
        self.lengths.push(self.out.len());
        self.varint(tagged.len() + usize::from(self.shape.unknown_tags));
        for (tag, field) in tagged {
            let mut inner = Writer { out: Vec::new(), lengths: &mut Vec::new(), ..*self };
            inner.value(&field.kind, depth);
            let inner = inner.out;
            self.varint(tag as usize);
            self.varint(inner.len());
            self.out.extend(inner);
        }
        if self.shape.unknown_tags {
            self.out.extend([99, 2, 7, 7]);
        }
    }

    fn value(&mut self, kind: &'static Kind, depth: usize) {
        match kind {
            Kind::Fixed(bytes) => self.out.extend(std::iter::repeat_n(0, *bytes)),
            Kind::Text => {
                self.length(self.shape.text.len(), 2);
                self.out.extend(self.shape.text.as_bytes());
            }
            Kind::Blob => {
                self.length(2, 4);
                self.out.extend([1, 2]);
            }
            Kind::Array(_) | Kind::Structs(_) => {
                let elements = if depth == 0 { self.shape.outer } else { self.shape.inner };
                self.length(elements, 4);
                for _ in 0..elements {
                    match kind {
                        Kind::Array(element) => self.value(element, depth + 1),
                        Kind::Structs(fields) => self.structure(fields, depth + 1),
                        _ => {}
                    }
                }
            }
            Kind::Struct(fields) => self.structure(fields, depth),
        }
    }

    /// A length or count, of that many bytes in the old form.
    fn length(&mut self, length: usize, width: usize) {
        self.lengths.push(self.out.len());
        if self.flexible {
            self.varint(length + 1);
        } else {
            self.out.extend(&(length as u32).to_be_bytes()[4 - width..]);
        }
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}
