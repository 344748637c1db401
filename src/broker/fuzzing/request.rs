//! Any bytes as one frame: header, schema check, decoding, and the way back.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, RequestKind};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::meter;
use crate::broker::frame::{self, Opened};
use crate::broker::sample;
use crate::broker::schema::SchemaError;
use crate::broker::versions::{APIS, Api};

/// Decoding may take this many times the frame: legal frames of one-letter names reach half of it.
const BYTES_PER_BYTE_MAX: usize = 64;
const BYTES_MAX: usize = 64 * 1024;

/// Opens and decodes `data` as the broker would; what it takes must be what it writes again.
///
/// # Panics
/// When a promise is broken.
pub fn run(data: &[u8]) {
    // The frame itself was there before.
    let frame = Bytes::copy_from_slice(data);
    let decoded = meter::within(data.len() * BYTES_PER_BYTE_MAX + BYTES_MAX, "decoding", || decode(frame));
    let Some((api, version, request)) = decoded else { return };
    let mut again = BytesMut::new();
    // Some fields exist in memory only where a version has no place for them.
    if request.encode(&mut again, version).is_err() {
        return;
    }
    let again = again.freeze();
    match api.schema.check(&again, version) {
        // Written in fewer bytes than it came in, which may be too few for so many tags that nobody knows.
        Err(SchemaError::TooManyUnknownTags) => return,
        checked => assert_eq!(checked, Ok(()), "{} v{version} is refused as we write it", api.name),
    }
    let read = RequestKind::decode(api.key, &mut again.clone(), version);
    assert_eq!(read.ok().as_ref(), Some(&request), "{} v{version} does not survive the way back", api.name);
}

/// None when the frame is refused.
fn decode(frame: Bytes) -> Option<(&'static Api, i16, RequestKind)> {
    let Ok(Opened::Request(head, mut body)) = frame::open(frame) else { return None };
    let request = RequestKind::decode(head.api.key, &mut body, head.version).ok()?;
    Some((head.api, head.version, request))
}

/// A frame of each API in each version, with zero to two elements in each array, and one that nobody serves.
///
/// # Panics
/// Never: the headers can be written.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]];
    for api in &APIS {
        for version in api.min..=api.max {
            for elements in 0..3 {
                seeds.extend(seed(api, version, sample::body(api.schema, version, elements, &mut Vec::new())));
            }
        }
    }
    seeds
}

fn seed(api: &Api, version: i16, body: Vec<u8>) -> Option<Vec<u8>> {
    let header = RequestHeader::default()
        .with_request_api_key(api.key as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("f")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, api.key.request_header_version(version)).ok()?;
    frame.put_slice(&body);
    Some(frame.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::sample::Shape;

    /// What takes most memory for its bytes: structures with next to nothing in them.
    #[test]
    fn thousands_of_the_smallest_elements_are_decoded_within_their_memory() {
        let mut decoded = 0;
        for api in &APIS {
            for version in api.min..=api.max {
                for (outer, inner) in [(1000, 0), (1, 1000), (30, 30)] {
                    for text in ["", "a"] {
                        for unknown_tags in [false, true] {
                            let shape = Shape { outer, inner, text, unknown_tags };
                            let body = sample::body_of(api.schema, version, shape, &mut Vec::new());
                            let Some(frame) = seed(api, version, body) else { continue };
                            run(&frame);
                            decoded += usize::from(decode(frame.into()).is_some());
                        }
                    }
                }
            }
        }
        assert!(decoded > 1000, "{decoded}");
    }
}
