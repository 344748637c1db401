//! `finstream reset`: start over, or skip lost records of one partition on record.

use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sqlx::PgConnection;

use super::figures::bytes;
use super::kafka::shown;
use super::{Exit, ask, plan};
use crate::cli::{Cli, ResetArgs, SharedArgs};
use crate::config::{ConfigError, KafkaSettings};
use crate::consumer::{self, PartitionInLog};
use crate::data_dir::DataDir;
use crate::postgres::PrivateCluster;
use crate::shutdown;
use crate::sink::{self, LifeStart};

/// What finstream keeps in a data directory, apart from the private PostgreSQL; nothing else is touched.
const OURS: [(&str, &str); 6] = [
    ("broker", "the log, with topics, groups and offsets"),
    ("ledger", "the producers' ledger"),
    ("endpoints", ""),
    ("postgres.log", ""),
    ("postgres.log.1", ""),
    ("FORMAT", ""),
];

/// Carries out `finstream reset`.
///
/// # Errors
/// Something still runs on the data directory; a file cannot be removed; the partition cannot be moved.
pub async fn run(cli: &Cli, arguments: &ResetArgs) -> anyhow::Result<Exit> {
    match (&arguments.topic, arguments.partition, arguments.to) {
        (Some(topic), Some(partition), Some(to)) => move_partition(&cli.shared, arguments, topic, partition, to).await,
        _ => start_over(&cli.shared, arguments.yes).await,
    }
}

async fn start_over(shared: &SharedArgs, yes: bool) -> anyhow::Result<Exit> {
    if shared.brokers.is_some() || shared.database_url.is_some() {
        return Err(ConfigError::new(
            "reset removes what finstream keeps in its data directory; topics of --brokers and tables of --database-url \
             are yours: drop the schema with psql, delete the topics with your Kafka tools, or use a new --db-schema",
        )
        .into());
    }
    let path = &shared.data_dir;
    if !path.join("FORMAT").exists() {
        say!("{} holds nothing of finstream: there is nothing to reset.", shown(path));
        return Ok(Exit::Done);
    }
    let data_dir = DataDir::open(path)?;
    let _broker = data_dir.lock(super::kafka::SERVICE)?;
    say!("This removes from {}, for good:", shown(path));
    if let Some(cluster) = PrivateCluster::location(&data_dir) {
        say!("  {:<42}{:>12}  {}", "the totals in PostgreSQL", bytes(size(&cluster)), cluster.display());
    }
    for (name, what) in OURS.iter().filter(|(name, what)| !what.is_empty() && path.join(name).exists()) {
        say!("  {what:<42}{:>12}", bytes(size(&path.join(name))));
    }
    if !yes && !confirmed()? {
        say!("Nothing was removed.");
        return Ok(Exit::No);
    }
    PrivateCluster::destroy(&data_dir).await?;
    for (name, _) in OURS {
        remove(&path.join(name))?;
    }
    remove(&path.join("locks"))?;
    // Left where someone else's files are in it.
    let _ = fs::remove_dir(path);
    say!("Done: the next start begins from nothing.");
    Ok(Exit::Done)
}

async fn move_partition(
    shared: &SharedArgs,
    arguments: &ResetArgs,
    topic: &str,
    partition: i32,
    to: i64,
) -> anyhow::Result<Exit> {
    if !arguments.accept_loss {
        return Err(ConfigError::new(
            "records that are skipped are never counted: add --accept-loss to agree; the audit will name the range",
        )
        .into());
    }
    let data_dir = DataDir::open(&shared.data_dir)?;
    let properties = plan::properties(shared)?;
    let database = ask::database(shared, &data_dir).await?;
    let (brokers, broker) = match ask::broker(shared, &data_dir).await {
        Ok(found) => found,
        Err(error) => {
            database.release().await?;
            return Err(error);
        }
    };
    let kafka = plan::kafka_settings(shared, &properties, &brokers);
    let target = Target { topic, partition, to, count_again: arguments.count_again };
    ask::with_services(database, broker, async |database| {
        let mut connection = database.database().connect().await?;
        target.reach(&mut connection, &kafka).await
    })
    .await?;
    Ok(Exit::Done)
}

