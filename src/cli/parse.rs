//! Words of the command line -> values; what is wrong is said with an example of what is right.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;

use super::NumberOrMax;

/// A stop waits for no batch to fill for longer.
const BATCH_WAIT_MAX: Duration = Duration::from_secs(1);
/// Whoever waits longer than this to consume has mistaken the unit.
const REBALANCE_DELAY_MAX: Duration = Duration::from_secs(3600);
/// Shorter windows would be more rows than messages, longer ones are not what windows are for.
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(31 * 86_400);

/// Parses "5ms", "30s", "24h".
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number with a unit, such as 5ms, 30s, 24h"))
}

/// As `duration`, whole seconds up to 31 days.
pub(super) fn window(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if !(WINDOW_MIN..=WINDOW_MAX).contains(&length) || length.subsec_nanos() != 0 {
        return Err("write whole seconds from 1s to 31days, such as 1m or 1h".to_owned());
    }
    Ok(length)
}

/// As `duration`, up to a second.
pub(super) fn batch_wait(text: &str) -> Result<Duration, String> {
    let wait = duration(text)?;
    if wait > BATCH_WAIT_MAX {
        return Err(
            "it is at most 1s, so that a stop need not wait for a batch to fill; write a shorter time, such as 5ms"
                .to_owned(),
        );
    }
    Ok(wait)
}

/// As `duration`, up to an hour.
pub(super) fn rebalance_delay(text: &str) -> Result<Duration, String> {
    let delay = duration(text)?;
    if delay > REBALANCE_DELAY_MAX {
        return Err("it is at most 1h; write a shorter time, such as 3s".to_owned());
    }
    Ok(delay)
}

/// Parses "10GiB", "500MB".
pub(super) fn size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| match text.trim_start().starts_with('-') {
        true => "there is no such size, and none that means \"no limit\"; write one that is larger than all that will come, \
                 such as 100TiB"
            .to_string(),
        false => "write a number with a unit, such as 500MiB or 10GiB".to_string(),
    })
}

/// Parses "127.0.0.1:9092", "[::1]:9092".
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write a numeric address and a port, such as 127.0.0.1:9092 or [::1]:9092; port 0 takes a free one".to_string()
    })
}

/// Parses "kafka.example.org:9092", "[::1]:9092".
pub(super) fn host_port(text: &str) -> Result<(String, u16), String> {
    let parsed =
        text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok().filter(|port| *port > 0)?)));
    match parsed.map(|(host, port)| (host.trim_start_matches('[').trim_end_matches(']'), port)) {
        Some((host, port)) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err("write the name or address that clients connect to, and a port from 1 to 65535, such as \
                  kafka.example.org:9092 or [::1]:9092"
            .to_string()),
    }
}

/// `3%` or `0.03` -> 0.03.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let (number, part) = text.strip_suffix('%').map_or((text, 1.0), |percent| (percent.trim_end(), 100.0));
    let share = number.parse::<f64>().map(|number| number / part).ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "is not a share of 0 to 100%, such as 3% or 0.03".to_owned())
}

/// Messages per second, at most.
pub const RATE_MAX: f64 = 1e9;
/// And at least: one in eleven days.
const RATE_MIN: f64 = 1e-6;

pub(super) fn number_or_max(text: &str) -> Result<NumberOrMax, String> {
    if text == "max" {
        return Ok(NumberOrMax::Max);
    }
    match text.replace('_', "").parse::<f64>() {
        Ok(number) if (RATE_MIN..=RATE_MAX).contains(&number) => Ok(NumberOrMax::Number(number)),
        _ => Err("write a number from 1e-6 to 1e9, or max".to_string()),
    }
}
