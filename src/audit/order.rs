//! The order of an audit: checkpoint, outcomes, log's end, PostgreSQL's snapshot, intents, comparison, verdict.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::books::Books;
use super::checkpoint::{Checkpoint, CheckpointWriter, Head, Standing, VERSION};
use super::compare::{Compared, Comparison, OnProgress};
use super::feed::PIECES_MAX;
use super::log::{LogRange, LogReader};
use super::notebook::Notebook;
use super::published::{Identity, Published};
use super::report::{AuditReport, CheckpointSummary, MessageCounts, PartitionRange, Verdict};
use super::stored::{self, Snapshot};
use super::{AuditError, AuditProgress, AuditSettings};
use crate::clock::SystemClock;
use crate::config::KafkaSettings;
use crate::postgres::Database;

/// A consumer that has not moved for this long is taken for absent; after a crash one waits 6 s for its old session.
const APPLY_PATIENCE: Duration = Duration::from_secs(8);
const APPLY_POLL: Duration = Duration::from_millis(100);

pub(super) async fn run(settings: AuditSettings, mut on_progress: OnProgress) -> Result<AuditReport, AuditError> {
    let begun = Instant::now();
    let topic = settings.kafka.transactions_topic();
    let nothing = nothing_found(&settings, &topic);
    let AuditSettings { kafka, database, ledger_dirs, make_checkpoint } = settings;
    let standing = Standing::look(&database, &topic).await?;
    let books_id = standing.books_id;
    let identity = Identity { books_id: books_id.map(|id| id.to_string()), topic_ref: standing.topic_ref };
    let (kafka_of_log, dirs, topic_of_books) = (kafka.clone(), ledger_dirs.clone(), topic.clone());
    let opened = tokio::task::spawn_blocking(move || open(&kafka_of_log, &dirs, &topic_of_books, &standing));
    let Opened { mut books, mut book, log, ranges, cluster_id, checkpoint, uncovered } = joined(opened.await)?;
    let summary = checkpoint.as_ref().map(|checkpoint| checkpoint.head.summary());
    if let Some(uncovered) = uncovered {
        book.undecided.push(uncovered);
        return Ok(report(topic, &books, book, Vec::new(), summary, begun));
    }
    wait_until_applied(&database, &topic, &ranges, &mut on_progress).await?;
    let reading = tokio::task::spawn_blocking(move || {
        let aggregates = LogReader::open(&kafka, kafka.aggregates_topic())?;
        let mut published = Published::of(identity);
        published.read(&aggregates, &mut book)?;
        Ok::<_, AuditError>((published, book, aggregates))
    });
    let (mut published, mut book, aggregates) = joined(reading.await)?;
    let snapshot = Snapshot::open(&database, &topic).await?;
    published.snapshot_is_taken();
    let overview = snapshot.overview.clone();
    if let (Some(stored), Some(found)) = (&overview.cluster_id, &cluster_id)
        && stored != found
    {
        book.undecided.push(format!(
            "the totals belong to cluster {stored}, but the log is of cluster {found}; name the right cluster with --brokers"
        ));
        return Ok(report(topic, &books, book, Vec::new(), summary, begun));
    }
    let mut partitions: Vec<i32> = ranges.iter().map(|range| range.partition).collect();
    partitions
        .extend(overview.partitions.keys().filter(|partition| !partitions.contains(*partition)).collect::<Vec<_>>());
    let from = marks(checkpoint.as_ref()).collect();
    let stored = snapshot.take_down(&partitions, &from).await?;
    // After the snapshot: what it has applied is read from the log, and was meant before.
    let (dirs, topic_of_books, cluster) = (ledger_dirs.clone(), topic.clone(), cluster_id.clone());
    let intents = tokio::task::spawn_blocking(move || {
        books.read_intents(&dirs, &topic_of_books, cluster.as_deref(), &mut book)?;
        published.read(&aggregates, &mut book)?;
        Ok::<_, AuditError>((books, book, published))
    });
    let (books, book, published) = joined(intents.await)?;
    let standing = Standing::look(&database, &topic).await?;
    if standing.uncovered(checkpoint.as_ref().map(|checkpoint| &checkpoint.head)).is_some() {
        let why = "retention has removed rows behind a newer checkpoint just now; verify again";
        return Err(AuditError::CutShort(why.to_owned()));
    }
    let is_anywhere = !partitions.is_empty();
    let writer = match ledger_dirs.first().filter(|_| make_checkpoint).zip(books_id) {
        Some((dir, books_id)) => Some(CheckpointWriter::begin(dir, books_id, &topic)?),
        None => None,
    };
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    // Ends with this future: an audit that nobody waits for reads on for no one.
    let mut feeder = JoinSet::new();
    feeder.spawn(stored.feed(sender));
    let total = ranges.iter().map(|range| (range.end - start_of(range, checkpoint.as_ref())).max(0) as u64).sum();
    let topic_ref = overview.topic_ref;
    let comparison = Comparison {
        books,
        book,
        overview,
        published,
        pieces,
        held: None,
        last_run: None,
        checkpoint,
        writer,
        proven: Vec::new(),
        total,
        on_progress,
    };
    let compared = tokio::task::spawn_blocking(move || comparison.run(&log, &ranges, &partitions)).await;
    // The feeder's error is the cause, the comparison's "cut short" its consequence.
    feeder.join_next().await.map_or(Ok(()), joined)?;
    let Compared { books, mut book, ranges, proven, writer } = joined(compared)?;
    let is_nothing = !is_anywhere && book.counts == MessageCounts::default() && book.undecided.is_empty();
    if is_nothing {
        book.undecided.push(nothing);
    }
    let mut report = report(topic, &books, book, ranges, summary, begun);
    if is_nothing && report.verdict == Verdict::Undecided {
        report.verdict = Verdict::Nothing;
    }
    match (writer, topic_ref.zip(books_id)) {
        (Some(writer), Some((topic_ref, books_id))) if report.verdict == Verdict::Balanced => {
            let (topic, made_at) = (report.topic.clone(), SystemClock::shared().now().0);
            let (partitions, runs) = (proven, books.settled());
            writer.finish(Head {
                version: VERSION,
                topic,
                cluster_id,
                books_id,
                topic_ref,
                made_at,
                partitions,
                runs,
            })?;
        }
        (writer, _) => writer.map_or((), CheckpointWriter::abandon),
    }
    Ok(report)
}

