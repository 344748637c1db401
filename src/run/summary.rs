//! What a run leaves behind: the summary on the terminal, and as JSON.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::figures::{elapsed, latency, thousands};
use crate::config::Roles;
use crate::progress::{Progress, Stage};

/// What a run shorter than this did in a second is chance.
const MEASURED_FROM: Duration = Duration::from_millis(100);

/// Everything that is said at the end of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The producer's run, if one ran here.
    pub run_id: Option<String>,
    /// Seconds from the first message's sending to the last one's commit, as far as they happened here.
    pub elapsed_s: f64,
    /// Arrivals whose time came.
    pub scheduled: u64,
    /// Handed to the Kafka client.
    pub sent: u64,
    /// Acknowledged by the broker.
    pub acknowledged: u64,
    /// Neither acknowledged nor refused: the audit settles them from the log.
    pub unknown: u64,
    /// Rows committed in PostgreSQL by this process.
    pub stored: u64,
    /// Dead letters committed by this process.
    pub dead_letters: u64,
    /// Messages per second: stored if a consumer ran here, else acknowledged. None of a run too short to tell.
    pub rate_per_s: Option<f64>,
    /// Latency, stage by stage.
    pub stages: Vec<StageSummary>,
    /// The busiest users.
    pub top_users: Vec<TopUser>,
    /// What a source left out, and why.
    pub notes: Vec<String>,
    /// The audit's answer, if one was made.
    pub audit: Option<AuditSummary>,
    /// The line to go on with.
    pub next: String,
    #[serde(skip)]
    roles: Roles,
}

/// One stage's latency in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct StageSummary {
    /// Such as `scheduled -> sent`.
    pub stage: &'static str,
    /// Messages measured.
    pub messages: u64,
    /// Messages without one of the two times.
    pub missing: u64,
    /// Values below zero.
    pub negative: u64,
    /// Microseconds.
    pub p50_us: u64,
    /// Microseconds.
    pub p90_us: u64,
    /// Microseconds.
    pub p99_us: u64,
    /// Microseconds.
    pub p999_us: u64,
    /// Microseconds.
    pub max_us: u64,
}

/// One row of `user_totals`.
#[derive(Clone, Debug, Serialize)]
pub struct TopUser {
    /// Whose.
    pub user_id: String,
    /// ISO 4217.
    pub currency: String,
    /// Purchases, refunds and declined attempts.
    pub transactions: i64,
    /// Decimal text.
    pub net_spend: String,
}

/// The audit's answer in one line.
#[derive(Clone, Debug, Serialize)]
pub struct AuditSummary {
    /// `balanced`, `differences` or `undecided`.
    pub verdict: &'static str,
    /// For people.
    pub text: String,
}

impl Summary {
    /// Reads the counters and histograms.
    pub fn take(progress: &Progress, roles: Roles, run_id: Option<String>, next: String) -> Summary {
        let busy = progress.busy();
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (acknowledged, stored) = (read(&progress.acknowledged), read(&progress.stored));
        let counted = if roles.consumer { stored } else { acknowledged };
        Summary {
            run_id,
            elapsed_s: busy.as_secs_f64(),
            scheduled: read(&progress.scheduled),
            sent: read(&progress.sent),
            acknowledged,
            unknown: read(&progress.unknown),
            stored,
            dead_letters: read(&progress.dead_letters),
            rate_per_s: (busy >= MEASURED_FROM).then(|| counted as f64 / busy.as_secs_f64()),
            stages: Stage::ALL.iter().filter_map(|stage| StageSummary::take(progress, *stage)).collect(),
            top_users: Vec::new(),
            notes: Vec::new(),
            audit: None,
            next,
            roles,
        }
    }
}

impl StageSummary {
    fn take(progress: &Progress, stage: Stage) -> Option<StageSummary> {
        let latencies = progress.latencies(stage);
        let histogram = &latencies.histogram;
        if histogram.is_empty() && latencies.missing == 0 {
            return None;
        }
        Some(StageSummary {
            stage: stage.name(),
            messages: histogram.len(),
            missing: latencies.missing,
            negative: latencies.negative,
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Summary")?;
        if let Some(run) = &self.run_id {
            writeln!(out, "  run        {run}")?;
        }
        if self.roles.producer {
            write!(out, "  produced   {} sent, {} acknowledged", thousands(self.sent), thousands(self.acknowledged))?;
            if self.unknown > 0 {
                write!(out, ", {} of unknown outcome", thousands(self.unknown))?;
            }
            if self.scheduled > self.sent {
                write!(out, ", {} never sent", thousands(self.scheduled - self.sent))?;
            }
            writeln!(out)?;
        }
        if self.roles.consumer {
            write!(out, "  stored     {} rows in PostgreSQL", thousands(self.stored))?;
            if self.dead_letters > 0 {
                write!(out, ", {} dead letters (select * from dead_letters)", thousands(self.dead_letters))?;
            }
            writeln!(out)?;
        }
        if let Some(rate) = self.rate_per_s {
            let time = match self.elapsed_s {
                seconds if seconds < 60.0 => format!("{seconds:.1} s"),
                seconds => elapsed(Duration::from_secs_f64(seconds)),
            };
            writeln!(out, "  rate       {}/s over {time}", thousands(rate.round() as u64))?;
        }
        for note in &self.notes {
            writeln!(out, "  note       {note}")?;
        }
        self.write_stages(out)?;
        self.write_users(out)?;
        if let Some(audit) = &self.audit {
            writeln!(out, "\n  audit      {}", audit.text)?;
        }
        if !self.next.is_empty() {
            write!(out, "  go on with {}", self.next)?;
        }
        Ok(())
    }
}

impl Summary {
    fn write_stages(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stages.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n  {:<24}{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "latency", "messages", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for stage in &self.stages {
            write!(out, "  {:<24}{:>12}", stage.stage, thousands(stage.messages))?;
            for value in [stage.p50_us, stage.p90_us, stage.p99_us, stage.p999_us, stage.max_us] {
                write!(out, "{:>10}", latency(value))?;
            }
            if stage.missing > 0 {
                write!(out, "  {} missing", thousands(stage.missing))?;
            }
            if stage.negative > 0 {
                write!(out, "  {} negative", thousands(stage.negative))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_users(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.top_users.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n  {:<24}{:>12}{:>20}", "busiest users", "transactions", "net spend")?;
        for user in &self.top_users {
            let count = thousands(user.transactions.max(0) as u64);
            writeln!(out, "  {:<24}{:>12}{:>16} {}", user.user_id, count, user.net_spend, user.currency)?;
        }
        Ok(())
    }
}
