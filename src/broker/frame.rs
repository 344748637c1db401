//! Length-prefixed frames off a socket, and the header of a request in one.
//!
//! Nothing is reserved on the word of a length alone: the buffer grows with what has arrived. Must not know what a
//! request means.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::budget::{RequestBudget, Room};
use super::limits::Limits;
use super::schema::{SchemaError, Walk};
use super::versions::Api;

/// Bytes of the number that says how long a frame is.
const LENGTH_BYTES: usize = 4;
/// The buffer grows in steps of this, or doubles.
const GROWTH_BYTES_MIN: usize = 64 * 1024;
/// It grows to so many times what has come, once the request has its room: a batch of ordinary size is copied once.
const GROWTH_FACTOR_HELD: usize = 16;
/// An idle connection does not hold a larger buffer than this.
const IDLE_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Larger requests need room in the budget of all connections.
const FREE_FRAME_BYTES_MAX: usize = 64 * 1024;
/// What holds room must come at this rate, after a moment.
const HELD_BYTES_PER_S_MIN: f64 = 32.0 * 1024.0;
const HELD_GRACE: Duration = Duration::from_secs(2);
/// Where a frame's header says which API and version it is for.
const API_KEY_AT: usize = LENGTH_BYTES;
const API_VERSION_AT: usize = API_KEY_AT + 2;
/// API key of the one request that may be as large as `frame_bytes_max`.
const PRODUCE: i16 = 0;

/// Why a connection is closed while its bytes are read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("a request of {bytes} bytes announced; the limit is {limit} (is this a Kafka client?)")]
    Length { bytes: i64, limit: usize },
    #[error("this is a TLS handshake, and the broker speaks plain text (security.protocol=PLAINTEXT)")]
    Tls,
    #[error("this is an HTTP request, and the port is the Kafka API's")]
    Http,
    #[error("no request came within {0:?} of connecting")]
    Silent(Duration),
    #[error("{got} of {bytes} bytes of a request came within {limit:?}; then nothing more")]
    Unfinished { got: usize, bytes: usize, limit: Duration },
    #[error("the client took none of its answers for {0:?}")]
    Unread(Duration),
    #[error("the client took {taken} of {bytes} bytes of an answer in {within:?}")]
    Slow { taken: usize, bytes: usize, within: Duration },
    #[error("records of an answer cannot be read: {0}")]
    Records(std::io::Error),
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    #[error("API key {0} is not served")]
    UnknownApi(i16),
    #[error("{api} version {version} is not served")]
    UnknownVersion { api: &'static str, version: i16 },
    #[error("{api} version {version} cannot be read: {source}")]
    Malformed { api: &'static str, version: i16, source: SchemaError },
    #[error("{api} version {version} cannot be decoded: {reason}")]
    Undecodable { api: &'static str, version: i16, reason: String },
    #[error("the answer to {api} version {version} cannot be encoded: {reason}")]
    Unencodable { api: &'static str, version: i16, reason: String },
    #[error("a produce request without acknowledgement failed: {0}")]
    Unacknowledged(String),
}

/// A request's bytes without their length.
///
/// Those of a large one hold their room in the budget of all connections for as long as any slice of them is held.
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    /// Memory that a slice of it keeps beyond what has room, about.
    pub(crate) pins: usize,
}

impl Frame {
    /// Takes the length off bytes cut from a buffer of `allocated` bytes, which others may be cut from as well.
    fn cut(bytes: Bytes, allocated: usize, room: Option<Room>) -> Frame {
        let Some(room) = room else { return Frame { bytes: bytes.slice(LENGTH_BYTES..), pins: allocated } };
        let pins = if bytes.len() >= allocated / 2 { 0 } else { allocated };
        Frame { bytes: Bytes::from_owner(Roomed { bytes, room }), pins }
    }
}

/// Bytes of a request and its length, with their room.
struct Roomed {
    bytes: Bytes,
    room: Room,
}

impl AsRef<[u8]> for Roomed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[LENGTH_BYTES..]
    }
}

