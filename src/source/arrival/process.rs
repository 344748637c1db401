//! The arrival processes that have a rate: a clock that says when the next message is due, whatever became of the last.

use std::sync::Arc;

use super::super::SourceError;
use super::super::draw::Draw;
use super::market;
use crate::config::{Arrival, Day};

/// What is drawn for arrivals, beside the source's own draws of the same seed.
const STREAM: u64 = 1;
/// In a burst so many times more arrive than between bursts.
const BURST_FACTOR: f64 = 10.0;
/// How long a burst, and the calm between two, lasts on average.
const BURST_US: f64 = 1e6;
const CALM_US: f64 = 9e6;

/// Yields arrival times in microseconds after the start, in order, without an end.
#[derive(Debug)]
pub(super) enum Process {
    Constant { per_us: f64, arrived: u64 },
    Poisson { draw: Draw, per_us: f64, at: f64 },
    Bursty(Bursty),
    Market(Market),
    Ramp(Ramp),
}

/// Poisson arrivals whose rate changes between two at random times: a Markov-modulated Poisson process.
#[derive(Debug)]
pub(super) struct Bursty {
    draw: Draw,
    /// Calm, burst.
    per_us: [f64; 2],
    in_burst: bool,
    at: f64,
    /// When the state changes.
    until: f64,
}

/// Poisson arrivals whose rate follows a day, again and again.
#[derive(Debug)]
pub(super) struct Market {
    draw: Draw,
    /// Rates of equal parts of the day.
    per_us: Arc<[f64]>,
    part_us: f64,
    /// Arrivals of a whole day, on average.
    in_a_day: f64,
    at: f64,
}

/// From one rate to another, evenly spaced at each moment's rate; the last rate stays.
#[derive(Debug)]
pub(super) struct Ramp {
    from_per_us: f64,
    /// Change of the rate in a microsecond.
    steepness: f64,
    over_us: f64,
    to_per_us: f64,
    arrived: u64,
}

impl Process {
    /// `per_second`: the mean rate, of which a ramp has its own.
    pub(super) fn new(per_second: f64, arrival: &Arrival, seed: u64) -> Result<Process, SourceError> {
        let (draw, per_us) = (Draw::seeded(seed, STREAM), per_second / 1e6);
        Ok(match arrival {
            Arrival::Constant => Process::Constant { per_us, arrived: 0 },
            Arrival::Poisson => Process::Poisson { draw, per_us, at: 0.0 },
            Arrival::Bursty => Process::Bursty(Bursty::new(draw, per_us)),
            Arrival::Market { day, length } => {
                let shape = match day {
                    Day::UShape => market::u_shape(),
                    Day::File(path) => market::day_of(path)?,
                };
                let per_us = shape.into_iter().map(|part| part * per_us).collect::<Arc<[f64]>>();
                let part_us = length.as_micros() as f64 / per_us.len() as f64;
                let in_a_day = per_us.iter().sum::<f64>() * part_us;
                Process::Market(Market { draw, per_us, part_us, in_a_day, at: 0.0 })
            }
            Arrival::Ramp { from, to, over } => {
                let over_us = over.as_micros() as f64;
                Process::Ramp(Ramp {
                    from_per_us: from / 1e6,
                    steepness: (to - from) / 1e6 / over_us,
                    over_us,
                    to_per_us: to / 1e6,
                    arrived: 0,
                })
            }
        })
    }

    /// The arrival of this number, from 0, in microseconds after the start; none where it hangs on those before.
    pub(super) fn numbered_us(&self, number: u64) -> Option<i64> {
        match self {
            Process::Constant { per_us, .. } => Some(evenly(number, *per_us)),
            Process::Ramp(ramp) => Some(ramp.numbered_us(number)),
            Process::Poisson { .. } | Process::Bursty(_) | Process::Market(_) => None,
        }
    }

