//! A connection that speaks frames, and what became of it. Knows no API.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Encodable, Request, StrBytes};

/// No answer takes longer, on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a connection must keep still to count as one that says nothing and stays open.
const SILENCE: Duration = Duration::from_secs(2);

/// What came on a connection.
pub enum Came {
    Frame(Bytes),
    Closed,
    Nothing,
}

pub struct Wire {
    socket: TcpStream,
    next_id: i32,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire { socket, next_id: 1 }
    }

    /// Sends a request; returns its correlation id.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.next_id += 1;
        let frame = frame(request, version, self.next_id);
        self.send_bytes(&frame);
        self.next_id
    }

    /// Whoever does not take it will say so by closing.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub fn receive(&mut self) -> Came {
        self.receive_within(PATIENCE)
    }

    /// What comes, if it comes soon.
    pub fn receive_soon(&mut self) -> Came {
        self.receive_within(SILENCE)
    }

    fn receive_within(&mut self, patience: Duration) -> Came {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut length = [0; 4];
        if let Err(error) = self.socket.read_exact(&mut length) {
            let is_silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            return if is_silent { Came::Nothing } else { Came::Closed };
        }
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        match self.socket.read_exact(&mut frame) {
            Ok(()) => Came::Frame(Bytes::from(frame)),
            Err(_) => Came::Closed,
        }
    }
}

/// A request with its length and header.
pub fn frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    let key = ApiKey::try_from(R::KEY).unwrap();
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("differential")));
    let mut body = BytesMut::new();
    header.encode(&mut body, key.request_header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap_or_else(|error| panic!("{key:?} v{version}: {error}"));
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}