impl Drop for Roomed {
    fn drop(&mut self) {
        self.room.spare(std::mem::take(&mut self.bytes));
    }
}

/// Since when a request that is not whole yet holds room.
#[derive(Clone, Copy)]
struct Held {
    since: Instant,
    bytes_before: usize,
}

impl Held {
    /// Until when more must come: a request that holds room may not dribble.
    fn next_bytes_until(&self, bytes: usize) -> Instant {
        let came = (bytes - self.bytes_before) as f64;
        self.since + HELD_GRACE + Duration::from_secs_f64(came / HELD_BYTES_PER_S_MIN)
    }
}

/// Reads frames of one connection.
pub(crate) struct FrameReader<R> {
    socket: R,
    buffer: BytesMut,
    /// What the buffer took when it last grew.
    allocated: usize,
    limits: Limits,
    budget: RequestBudget,
    first: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(socket: R, limits: Limits, budget: RequestBudget) -> Self {
        FrameReader { socket, buffer: BytesMut::new(), allocated: 0, limits, budget, first: true }
    }

    /// The next frame; None when the peer closed between frames.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.is_empty() {
            if self.buffer.capacity() > IDLE_BUFFER_BYTES_MAX {
                self.buffer = BytesMut::new();
            }
            // Clients introduce themselves at once; whoever says nothing would hold a place for as long as an idle one.
            let wait = if self.first { self.limits.request_timeout } else { self.limits.idle_timeout };
            match tokio::time::timeout(wait, self.read(GROWTH_BYTES_MIN, 1)).await {
                Err(_) if self.first => return Err(FrameError::Silent(wait)),
                Err(_) => return Err(FrameError::Idle(wait)),
                Ok(read) => {
                    if read? == 0 {
                        return Ok(None);
                    }
                }
            }
        }
        let mut deadline = Instant::now() + self.limits.request_timeout;
        let mut needed = LENGTH_BYTES;
        let mut room = None;
        let mut held: Option<Held> = None;
        loop {
            if let Some(length) = self.announced()? {
                needed = LENGTH_BYTES + length;
                // Who announces much and sends nothing holds no room.
                let has_come = needed.min(self.buffer.len()) >= FREE_FRAME_BYTES_MAX;
                if let Some(is_produce) = self.announces_produce().filter(|_| has_come && room.is_none()) {
                    room = self.budget.room(is_produce, length).await;
                    // Having waited for the others is not the client's fault.
                    deadline = Instant::now() + self.limits.request_timeout;
                    held = Some(Held { since: Instant::now(), bytes_before: self.buffer.len() });
                }
                if self.buffer.len() >= needed {
                    self.first = false;
                    let frame = Frame::cut(self.buffer.split_to(needed).freeze(), self.allocated, room);
                    self.let_go();
                    return Ok(Some(frame));
                }
            }
            let missing = needed.saturating_sub(self.buffer.len());
            let until = held.map_or(deadline, |held| deadline.min(held.next_bytes_until(self.buffer.len())));
            let factor = if held.is_some() { GROWTH_FACTOR_HELD } else { 1 };
            match tokio::time::timeout_at(until, self.read(missing, factor)).await {
                Ok(read) => {
                    if read? == 0 {
                        return Ok(None);
                    }
                }
                Err(_) => {
                    let limit = held.map_or(self.limits.request_timeout, |held| held.since.elapsed());
                    return Err(FrameError::Unfinished { got: self.buffer.len(), bytes: needed, limit });
                }
            }
        }
    }

    /// Leaves a large buffer to the frame that was cut from it, which ends sooner than this connection: the little that
    /// came behind it moves.
    fn let_go(&mut self) {
        if self.allocated > IDLE_BUFFER_BYTES_MAX && self.buffer.len() < self.allocated / 4 {
            self.buffer = BytesMut::from(&self.buffer[..]);
            self.allocated = self.buffer.capacity();
        }
    }

    /// The length at the buffer's start, once it is there, checked against what this request may have.
    fn announced(&self) -> Result<Option<usize>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let bytes = i64::from(i32::from_be_bytes(*head));
        let limit = self.limit();
        match usize::try_from(bytes) {
            Ok(length) if (8..=limit).contains(&length) => Ok(Some(length)),
            _ if self.first => Err(stranger(head).unwrap_or(FrameError::Length { bytes, limit })),
            _ => Err(FrameError::Length { bytes, limit }),
        }
    }

    /// What the request may have, as far as it has come.
    fn limit(&self) -> usize {
        let own = match self.announces_produce() {
            Some(false) => self.limits.small_frame_bytes_max,
            _ => self.limits.frame_bytes_max,
        };
        // As a rule a client asks for the versions first; one that was told them may begin with a large Produce. A port
        // scanner or a browser names none that we serve, and never gets further.
        let is_strange = self.first && self.announces_served() == Some(false);
        if is_strange { own.min(self.limits.first_frame_bytes_max) } else { own }
    }

    /// None as long as the API's key has not come.
    fn announces_produce(&self) -> Option<bool> {
        self.number_at(API_KEY_AT).map(|key| key == PRODUCE)
    }

    /// Whether the request is of an API and a version that we serve; none as long as that is open.
    fn announces_served(&self) -> Option<bool> {
        match Api::find(self.number_at(API_KEY_AT)?) {
            Some(api) => self.number_at(API_VERSION_AT).map(|version| api.takes(version)),
            None => Some(false),
        }
    }

    fn number_at(&self, at: usize) -> Option<i16> {
        self.buffer.get(at..)?.first_chunk().map(|bytes| i16::from_be_bytes(*bytes))
    }

    /// Reads what is there, making room for `factor` times what has come already, at most.
    async fn read(&mut self, missing: usize, factor: usize) -> std::io::Result<usize> {
        let room = missing.min(self.buffer.len().saturating_mul(factor)).max(GROWTH_BYTES_MIN);
        if self.buffer.capacity() == self.buffer.len() {
            match self.budget.take_spare(self.buffer.len() + room) {
                Some(mut spare) => {
                    spare.extend_from_slice(&self.buffer);
                    self.buffer = spare;
                }
                None => self.buffer.reserve(room),
            }
            self.allocated = self.buffer.capacity();
        }
        self.socket.read_buf(&mut self.buffer).await
    }
}

