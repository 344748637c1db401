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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shape(rows: &[(&str, u32)]) -> Result<Vec<f64>, SourceError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("AA.csv");
        let mut text = "Datetime,Open,High,Low,Close,Volume\n".to_owned();
        for (time, volume) in rows {
            text.push_str(&format!("2020-01-{time}:00+00:00,1,1,1,1,{volume}\n"));
        }
        std::fs::write(&path, text).unwrap();
        day_of(&path)
    }

    #[test]
    fn days_of_an_exchange_begin_with_their_first_bar() {
        // One bar out of step, as Yahoo writes the last price of a day, makes no part of its own.
        let rows =
            [("02 09:30", 10), ("02 10:00", 20), ("02 10:30", 30), ("02 10:31", 3), ("03 10:30", 10), ("03 11:00", 7)];
        assert_eq!(shape(&rows).unwrap(), [20.0, 27.0, 33.0].map(|volume| volume / (80.0 / 3.0)));
    }

    #[test]
    fn without_nights_a_day_has_24_hours() {
        let rows: Vec<(String, u32)> =
            (2..5).flat_map(|day| (0..24).map(move |hour| (format!("{day:02} {hour:02}:00"), hour + 1))).collect();
        let rows: Vec<(&str, u32)> = rows.iter().map(|(time, volume)| (time.as_str(), *volume)).collect();
        let shape = shape(&rows).unwrap();
        assert_eq!(shape.len(), 24);
        assert!((shape[23] / shape[0] - 24.0).abs() < 1e-9, "{shape:?}");
        let daily = [("02 00:00", 5), ("03 00:00", 5)];
        assert!(day_of(Path::new("absent.csv")).is_err());
        assert!(self::shape(&daily).unwrap_err().to_string().contains("one bar a day"));
    }
}
