//! The sampler: looks at the roles once a second, keeps the history, and makes the snapshot for all viewers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::figures::Counts;
use super::history::{COLUMNS_MAX, Column, History, Recent, rounded, thousandths};
use super::known::{About, Known};
use super::places::places;
use super::readiness::Readiness;
use super::snapshot::{Books, Links, PartitionView, Rates, Snapshot, TransactionView};
use super::status::{Counters, Lag, StageStatus};
use super::tables::Tables;
use super::verdict::{Facts, Verdict};
use crate::clock::{Micros, SharedClock};
use crate::progress::{Progress, Stage};

/// Between two columns.
pub const STEP: Duration = Duration::from_secs(1);

/// The snapshot of one second, as bytes that all viewers share.
#[derive(Debug)]
pub struct Tick {
    /// With the newest column only.
    pub snapshot: Snapshot,
    /// The same as an event of the stream.
    pub event: Bytes,
    /// With all columns; made when the first viewer asks for it in this second.
    whole: OnceLock<Bytes>,
}

/// What the sampler makes. Viewers share it.
#[derive(Debug)]
pub struct Live {
    history: Mutex<History>,
    ticks: watch::Sender<Option<Arc<Tick>>>,
}

impl Default for Live {
    fn default() -> Self {
        Live { history: Mutex::default(), ticks: watch::channel(None).0 }
    }
}

impl Live {
    /// Follows the seconds.
    pub fn ticks(&self) -> watch::Receiver<Option<Arc<Tick>>> {
        self.ticks.subscribe()
    }

    /// The newest second; none before the first.
    pub fn newest(&self) -> Option<Arc<Tick>> {
        self.ticks.borrow().clone()
    }

    /// The newest snapshot with all columns, as JSON; none before the first.
    pub fn whole(&self) -> Option<Bytes> {
        let tick = self.newest()?;
        let whole = tick.whole.get_or_init(|| {
            let mut snapshot = tick.snapshot.clone();
            // A column more than the snapshot knows of may have come just now.
            snapshot.history = self.lock().view(COLUMNS_MAX, Micros::default());
            if snapshot.history.stored_per_second.is_empty() {
                snapshot.history.began_at = snapshot.now.clone();
            }
            json(&snapshot)
        });
        Some(whole.clone())
    }

