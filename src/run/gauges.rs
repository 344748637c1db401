//! Gauges that nobody's work sets: looked at once a second, whatever the roles do. And the audits' results.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use metrics::gauge;

use super::disk_guard;
use super::pipeline::Pipeline;
use super::process::Process;
use crate::audit::{self, AuditError, AuditReport, AuditSettings, Verdict};
use crate::clock::SharedClock;
use crate::data_dir::DiskSpace;
use crate::http::{AuditResult, Known, Readiness};
use crate::metrics::{
    AUDIT_BALANCED, AUDIT_DIFFERENCES, AUDIT_DURATION_SECONDS, AUDIT_TIMESTAMP_SECONDS, AUDITS_TOTAL,
    BROKER_REFUSES_APPENDS, CONSUMER_LAG_SECONDS, DISK_FREE_BYTES, DISK_LIMIT_BYTES, DISK_SIZE_BYTES,
    PRODUCER_OUTSTANDING_MESSAGES, ROLE_READY, SINK_DATABASE_AWAY,
};
use crate::postgres::{CONNECT_DEADLINE, Database, answered, connect};
use crate::progress::Progress;
use crate::sink::{self, SinkError};

/// Between two looks: a scrape shows nothing that is older.
const LOOK_EVERY: Duration = Duration::from_secs(1);

struct Gauges {
    progress: Arc<Progress>,
    readiness: Readiness,
    clock: SharedClock,
    data_dir: PathBuf,
    /// Of the private PostgreSQL, once it is known; empty where there is none.
    cluster_dir: Arc<OnceLock<PathBuf>>,
    process: Process,
}

impl Pipeline {
    /// Keeps the gauges, for as long as the process runs.
    pub(super) fn start_gauges(&self) {
        let roles = self.plan.roles;
        if roles.broker {
            gauge!(BROKER_REFUSES_APPENDS).set(0.0);
        }
        let gauges = Gauges {
            progress: self.progress.clone(),
            readiness: self.readiness.clone(),
            clock: self.clock.clone(),
            data_dir: self.data_dir.path().to_owned(),
            cluster_dir: self.cluster_dir.clone(),
            process: Process::new(),
        };
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(LOOK_EVERY);
            loop {
                interval.tick().await;
                gauges.look();
            }
        });
    }
}

impl Gauges {
    fn look(&self) {
        self.process.show();
        let roles = self.readiness.roles();
        for (role, is_ready) in &roles {
            gauge!(ROLE_READY, "role" => *role).set(flag(*is_ready));
        }
        let progress = &self.progress;
        if roles.contains_key("consumer") {
            gauge!(SINK_DATABASE_AWAY).set(flag(progress.database_away.load(Ordering::Relaxed)));
            // From the record's time, at the time of this look: it grows while the consumer hangs.
            let lag_us = progress.lag_us_at(self.clock.now().0);
            gauge!(CONSUMER_LAG_SECONDS).set(lag_us.map_or(f64::NAN, |lag_us| lag_us as f64 / 1e6));
        }
        if roles.contains_key("producer") {
            let reported = progress.acknowledged.load(Ordering::Relaxed) + progress.unknown.load(Ordering::Relaxed);
            let outstanding = progress.sent.load(Ordering::Relaxed).saturating_sub(reported);
            gauge!(PRODUCER_OUTSTANDING_MESSAGES).set(outstanding as f64);
        }
        disk("data", &self.data_dir);
        if let Some(dir) = self.cluster_dir.get().filter(|dir| !dir.as_os_str().is_empty()) {
            disk("postgres", dir);
        }
    }
}

fn disk(place: &'static str, path: &Path) {
    // A file system that does not answer shows nothing new; what cannot be written to is told by who writes.
    let Ok(space) = DiskSpace::of(path) else { return };
    gauge!(DISK_FREE_BYTES, "place" => place).set(space.free_bytes as f64);
    gauge!(DISK_SIZE_BYTES, "place" => place).set(space.total_bytes as f64);
    gauge!(DISK_LIMIT_BYTES, "place" => place).set(disk_guard::limit_bytes(space.total_bytes) as f64);
}

fn flag(is_set: bool) -> f64 {
    if is_set { 1.0 } else { 0.0 }
}

/// Makes an audit, and shows what it found: in metrics and to viewers.
pub(super) async fn audit(
    settings: AuditSettings,
    known: &Known,
    clock: &SharedClock,
) -> Result<AuditReport, AuditError> {
    let began = Instant::now();
    let (database, topic) = (settings.database.clone(), settings.kafka.transactions_topic());
    let audited = audit::verify(settings, |_| {}).await;
    let verdict = audited.as_ref().map_or("failed", |report| verdict_name(report.verdict));
    metrics::counter!(AUDITS_TOTAL, "verdict" => verdict).increment(1);
    if let Ok(report) = &audited {
        // An audit that could not decide names what it could not see: the books may balance, so nothing is claimed.
        match report.verdict {
            Verdict::Balanced => gauge!(AUDIT_BALANCED).set(1.0),
            Verdict::Differences => gauge!(AUDIT_BALANCED).set(0.0),
            Verdict::Undecided | Verdict::Nothing => {}
        }
        gauge!(AUDIT_DIFFERENCES).set(report.difference_counts.values().sum::<u64>() as f64);
        gauge!(AUDIT_DURATION_SECONDS).set(began.elapsed().as_secs_f64());
        let now = clock.now();
        gauge!(AUDIT_TIMESTAMP_SECONDS).set(now.0 as f64 / 1e6);
        if let Verdict::Balanced | Verdict::Differences = report.verdict
            && let Err(error) = write_down(&database, &topic, report.verdict == Verdict::Differences).await
        {
            tracing::warn!("cannot write down in PostgreSQL what the audit has found: {error}");
        }
        known.set_audit(AuditResult { made_at: now.to_string(), verdict, text: report.to_string() });
    }
    audited
}

/// Whoever keeps the tables next, also after a restart, has to know of differences.
async fn write_down(database: &Database, topic: &str, differs: bool) -> Result<(), SinkError> {
    let mut connection = connect(&database.options, CONNECT_DEADLINE).await?;
    let writing = async {
        match sink::current_stream(&mut connection, topic).await? {
            Some(stream) => sink::set_differs(&mut connection, stream.topic_ref, differs).await,
            None => Ok(()),
        }
    };
    answered(CONNECT_DEADLINE, writing).await
}

/// A verdict in one word.
pub(super) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Balanced => "balanced",
        Verdict::Differences => "differences",
        Verdict::Undecided => "undecided",
        Verdict::Nothing => "nothing",
    }
}
