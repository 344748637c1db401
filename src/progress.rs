//! What the roles count while they work, and what the terminal, the page and the summary read.
//!
//! Roles add, viewers read; nobody waits. Histograms are in microseconds, 3 significant digits.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::broadcast;

mod seen;

pub use seen::{PartitionSeen, Seen, TRANSACTIONS_SEEN_MAX, TransactionSeen};

/// One hour: a longer latency is recorded as this, and counted.
pub const LATENCY_US_MAX: u64 = 3_600_000_000;

/// A stage of a message's way. `Acknowledged` is a side branch; the others form the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// scheduled -> sent
    Sent,
    /// sent -> acknowledged (producer side)
    Acknowledged,
    /// sent -> received
    Received,
    /// received -> processed
    Processed,
    /// processed -> committed
    Committed,
    /// scheduled -> committed
    EndToEnd,
}

impl Stage {
    /// All stages in the order in which they are shown.
    pub const ALL: [Stage; 6] =
        [Stage::Sent, Stage::Acknowledged, Stage::Received, Stage::Processed, Stage::Committed, Stage::EndToEnd];

    /// The name on the terminal and in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Sent => "scheduled -> sent",
            Stage::Acknowledged => "sent -> acknowledged",
            Stage::Received => "sent -> received",
            Stage::Processed => "received -> processed",
            Stage::Committed => "processed -> committed",
            Stage::EndToEnd => "scheduled -> committed",
        }
    }

    /// The label value in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Stage::Sent => "scheduled_to_sent",
            Stage::Acknowledged => "sent_to_acknowledged",
            Stage::Received => "sent_to_received",
            Stage::Processed => "received_to_processed",
            Stage::Committed => "processed_to_committed",
            Stage::EndToEnd => "scheduled_to_committed",
        }
    }
}

/// Latencies of one stage.
#[derive(Clone, Debug)]
pub struct StageLatencies {
    /// Microseconds.
    pub histogram: Histogram<u64>,
    /// Values below zero; they are in the histogram as zero.
    pub negative: u64,
    /// Messages without one of the two times.
    pub missing: u64,
}

impl StageLatencies {
    fn new() -> Self {
        #[allow(clippy::expect_used)] // The bounds are constants that hdrhistogram accepts.
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("constant histogram bounds");
        StageLatencies { histogram, negative: 0, missing: 0 }
    }

    fn record(&mut self, latency_us: i64) {
        if latency_us < 0 {
            self.negative += 1;
        }
        self.histogram.saturating_record(latency_us.max(0) as u64);
    }
}

/// What `--print-transactions` and `--print-aggregates` show.
#[derive(Clone, Debug)]
pub enum Sample {
    /// One processed message, as one JSON line.
    Transaction(String),
    /// One changed total, as one JSON line.
    Aggregate(String),
}

/// Counters and histograms shared by the roles of one process.
#[derive(Debug)]
pub struct Progress {
    /// What the source yields in all, and was not there before; 0 where that is not known.
    pub total: AtomicU64,
    /// Arrivals whose time has come, sent or not.
    pub scheduled: AtomicU64,
    /// Handed to the Kafka client.
    pub sent: AtomicU64,
    /// Acknowledged by the broker.
    pub acknowledged: AtomicU64,
    /// Delivery reports that leave the outcome unknown.
    pub unknown: AtomicU64,
    /// Rows committed in PostgreSQL by this process.
    pub stored: AtomicU64,
    /// Dead letters committed by this process.
    pub dead_letters: AtomicU64,
    /// Of these, messages of no run.
    pub foreign_letters: AtomicU64,
    /// Records known to be in the log but not yet applied, over owned partitions; -1: unknown.
    pub lag_messages: AtomicI64,
    /// Age of the oldest unapplied record in microseconds, 0 when caught up; -1: unknown.
    pub lag_us: AtomicI64,
    /// Log timestamp of the oldest unapplied record in microseconds since the epoch, from which its age can be told at any
    /// time; `i64::MAX`: caught up; -1: unknown.
    pub oldest_unapplied_us: AtomicI64,
    /// Messages that the consumer has read and not stored; -1: unknown.
    pub pending: AtomicI64,
    /// Single messages and partitions, for viewers.
    pub seen: Seen,
    /// PostgreSQL does not store at the moment.
    pub database_away: Arc<AtomicBool>,
    /// Set by the first and moved by each later change of a counter of messages.
    busy: Mutex<Option<(Instant, Instant)>>,
    stages: [Mutex<StageLatencies>; 6],
    samples: broadcast::Sender<Sample>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Everything at zero.
    pub fn new() -> Self {
        Progress {
            total: AtomicU64::new(0),
            scheduled: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            foreign_letters: AtomicU64::new(0),
            lag_messages: AtomicI64::new(-1),
            lag_us: AtomicI64::new(-1),
            oldest_unapplied_us: AtomicI64::new(-1),
            pending: AtomicI64::new(-1),
            seen: Seen::default(),
            database_away: Arc::default(),
            busy: Mutex::new(None),
            stages: std::array::from_fn(|_| Mutex::new(StageLatencies::new())),
            samples: broadcast::channel(1024).0,
        }
    }

    /// Records latencies of one stage, in microseconds; take a batch at a time, the lock is per call.
    pub fn record(&self, stage: Stage, latencies_us: impl IntoIterator<Item = i64>) {
        let mut latencies = self.lock(stage);
        for latency_us in latencies_us {
            latencies.record(latency_us);
        }
    }

    /// Counts messages that lack a time of this stage.
    pub fn record_missing(&self, stage: Stage, messages: u64) {
        self.lock(stage).missing += messages;
    }

    /// A copy of a stage's latencies so far.
    pub fn latencies(&self, stage: Stage) -> StageLatencies {
        self.lock(stage).clone()
    }

    /// Whether anyone wants samples: ask before building one.
    pub fn wants_samples(&self) -> bool {
        self.samples.receiver_count() > 0
    }

    /// Shows a sample to whoever listens.
    pub fn sample(&self, sample: Sample) {
        // Nobody listening is the normal case.
        let _ = self.samples.send(sample);
    }

    /// Age of the oldest unapplied record at `now_us`, in microseconds; 0 when caught up, none while it is not known.
    pub fn lag_us_at(&self, now_us: i64) -> Option<i64> {
        match self.oldest_unapplied_us.load(Ordering::Relaxed) {
            i64::MAX => Some(0),
            oldest_us if oldest_us < 0 => None,
            oldest_us => Some((now_us - oldest_us).max(0)),
        }
    }

    /// Listens for samples.
    pub fn samples(&self) -> broadcast::Receiver<Sample> {
        self.samples.subscribe()
    }

    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Messages moved just now: [`Progress::busy`] reaches from the first to the last of these moments.
    pub fn moved(&self) {
        let now = Instant::now();
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = Some((busy.map_or(now, |(first, _)| first), now));
    }

    /// How long messages moved: without the start of the roles and without their stop.
    pub fn busy(&self) -> Duration {
        let busy = *self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }

    fn lock(&self, stage: Stage) -> MutexGuard<'_, StageLatencies> {
        // A panic while a histogram is held leaves counts that are still counts.
        self.stages[stage as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