    /// What a stage brought in the last seconds.
    pub fn recent_stages(&self) -> Vec<StageStatus> {
        recent_stages(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        // A panic while a column is added leaves columns.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the sampler looks at.
pub struct Sampler {
    /// What the roles count.
    pub progress: Arc<Progress>,
    /// What they wait for.
    pub readiness: Readiness,
    /// This process.
    pub about: Arc<About>,
    /// How audits ended.
    pub known: Known,
    /// When the windows opened.
    pub opened: Instant,
    /// The wall clock.
    pub clock: SharedClock,
    /// What PostgreSQL says.
    pub tables: Arc<Tables>,
    /// Between two columns: [`STEP`], but in tests.
    pub step: Duration,
}

/// Everything that is counted, at one moment.
struct Reading {
    at: Instant,
    clock: Micros,
    counters: Counters,
    stages: Vec<Recent>,
}

impl Reading {
    fn take(progress: &Progress, clock: Micros) -> Reading {
        let stage = |stage| {
            let latencies = progress.latencies(stage);
            let counts = Counts::of(&latencies.histogram);
            Recent { counts, negative: latencies.negative, missing: latencies.missing }
        };
        let stages = Stage::ALL.into_iter().map(stage).collect();
        Reading { at: Instant::now(), clock, counters: Counters::read(progress), stages }
    }

    fn column_since(&self, before: &Reading, lag: &Lag) -> Column {
        let (now, then) = (&self.counters, &before.counters);
        Column {
            began_at: before.clock,
            length: self.at - before.at,
            scheduled: now.scheduled.saturating_sub(then.scheduled),
            sent: now.sent.saturating_sub(then.sent),
            acknowledged: now.acknowledged.saturating_sub(then.acknowledged),
            stored: now.stored.saturating_sub(then.stored),
            dead_letters: now.dead_letters.saturating_sub(then.dead_letters),
            lag_seconds: lag.seconds,
            late: now.scheduled.saturating_sub(now.sent),
            ..Column::default()
        }
    }

    fn stages_since(&self, before: &Reading) -> Vec<Recent> {
        let since = |(now, then): (&Recent, &Recent)| Recent {
            counts: now.counts.since(&then.counts),
            negative: now.negative.saturating_sub(then.negative),
            missing: now.missing.saturating_sub(then.missing),
        };
        self.stages.iter().zip(&before.stages).map(since).collect()
    }
}

impl Sampler {
    /// Makes a tick a second, until it is dropped.
    pub async fn run(self, live: &Live) {
        let mut interval = tokio::time::interval(self.step);
        // After a pause of the process one column is long; none are made up.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<Reading> = None;
        let mut was_ready = false;
        loop {
            interval.tick().await;
            was_ready |= self.readiness.is_ready();
            let reading = Reading::take(&self.progress, self.clock.now());
            let lag = Lag::read(&self.progress);
            let tick = {
                let mut history = live.lock();
                if let Some(before) = &before {
                    history.add(reading.column_since(before, &lag), reading.stages_since(before));
                }
                let snapshot = self.snapshot(&reading, lag, &history, was_ready);
                let event = event(&snapshot);
                Arc::new(Tick { snapshot, event, whole: OnceLock::new() })
            };
            live.ticks.send_replace(Some(tick));
            before = Some(reading);
        }
    }

    fn snapshot(&self, reading: &Reading, mut lag: Lag, history: &History, was_ready: bool) -> Snapshot {
        let (progress, roles) = (&self.progress, &self.about.roles);
        let owned = progress.seen.partitions().unwrap_or_default();
        let mut partitions: Vec<PartitionView> = owned.into_iter().map(PartitionView::owned).collect();
        // Of the same moment as the partitions below, so that they add up.
        if !partitions.is_empty() {
            lag = Lag::of(&partitions);
        }
        let waiting_for = self.readiness.waiting_for();
        let uptime_seconds = self.opened.elapsed().as_secs_f64();
        let verdict = Verdict::of(&Facts {
            uptime_seconds,
            roles,
            was_ready,
            waiting_for: &waiting_for,
            database_away: progress.database_away.load(Ordering::Relaxed),
            books_differ: self.known.audits().last.is_some_and(|audit| audit.verdict == "differences"),
            lag_messages: lag.messages,
            history,
            command: &self.about.command,
        });
        let (top_users, top_symbols, rows) = self.tables.read();
        for row in rows {
            if partitions.iter().all(|known| known.partition != row.partition) {
                partitions.push(PartitionView::of_others(row.partition, row.next_offset));
            }
        }
        partitions.sort_by_key(|partition| partition.partition);
        let runs = |role| roles.contains(&role);
        let rate = |role, count: fn(&Column) -> u64| history.rate(count).filter(|_| runs(role)).map(rounded);
        let stage = |(stage, all): (Stage, &Recent)| StageStatus::of(stage, &all.counts, all.negative, all.missing);
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            now: reading.clock.to_string(),
            uptime_seconds: thousandths(uptime_seconds),
            roles: roles.clone(),
            ready: self.readiness.is_ready(),
            verdict,
            pipeline: places(progress, history, roles, &waiting_for, &reading.counters, &lag),
            waiting_for,
            rates: Rates {
                scheduled: rate("producer", |column| column.scheduled),
                acknowledged: rate("producer", |column| column.acknowledged),
                stored: rate("consumer", |column| column.stored),
            },
            lag,
            stages: Stage::ALL.into_iter().zip(&reading.stages).map(stage).collect(),
            recent_stages: recent_stages(history),
            partitions,
            history: history.view(1, reading.clock),
            top_users,
            top_symbols,
            transactions: progress.seen.transactions().into_iter().map(TransactionView::from).collect(),
            books: Books::of(&reading.counters, roles),
            counters: reading.counters.clone(),
            links: Links::default(),
        }
    }
}

fn recent_stages(history: &History) -> Vec<StageStatus> {
    let stage = |stage| {
        let Recent { counts, negative, missing } = history.recent(stage);
        StageStatus::of(stage, &counts, negative, missing)
    };
    Stage::ALL.into_iter().map(stage).collect()
}

fn json(snapshot: &Snapshot) -> Bytes {
    // Strings, numbers and lists only: this cannot fail.
    serde_json::to_vec(snapshot).unwrap_or_default().into()
}

/// An event of the stream: its data has no line breaks, because JSON escapes them.
fn event(snapshot: &Snapshot) -> Bytes {
    let mut event = b"event: snapshot\ndata: ".to_vec();
    event.extend_from_slice(&json(snapshot));
    event.extend_from_slice(b"\n\n");
    event.into()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn sampler(progress: &Arc<Progress>) -> Sampler {
        let about = Arc::new(About { roles: vec!["producer", "consumer"], command: "finstream".to_owned() });
        Sampler {
            progress: Arc::clone(progress),
            readiness: Readiness::new(),
            tables: Arc::new(Tables::new(&about)),
            about,
            known: Known::default(),
            opened: Instant::now(),
            clock: SystemClock::shared(),
            step: Duration::from_millis(20),
        }
    }

    #[tokio::test]
    async fn a_second_is_a_column_of_what_came_in_it() {
        let (progress, live) = (Arc::new(Progress::new()), Arc::new(Live::default()));
        let mut ticks = live.ticks();
        let (sampler, shared) = (sampler(&progress), Arc::clone(&live));
        tokio::spawn(async move { sampler.run(&shared).await });
        ticks.changed().await.expect("the first tick");
        assert!(live.newest().expect("a tick").snapshot.history.stored_per_second.is_empty());

        for stored in [3, 4] {
            Progress::add(&progress.stored, stored);
            progress.record(Stage::EndToEnd, (0..stored).map(|_| 1_000));
            ticks.changed().await.expect("the next tick");
        }
        let tick = live.newest().expect("a tick");
        assert_eq!(tick.snapshot.history.heat.columns.len(), 1);
        assert_eq!(tick.snapshot.counters.stored, 7);
        let whole = live.whole().expect("a snapshot");
        let whole: serde_json::Value = serde_json::from_slice(&whole).expect("JSON");
        let heat = whole["history"]["heat"]["columns"].as_array().expect("columns");
        let counts =
            heat.iter().map(|column| column.as_array().expect("counts").iter().filter_map(|n| n.as_u64()).sum());
        assert_eq!(counts.collect::<Vec<u64>>(), [3, 4]);
        assert_eq!(whole["recent_stages"][5]["messages"], 7);
        assert_eq!(whole["stages"][5]["p50_us"], 1_000);
    }
}
