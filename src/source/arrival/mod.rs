//! When the n-th message is due. The loop is open: what is late stays late and is sent as soon as it can be, nothing is
//! skipped, and the times never depend on how the sending went.

use self::process::Process;
use super::SourceError;
use crate::clock::Micros;
use crate::config::Pace;

mod market;
mod process;

/// The arrival times of one run.
#[derive(Debug)]
pub struct Arrivals {
    timing: Timing,
    start: Micros,
    arrived: u64,
    latest: Micros,
}

#[derive(Debug)]
enum Timing {
    Process(Box<InTime>),
    Max,
    Speed { factor: f64, first_event: Option<Micros> },
}

/// The arrivals of a process, and those of the same process that are over.
#[derive(Debug)]
struct InTime {
    process: Process,
    count: Count,
}

/// A second run through the same arrival times, which counts those that are over.
#[derive(Debug)]
struct Count {
    process: Process,
    over: u64,
    next_us: i64,
}

/// Drawn at once, at most, to count what is over: a few milliseconds. After a long pause the count follows in several steps.
const DRAWN_AT_ONCE_MAX: u32 = 200_000;

impl Count {
    /// How many lie no later than `at_us` after the start.
    fn by(&mut self, at_us: i64) -> u64 {
        if self.process.numbered_us(0).is_none() {
            for _ in 0..DRAWN_AT_ONCE_MAX {
                if self.next_us > at_us {
                    break;
                }
                self.over += 1;
                self.next_us = self.process.next_us();
            }
            return self.over;
        }
        // In steps that double, and then halve.
        let is_over = |number: u64| self.process.numbered_us(number).is_some_and(|due| due <= at_us);
        let mut step = 1;
        while is_over(self.over + step - 1) {
            self.over += step;
            step *= 2;
        }
        while step > 1 {
            step /= 2;
            if is_over(self.over + step - 1) {
                self.over += step;
            }
        }
        self.over
    }
}

impl Arrivals {
    /// Times count from `start` on. The same seed gives the same times.
    ///
    /// # Errors
    /// If the file that a market's day is taken from cannot be used.
    pub fn new(pace: &Pace, seed: u64, start: Micros) -> Result<Arrivals, SourceError> {
        let timing = match pace {
            Pace::Rate { per_second, arrival } => {
                let process = Process::new(*per_second, arrival, seed)?;
                // From the same seed: the same times.
                let mut again = Process::new(*per_second, arrival, seed)?;
                let next_us = again.next_us();
                Timing::Process(Box::new(InTime { process, count: Count { process: again, over: 0, next_us } }))
            }
            Pace::Max => Timing::Max,
            Pace::Speed(factor) => Timing::Speed { factor: *factor, first_event: None },
        };
        Ok(Arrivals { timing, start, arrived: 0, latest: start })
    }

    /// When the next message is due. `event_time` paces `Speed`; `now` is the answer of `Max`.
    ///
    /// Never earlier than the message before: events out of order are sent at once.
    pub fn next(&mut self, event_time: Option<Micros>, now: Micros) -> Micros {
        let due = match &mut self.timing {
            Timing::Process(arrivals) => self.start.0.saturating_add(arrivals.process.next_us()),
            Timing::Max => now.0,
            Timing::Speed { factor, first_event } => {
                let event = event_time.unwrap_or(now);
                let first = *first_event.get_or_insert(event);
                self.start.0.saturating_add((event.since(first) as f64 / *factor) as i64)
            }
        };
        self.arrived += 1;
        self.latest = self.latest.max(Micros(due));
        self.latest
    }

    /// How many arrivals have had their time by `now`, asked for or not.
    pub fn arrived_by(&mut self, now: Micros) -> u64 {
        match &mut self.timing {
            Timing::Process(arrivals) => arrivals.count.by(now.since(self.start)),
            // At full speed nothing arrives before it is asked for, and what is asked for waits for nothing but us.
            Timing::Max => self.arrived.saturating_sub(1),
            // The one that was asked for last may be due later.
            Timing::Speed { .. } => self.arrived - u64::from(self.latest > now),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Arrival;

    const START: Micros = Micros(1_000_000);

    fn arrivals(pace: Pace) -> Arrivals {
        Arrivals::new(&pace, 1, START).unwrap()
    }

    #[test]
    fn a_rate_that_divides_no_second_does_not_drift() {
        let mut arrivals = arrivals(Pace::Rate { per_second: 3.0, arrival: Arrival::Constant });
        let due: Vec<i64> = (0..7).map(|_| arrivals.next(None, Micros(9)).0 - START.0).collect();
        assert_eq!(due, [0, 333_333, 666_666, 1_000_000, 1_333_333, 1_666_666, 2_000_000]);
        let arrived = [-1, 0, 333_332, 333_334, 2_000_000].map(|after| arrivals.arrived_by(Micros(START.0 + after)));
        assert_eq!(arrived, [0, 1, 1, 2, 7]);
    }

    #[test]
    fn what_is_counted_is_what_is_due() {
        let ramp = Arrival::Ramp { from: 100.0, to: 2_000.0, over: Duration::from_secs(7) };
        for arrival in [Arrival::Constant, Arrival::Poisson, Arrival::Bursty, ramp] {
            let mut arrivals = arrivals(Pace::Rate { per_second: 1_000.0, arrival });
            let due: Vec<i64> = (0..10_000).map(|_| arrivals.next(None, START).0).collect();
            for (place, time) in due.iter().enumerate().step_by(997) {
                let of_this_time = due[place + 1..].iter().take_while(|next| *next == time).count();
                assert_eq!(arrivals.arrived_by(Micros(*time)), (place + 1 + of_this_time) as u64);
            }
        }
    }

    #[test]
    fn a_long_pause_is_counted_without_a_long_wait() {
        let by_day = |arrival| {
            let mut arrivals = arrivals(Pace::Rate { per_second: 1e9, arrival });
            arrivals.arrived_by(Micros(START.0 + 86_400_000_000))
        };
        assert_eq!(
            by_day(Arrival::Constant),
            86_400_000_001_000,
            "1,000 of each microsecond, those of the last one, too"
        );
        assert_eq!(by_day(Arrival::Poisson), u64::from(DRAWN_AT_ONCE_MAX));
    }

    #[test]
    fn max_is_due_now_and_never_before_the_last() {
        let mut arrivals = arrivals(Pace::Max);
        assert_eq!(arrivals.next(None, Micros(2_000_000)), Micros(2_000_000));
        assert_eq!(arrivals.next(None, Micros(1_999_999)), Micros(2_000_000));
    }

    #[test]
    fn speed_follows_event_time_and_sends_stragglers_at_once() {
        let mut arrivals = arrivals(Pace::Speed(10.0));
        let events = [0, 60_000_000, 30_000_000, 120_000_000];
        let due: Vec<i64> = events.iter().map(|event| arrivals.next(Some(Micros(*event)), START).0 - START.0).collect();
        assert_eq!(due, [0, 6_000_000, 6_000_000, 12_000_000]);
        assert_eq!([11_999_999, 12_000_000].map(|after| arrivals.arrived_by(Micros(START.0 + after))), [3, 4]);
    }
}
