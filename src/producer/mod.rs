//! Publishes a source at its arrival times, and keeps the ledger of what it did.
//!
//! The loop runs on a thread of its own: it stages the messages that are due within the next moments, writes their
//! intents, hands each to librdkafka when its time has come, and notes the outcomes that come back. The arrival times
//! never depend on how the sending goes: when the client's queue is full, messages are sent late and say so.
//!
//! It reaches the broker over TCP with rdkafka only, and knows no consumer and no PostgreSQL. Every delivery error
//! counts as unknown: rust-rdkafka does not expose librdkafka's message status, so NOT_PERSISTED cannot be told apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::clock::SharedClock;
use crate::config::ProducerSettings;
use crate::ledger::LedgerError;
use crate::progress::Progress;
use crate::shutdown::Shutdown;
use crate::source::{SkipReport, SourceError};
use crate::transaction::RunId;

mod client;
mod publish;
mod resume;
mod staged;
mod start;
mod tally;
mod topic;

/// What a producer did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProducerReport {
    /// None if it was stopped before it began.
    pub run: Option<RunId>,
    /// The run was begun by an earlier process.
    pub continued: bool,
    /// Arrivals whose time came.
    pub scheduled: u64,
    /// Handed to the Kafka client.
    pub sent: u64,
    /// Acknowledged by the broker.
    pub acknowledged: u64,
    /// Sent, with an outcome that nobody knows: reported as failed, or not reported before the drain ended.
    pub unknown: u64,
    /// Of a continued run: found in the log and not sent again.
    pub found: u64,
    /// Highest offset known to be stored for this run, by partition: PostgreSQL is drained when it is beyond these.
    pub highest_acknowledged: BTreeMap<i32, i64>,
    /// What the source left out.
    pub skipped: SkipReport,
    /// From the first arrival to the end of the drain.
    pub elapsed: Duration,
    /// Whether everything that was to be sent is acknowledged. A finite source that is not complete is continued by
    /// the same command.
    pub complete: bool,
}

/// Why a producer could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// The source does not open or go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The ledger cannot be kept: nothing is sent without it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),
    /// librdkafka refuses the configuration.
    #[error("cannot make a Kafka client: {0}; check --brokers and --kafka-property")]
    Client(KafkaError),
    /// The topic cannot be had.
    #[error("topic {topic}: {why}")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong, and the cure.
        why: String,
    },
    /// A run cannot be continued, since nobody can say what is missing.
    #[error("run {run} cannot be continued: {why}")]
    Undecidable {
        /// The run.
        run: RunId,
        /// What is wrong, and the cure.
        why: String,
    },
    /// The idempotent producer lost its identity in the middle of a finite source.
    #[error("the broker refused this producer's identity ({0}); run the same command again, it sends what is missing")]
    Fatal(String),
    /// The broker refuses a message, and would again.
    #[error("message {sequence} of run {run} was refused: {error}")]
    Refused {
        /// The run.
        run: RunId,
        /// The message.
        sequence: i64,
        /// Why.
        error: KafkaError,
    },
    /// The operating system gives no thread, or the loop panicked.
    #[error("the producer's thread {0}")]
    Thread(String),
}

/// Runs a producer until its source, count or duration ends or `shutdown` asks for it, then drains.
///
/// A broker that cannot be reached is waited for. While `paused` is true nothing is sent; arrivals go on, and are late.
/// The loop has a thread of its own, which only `shutdown` ends: dropping the future does not.
///
/// # Errors
/// See [`ProducerError`]; outcomes known so far are in the ledger then, too.
pub async fn run(
    settings: ProducerSettings,
    clock: SharedClock,
    shutdown: Shutdown,
    paused: watch::Receiver<bool>,
    progress: Arc<Progress>,
) -> Result<ProducerReport, ProducerError> {
    let (sender, receiver) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        let context = start::Context { settings, clock, shutdown, paused, progress, runtime };
        // Nobody waiting any more is no reason to stop working.
        let _ = sender.send(start::run(&context));
    };
    std::thread::Builder::new()
        .name("producer".to_owned())
        .spawn(work)
        .map_err(|error| ProducerError::Thread(format!("does not start: {error}")))?;
    receiver.await.unwrap_or_else(|_| Err(ProducerError::Thread("panicked; this is a bug".to_owned())))
}
