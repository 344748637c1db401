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
            Timing::Process(arrivals) => {
                let count = &mut arrivals.count;
                while count.next_us <= now.since(self.start) {
                    count.over += 1;
                    count.next_us = count.process.next_us();
                }
                count.over
            }
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
        for arrival in [Arrival::Poisson, Arrival::Bursty] {
            let mut arrivals = arrivals(Pace::Rate { per_second: 1_000.0, arrival });
            let due: Vec<i64> = (0..10_000).map(|_| arrivals.next(None, START).0).collect();
            for (place, time) in due.iter().enumerate().step_by(997) {
                let of_this_time = due[place + 1..].iter().take_while(|next| *next == time).count();
                assert_eq!(arrivals.arrived_by(Micros(*time)), (place + 1 + of_this_time) as u64);
            }
        }
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