/// What is said where nothing is found at all.
fn nothing_found(settings: &AuditSettings, topic: &str) -> String {
    format!(
        "no topic {topic} on the broker at {}, no message to it in the ledgers ({}), no totals of it in PostgreSQL ({}); run finstream \
         first, or say where they are: --data-dir, --brokers, --topic-prefix, --database-url, --db-schema",
        settings.kafka.brokers,
        settings.ledger_dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", "),
        settings.database.target
    )
}

/// What is known before PostgreSQL's snapshot is taken.
struct Opened {
    books: Books,
    book: Notebook,
    log: LogReader,
    ranges: Vec<LogRange>,
    cluster_id: Option<String>,
    checkpoint: Option<Checkpoint>,
    /// Why nothing can be decided: rows are gone that no checkpoint here stands for.
    uncovered: Option<String>,
}

/// Blocks: reads the checkpoint, what producers were told, and then the log's end.
fn open(kafka: &KafkaSettings, dirs: &[PathBuf], topic: &str, standing: &Standing) -> Result<Opened, AuditError> {
    let mut book = Notebook::default();
    let log = LogReader::open(kafka, topic.to_owned())?;
    let mut ranges = log.ranges()?;
    let cluster_id = log.cluster_id();
    let mut checkpoint = match standing.books_id {
        Some(books_id) => Checkpoint::find(dirs, books_id, topic)?,
        None => None,
    };
    if let Some(why) = checkpoint.as_ref().and_then(|found| standing.mismatch(&found.head, cluster_id.as_deref())) {
        book.notes.push(format!("the checkpoint in the ledgers is not used: {why}"));
        checkpoint = None;
    }
    if checkpoint.is_some() {
        book.notes.push("windows up to the checkpoint are proven only not to be too small".to_owned());
    }
    let uncovered = standing.uncovered(checkpoint.as_ref().map(|checkpoint| &checkpoint.head)).map(|(partition, before)| {
        format!(
            "latency rows of partition {partition} before offset {before} were removed (--retention) behind an audit's \
             checkpoint that is not here: name the ledger folder that holds it with --ledger DIR"
        )
    });
    let mut books = Books::after(checkpoint.as_ref().map(|found| found.head.runs.clone()).unwrap_or_default());
    // Starts only move on: what is below them now will not be seen in the log.
    let starts = ranges.iter().map(|range| (range.partition, start_of(range, checkpoint.as_ref()))).collect();
    books.read_outcomes(dirs, topic, &starts, &mut book)?;
    ranges = log.ranges()?;
    Ok(Opened { books, book, log, ranges, cluster_id, checkpoint, uncovered })
}