    /// The next arrival, in microseconds after the start.
    pub(super) fn next_us(&mut self) -> i64 {
        match self {
            Process::Constant { per_us, arrived } => {
                let due = evenly(*arrived, *per_us);
                *arrived += 1;
                due
            }
            Process::Poisson { draw, per_us, at } => {
                *at += draw.exponential() / *per_us;
                *at as i64
            }
            Process::Bursty(bursty) => bursty.next_us(),
            Process::Market(market) => market.next_us(),
            Process::Ramp(ramp) => {
                let due = ramp.numbered_us(ramp.arrived);
                ramp.arrived += 1;
                due
            }
        }
    }
}

/// From the start each time: errors of single steps do not add up.
fn evenly(number: u64, per_us: f64) -> i64 {
    (number as f64 / per_us) as i64
}

impl Bursty {
    fn new(mut draw: Draw, per_us: f64) -> Bursty {
        let burst_share = BURST_US / (BURST_US + CALM_US);
        let calm = per_us / (1.0 - burst_share + burst_share * BURST_FACTOR);
        let until = draw.exponential() * CALM_US;
        Bursty { draw, per_us: [calm, calm * BURST_FACTOR], in_burst: false, at: 0.0, until }
    }

    fn next_us(&mut self) -> i64 {
        loop {
            let next = self.at + self.draw.exponential() / self.per_us[usize::from(self.in_burst)];
            if next < self.until {
                self.at = next;
                return next as i64;
            }
            // Waiting has no memory: what is left of it is drawn anew in the other state.
            self.at = self.until;
            self.in_burst = !self.in_burst;
            self.until += self.draw.exponential() * if self.in_burst { BURST_US } else { CALM_US };
        }
    }
}

impl Market {
    fn next_us(&mut self) -> i64 {
        let mut left = self.draw.exponential();
        // At a small rate whole days go by.
        let days = (left / self.in_a_day).floor();
        left -= days * self.in_a_day;
        self.at += days * self.per_us.len() as f64 * self.part_us;
        let mut part = (self.at / self.part_us) as u64;
        loop {
            let rate = self.per_us[(part % self.per_us.len() as u64) as usize];
            let end = (part + 1) as f64 * self.part_us;
            let within = (end - self.at) * rate;
            if left < within {
                self.at += left / rate;
                return self.at as i64;
            }
            left -= within;
            self.at = end;
            part += 1;
        }
    }
}

