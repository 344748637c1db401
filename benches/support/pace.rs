//! When messages are due, and how their delays are counted.

use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Delays above this are counted as this: two minutes in microseconds.
const DELAY_US_MAX: u64 = 120_000_000;

/// Evenly spaced moments that do not wait for whoever is late: the time of a message counts from its moment.
pub struct Pace {
    begins: Instant,
    rate: f64,
    next: u64,
}

impl Pace {
    /// From `begins` on, `rate` moments a second.
    pub fn new(begins: Instant, rate: f64) -> Pace {
        Pace { begins, rate, next: 0 }
    }

    /// The moment after the last one; sleeps where it has not come yet.
    pub fn wait_for_next(&mut self) -> Instant {
        let due = self.begins + Duration::from_secs_f64(self.next as f64 / self.rate);
        self.next += 1;
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        due
    }
}

/// For microseconds, with three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, DELAY_US_MAX, 3).unwrap()
}

/// p50, p99 and p99.9, in milliseconds.
pub fn percentiles_ms(delays_us: &Histogram<u64>) -> [f64; 3] {
    [0.5, 0.99, 0.999].map(|quantile| delays_us.value_at_quantile(quantile) as f64 / 1e3)
}
