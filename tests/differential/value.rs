//! An answer as a tree: read from the text that `Debug` makes of any message, so that every API is compared by the same
//! code. Knows no API.

use std::fmt::Debug;

/// One value of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    /// A number, a boolean or an id.
    Plain(String),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Struct(Vec<(String, Value)>),
}

impl Value {
    /// The tree of a message.
    pub fn of(message: &impl Debug) -> Value {
        let text = format!("{message:?}");
        let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
        let value = reader.value();
        assert_eq!(reader.at, text.len(), "not read to its end: {text}");
        value
    }

    /// A field of a struct.
    pub fn field(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Struct(fields) => fields.iter().find(|(field, _)| field == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A number, id or text as it stands there.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Plain(text) | Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn take(&mut self, wanted: &str) -> bool {
        let is_there = self.bytes[self.at..].starts_with(wanted.as_bytes());
        if is_there {
            self.at += wanted.len();
        }
        is_there
    }

    fn value(&mut self) -> Value {
        if self.take("b\"") {
            return Value::Bytes(self.quoted());
        }
        if self.take("\"") {
            return Value::Text(String::from_utf8(self.quoted()).unwrap());
        }
        if self.take("[") {
            return Value::List(self.items("]", Reader::value));
        }
        if self.take("{") {
            return Value::Struct(self.items("}", Reader::entry));
        }
        let word = self.word();
        if self.take(" { ") {
            let fields = self.items(" }", Reader::entry);
            return Value::Struct(fields);
        }
        if self.take("(") {
            let mut inner = self.items(")", Reader::value);
            return if inner.len() == 1 { inner.remove(0) } else { Value::List(inner) };
        }
        if word == "None" { Value::Null } else { Value::Plain(word) }
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek().is_ascii_alphanumeric() || matches!(self.peek(), b'-' | b'_' | b'.') {
            self.at += 1;
        }
        assert!(self.at > start, "no value at {:?}", String::from_utf8_lossy(&self.bytes[start..]));
        String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()
    }

    fn entry(&mut self) -> (String, Value) {
        let name = self.word();
        assert!(self.take(": "));
        (name, self.value())
    }

    fn items<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(item(self));
            self.take(", ");
        }
        items
    }

    /// The rest of a quoted text or byte string; its opening quote is read already.
    fn quoted(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let byte = self.peek();
            assert!(byte != 0, "a text without an end");
            self.at += 1;
            match byte {
                b'"' => return out,
                b'\\' => self.escaped(&mut out),
                byte => out.push(byte),
            }
        }
    }

    fn escaped(&mut self, out: &mut Vec<u8>) {
        let escape = self.peek();
        self.at += 1;
        let number = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        match escape {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'x' => {
                out.push(number(&self.bytes[self.at..self.at + 2]) as u8);
                self.at += 2;
            }
            b'u' => {
                let length = self.bytes[self.at..].iter().position(|byte| *byte == b'}').unwrap();
                let letter = char::from_u32(number(&self.bytes[self.at + 1..self.at + length])).unwrap();
                out.extend(letter.to_string().bytes());
                self.at += length + 1;
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
    use kafka_protocol::messages::{MetadataResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn a_message_is_read_whole_with_texts_bytes_lists_and_nulls() {
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("a \"b\" \u{1}, }"))))
            .with_error_code(3);
        let message = MetadataResponse::default().with_topics(vec![topic]).with_cluster_id(None);
        let value = Value::of(&message);
        assert_eq!(value.field("cluster_id"), Some(&Value::Null));
        let Some(Value::List(topics)) = value.field("topics") else { panic!("{value:?}") };
        assert_eq!(topics[0].field("name").unwrap().as_text(), Some("a \"b\" \u{1}, }"));
        assert_eq!(topics[0].field("error_code").unwrap().as_text(), Some("3"));
        let bytes = Bytes::from_static(b"\x00\n\"\\\xff z");
        assert_eq!(Value::of(&bytes), Value::Bytes(bytes.to_vec()));
        assert_eq!(Value::of(&Some(vec![1, 2])), Value::of(&[1, 2]));
    }
}
