//! The start-up block on the terminal, and the ready file for programs.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::database::{Contents, DatabaseService};
use super::figures::{bytes, thousands};
use super::kafka::{BrokerEndpoint, EmbeddedBroker, shown};
use super::pipeline::Pipeline;
use crate::config::{Arrival, Pace, SourceSettings};
use crate::data_dir::DiskSpace;

/// Says where everything is and what the data directory already holds.
///
/// # Errors
/// The file system cannot be asked for its free space.
pub fn print(
    pipeline: &Pipeline,
    broker: Option<&EmbeddedBroker>,
    endpoint: &BrokerEndpoint,
    database: Option<&DatabaseService>,
    contents: Option<&Contents>,
    http: SocketAddr,
) -> anyhow::Result<()> {
    let plan = &pipeline.plan;
    let mut rows = Vec::new();
    rows.push(("broker", broker_row(broker, endpoint)));
    if let Some(database) = database {
        rows.push(("database", format!("{}  ({} sql)", database.describe(), own_command(pipeline))));
    }
    if let Some(readers) = database.and_then(DatabaseService::readers) {
        rows.push(("readers", readers));
    }
    rows.push(("page", format!("http://{http}/  (metrics: /metrics, health: /healthz, /readyz)")));
    if plan.roles.producer {
        let when = match plan.source {
            SourceSettings::Yahoo(_) => "each as soon as it is known".to_string(),
            _ => pace(&plan.pace),
        };
        rows.push(("source", format!("{}, {when}", source(&plan.source))));
    }
    rows.push(("data", data_row(pipeline, broker, contents)?));
    say!("finstream {}", env!("CARGO_PKG_VERSION"));
    for (name, text) in rows {
        say!("  {name:<10}{text}");
    }
    if let Some(contents) = contents.filter(|contents| contents.transactions > 0) {
        say!(
            "Continuing {}: {} run{}, {} transactions in the totals.",
            shown(pipeline.data_dir.path()),
            thousands(contents.runs),
            if contents.runs == 1 { "" } else { "s" },
            thousands(contents.transactions)
        );
    }
    Ok(())
}

fn broker_row(broker: Option<&EmbeddedBroker>, endpoint: &BrokerEndpoint) -> String {
    let Some(broker) = broker else {
        let whose = if endpoint.pid == 0 { "external".to_string() } else { format!("of process {}", endpoint.pid) };
        return format!("{}  ({whose})", endpoint.kafka);
    };
    let recovery = broker.broker.recovery();
    let mut text = format!(
        "{}  (embedded Kafka API, acknowledges after {})",
        endpoint.kafka,
        match endpoint.durability.as_str() {
            "fsync" => "fdatasync",
            _ => "the page-cache write",
        }
    );
    if recovery.partitions > 0 && !recovery.clean_stop {
        text += &format!(
            "; recovered from a crash: {} batches put back, {} of unacknowledged tail cut",
            thousands(recovery.replayed_batches),
            bytes(recovery.cut_bytes)
        );
    }
    text
}

fn data_row(
    pipeline: &Pipeline,
    broker: Option<&EmbeddedBroker>,
    contents: Option<&Contents>,
) -> anyhow::Result<String> {
    let path = pipeline.data_dir.path();
    let space = DiskSpace::of(path).with_context(|| format!("cannot ask for the free space of {}", path.display()))?;
    let log = broker.map_or(String::new(), |broker| format!("log {}, ", bytes(broker.broker.disk_bytes())));
    let database = contents.map_or(String::new(), |contents| format!("database {}, ", bytes(contents.bytes)));
    Ok(format!("{}  ({log}{database}{} of {} free)", shown(path), bytes(space.free_bytes), bytes(space.total_bytes)))
}

