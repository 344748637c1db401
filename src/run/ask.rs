//! The commands that ask: `verify` and `sql`. They join what runs, start what does not, and stop that again.

use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};

use super::database::DatabaseService;
use super::figures::thousands;
use super::kafka::{self, EmbeddedBroker};
use super::{Exit, plan, print};
use crate::audit::{self, AuditProgress, AuditSettings, Verdict};
use crate::cli::{Cli, SharedArgs, SqlArgs, VerifyArgs};
use crate::config::{self, BrokerSettings, ConfigError};
use crate::data_dir::DataDir;
use crate::postgres::{Listening, Missing, OutputFormat, PgSettings, write_query};

/// The data directory of a question: it must be there already, unless everything asked about is elsewhere.
pub(super) fn existing_data_dir(shared: &SharedArgs) -> anyhow::Result<DataDir> {
    if !shared.data_dir.join("FORMAT").exists() && shared.database_url.is_none() {
        bail!(
            "{} is not a data directory of finstream: run `finstream` first, or name the right one with --data-dir",
            kafka::shown(&shared.data_dir)
        );
    }
    Ok(DataDir::open(&shared.data_dir)?)
}

/// The database of a question.
pub(super) async fn database(shared: &SharedArgs, data_dir: &DataDir) -> anyhow::Result<DatabaseService> {
    let url = shared.database_url.as_deref().map(config::database_url).transpose()?;
    let schema = config::schema(&shared.db_schema)?;
    let settings = PgSettings { pg_bin: shared.pg_bin.clone(), listen: Listening::Kept };
    DatabaseService::start(data_dir, url.as_deref(), &schema, settings, Missing::Refuse).await
}

/// The Kafka API of a question: given, running, or an embedded broker on a free port that only we use.
pub(super) async fn broker(
    shared: &SharedArgs,
    data_dir: &DataDir,
) -> anyhow::Result<(String, Option<EmbeddedBroker>)> {
    if let Some(brokers) = &shared.brokers {
        return Ok((brokers.clone(), None));
    }
    if let Some(running) = kafka::running(data_dir) {
        return Ok((running.kafka, None));
    }
    let dir = data_dir.path().join("broker");
    if !dir.join("journal").exists() {
        bail!(
            "there is no log in {}: restore it if it was moved, name the cluster with --brokers if the log is elsewhere, or \
             start over with finstream reset",
            kafka::shown(&dir)
        );
    }
    // A question makes nothing and cuts nothing. Which limits the log is to have, only those know who run the pipeline.
    let settings = BrokerSettings { default_partitions: shared.partitions, ..BrokerSettings::local(dir) };
    let broker = EmbeddedBroker::start(data_dir, settings, false).await?;
    Ok((broker.endpoint.kafka.clone(), Some(broker)))
}

/// Runs the question, then stops what was started for it, whatever the answer.
pub(super) async fn with_services<T>(
    database: DatabaseService,
    broker: Option<EmbeddedBroker>,
    question: impl AsyncFnOnce(&DatabaseService) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let answer = question(&database).await;
    let released = database.release().await;
    let stopped = match broker {
        Some(broker) => broker.stop().await,
        None => Ok(()),
    };
    let answer = answer?;
    released?;
    stopped?;
    Ok(answer)
}

/// `finstream verify`
///
/// # Errors
/// A witness cannot be read.
pub async fn verify(cli: &Cli, arguments: &VerifyArgs) -> anyhow::Result<Exit> {
    let shared = &cli.shared;
    // A witness that was asked for and is not there must not be passed over.
    if let Some(dir) = arguments.ledger.iter().find(|dir| !dir.is_dir()) {
        let what = format!(
            "--ledger {}: there is no such folder; name the folder `ledger` of a data directory",
            dir.display()
        );
        return Err(ConfigError::new(what).into());
    }
    let data_dir = existing_data_dir(shared)?;
    let properties = plan::properties(shared)?;
    let database = database(shared, &data_dir).await?;
    let (brokers, broker) = match broker(shared, &data_dir).await {
        Ok(found) => found,
        Err(error) => {
            database.release().await?;
            return Err(error);
        }
    };
    let mut ledger_dirs = vec![data_dir.path().join("ledger")];
    ledger_dirs.extend(arguments.ledger.iter().cloned());
    let kafka = plan::kafka_settings(shared, &properties, &brokers);
    let report = with_services(database, broker, async |database| {
        let settings = AuditSettings { kafka, database: database.database(), ledger_dirs, make_checkpoint: false };
        Ok(audit::verify(settings, say_progress()).await?)
    })
    .await?;
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    print(&if shared.json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
    Ok(exit_of(report.verdict))
}

/// Says how far the audit is: on a terminal all the time, elsewhere only that it waits.
fn say_progress() -> impl FnMut(AuditProgress) + Send + 'static {
    let on_terminal = std::io::stderr().is_terminal();
    let mut said_waiting = false;
    move |progress: AuditProgress| {
        let text = match progress {
            AuditProgress::Waiting { behind } => {
                let text = format!("Waiting for a consumer: {} messages are not stored yet", thousands(behind));
                if !on_terminal && !said_waiting {
                    said_waiting = true;
                    say!("{text}");
                }
                text
            }
            AuditProgress::Reading { read, of } => {
                format!("Reading the log: {} of {} messages", thousands(read), thousands(of))
            }
        };
        if on_terminal {
            let _ = write!(std::io::stderr(), "\r{text}\x1b[K");
        }
    }
}

/// The exit code of an audit.
pub(super) fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Balanced => Exit::Done,
        Verdict::Differences => Exit::No,
        Verdict::Undecided | Verdict::Nothing => Exit::Undecided,
    }
}

/// `finstream sql [QUERY]`
///
/// # Errors
/// The database cannot be reached, or refuses the query; psql is missing.
pub async fn sql(cli: &Cli, arguments: &SqlArgs) -> anyhow::Result<Exit> {
    let shared = &cli.shared;
    let data_dir = existing_data_dir(shared)?;
    let database = database(shared, &data_dir).await?;
    with_services(database, None, async |database| match &arguments.query {
        Some(query) => {
            let format = if shared.json { OutputFormat::Json } else { OutputFormat::Table };
            match write_query(&database.database(), query, format, &mut std::io::stdout()).await {
                Err(crate::postgres::PostgresError::Sql(sqlx::Error::Io(error)))
                    if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                answered => drop(answered?),
            }
            Ok(Exit::Done)
        }
        None => psql(database).await,
    })
    .await
}

/// Hands the terminal to psql until the user leaves it.
async fn psql(database: &DatabaseService) -> anyhow::Result<Exit> {
    let mut command = database.database().psql();
    if std::io::stdin().is_terminal() {
        say!(
            "Views: user_totals, symbol_totals, category_windows, symbol_windows, message_latencies, \
             stage_latency_percentiles, pipeline_progress, runs, repeated_transactions. \\q leaves."
        );
    }
    // psql answers Ctrl-C itself; it must not end us while psql has the terminal.
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let ignore = tokio::spawn(async move { while interrupts.recv().await.is_some() {} });
    let status = tokio::task::spawn_blocking(move || command.status()).await.context("psql's task")?;
    ignore.abort();
    let status = status.context(
        "cannot start psql: install the PostgreSQL client, or give the question as an argument: finstream sql 'select …'",
    )?;
    Ok(if status.success() { Exit::Done } else { Exit::Failed })
}