impl Ramp {
    fn numbered_us(&self, number: u64) -> i64 {
        let number = number as f64;
        let within = (self.from_per_us + self.to_per_us) / 2.0 * self.over_us;
        if number >= within {
            return (self.over_us + (number - within) / self.to_per_us) as i64;
        }
        // number = from t + steepness t^2 / 2, solved in the form that does not cancel.
        let root = (self.from_per_us * self.from_per_us + 2.0 * self.steepness * number).max(0.0).sqrt();
        let sum = self.from_per_us + root;
        if sum > 0.0 { (2.0 * number / sum) as i64 } else { 0 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SEEDS: [u64; 3] = [1, 2, 3];

    fn times(arrival: Arrival, per_second: f64, seed: u64, seconds: f64) -> Vec<i64> {
        let mut process = Process::new(per_second, &arrival, seed).unwrap();
        std::iter::repeat_with(|| process.next_us()).take_while(|time| (*time as f64) < seconds * 1e6).collect()
    }

    /// Counts in equal parts of the time.
    fn counts(times: &[i64], part_us: i64, parts: usize) -> Vec<f64> {
        let mut counts = vec![0.0; parts];
        for time in times {
            if let Some(count) = counts.get_mut((time / part_us) as usize) {
                *count += 1.0;
            }
        }
        counts
    }

    /// Variance over mean: 1 for Poisson, more where arrivals come in bursts.
    fn dispersion(counts: &[f64]) -> f64 {
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / (counts.len() - 1) as f64 / mean
    }

    #[test]
    fn gaps_of_poisson_arrivals_are_exponential() {
        for seed in SEEDS {
            // Rare enough that cutting to microseconds does not show.
            let times = times(Arrival::Poisson, 100.0, seed, 1_000.0);
            let mut gaps: Vec<f64> =
                std::iter::once(&0).chain(&times).zip(&times).map(|(a, b)| (b - a) as f64 / 1e4).collect();
            gaps.sort_by(f64::total_cmp);
            let count = gaps.len() as f64;
            assert!((count - 100_000.0).abs() < 4.0 * 100_000f64.sqrt(), "{count} arrivals");
            // Kolmogorov and Smirnov: the largest distance is beyond 1.95 / sqrt(n) once in a thousand seeds.
            let distances = gaps.iter().enumerate().map(|(place, gap)| {
                let expected = 1.0 - (-gap).exp();
                (expected - place as f64 / count).abs().max((expected - (place as f64 + 1.0) / count).abs())
            });
            let distance = distances.fold(0.0, f64::max) * count.sqrt();
            assert!(distance < 1.95, "seed {seed}: {distance}");
            // Gaps that depend on the one before would show in the counts.
            let dispersion = dispersion(&counts(&times, 1_000_000, 1_000));
            assert!((dispersion - 1.0).abs() < 4.0 * (2.0f64 / 1_000.0).sqrt(), "seed {seed}: {dispersion}");
        }
    }

    #[test]
    fn bursts_keep_the_mean_and_come_in_bursts() {
        let mut rates = Vec::new();
        for seed in SEEDS {
            let times = times(Arrival::Bursty, 1_000.0, seed, 10_000.0);
            rates.push(times.len() as f64 / 10_000.0);
            let counts = counts(&times, 100_000, 100_000);
            assert!(dispersion(&counts) > 50.0, "{}", dispersion(&counts));
            let calm = counts.iter().filter(|count| **count < 150.0).count() as f64 / 100_000.0;
            assert!((0.87..0.93).contains(&calm), "{calm} of the time is calm");
        }
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        assert!((mean - 1_000.0).abs() < 40.0, "{rates:?}");
    }

    #[test]
    fn a_market_is_busy_when_it_opens_and_when_it_closes() {
        for seed in SEEDS {
            let arrival = Arrival::Market { day: Day::UShape, length: Duration::from_secs(100) };
            let times = times(arrival, 1_000.0, seed, 200.0);
            let shape = market::u_shape();
            let part_us = 100_000_000 / shape.len() as i64;
            let counts = counts(&times, part_us, 2 * shape.len());
            let expected = shape.iter().chain(&shape).map(|part| part * 1_000.0 * part_us as f64 / 1e6);
            let square: f64 = expected.zip(&counts).map(|(e, n)| (n - e).powi(2) / e).sum();
            let freedom = 2.0 * shape.len() as f64;
            assert!(square < freedom + 4.0 * (2.0 * freedom).sqrt(), "seed {seed}: {square} of {freedom}");
            assert!(counts[0] > 1.5 * counts[shape.len() / 2], "{counts:?}");
        }
    }

    #[test]
    fn a_rate_of_one_a_week_is_kept_and_takes_no_time_to_draw() {
        let week_us = 7.0 * 86_400e6;
        let day = Arrival::Market { day: Day::UShape, length: Duration::from_millis(1) };
        for (arrival, within) in [(Arrival::Poisson, 0.2), (Arrival::Bursty, 0.2), (day, 0.2)] {
            let mut process = Process::new(1e6 / week_us, &arrival, 1).unwrap();
            let last = (0..1_000).map(|_| process.next_us()).last().unwrap_or(0) as f64;
            assert!((last / 1_000.0 / week_us - 1.0).abs() < within, "{arrival:?}: {last}");
        }
    }

    #[test]
    fn a_ramp_reaches_its_end_and_stays_there() {
        for (from, to) in [(100.0, 1_100.0), (1_100.0, 100.0), (0.0, 1_200.0), (600.0, 600.0)] {
            let times = times(Arrival::Ramp { from, to, over: Duration::from_secs(10) }, 1.0, 1, 12.0);
            let counts = counts(&times, 1_000_000, 12);
            for (second, count) in counts.iter().enumerate() {
                let rate = if second < 10 { from + (to - from) * (second as f64 + 0.5) / 10.0 } else { to };
                assert!((count - rate).abs() <= 1.0, "{from} to {to}: {count} in second {second}, not {rate}");
            }
            assert!(times.is_sorted());
        }
    }
}