fn source(source: &SourceSettings) -> String {
    match source {
        SourceSettings::Synthetic(settings) => {
            format!("synthetic card transactions of {} users, seed {}", thousands(settings.users), settings.seed)
        }
        SourceSettings::Yfinance(settings) => {
            format!("trades from {}{}", names(&settings.files), again_and_again(settings.repeat))
        }
        SourceSettings::Cards(settings) => {
            format!("card transactions from {}{}", names(&settings.files), again_and_again(settings.repeat))
        }
        SourceSettings::Yahoo(settings) => format!("live trades of {} from Yahoo Finance", settings.symbols.join(", ")),
    }
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn again_and_again(repeat: bool) -> &'static str {
    if repeat { ", again and again" } else { "" }
}

fn pace(pace: &Pace) -> String {
    let rate = |rate: f64| if rate.fract() == 0.0 { thousands(rate as u64) } else { rate.to_string() };
    match pace {
        Pace::Rate { per_second, arrival } => {
            let per_second = rate(*per_second);
            match arrival {
                Arrival::Constant => format!("{per_second}/s"),
                Arrival::Poisson => format!("{per_second}/s on average, at random (Poisson)"),
                Arrival::Bursty => format!("{per_second}/s on average, with bursts of ten times as many"),
                Arrival::Market { length, .. } => {
                    format!(
                        "{per_second}/s on average, by an exchange's day of {}",
                        humantime::format_duration(*length)
                    )
                }
                Arrival::Ramp { from, to, over } => {
                    format!("{}/s to {}/s in {}", rate(*from), rate(*to), humantime::format_duration(*over))
                }
            }
        }
        Pace::Max => "as fast as it goes".to_string(),
        Pace::Speed(speed) => format!("{speed} times faster than it happened"),
    }
}

/// The file that tells other programs where this process listens. It is there only while that is so.
pub struct ReadyFile(PathBuf);

impl Drop for ReadyFile {
    fn drop(&mut self) {
        let text = std::fs::read(&self.0).unwrap_or_default();
        let pid = serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|ready| ready["pid"].as_u64());
        // One that was started with the same file meanwhile keeps it.
        if pid == Some(u64::from(std::process::id())) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// Removes what an earlier start has left, whose addresses are gone.
///
/// # Errors
/// It cannot be removed.
pub fn remove_ready_file(file: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the ready file {} of an earlier start", file.display()))
        }
        _ => Ok(()),
    }
}

/// Writes all addresses for programs that wait for this process.
///
/// # Errors
/// The file cannot be written.
pub fn write_ready_file(
    pipeline: &Pipeline,
    endpoint: &BrokerEndpoint,
    database: Option<&DatabaseService>,
    http: SocketAddr,
) -> anyhow::Result<Option<ReadyFile>> {
    let Some(file) = &pipeline.plan.flags().ready_file else { return Ok(None) };
    let ready = json!({
        "pid": std::process::id(),
        "kafka": endpoint.kafka,
        "http": format!("http://{http}"),
        "psql": database.map(|database| database.psql_command()),
        "data_dir": pipeline.data_dir.path(),
    });
    // Written aside and renamed, so that whoever waits for the name never reads half of it.
    let aside = file.with_extension("partial");
    std::fs::write(&aside, format!("{ready:#}\n"))
        .and_then(|()| std::fs::rename(&aside, file))
        .with_context(|| format!("cannot write the ready file {}", file.display()))?;
    Ok(Some(ReadyFile(file.clone())))
}

/// The line with which a person goes on after a run.
pub fn next_command(pipeline: &Pipeline) -> String {
    if pipeline.plan.data_dir.is_none() {
        return String::new();
    }
    format!("{} sql 'select * from user_totals order by transactions desc limit 10'", own_command(pipeline))
}

/// What a person types to reach this data directory and its totals: `finstream`, with the flags that it takes.
pub fn own_command(pipeline: &Pipeline) -> String {
    let plan = &pipeline.plan;
    let default = plan.data_dir.as_deref() == Some(Path::new("finstream-data"));
    let place = if default { String::new() } else { format!(" --data-dir {}", shown(pipeline.data_dir.path())) };
    let mut command = format!("finstream{place}");
    if plan.database_url.is_some() {
        // It may hold a password.
        command += " --database-url …";
    }
    if plan.schema != "finstream" {
        command += &format!(" --db-schema {}", plan.schema);
    }
    command
}
