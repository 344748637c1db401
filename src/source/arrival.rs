//! When the n-th message is due. The loop is open: what is late stays late and is sent as soon as it can be, nothing is
//! skipped, and the times never depend on how the sending went.

use crate::clock::Micros;
use crate::config::Pace;

/// The arrival times of one run.
#[derive(Debug)]
pub struct Arrivals {
    pace: Pace,
    start: Micros,
    arrived: u64,
    first_event: Option<Micros>,
    latest: Micros,
}

impl Arrivals {
    /// The first message is due at `start`.
    pub fn new(pace: Pace, start: Micros) -> Arrivals {
        Arrivals { pace, start, arrived: 0, first_event: None, latest: start }
    }

    /// When the next message is due. `event_time` paces `Speed`; `now` is the answer of `Max`.
    ///
    /// Never earlier than the message before: events out of order are sent at once.
    pub fn next(&mut self, event_time: Option<Micros>, now: Micros) -> Micros {
        let due = match self.pace {
            // From the start each time: errors of single steps do not add up.
            Pace::Rate(per_second) => self.start.0.saturating_add((self.arrived as f64 * 1e6 / per_second) as i64),
            Pace::Max => now.0,
            Pace::Speed(factor) => {
                let event = event_time.unwrap_or(now);
                let first = *self.first_event.get_or_insert(event);
                self.start.0.saturating_add((event.since(first) as f64 / factor) as i64)
            }
        };
        self.arrived += 1;
        self.latest = self.latest.max(Micros(due));
        self.latest
    }

    /// How many arrivals have had their time by `now`, asked for or not.
    pub fn arrived_by(&self, now: Micros) -> u64 {
        match self.pace {
            Pace::Rate(per_second) if now >= self.start => (now.since(self.start) as f64 * per_second / 1e6) as u64 + 1,
            Pace::Rate(_) => 0,
            // At full speed nothing arrives before it is asked for, and what is asked for waits for nothing but us.
            Pace::Max => self.arrived.saturating_sub(1),
            Pace::Speed(_) => self.arrived,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Micros = Micros(1_000_000);

    #[test]
    fn a_rate_that_divides_no_second_does_not_drift() {
        let mut arrivals = Arrivals::new(Pace::Rate(3.0), START);
        let due: Vec<i64> = (0..7).map(|_| arrivals.next(None, Micros(9)).0 - START.0).collect();
        assert_eq!(due, [0, 333_333, 666_666, 1_000_000, 1_333_333, 1_666_666, 2_000_000]);
        let arrived = [-1, 0, 333_332, 333_334, 2_000_000].map(|after| arrivals.arrived_by(Micros(START.0 + after)));
        assert_eq!(arrived, [0, 1, 1, 2, 7]);
    }

    #[test]
    fn max_is_due_now_and_never_before_the_last() {
        let mut arrivals = Arrivals::new(Pace::Max, START);
        assert_eq!(arrivals.next(None, Micros(2_000_000)), Micros(2_000_000));
        assert_eq!(arrivals.next(None, Micros(1_999_999)), Micros(2_000_000));
    }

    #[test]
    fn speed_follows_event_time_and_sends_stragglers_at_once() {
        let mut arrivals = Arrivals::new(Pace::Speed(10.0), START);
        let events = [0, 60_000_000, 30_000_000, 120_000_000];
        let due: Vec<i64> = events.iter().map(|event| arrivals.next(Some(Micros(*event)), START).0 - START.0).collect();
        assert_eq!(due, [0, 6_000_000, 6_000_000, 12_000_000]);
    }
}
