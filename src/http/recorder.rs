//! The recorder behind `/metrics`.

use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::MissedTickBehavior;

use crate::metrics::{
    BUILD_INFO, SINK_BATCH_MESSAGES, STAGE_LATENCY_SECONDS, describe, latency_bounds_seconds, message_bounds,
    stage_bounds_seconds,
};

/// How often `PrometheusHandle::run_upkeep` is called. Without it the samples of histograms pile up in memory while
/// nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The recorder cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the metrics recorder: {0}; is it installed twice in this process?")]
pub struct RecorderError(#[from] BuildError);

/// Installs the process-wide metrics recorder, once, and describes every metric.
///
/// Names that end in `_seconds` become histograms with the bounds of
/// [`latency_bounds_seconds`](crate::metrics::latency_bounds_seconds): without bounds the exporter would render
/// summaries, whose quantiles cannot be added up over processes. The windows keep it while they are served.
///
/// # Errors
/// A recorder is installed already.
pub fn install_recorder() -> Result<PrometheusHandle, RecorderError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(STAGE_LATENCY_SECONDS.to_owned()), &stage_bounds_seconds())?
        .set_buckets_for_metric(Matcher::Full(SINK_BATCH_MESSAGES.to_owned()), &message_bounds())?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &latency_bounds_seconds())?
        .install_recorder()?;
    describe();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Keeps the recorder's memory small, until it is dropped.
pub(super) async fn keep(metrics: &PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        metrics.run_upkeep();
    }
}
