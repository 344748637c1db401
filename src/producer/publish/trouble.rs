//! What to do when the broker refuses: wait, go on under a new identity, or end the run and say why.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;
use rdkafka::types::RDKafkaErrorCode;

use super::Publisher;
use crate::producer::tally::COMPLAINT_AFTER;
use crate::producer::{ProducerError, client};

/// Trouble with the topic that lasts this long ends the run.
const TOPIC_TROUBLE_MAX: Duration = Duration::from_secs(30);
const TOPIC_TROUBLE_PAUSE: Duration = Duration::from_millis(100);

impl Publisher<'_> {
    pub(super) fn refused(&self, index: usize, error: KafkaError) -> ProducerError {
        ProducerError::Refused { run: self.run, sequence: self.staged.sequence(index), error }
    }

    /// After the broker's complaint about the topic, the client itself refuses messages until it has heard better. It
    /// never took this one, so it can be offered again without being stored twice. Only what lasts ends the run.
    pub(super) fn wait_for_topic(
        &mut self,
        code: RDKafkaErrorCode,
        since: &mut Option<Instant>,
    ) -> Result<(), ProducerError> {
        let lasted = since.get_or_insert_with(Instant::now).elapsed();
        if lasted >= TOPIC_TROUBLE_MAX {
            let cure = match code {
                RDKafkaErrorCode::TopicAuthorizationFailed => "ask for the right to write to it",
                _ => "was it deleted while the run was going on? Start again to recreate it",
            };
            let why = format!("{code} for {} s; {cure}", lasted.as_secs());
            return Err(ProducerError::Topic { topic: self.topic.clone(), why });
        }
        self.settle_sometimes()?;
        if let Some(client) = &self.client {
            // Makes the client look again now instead of at its next refresh; its answer shows in the next attempt.
            let _ = client.client().fetch_metadata(None, TOPIC_TROUBLE_PAUSE);
        }
        thread::sleep(TOPIC_TROUBLE_PAUSE);
        Ok(())
    }

    /// The broker refused this producer's identity for good. An endless source goes on under a new one, and what is
    /// outstanding stays unknown: it is never sent again under another identity, which could store it twice.
    pub(super) fn replace_client(&mut self) -> Result<(), ProducerError> {
        let fatal = self.client.as_ref().and_then(|client| client.client().fatal_error());
        let why = fatal.map_or_else(|| self.deliveries.last_error(), |(code, reason)| format!("{code}: {reason}"));
        let finite = self.source.fingerprint().is_some();
        if finite {
            return Err(ProducerError::Fatal(why));
        }
        tracing::warn!("the broker refused the producer's identity, going on with a new one: {why}");
        // Dropping it reports everything outstanding as failed.
        self.client = None;
        self.settle()?;
        let (settings, clock) = (&self.context.settings, &self.context.clock);
        let client = client::connect(&settings.kafka, finite, &settings.pace, &self.deliveries, clock);
        self.client = Some(client.map_err(ProducerError::Client)?);
        Ok(())
    }

    /// Says what is wrong with the deliveries, soon and then less and less often.
    pub(super) fn complain(&mut self) {
        let failed = self.tally.failed - self.failed_shown;
        let stuck = self.tally.outstanding() > 0 && self.tally.last_report.elapsed() >= COMPLAINT_AFTER;
        if (failed == 0 && !stuck) || !self.complaints.is_due(Instant::now()) {
            return;
        }
        if failed > 0 {
            self.failed_shown = self.tally.failed;
            tracing::warn!("{failed} messages failed, their outcome is unknown: {}", self.deliveries.last_error());
        }
        if stuck {
            tracing::warn!(
                "no answer from the broker at {} for {} s; {} messages wait, none is lost{}",
                self.context.settings.kafka.brokers,
                self.tally.last_report.elapsed().as_secs(),
                self.tally.outstanding(),
                match self.deliveries.last_error() {
                    unknown if unknown.is_empty() => unknown,
                    known => format!(" ({known})"),
                }
            );
        }
    }
}
