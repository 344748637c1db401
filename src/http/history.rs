//! The last 15 minutes, a column a second: what the page draws.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::figures::Counts;
use crate::clock::Micros;
use crate::metrics::latency_bounds_seconds;
use crate::progress::Stage;

/// Columns that are kept: 15 minutes.
pub const COLUMNS_MAX: usize = 900;
/// Seconds whose latencies `recent_stages` adds up.
pub const RECENT_SECONDS: usize = 10;
/// Seconds over which a rate is taken.
pub const RATE_SECONDS: usize = 5;

/// One second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    /// When it began.
    pub began_at: Micros,
    /// How long it really was.
    pub length: Duration,
    /// Arrivals whose time came.
    pub scheduled: u64,
    /// Handed to the client.
    pub sent: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Stored.
    pub stored: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Age of the oldest record not applied, at its end; none: unknown.
    pub lag_seconds: Option<f64>,
    /// Arrivals that were due and not sent, at its end.
    pub late: u64,
    /// From scheduled to committed.
    pub p50_us: Option<u64>,
    /// The same.
    pub p99_us: Option<u64>,
    /// The same.
    pub p999_us: Option<u64>,
    /// The same in the buckets of [`bounds_us`]; none when nothing was stored.
    pub heat: Option<Vec<u64>>,
}

/// The latencies of one second, by stage.
#[derive(Clone, Debug, Default)]
struct Second {
    counts: [Counts; Stage::ALL.len()],
    negative: [u64; Stage::ALL.len()],
    missing: [u64; Stage::ALL.len()],
}

/// What came in some seconds in one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// The latencies.
    pub counts: Counts,
    /// Values below zero.
    pub negative: u64,
    /// Messages without one of the times.
    pub missing: u64,
}

/// The columns, oldest first, and the latencies of the last few.
#[derive(Debug)]
pub struct History {
    columns: VecDeque<Column>,
    recent: VecDeque<Second>,
    bounds_us: Vec<u64>,
}

/// Columns as the page reads them: an array a row.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HistoryView {
    /// When the first column began.
    #[schema(value_type = String, format = DateTime)]
    pub began_at: String,
    /// Between two columns.
    pub step_seconds: u32,
    /// Arrivals whose time came.
    pub scheduled_per_second: Vec<f64>,
    /// Messages acknowledged.
    pub acknowledged_per_second: Vec<f64>,
    /// Rows committed.
    pub stored_per_second: Vec<f64>,
    /// From scheduled to committed; null when nothing was stored.
    pub p50_us: Vec<Option<u64>>,
    /// The same.
    pub p99_us: Vec<Option<u64>>,
    /// The same.
    pub p999_us: Vec<Option<u64>>,
    /// Age of the oldest record not applied, at the column's end.
    pub lag_seconds: Vec<Option<f64>>,
    /// The same latencies as counts.
    pub heat: HeatView,
}

/// A heat map.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HeatView {
    /// Upper bounds of the buckets, as in the metrics.
    pub bounds_us: Vec<u64>,
    /// A count for each bound and one for what is beyond the last; null when nothing was stored.
    pub columns: Vec<Option<Vec<u64>>>,
}

/// The bounds of the metrics' histograms, in whole microseconds.
pub fn bounds_us() -> Vec<u64> {
    latency_bounds_seconds().into_iter().map(|seconds| (seconds * 1e6) as u64).collect()
}

impl Default for History {
    fn default() -> Self {
        History { columns: VecDeque::new(), recent: VecDeque::new(), bounds_us: bounds_us() }
    }
}

impl History {
    /// Adds a second. The latencies of `stages` are those that came in it, in the order of [`Stage::ALL`].
    pub fn add(&mut self, mut column: Column, stages: Vec<Recent>) {
        let mut second = Second::default();
        for (place, stage) in stages.into_iter().enumerate().take(Stage::ALL.len()) {
            second.counts[place] = stage.counts;
            (second.negative[place], second.missing[place]) = (stage.negative, stage.missing);
        }
        let end_to_end = &second.counts[Stage::EndToEnd as usize];
        if end_to_end.len() > 0 {
            (column.p50_us, column.p99_us) = (end_to_end.quantile(0.5), end_to_end.quantile(0.99));
            column.p999_us = end_to_end.quantile(0.999);
            column.heat = Some(end_to_end.in_buckets(&self.bounds_us));
        }
        if self.columns.len() == COLUMNS_MAX {
            self.columns.pop_front();
        }
        self.columns.push_back(column);
        if self.recent.len() == RECENT_SECONDS {
            self.recent.pop_front();
        }
        self.recent.push_back(second);
    }

