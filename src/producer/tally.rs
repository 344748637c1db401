//! Delivery reports -> ledger, counters and histograms, a batch at a time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ProducerError;
use super::client::{Deliveries, Report};
use super::start::Context;
use crate::ledger::{LedgerError, LedgerWriter};
use crate::metrics;
use crate::progress::{Progress, Stage as Latency};

/// Between two looks for space on a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);
/// Trouble that lasts this long is told,
pub(super) const COMPLAINT_AFTER: Duration = Duration::from_secs(5);
/// and as long as it lasts again, with pauses that double up to this one.
const COMPLAINT_PAUSE_MAX: Duration = Duration::from_secs(60);

/// When lasting trouble is worth a line.
#[derive(Debug)]
pub(super) struct Complaints {
    last: Instant,
    pause: Duration,
}

impl Complaints {
    /// `last`: when the trouble may have begun.
    pub(super) fn since(last: Instant) -> Complaints {
        Complaints { last, pause: COMPLAINT_AFTER }
    }

    /// Whether to tell of the trouble that there is now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(self.last);
        if quiet < self.pause {
            return false;
        }
        // Nothing was wrong for a while: this is another trouble.
        let is_new = quiet >= 2 * self.pause + COMPLAINT_AFTER;
        self.pause = if is_new { COMPLAINT_AFTER } else { (2 * self.pause).min(COMPLAINT_PAUSE_MAX) };
        self.last = now;
        true
    }
}

/// What was sent and what came back.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) failed: u64,
    /// Partitions in which a retry was recognised without an offset.
    pub(super) placeless: Vec<i32>,
    pub(super) highest: BTreeMap<i32, i64>,
    pub(super) last_report: Instant,
    sent_latencies_us: Vec<i64>,
    acknowledged_latencies_us: Vec<i64>,
    reports: Vec<Report>,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            sent: 0,
            acknowledged: 0,
            failed: 0,
            placeless: Vec::new(),
            highest: BTreeMap::new(),
            last_report: Instant::now(),
            sent_latencies_us: Vec::new(),
            acknowledged_latencies_us: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// Counts a message as handed to the client.
    pub(super) fn sent(&mut self, latency_us: i64) {
        if self.outstanding() == 0 {
            // Whoever sent nothing waits for nothing.
            self.last_report = Instant::now();
        }
        self.sent += 1;
        self.sent_latencies_us.push(latency_us);
    }

    /// Messages without a report.
    pub(super) fn outstanding(&self) -> u64 {
        self.sent - self.acknowledged - self.failed
    }

    /// A message of a continued run that is in the log.
    pub(super) fn note_place(&mut self, partition: i32, offset: i64) {
        if offset < 0 {
            if !self.placeless.contains(&partition) {
                self.placeless.push(partition);
            }
            return;
        }
        let highest = self.highest.entry(partition).or_insert(offset);
        *highest = offset.max(*highest);
    }

    /// Takes what came back, writes it into the ledger and shows it.
    pub(super) fn settle(
        &mut self,
        deliveries: &Deliveries,
        ledger: &mut LedgerWriter,
        context: &Context,
    ) -> Result<(), ProducerError> {
        let mut reports = std::mem::take(&mut self.reports);
        deliveries.take(&mut reports);
        let (mut acknowledged, mut failed) = (0, 0);
        for report in &reports {
            match report.place {
                Some((partition, offset)) => {
                    acknowledged += 1;
                    self.note_place(partition, offset);
                    let latency_us = report.sent_at.map(|sent_at| report.reported_at.since(sent_at));
                    self.acknowledged_latencies_us.extend(latency_us);
                    context.progress.seen.acknowledged(report.sequence, report.reported_at);
                    patiently(context, || ledger.acknowledged(report.sequence, partition, offset))?;
                }
                None => {
                    failed += 1;
                    patiently(context, || ledger.unknown(report.sequence))?;
                }
            }
        }
        patiently(context, || ledger.flush_outcomes())?;
        if !reports.is_empty() {
            self.last_report = Instant::now();
        }
        self.reports = reports;
        self.acknowledged += acknowledged;
        self.failed += failed;
        self.show(&context.progress, acknowledged, failed);
        Ok(())
    }

    fn show(&mut self, progress: &Progress, acknowledged: u64, failed: u64) {
        let sent = self.sent_latencies_us.len() as u64;
        if sent > 0 {
            progress.moved();
        }
        Progress::add(&progress.acknowledged, acknowledged);
        Progress::add(&progress.unknown, failed);
        ::metrics::counter!(metrics::PRODUCER_SENT_TOTAL).increment(sent);
        ::metrics::counter!(metrics::PRODUCER_ACKNOWLEDGED_TOTAL).increment(acknowledged);
        ::metrics::counter!(metrics::PRODUCER_UNKNOWN_TOTAL).increment(failed);
        record(progress, Latency::Sent, &mut self.sent_latencies_us);
        record(progress, Latency::Acknowledged, &mut self.acknowledged_latencies_us);
    }
}

fn record(progress: &Progress, stage: Latency, latencies_us: &mut Vec<i64>) {
    if latencies_us.is_empty() {
        return;
    }
    let histogram = ::metrics::histogram!(metrics::STAGE_LATENCY_SECONDS, "stage" => stage.label());
    let mut negative = 0;
    for latency_us in latencies_us.iter() {
        negative += u64::from(*latency_us < 0);
        histogram.record((*latency_us).max(0) as f64 / 1e6);
    }
    if negative > 0 {
        ::metrics::counter!(metrics::STAGE_NEGATIVE_TOTAL, "stage" => stage.label()).increment(negative);
    }
    progress.record(stage, latencies_us.drain(..));
}

/// Waits for space when the ledger's disk is full; until then nothing is sent, and nothing is lost. A stop ends the wait
/// with the error: messages without an outcome are unknown, and the audit settles them from the log.
pub(super) fn patiently(
    context: &Context,
    mut write: impl FnMut() -> Result<(), LedgerError>,
) -> Result<(), ProducerError> {
    let mut complaints: Option<Complaints> = None;
    loop {
        match write() {
            Err(error) if is_disk_full(&error) && !context.shutdown.requested() => {
                let now = Instant::now();
                // The first one at once.
                if complaints.as_mut().is_none_or(|complaints| complaints.is_due(now)) {
                    tracing::warn!("producing is paused: {error}");
                    complaints.get_or_insert_with(|| Complaints::since(now));
                }
                std::thread::sleep(FULL_DISK_PAUSE);
            }
            result => return Ok(result?),
        }
    }
}

fn is_disk_full(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_trouble_is_told_soon_and_then_once_a_minute_and_new_trouble_soon_again() {
        let began = Instant::now();
        let mut complaints = Complaints::since(began);
        let mut told = |seconds: std::ops::Range<u64>| -> Vec<u64> {
            seconds.filter(|second| complaints.is_due(began + Duration::from_secs(*second))).collect()
        };
        assert_eq!(told(0..240), [5, 15, 35, 75, 135, 195]);
        assert_eq!(told(1000..1020), [1000, 1005, 1015]);
    }
}
