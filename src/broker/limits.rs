//! What clients may ask of the broker, and how often it looks after its own.

use std::time::Duration;

/// What a client may ask of us; every bound has a name.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; further ones are closed at once. Fewer where the limit of open files is low.
    pub connections_max: usize,
    /// Open connections of one address (IPv6: of one network of 64 bits); the others' places stay free.
    pub connections_per_address_max: usize,
    /// Bytes of a Produce request.
    pub frame_bytes_max: usize,
    /// Bytes of any other request.
    pub small_frame_bytes_max: usize,
    /// Bytes of a connection's first request, unless it names an API in a version that is served.
    pub first_frame_bytes_max: usize,
    /// From a request's first byte to its last; from connecting to the first request; and for a client to take something of an answer.
    pub request_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Bytes of one connection's answers that may wait before its next request is carried out.
    pub waiting_answer_bytes_max: usize,
    /// Bytes of copied records in all answers that wait; then records stay in their files until they are sent.
    pub all_answers_bytes_max: usize,
    /// Bytes of all large Produce requests in memory; of other large requests, a quarter of it.
    pub all_requests_bytes_max: usize,
    /// A client that takes a large answer slower than this is given up: bytes in a second.
    pub answer_rate_min: usize,
    /// Between two looks for what to roll, to cut, to compact and to forget.
    pub housekeeping_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // An idle connection is cheap. A host with a thousand clients has up to three connections for each.
            connections_max: 4000,
            connections_per_address_max: 3000,
            frame_bytes_max: 100 * 1024 * 1024,
            small_frame_bytes_max: 8 * 1024 * 1024,
            first_frame_bytes_max: 64 * 1024,
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            waiting_answer_bytes_max: 16 * 1024 * 1024,
            all_answers_bytes_max: 256 * 1024 * 1024,
            all_requests_bytes_max: 256 * 1024 * 1024,
            answer_rate_min: 64 * 1024,
            housekeeping_pause: Duration::from_secs(10),
        }
    }
}
