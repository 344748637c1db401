//! Injected time: one wall clock that every stage reads, in microseconds since the Unix epoch.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time: microseconds since 1970-01-01T00:00:00Z. Negative before that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// Milliseconds since the epoch, rounded down: the unit of Kafka timestamps.
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// `self - earlier` in microseconds; negative when `earlier` is later.
    pub fn since(self, earlier: Micros) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Micros {
    /// RFC 3339 with microseconds, in UTC.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_micros(self.0) {
            Some(time) => write!(formatter, "{}", time.format("%Y-%m-%dT%H:%M:%S%.6fZ")),
            None => write!(formatter, "{} us", self.0),
        }
    }
}

/// Where the present comes from; tests hand in their own.
pub trait Clock: Send + Sync {
    /// The present.
    fn now(&self) -> Micros;
}

/// A clock that is shared between roles.
pub type SharedClock = Arc<dyn Clock>;

/// The operating system's wall clock, read once and then advanced by the monotonic clock, so that a step of the wall
/// clock in the middle of a run cannot make latencies negative within one process.
#[derive(Debug)]
pub struct SystemClock {
    wall_at_start: i64,
    started: std::time::Instant,
}

impl SystemClock {
    /// Reads the wall clock once.
    pub fn new() -> Self {
        let wall_at_start = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_micros() as i64,
            Err(before) => -(before.duration().as_micros() as i64),
        };
        SystemClock { wall_at_start, started: std::time::Instant::now() }
    }

    /// A system clock behind the trait.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        Micros(self.wall_at_start + self.started.elapsed().as_micros() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_prints_as_rfc_3339_with_microseconds() {
        assert_eq!(Micros(1_700_000_000_000_001).to_string(), "2023-11-14T22:13:20.000001Z");
    }

    #[test]
    fn milliseconds_round_down_also_before_the_epoch() {
        assert_eq!(Micros(-1).as_millis(), -1);
        assert_eq!(Micros(1_999).as_millis(), 1);
    }
}
