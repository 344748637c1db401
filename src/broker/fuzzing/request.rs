//! Any bytes as one frame: header, schema check, decoding, and the way back.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, RequestKind};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::meter;
use crate::broker::frame::{self, Opened};
use crate::broker::schema::sample;
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
    assert_eq!(api.schema.check(&again, version), Ok(()), "{} v{version} is refused as we write it", api.name);
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
                seeds.extend(seed(api, version, elements));
            }
        }
    }
    seeds
}

fn seed(api: &Api, version: i16, elements: usize) -> Option<Vec<u8>> {
    let header = RequestHeader::default()
        .with_request_api_key(api.key as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("f")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, api.key.request_header_version(version)).ok()?;
    frame.put_slice(&sample::body(api.schema, version, elements, &mut Vec::new()));
    Some(frame.to_vec())
}