/// Where a partition is to go on.
struct Target<'a> {
    topic: &'a str,
    partition: i32,
    to: i64,
    count_again: bool,
}

impl Target<'_> {
    /// Forward in the same log: a gap on record. Everything else: a new life of the topic.
    async fn reach(&self, connection: &mut PgConnection, kafka: &KafkaSettings) -> anyhow::Result<()> {
        let &Target { topic, partition, to, count_again } = self;
        let Some(stream) = sink::current_stream(connection, topic).await? else {
            bail!("topic {topic} has no totals in this database yet: there is nothing to reset");
        };
        let (_trigger, shutdown) = shutdown::channel();
        let looked = consumer::look_at_topic(kafka, connection, topic, stream.topic_ref, &shutdown).await?;
        let Some(log) = looked else { return Ok(()) };
        let next_of = |partition: i32| {
            log.applied.iter().find(|known| known.partition == partition).map(|known| known.next_offset)
        };
        let next_offset = next_of(partition);
        let Some(found) = log.partitions.iter().find(|found| found.partition == partition) else {
            bail!("topic {topic} has no partition {partition}: it has 0 to {}", log.partitions.len().saturating_sub(1));
        };
        if to < found.log.start || to > found.log.end {
            let (start, end) = (found.log.start, found.log.end);
            bail!("--to {to} is outside of what the log of {topic} partition {partition} holds: {start} to {end}");
        }
        let is_whole = found.counted.is_some_and(|(counted, _)| Some(counted) == next_offset);
        let same_log = log.cluster_id == stream.cluster_id
            && (is_whole || next_offset.is_some_and(|next| found.log.start >= next));
        if same_log && next_offset.is_some_and(|next| to > next) {
            let from = sink::reset_forward(connection, topic, partition, to).await?;
            let last = to - 1;
            say!("Skipped on record: offsets {from} to {last} of {topic} partition {partition}; the next is {to}.");
            return Ok(());
        }
        let go_on_at = found.go_on_at();
        if to < go_on_at && !count_again {
            return Err(ConfigError::new(format!(
                "the records before offset {go_on_at} of {topic} partition {partition} are in the totals already, so --to \
                 {to} would count them twice: go on with --to {go_on_at}, or add --count-again if twice is what you want"
            ))
            .into());
        }
        let starts: Vec<LifeStart> =
            log.partitions.iter().map(|found| self.start_of(found, next_of(found.partition))).collect();
        sink::open_new_life(connection, &log.cluster_id, topic, &log.applied, &starts).await?;
        say!("A new life of {topic} begins; what was counted before stays in the totals. Next offsets:");
        for start in starts {
            let skipped = start.skipped_from.map(|from| format!(", skipped on record from {from}"));
            say!("  partition {:<5} {}{}", start.partition, start.next_offset, skipped.unwrap_or_default());
        }
        Ok(())
    }

    fn start_of(&self, found: &PartitionInLog, applied: Option<i64>) -> LifeStart {
        let (partition, go_on_at) = (found.partition, found.go_on_at());
        // A log that was cut has lost what was not applied of it.
        let gap_from = applied.filter(|next| found.counted.is_none() && found.log.start > *next).unwrap_or(go_on_at);
        let next_offset = if partition == self.partition { self.to } else { go_on_at };
        let fingerprint = found.counted.filter(|_| next_offset == go_on_at).map(|(_, fingerprint)| fingerprint);
        LifeStart { partition, next_offset, fingerprint, skipped_from: (next_offset > gap_from).then_some(gap_from) }
    }
}

fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("reset asks before it removes anything, and nobody is at the terminal: add --yes");
    }
    write!(std::io::stderr(), "Type yes to go on: ").context("the terminal")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("the terminal")?;
    Ok(answer.trim() == "yes")
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Bytes of the files below `path`; what cannot be read counts as nothing, for this is only shown.
fn size(path: &Path) -> u64 {
    let mut folders: Vec<PathBuf> = vec![path.to_owned()];
    let mut total = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => total += metadata.len(),
                Err(_) => {}
            }
        }
    }
    total
}