    /// What the last seconds brought in one stage.
    pub fn recent(&self, stage: Stage) -> Recent {
        let place = stage as usize;
        Recent {
            counts: Counts::sum(self.recent.iter().map(|second| &second.counts[place])),
            negative: self.recent.iter().map(|second| second.negative[place]).sum(),
            missing: self.recent.iter().map(|second| second.missing[place]).sum(),
        }
    }

    /// Messages a second over the last columns; none before the first.
    pub fn rate(&self, count: impl Fn(&Column) -> u64) -> Option<f64> {
        let last = || self.last(RATE_SECONDS);
        let seconds: f64 = last().map(|column| column.length.as_secs_f64()).sum();
        (seconds > 0.0).then(|| last().map(count).sum::<u64>() as f64 / seconds)
    }

    /// The last columns, oldest first.
    pub fn last(&self, count: usize) -> impl DoubleEndedIterator<Item = &Column> {
        self.columns.range(self.columns.len().saturating_sub(count)..)
    }

    /// The last columns as the page reads them; `now` is where the first one will begin, if there is none.
    pub fn view(&self, count: usize, now: Micros) -> HistoryView {
        let began_at = self.last(count).next().map_or(now, |column| column.began_at);
        let last = || self.last(count);
        let per_second = |number: fn(&Column) -> u64| {
            let rate = |column: &Column| rounded(number(column) as f64 / column.length.as_secs_f64().max(1e-3));
            last().map(rate).collect()
        };
        HistoryView {
            began_at: began_at.to_string(),
            step_seconds: 1,
            scheduled_per_second: per_second(|column| column.scheduled),
            acknowledged_per_second: per_second(|column| column.acknowledged),
            stored_per_second: per_second(|column| column.stored),
            p50_us: last().map(|column| column.p50_us).collect(),
            p99_us: last().map(|column| column.p99_us).collect(),
            p999_us: last().map(|column| column.p999_us).collect(),
            lag_seconds: last().map(|column| column.lag_seconds.map(thousandths)).collect(),
            heat: HeatView {
                bounds_us: self.bounds_us.clone(),
                columns: last().map(|column| column.heat.clone()).collect(),
            },
        }
    }
}

/// To a tenth: more would be chance.
pub fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

/// To milliseconds.
pub fn thousandths(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored(count: u64) -> Column {
        let began_at = Micros(count as i64 * 1_000_000);
        Column { began_at, length: Duration::from_secs(1), stored: count, ..Column::default() }
    }

    #[test]
    fn fifteen_minutes_are_kept_and_the_first_columns_time_moves_on() {
        let mut history = History::default();
        for second in 0..COLUMNS_MAX as u64 + 5 {
            history.add(stored(second), Vec::new());
        }
        let view = history.view(COLUMNS_MAX, Micros(0));
        assert_eq!(view.began_at, Micros(5_000_000).to_string());
        assert_eq!((view.stored_per_second.len(), view.stored_per_second[0]), (COLUMNS_MAX, 5.0));
        assert!(view.p50_us.iter().all(Option::is_none) && view.heat.columns.iter().all(Option::is_none));
        let newest = history.view(1, Micros(0));
        assert_eq!(newest.began_at, Micros(904_000_000).to_string());
        assert_eq!(newest.stored_per_second, [904.0]);
        assert_eq!(history.rate(|column| column.stored), Some(902.0));
    }

    #[test]
    fn a_second_with_messages_has_its_own_percentiles_and_recent_ones_are_of_ten() {
        let mut history = History::default();
        let mut histogram = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1_000_000, 3).unwrap();
        histogram.record_n(100, 99).unwrap();
        histogram.record(900).unwrap();
        for _ in 0..RECENT_SECONDS + 2 {
            let mut stages = vec![Recent::default(); Stage::ALL.len()];
            stages[Stage::EndToEnd as usize] = Recent { counts: Counts::of(&histogram), negative: 1, missing: 2 };
            history.add(stored(100), stages);
        }
        let column = history.last(1).next().unwrap().clone();
        assert_eq!((column.p50_us, column.p99_us, column.p999_us), (Some(100), Some(100), Some(900)));
        assert_eq!(column.heat.unwrap().iter().sum::<u64>(), 100);
        let recent = history.recent(Stage::EndToEnd);
        assert_eq!((recent.counts.len(), recent.negative, recent.missing), (1_000, 10, 20));
    }
}