/// Where the log is read from.
fn start_of(range: &LogRange, checkpoint: Option<&Checkpoint>) -> i64 {
    let mark = checkpoint.and_then(|checkpoint| checkpoint.mark(range.partition));
    mark.map_or(range.start, |mark| mark.offset.max(range.start))
}

fn marks(checkpoint: Option<&Checkpoint>) -> impl Iterator<Item = (i32, i64)> {
    checkpoint
        .into_iter()
        .flat_map(|checkpoint| checkpoint.head.partitions.iter())
        .map(|mark| (mark.partition, mark.offset))
}

pub(super) fn joined<T>(result: Result<Result<T, AuditError>, JoinError>) -> Result<T, AuditError> {
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Err(AuditError::CutShort(cancelled.to_string())),
        },
    }
}

/// Waits while PostgreSQL catches up with the log's end; returns when it has, or comes no nearer any more. What is applied
/// beyond that end does not count: one partition that stands still must not be waited for while the others go on.
async fn wait_until_applied(
    database: &Database,
    topic: &str,
    ranges: &[LogRange],
    on_progress: &mut OnProgress,
) -> Result<(), AuditError> {
    let mut nearer = Instant::now();
    let mut least = u64::MAX;
    loop {
        let applied = stored::applied(database, topic).await?;
        let behind = |range: &LogRange| {
            let applied = applied.get(&range.partition).copied().unwrap_or(0).max(range.start);
            (range.end - applied).max(0) as u64
        };
        let behind: u64 = ranges.iter().map(behind).sum();
        if behind == 0 || (behind >= least && nearer.elapsed() > APPLY_PATIENCE) {
            return Ok(());
        }
        if behind < least {
            nearer = Instant::now();
            least = behind;
        }
        on_progress(AuditProgress::Waiting { behind });
        tokio::time::sleep(APPLY_POLL).await;
    }
}

fn report(
    topic: String,
    books: &Books,
    book: Notebook,
    partitions: Vec<PartitionRange>,
    checkpoint: Option<CheckpointSummary>,
    begun: Instant,
) -> AuditReport {
    let verdict = match (book.difference_counts.is_empty(), book.undecided.is_empty()) {
        (false, _) => Verdict::Differences,
        (true, false) => Verdict::Undecided,
        (true, true) => Verdict::Balanced,
    };
    AuditReport {
        verdict,
        topic,
        runs: books.runs.iter().filter(|run| run.ledger.is_some()).count() as u64,
        checkpoint,
        counts: book.counts,
        difference_counts: book.difference_counts,
        differences: book.differences,
        undecided: book.undecided,
        notes: book.notes,
        partitions,
        elapsed_ms: begun.elapsed().as_millis() as u64,
    }
}
