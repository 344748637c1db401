//! When messages are sent: what `--rate`, `--speed` and `--arrival` say.

use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use crate::cli::parse::RATE_MAX;
use crate::cli::{NumberOrMax, PipelineArgs};

/// Messages a second without a flag.
const RATE_DEFAULT: f64 = 1_000.0;
/// A day, or a ramp, is no shorter: times are whole microseconds.
const SHORTEST: Duration = Duration::from_millis(1);
/// A day at the New York Stock Exchange.
const MARKET_DAY: Duration = Duration::from_secs(6 * 3600 + 1800);

/// When they are sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Pace {
    /// By an arrival process of this many messages per second on average; a ramp has rates of its own.
    Rate {
        /// Above 0.
        per_second: f64,
        /// How arrivals lie in time.
        arrival: Arrival,
    },
    /// As fast as the slowest part goes.
    Max,
    /// By event time, this many times faster than it happened.
    Speed(f64),
}

/// How arrivals lie in time.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Arrival {
    /// Evenly.
    #[default]
    Constant,
    /// At random, each independent of all others.
    Poisson,
    /// At random, with bursts of about a second in which ten times as many arrive as between them.
    Bursty,
    /// At random, at rates that follow an exchange's day.
    Market {
        /// The shape of the day.
        day: Day,
        /// How long the day lasts here; then it begins again.
        length: Duration,
    },
    /// Evenly, from one rate to another; the last one stays.
    Ramp {
        /// Messages per second at first, 0 or more.
        from: f64,
        /// And in the end, above 0.
        to: f64,
        /// How long it takes.
        over: Duration,
    },
}

impl std::fmt::Display for Pace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pace::Rate { per_second, arrival } => match arrival {
                Arrival::Constant => write!(formatter, "{per_second}/s constant"),
                Arrival::Poisson => write!(formatter, "{per_second}/s poisson"),
                Arrival::Bursty => write!(formatter, "{per_second}/s bursty"),
                Arrival::Market { .. } => write!(formatter, "{per_second}/s market"),
                Arrival::Ramp { from, to, .. } => write!(formatter, "ramp {from}/s to {to}/s"),
            },
            Pace::Max => formatter.write_str("max"),
            Pace::Speed(speed) => write!(formatter, "speed {speed}"),
        }
    }
}

/// The shape of an exchange's day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Day {
    /// Busy at the open and at the close.
    UShape,
    /// The volumes of a yfinance intraday file.
    File(PathBuf),
}

/// When messages are sent.
///
/// # Errors
/// An arrival process that makes no sense, or none for `max` and `--speed`.
pub fn pace(pipeline: &PipelineArgs) -> Result<Pace, ConfigError> {
    let per_second = match (pipeline.rate, pipeline.speed) {
        (Some(NumberOrMax::Number(rate)), _) => rate,
        (None, None) => RATE_DEFAULT,
        _ if pipeline.arrival != "constant" => {
            return Err(ConfigError::new(format!(
                "--arrival {} needs a rate in numbers: leave out --rate max and --speed",
                pipeline.arrival
            )));
        }
        (Some(NumberOrMax::Max), _) | (None, Some(NumberOrMax::Max)) => return Ok(Pace::Max),
        (None, Some(NumberOrMax::Number(speed))) => return Ok(Pace::Speed(speed)),
    };
    let arrival = parse(&pipeline.arrival, pipeline.duration)?;
    if pipeline.rate.is_some() && matches!(arrival, Arrival::Ramp { .. }) {
        return Err(ConfigError::new("--arrival ramp:A:B has rates of its own: leave out --rate"));
    }
    Ok(Pace::Rate { per_second, arrival })
}

/// `constant`, `poisson`, `bursty`, `market[:FILE][:TIME]`, `ramp:A:B[:TIME]`; a ramp without a time of its own takes that of
/// `--duration`.
fn parse(text: &str, duration: Option<Duration>) -> Result<Arrival, ConfigError> {
    let refuse = |why: &str| {
        ConfigError::new(format!(
            "--arrival {text:?} {why}: write constant, poisson, bursty, market, market:30m, market:prices.csv:30m, or \
             ramp:1000:50000:10m"
        ))
    };
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let (rest, time) = split_time(rest);
    if time.is_some_and(|time| time < SHORTEST) {
        return Err(refuse("takes less than a millisecond"));
    }
    match (kind, rest, time) {
        ("constant", "", None) => Ok(Arrival::Constant),
        ("poisson", "", None) => Ok(Arrival::Poisson),
        ("bursty", "", None) => Ok(Arrival::Bursty),
        ("market", file, time) => {
            let day = if file.is_empty() { Day::UShape } else { Day::File(PathBuf::from(file)) };
            Ok(Arrival::Market { day, length: time.unwrap_or(MARKET_DAY) })
        }
        ("ramp", rates, time) => {
            let rates = rates.split_once(':').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
            let Some((from, to)) = rates.filter(|(from, to): &(f64, f64)| from.is_finite() && to.is_finite()) else {
                return Err(refuse("names no two rates"));
            };
            if from < 0.0 || to <= 0.0 || from.max(to) > RATE_MAX {
                return Err(refuse("is not between 0 and 1e9, or ends at 0"));
            }
            let Some(over) = time.or(duration.filter(|duration| *duration >= SHORTEST)) else {
                return Err(refuse("says not how long it takes, nor does --duration"));
            };
            Ok(Arrival::Ramp { from, to, over })
        }
        _ => Err(refuse("is not known")),
    }
}

/// What stands before a time at the end, and that time.
fn split_time(text: &str) -> (&str, Option<Duration>) {
    let (rest, last) = text.rsplit_once(':').unwrap_or(("", text));
    // A bare number is a rate.
    let time = humantime::parse_duration(last).ok().filter(|time| !time.is_zero() && last.parse::<f64>().is_err());
    if time.is_some() { (rest, time) } else { (text, None) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_meant() {
        let minute = Some(Duration::from_secs(60));
        let market = |day, length| Arrival::Market { day, length };
        let file = Day::File(PathBuf::from("EA-15m.csv"));
        let ramp = |from, to, over| Arrival::Ramp { from, to, over };
        for (text, meant) in [
            ("constant", Arrival::Constant),
            ("poisson", Arrival::Poisson),
            ("bursty", Arrival::Bursty),
            ("market", market(Day::UShape, MARKET_DAY)),
            ("market:30m", market(Day::UShape, Duration::from_secs(1800))),
            ("market:EA-15m.csv", market(file.clone(), MARKET_DAY)),
            ("market:EA-15m.csv:1m 30s", market(file, Duration::from_secs(90))),
            ("ramp:0:500", ramp(0.0, 500.0, Duration::from_secs(60))),
            ("ramp:1e3:2.5:2s", ramp(1_000.0, 2.5, Duration::from_secs(2))),
        ] {
            assert_eq!(parse(text, minute).unwrap(), meant, "{text}");
        }
        for text in [
            "",
            "Poisson",
            "poisson:1",
            "ramp",
            "ramp:1",
            "ramp:1:0:1s",
            "ramp:-1:5:1s",
            "ramp:1:inf:1s",
            "ramp:1:1e10:1s",
            "ramp:1:2:1ns",
            "market:1us",
            "ramp:1:2:3:1s",
        ] {
            assert!(parse(text, minute).is_err(), "{text}");
        }
        assert!(parse("ramp:1:2", None).unwrap_err().to_string().contains("nor does --duration"));
    }
}
