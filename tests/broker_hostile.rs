//! Forged requests: no frame makes the process allocate more than a small multiple of its length.
//!
//! Every allocation of this process is counted. The unit tests of `broker::versions` forge the nested counts, against
//! the same check; here every byte of a plain request of every API and version goes over a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, unsafe_code)]

#[path = "broker/support.rs"]
mod broker_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use broker_support::{PATIENCE, Raw, start};
use bytes::BytesMut;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};

/// The largest single allocation since it was last reset.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: hands everything to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// A frame is some hundred bytes; buffers of a connection are 64 KiB.
const ALLOCATION_BYTES_MAX: usize = 512 * 1024;
const FORGED: [&[u8]; 5] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x00, 0xff, 0xff, 0xff],
    &[0x7f, 0xff],
];

/// An empty request of that API, with bytes behind it that a forged count may take for elements.
fn request(api: ApiKey, version: i16) -> Vec<u8> {
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("forger")));
    header.encode(&mut frame, api.request_header_version(version)).unwrap();
    // An empty body of zeros is as good as any: every length in it is forged in turn.
    frame.extend_from_slice(&[0; 48]);
    frame.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_counts_of_every_api_and_version_allocate_next_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let offered = Raw::connect(&broker).ask(&ApiVersionsRequest::default(), 3);
    LARGEST.store(0, Ordering::Relaxed);
    let mut forged = 0;
    for row in &offered.api_keys {
        for version in row.min_version..=row.max_version {
            let plain = request(ApiKey::try_from(row.api_key).unwrap(), version);
            for pattern in FORGED {
                let mut socket = TcpStream::connect(broker.address()).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                // All positions in one stream; the broker may hang up at the first, then the next connection goes on.
                for at in 8..plain.len() - 8 {
                    let mut frame = plain.clone();
                    frame[at..at + pattern.len()].copy_from_slice(pattern);
                    let mut wire = (frame.len() as u32).to_be_bytes().to_vec();
                    wire.extend(&frame);
                    let sent = socket.write_all(&wire);
                    let _ = socket.shutdown(Shutdown::Write);
                    let _ = socket.read_to_end(&mut Vec::new());
                    let _ = sent;
                    forged += 1;
                    socket = TcpStream::connect(broker.address()).unwrap();
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                }
            }
        }
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(forged > 10_000, "{forged}");
    assert!(largest < ALLOCATION_BYTES_MAX, "one allocation of {largest} bytes");
    assert_eq!(Raw::connect(&broker).ask(&ApiVersionsRequest::default(), 3).error_code, 0);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_length_reserves_nothing_until_bytes_come() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    for introduces_itself in [true, false] {
        let mut raw = Raw::connect(&broker);
        if introduces_itself {
            raw.ask(&ApiVersionsRequest::default(), 3);
        }
        LARGEST.store(0, Ordering::Relaxed);
        // A Produce request of 90 MB is announced; 10 bytes of it come.
        raw.socket.write_all(&90_000_000u32.to_be_bytes()).unwrap();
        raw.socket.write_all(&[0, 0, 0, 9, 0, 0, 0, 1, 0, 0]).unwrap();
        raw.socket.shutdown(Shutdown::Write).unwrap();
        assert!(raw.receive().is_none());
        assert!(LARGEST.load(Ordering::Relaxed) < ALLOCATION_BYTES_MAX);
    }
    broker.stop().await.unwrap();
}