/// What a first frame's length really is, where that is known: people see it when a port or a setting is mixed up.
fn stranger(head: &[u8; 4]) -> Option<FrameError> {
    match head {
        [0x16, 0x03, ..] => Some(FrameError::Tls),
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"DELE" | b"PRI " => Some(FrameError::Http),
        _ => None,
    }
}

/// A request's header, and where it is to be answered.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) api: &'static Api,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: String,
}

/// A frame split into header and body.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A request of a version that we take; its counts are proven.
    Request(Head, Bytes),
    /// An ApiVersions request of a version that we do not know: answered in version 0.
    FutureApiVersions(Head),
}

/// Reads the header and proves the body's counts.
pub(crate) fn open(frame: Bytes) -> Result<Opened, FrameError> {
    let (Some(key), Some(version), Some(id)) = (frame.get(0..2), frame.get(2..4), frame.get(4..8)) else {
        return Err(FrameError::Length { bytes: frame.len() as i64, limit: 8 });
    };
    let key = i16::from_be_bytes([key[0], key[1]]);
    let version = i16::from_be_bytes([version[0], version[1]]);
    let correlation_id = i32::from_be_bytes([id[0], id[1], id[2], id[3]]);
    let api = Api::find(key).ok_or(FrameError::UnknownApi(key))?;
    let mut head = Head { api, version, correlation_id, client_id: String::new() };
    if !api.takes(version) {
        return match api.key {
            kafka_protocol::messages::ApiKey::ApiVersions => Ok(Opened::FutureApiVersions(head)),
            _ => Err(FrameError::UnknownVersion { api: api.name, version }),
        };
    }
    let malformed = |source| FrameError::Malformed { api: api.name, version, source };
    let client_bytes = match frame.get(8..10).map(|length| i16::from_be_bytes([length[0], length[1]])) {
        None => return Err(malformed(SchemaError::Truncated)),
        Some(length) => usize::try_from(length).unwrap_or(0),
    };
    let client_id = frame.get(10..10 + client_bytes).ok_or_else(|| malformed(SchemaError::Truncated))?;
    head.client_id = String::from_utf8_lossy(client_id).into_owned();
    let mut body = frame.slice(10 + client_bytes..);
    if version >= api.schema.flexible_from {
        let mut walk = Walk::new(&body, version, true);
        walk.tagged(&[]).map_err(malformed)?;
        let rest = walk.rest();
        body.advance(body.len() - rest);
    }
    api.schema.check(&body, version).map_err(malformed)?;
    Ok(Opened::Request(head, body))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// A Produce request of that many bytes, with its length.
    fn produce(bytes: usize) -> Vec<u8> {
        let mut frame = (bytes as u32).to_be_bytes().to_vec();
        frame.resize(4 + bytes, 0);
        frame
    }

    /// What becomes of a connection's first request, of which nothing has come but key, version and correlation id.
    async fn first(key: i16, version: i16, bytes: usize) -> Result<usize, FrameError> {
        let mut sent = produce(bytes);
        sent[4..6].copy_from_slice(&key.to_be_bytes());
        sent[6..8].copy_from_slice(&version.to_be_bytes());
        let mut reader = FrameReader::new(sent.as_slice(), Limits::default(), RequestBudget::new(1 << 30));
        reader.next().await.map(|frame| frame.map_or(0, |frame| frame.bytes.len()))
    }

    #[tokio::test]
    async fn a_first_request_may_be_large_if_it_is_one_that_we_serve() {
        const METADATA: i16 = 3;
        let Limits { first_frame_bytes_max, small_frame_bytes_max, .. } = Limits::default();
        assert_eq!(first(PRODUCE, 7, 10 << 20).await.unwrap(), 10 << 20);
        assert_eq!(first(METADATA, 1, small_frame_bytes_max).await.unwrap(), small_frame_bytes_max);
        let refused = first(METADATA, 1, small_frame_bytes_max + 1).await;
        assert!(matches!(refused, Err(FrameError::Length { limit, .. }) if limit == small_frame_bytes_max));
        for (key, version) in [(PRODUCE, 2), (PRODUCE, 99), (PRODUCE, -1), (METADATA, 99), (9999, 0), (-1, 0)] {
            assert_eq!(first(key, version, first_frame_bytes_max).await.unwrap(), first_frame_bytes_max);
            let refused = first(key, version, first_frame_bytes_max + 1).await;
            assert!(
                matches!(refused, Err(FrameError::Length { limit, .. }) if limit == first_frame_bytes_max),
                "API key {key}, version {version}"
            );
        }
    }

    #[tokio::test]
    async fn the_room_of_a_large_request_is_held_for_as_long_as_any_slice_of_it() {
        let bytes = 1 << 20;
        let budget = RequestBudget::new(2 * bytes);
        // A connection's first request is a small one.
        let sent = [produce(8), produce(bytes), produce(100)].concat();
        let mut reader = FrameReader::new(sent.as_slice(), Limits::default(), budget.clone());
        reader.next().await.unwrap().unwrap();
        let large = reader.next().await.unwrap().unwrap();
        assert_eq!((large.bytes.len(), large.pins), (bytes, 0));
        let kept = large.bytes.slice(bytes - 10..);
        drop(large);
        let room = || budget.room(true, bytes).now_or_never();
        assert!(room().is_none(), "ten bytes still hold the whole request");
        // What comes behind it holds no room, and no memory of it.
        let small = reader.next().await.unwrap().unwrap();
        assert!(small.bytes.len() == 100 && (100..bytes / 4).contains(&small.pins));
        drop(kept);
        assert!(room().is_some());
    }
}
