//! The JSON of `/api/v1/status`: a picture of [`Progress`] at one moment.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::figures::Counts;
use super::readiness::Readiness;
use super::snapshot::PartitionView;
use crate::progress::{Progress, Stage};

/// What this process has done so far.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Status {
    /// finstream's version.
    pub version: &'static str,
    /// Seconds since the windows opened.
    pub uptime_seconds: f64,
    /// Every role of this process is ready.
    pub ready: bool,
    /// Role -> what it waits for.
    #[schema(value_type = BTreeMap<String, String>)]
    pub waiting_for: BTreeMap<&'static str, String>,
    /// Messages counted by this process.
    pub counters: Counters,
    /// How far the consumer of this process is behind.
    pub lag: Lag,
    /// Latencies since the start, in the order of a message's way.
    pub stages: Vec<StageStatus>,
}

/// Messages since the start of this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counters {
    /// Arrivals whose time has come.
    pub scheduled: u64,
    /// Handed to the Kafka client.
    pub sent: u64,
    /// Acknowledged by the broker.
    pub acknowledged: u64,
    /// Delivery reports that leave the outcome unknown.
    pub unknown: u64,
    /// Rows committed in PostgreSQL.
    pub stored: u64,
    /// Dead letters committed in PostgreSQL.
    pub dead_letters: u64,
    /// Of these, messages that no producer of finstream has sent.
    pub foreign_letters: u64,
}

/// How far behind the log the totals are; null: unknown, or no consumer here.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Lag {
    /// Records not yet applied.
    pub messages: Option<u64>,
    /// Age of the oldest of them in seconds.
    pub seconds: Option<f64>,
}

/// One stage's latencies in microseconds; null while no message has passed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StageStatus {
    /// The label that metrics use, `scheduled_to_committed` for the whole way.
    pub stage: &'static str,
    /// The name for people.
    pub name: &'static str,
    /// Messages measured.
    pub messages: u64,
    /// Half of them took at most this.
    pub p50_us: Option<u64>,
    /// 90 % took at most this.
    pub p90_us: Option<u64>,
    /// 99 % took at most this.
    pub p99_us: Option<u64>,
    /// 99.9 % took at most this.
    pub p999_us: Option<u64>,
    /// The slowest.
    pub max_us: Option<u64>,
    /// Values below zero, counted as zero.
    pub negative: u64,
    /// Messages without one of the two times.
    pub missing: u64,
}

impl Status {
    /// Reads everything once; `uptime` is the age of the windows.
    pub fn read(progress: &Progress, readiness: &Readiness, uptime: Duration) -> Self {
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: uptime.as_secs_f64(),
            ready: readiness.is_ready(),
            waiting_for: readiness.waiting_for(),
            counters: Counters::read(progress),
            lag: Lag::read(progress),
            stages: Stage::ALL.into_iter().map(|stage| StageStatus::read(progress, stage)).collect(),
        }
    }
}

impl Counters {
    /// Reads them once.
    pub fn read(progress: &Progress) -> Self {
        // From the end of the way to its start, so that a picture never shows more stored than sent.
        let stored = progress.stored.load(Ordering::Relaxed);
        let dead_letters = progress.dead_letters.load(Ordering::Relaxed);
        let foreign_letters = progress.foreign_letters.load(Ordering::Relaxed);
        let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
        let unknown = progress.unknown.load(Ordering::Relaxed);
        let sent = progress.sent.load(Ordering::Relaxed);
        let scheduled = progress.scheduled.load(Ordering::Relaxed);
        Counters { scheduled, sent, acknowledged, unknown, stored, dead_letters, foreign_letters }
    }
}

impl Lag {
    /// Reads it once.
    pub fn read(progress: &Progress) -> Self {
        Lag {
            messages: u64::try_from(progress.lag_messages.load(Ordering::Relaxed)).ok(),
            seconds: u64::try_from(progress.lag_us.load(Ordering::Relaxed)).ok().map(|lag_us| lag_us as f64 / 1e6),
        }
    }
}

impl Lag {
    /// Of partitions: the sum of messages, the oldest age; null where one of them is not known.
    pub fn of(partitions: &[PartitionView]) -> Self {
        let seconds: Option<Vec<f64>> = partitions.iter().map(|partition| partition.lag_seconds).collect();
        Lag {
            messages: partitions.iter().map(|partition| partition.lag_messages).sum(),
            seconds: seconds.map(|seconds| seconds.into_iter().fold(0.0, f64::max)),
        }
    }
}

impl StageStatus {
    fn read(progress: &Progress, stage: Stage) -> Self {
        let latencies = progress.latencies(stage);
        Self::of(stage, &Counts::of(&latencies.histogram), latencies.negative, latencies.missing)
    }

    /// What these latencies come to.
    pub fn of(stage: Stage, counts: &Counts, negative: u64, missing: u64) -> Self {
        StageStatus {
            stage: stage.label(),
            name: stage.name(),
            messages: counts.len(),
            p50_us: counts.quantile(0.5),
            p90_us: counts.quantile(0.9),
            p99_us: counts.quantile(0.99),
            p999_us: counts.quantile(0.999),
            max_us: counts.max(),
            negative,
            missing,
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_null_and_never_a_number() {
        let status = Status::read(&Progress::new(), &Readiness::new(), Duration::ZERO);
        assert_eq!(status.lag, Lag { messages: None, seconds: None });
        assert!(status.stages.iter().all(|stage| stage.messages == 0 && stage.p50_us.is_none()));
    }

    #[test]
    fn each_stage_keeps_its_own_latencies_and_its_negative_ones() {
        let progress = Progress::new();
        progress.record(Stage::EndToEnd, [-5, 1_000, 1_000]);
        let status = Status::read(&progress, &Readiness::new(), Duration::from_secs(2));
        let end_to_end = status.stages.iter().find(|stage| stage.stage == "scheduled_to_committed");
        let end_to_end = end_to_end.expect("every stage is listed");
        assert_eq!((end_to_end.messages, end_to_end.negative, end_to_end.p50_us), (3, 1, Some(1_000)));
        assert_eq!(status.stages.iter().map(|stage| stage.messages).sum::<u64>(), 3);
    }
}
