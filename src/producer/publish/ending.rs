//! The end of the loop: drain, let go of the client, close the ledger, report.

use std::time::{Duration, Instant};

use rdkafka::producer::Producer;

use super::{Publisher, SETTLE_INTERVAL};
use crate::producer::resume::Found;
use crate::producer::{ProducerError, ProducerReport};

/// One answer about a partition's end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

impl Publisher<'_> {
    /// Waits for outstanding reports, then lets go of the client; what it still holds is reported as unknown.
    pub(super) fn drain(&mut self) -> Result<(), ProducerError> {
        let started = Instant::now();
        let mut settled = Ok(());
        while let Some(client) = &self.client {
            settled = self.tally.settle(&self.deliveries, &mut self.ledger, self.context);
            let fatal = client.client().fatal_error().is_some();
            let left = self.context.settings.drain_timeout.saturating_sub(started.elapsed());
            let left = self.stop_time_left().map_or(left, |stop| stop.min(left));
            if settled.is_err() || self.tally.outstanding() == 0 || left.is_zero() || fatal {
                break;
            }
            if let Some(client) = &self.client {
                // An error is the timeout, after which we look again.
                let _ = client.flush(SETTLE_INTERVAL.min(left));
            }
            self.complain();
        }
        settled?;
        self.find_places();
        self.client = None;
        self.tally.settle(&self.deliveries, &mut self.ledger, self.context)?;
        self.show_scheduled();
        Ok(())
    }

    /// Where a retry was recognised without an offset, the partition's end stands in for it.
    fn find_places(&mut self) {
        let Some(client) = &self.client else { return };
        for partition in std::mem::take(&mut self.tally.placeless) {
            match client.client().fetch_watermarks(&self.topic, partition, ANSWER_TIMEOUT) {
                Ok((_, end)) => self.tally.note_place(partition, end - 1),
                Err(error) => tracing::warn!("the end of partition {partition} is not known: {error}"),
            }
        }
    }

    pub(super) fn finish(self) -> Result<ProducerReport, ProducerError> {
        let unknown = self.tally.failed + self.tally.outstanding();
        let finite = self.source.fingerprint().is_some();
        let complete = unknown == 0 && (self.exhausted || !finite);
        let report = ProducerReport {
            run: Some(self.run),
            continued: self.found.is_some(),
            scheduled: self.scheduled,
            sent: self.tally.sent,
            acknowledged: self.tally.acknowledged,
            unknown,
            found: self.found.as_ref().map_or(0, Found::count),
            highest_acknowledged: self.tally.highest,
            skipped: self.source.skipped(),
            elapsed: Duration::from_micros(self.context.clock.now().since(self.start).max(0) as u64),
            complete,
        };
        // An endless run is over when it ends; a finite one only when nothing is missing.
        self.ledger.finish(complete || !finite)?;
        Ok(report)
    }
}
