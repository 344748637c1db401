//! The shape of an exchange's day: how much of its trade falls into each part of it.

use std::path::Path;

use super::super::SourceError;
use super::super::yfinance::volumes_by_time_of_day;

/// Ten minutes each of six and a half hours.
const PARTS: u32 = 39;

/// Busiest when it opens, quietest at noon, busy again before it closes; the mean of all parts is 1.
pub(super) fn u_shape() -> Vec<f64> {
    let part = |number: u32| {
        let at = (f64::from(number) + 0.5) / f64::from(PARTS);
        0.6 + 1.9 * libm::exp(-10.0 * at) + 1.5 * libm::exp(-9.0 * (1.0 - at))
    };
    with_mean_one((0..PARTS).map(part).collect())
}

/// The volumes of a yfinance intraday file, summed by the time since the first bar of each day; the mean is 1.
pub(super) fn day_of(path: &Path) -> Result<Vec<f64>, SourceError> {
    let volumes = volumes_by_time_of_day(path)?;
    if volumes.len() < 2 {
        return Err(SourceError::Setting(format!(
            "--arrival market:{}: it has one bar a day; a day's shape needs bars within a day, such as those of interval=\"15m\"",
            path.display()
        )));
    }
    Ok(with_mean_one(volumes))
}

fn with_mean_one(parts: Vec<f64>) -> Vec<f64> {
    let mean = parts.iter().sum::<f64>() / parts.len() as f64;
    parts.into_iter().map(|part| part / mean).collect()
}
