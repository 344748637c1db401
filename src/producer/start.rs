//! From settings to a loop that is ready: source, client, topic, ledger, and what an earlier process left undone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::client::{self, Deliveries};
use super::publish::Publisher;
use super::resume::{self, Found};
use super::tally::Tally;
use super::{ProducerError, ProducerReport, topic};
use crate::clock::SharedClock;
use crate::config::{Pace, ProducerSettings};
use crate::ledger::{LedgerWriter, RunRecord, SourceRecord};
use crate::progress::Progress;
use crate::shutdown::Shutdown;
use crate::source::{self, Source};
use crate::transaction::{RunId, RunInfo};

/// Longest wait for a producer id before the arrivals begin all the same; whoever stops waits for it, too.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(2);

/// What was handed in.
pub(super) struct Context {
    pub(super) settings: ProducerSettings,
    pub(super) clock: SharedClock,
    pub(super) shutdown: Shutdown,
    /// True while nothing may be sent, because a disk is nearly full.
    pub(super) paused: watch::Receiver<bool>,
    pub(super) progress: Arc<Progress>,
    pub(super) runtime: tokio::runtime::Handle,
}

/// The whole life of a producer, on the calling thread.
pub(super) fn run(context: &Context) -> Result<ProducerReport, ProducerError> {
    let settings = &context.settings;
    let source = source::open(&settings.source)?;
    check_pace(&settings.pace, source.as_ref())?;
    for (what, found) in source.skipped().all() {
        tracing::warn!("{what} {} x {}; the first: {}", found.count, found.kind, found.first);
    }
    let finite = source.fingerprint().is_some();
    let deliveries = Arc::new(Deliveries::default());
    let client = client::connect(&settings.kafka, finite, &settings.pace, &deliveries, &context.clock)
        .map_err(ProducerError::Client)?;
    let Some(topic) = topic::ensure(context, &client, &deliveries)? else {
        return Ok(ProducerReport { skipped: source.skipped(), ..ProducerReport::default() });
    };
    let record = record(context, source.as_ref(), topic.cluster_id.clone());
    let mut tally = Tally::new();
    let (ledger, found) = match resume::unfinished(&settings.ledger_dir, settings.run_id, &record)? {
        None => (LedgerWriter::create(&settings.ledger_dir, &record)?, None),
        Some(run) => {
            let mut ledger = LedgerWriter::continue_run(&settings.ledger_dir, run)?;
            let total = source.total().unwrap_or(0);
            match resume::find(context, &mut ledger, &topic, total, &mut tally)? {
                Some(found) => (ledger, Some(found)),
                // Stopped while looking: nothing was sent, and the run stays to be continued.
                None => return Ok(ProducerReport { run: Some(run), continued: true, ..ProducerReport::default() }),
            }
        }
    };
    announce(&ledger, found.as_ref());
    let left = source.total().unwrap_or(0).saturating_sub(found.as_ref().map_or(0, Found::count));
    context.progress.total.store(left, Ordering::Relaxed);
    context.progress.seen.set_sent_run(ledger.record().run.to_string());
    deliveries.wait_for_identity(IDENTITY_PATIENCE);
    Publisher::new(context, source, client, deliveries, ledger, tally, found)?.run()
}

fn announce(ledger: &LedgerWriter, found: Option<&Found>) {
    let record = ledger.record();
    match found {
        None => tracing::debug!("run {} sends {} to {}", record.run, record.info.source, record.topic),
        Some(found) => tracing::info!(
            "run {} is continued: {} messages of {} are in {} already",
            record.run,
            found.count(),
            record.info.source,
            record.topic
        ),
    }
}

fn check_pace(pace: &Pace, source: &dyn Source) -> Result<(), ProducerError> {
    match pace {
        Pace::Rate { per_second, .. } if !(per_second.is_finite() && *per_second > 0.0) => {
            Err(ProducerError::Setting(format!("--rate {per_second} is not a positive number of messages per second")))
        }
        Pace::Speed(speed) if !(speed.is_finite() && *speed > 0.0) => {
            Err(ProducerError::Setting(format!("--speed {speed} is not a positive factor")))
        }
        Pace::Speed(_) if !source.has_event_times() => Err(ProducerError::Setting(format!(
            "--speed needs a source with times of its own, which {} is not; use --rate",
            source.describe()
        ))),
        _ => Ok(()),
    }
}

fn record(context: &Context, source: &dyn Source, cluster_id: Option<String>) -> RunRecord {
    let settings = &context.settings;
    RunRecord {
        run: settings.run_id.unwrap_or_else(|| RunId(Uuid::now_v7())),
        info: RunInfo {
            started_at: context.clock.now().to_string(),
            command: settings.command.clone(),
            source: source.describe(),
            rate: settings.pace.to_string(),
            // The database's integers are signed; a seed beyond them is not shown rather than shown wrong.
            seed: i64::try_from(settings.source.seed()).ok(),
            durability: settings.durability.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        topic: settings.kafka.transactions_topic(),
        cluster_id,
        source: SourceRecord {
            finite: source.fingerprint().is_some(),
            fingerprint: source.fingerprint(),
            count: settings.count,
        },
        finished: false,
    }
}
