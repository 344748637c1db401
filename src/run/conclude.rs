//! The end of a run: summary, audit, exit code.

use std::time::Duration;

use anyhow::Context;

use super::database::DatabaseService;
use super::figures::thousands;
use super::pipeline::Pipeline;
use super::roles::Ended;
use super::summary::{AuditSummary, Summary};
use super::{Exit, ask, gauges, startup};
use crate::audit::{AuditSettings, Verdict};
use crate::config::KafkaSettings;
use crate::producer::ProducerReport;
use crate::shutdown::Stage;

/// An audit after Ctrl-C may take this long; a longer one is left to `finstream verify`.
const AUDIT_AFTER_STOP_WITHIN: Duration = Duration::from_secs(8);

impl Pipeline {
    pub(super) async fn conclude(
        &self,
        ended: Ended,
        kafka: KafkaSettings,
        database: Option<&DatabaseService>,
    ) -> anyhow::Result<Exit> {
        let roles = self.plan.roles;
        let moved = self.progress.busy() > Duration::ZERO;
        match ended.failure {
            // Nothing to sum up: the error alone is told.
            Some(failure) if !moved => return Err(failure),
            None if !roles.producer && !roles.consumer => return Ok(Exit::Done),
            _ => {}
        }
        let run_id = ended.producer.as_ref().and_then(|report| report.run.map(|run| run.to_string()));
        let mut summary = Summary::take(&self.progress, roles, run_id, startup::next_command(self));
        summary.notes.extend(ended.producer.iter().flat_map(notes));
        summary.notes.extend(ended.left.iter().cloned());
        // Who stops a run by hand is told what is left; who gave it a length asked for all of it.
        let mut exit = if ended.left.is_empty() || self.shutdown.requested() { Exit::Done } else { Exit::Failed };
        if let Some(database) = database {
            summary.top_users = database.top_users().await.unwrap_or_default();
            // Only where the whole pipeline is here is anyone waiting for the answer.
            if roles.producer && ended.failure.is_none() && ended.left.is_empty() {
                let (audit, verdict) = self.audit(kafka, database).await;
                summary.audit = Some(audit);
                exit = verdict;
            }
        }
        if let Some(file) = &self.plan.flags().summary {
            let text = serde_json::to_string_pretty(&summary)?;
            std::fs::write(file, text).with_context(|| format!("cannot write the summary to {}", file.display()))?;
        }
        super::print(&if self.plan.json() { serde_json::to_string(&summary)? } else { summary.to_string() })?;
        match ended.failure {
            Some(failure) => Err(failure),
            None => Ok(exit),
        }
    }

    async fn audit(&self, kafka: KafkaSettings, database: &DatabaseService) -> (AuditSummary, Exit) {
        say!("Auditing the books …");
        let ledger_dirs = vec![self.data_dir.path().join("ledger")];
        let settings = AuditSettings { kafka, database: database.database(), ledger_dirs, make_checkpoint: false };
        let mut shutdown = self.shutdown.clone();
        let stopped = async {
            if !shutdown.requested() {
                shutdown.reached(Stage::Drain).await;
                return;
            }
            tokio::time::sleep(AUDIT_AFTER_STOP_WITHIN).await;
        };
        let audited = tokio::select! {
            audited = gauges::audit(settings, &self.known, &self.clock) => audited,
            () = stopped => {
                let text = "not finished in the time of a stop: ask with `finstream verify`".to_string();
                return (AuditSummary { verdict: "not made", text }, Exit::Done);
            }
        };
        match audited {
            Ok(report) => {
                let verdict = gauges::verdict_name(report.verdict);
                // A run that was stopped before it made its topic is a run nevertheless: nobody pointed at a wrong place.
                let exit = match report.verdict {
                    Verdict::Nothing => Exit::Done,
                    other => ask::exit_of(other),
                };
                (AuditSummary { verdict, text: report.to_string() }, exit)
            }
            Err(error) => {
                (AuditSummary { verdict: "failed", text: format!("could not be made: {error}") }, Exit::Failed)
            }
        }
    }
}

/// What the summary says of a source's skips and of a continued run.
fn notes(report: &ProducerReport) -> Vec<String> {
    let mut notes = Vec::new();
    if report.continued {
        let found = thousands(report.found);
        notes.push(format!("continued an interrupted run: {found} messages were in the log already"));
    }
    for (what, found) in report.skipped.all() {
        notes.push(format!("{} x {what}: {} ({})", thousands(found.count), found.kind, found.first));
    }
    notes
}
