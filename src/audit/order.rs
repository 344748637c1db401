//! The order of an audit: ledgers, log's end, ledgers again, PostgreSQL's snapshot, comparison, verdict.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::books::Books;
use super::compare::{Comparison, OnProgress};
use super::log::{LogRange, LogReader};
use super::notebook::Notebook;
use super::published::Published;
use super::report::{AuditReport, MessageCounts, PartitionRange, Verdict};
use super::stored::{self, PIECES_MAX, Snapshot};
use super::{AuditError, AuditProgress, AuditSettings};
use crate::postgres::Database;

/// A consumer that has not moved for this long is taken for absent; after a crash one waits 6 s for its old session.
const APPLY_PATIENCE: Duration = Duration::from_secs(8);
const APPLY_POLL: Duration = Duration::from_millis(100);

pub(super) async fn run(settings: AuditSettings, mut on_progress: OnProgress) -> Result<AuditReport, AuditError> {
    let begun = Instant::now();
    let AuditSettings { kafka, database, ledger_dirs } = settings;
    let topic = kafka.transactions_topic();
    let nothing = format!(
        "no topic {topic} on the broker at {}, no message to it in the ledgers ({}), no totals of it in PostgreSQL ({}); run finstream \
         first, or say where they are: --data-dir, --brokers, --topic-prefix, --database-url, --db-schema",
        kafka.brokers,
        ledger_dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", "),
        database.target
    );
    let topic_of_books = topic.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let (mut books, mut book) = (Books::default(), Notebook::default());
        let log = LogReader::open(&kafka, topic_of_books.clone())?;
        // Starts only move on: what is below them now will not be seen in the log.
        let log_starts = log.ranges()?.iter().map(|range| (range.partition, range.start)).collect();
        books.read_outcomes(&ledger_dirs, &topic_of_books, &log_starts, &mut book)?;
        let ranges = log.ranges()?;
        let cluster_id = log.cluster_id();
        books.read_intents(cluster_id.as_deref(), &mut book)?;
        Ok::<_, AuditError>((books, book, log, ranges, cluster_id, kafka))
    });
    let (books, mut book, log, ranges, cluster_id, kafka) = joined(opened.await)?;
    wait_until_applied(&database, &topic, &ranges, &mut on_progress).await?;
    let reading = tokio::task::spawn_blocking(move || {
        let aggregates = LogReader::open(&kafka, kafka.aggregates_topic())?;
        let published = Published::read(&aggregates, &mut book)?;
        Ok::<_, AuditError>((published, book))
    });
    let (published, mut book) = joined(reading.await)?;
    let snapshot = Snapshot::open(&database, &topic).await?;
    let overview = snapshot.overview.clone();
    if let (Some(stored), Some(found)) = (&overview.cluster_id, &cluster_id)
        && stored != found
    {
        book.undecided.push(format!(
            "the totals belong to cluster {stored}, but the log is of cluster {found}; name the right cluster with --brokers"
        ));
        return Ok(report(topic, books, book, Vec::new(), begun));
    }
    let mut partitions: Vec<i32> = ranges.iter().map(|range| range.partition).collect();
    partitions
        .extend(overview.partitions.keys().filter(|partition| !partitions.contains(*partition)).collect::<Vec<_>>());
    let is_anywhere = !partitions.is_empty();
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let feeder = tokio::spawn(snapshot.feed(partitions.clone(), sender));
    let total = ranges.iter().map(|range| (range.end - range.start).max(0) as u64).sum();
    let comparison = Comparison {
        books,
        book,
        overview,
        published,
        pieces,
        held: None,
        run_places: HashMap::new(),
        total,
        on_progress,
    };
    let compared = tokio::task::spawn_blocking(move || comparison.run(&log, &ranges, &partitions)).await;
    // The feeder's error is the cause, the comparison's "cut short" its consequence.
    joined(feeder.await)?;
    let (books, mut book, ranges) = joined(compared)?;
    let is_nothing = !is_anywhere && book.counts == MessageCounts::default() && book.undecided.is_empty();
    if is_nothing {
        book.undecided.push(nothing);
    }
    let mut report = report(topic, books, book, ranges, begun);
    if is_nothing && report.verdict == Verdict::Undecided {
        report.verdict = Verdict::Nothing;
    }
    Ok(report)
}

fn joined<T>(result: Result<Result<T, AuditError>, JoinError>) -> Result<T, AuditError> {
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Err(AuditError::CutShort(cancelled.to_string())),
        },
    }
}

/// Waits while PostgreSQL catches up with the log's end; returns when it has, or does not move any more.
async fn wait_until_applied(
    database: &Database,
    topic: &str,
    ranges: &[LogRange],
    on_progress: &mut OnProgress,
) -> Result<(), AuditError> {
    let mut moved = Instant::now();
    let mut last = HashMap::new();
    loop {
        let applied = stored::applied(database, topic).await?;
        let behind = |range: &LogRange| {
            let applied = applied.get(&range.partition).copied().unwrap_or(0).max(range.start);
            (range.end - applied).max(0) as u64
        };
        let behind = ranges.iter().map(behind).sum();
        if behind == 0 || (applied == last && moved.elapsed() > APPLY_PATIENCE) {
            return Ok(());
        }
        if applied != last {
            moved = Instant::now();
            last = applied;
        }
        on_progress(AuditProgress::Waiting { behind });
        tokio::time::sleep(APPLY_POLL).await;
    }
}

fn report(topic: String, books: Books, book: Notebook, partitions: Vec<PartitionRange>, begun: Instant) -> AuditReport {
    let verdict = match (book.difference_counts.is_empty(), book.undecided.is_empty()) {
        (false, _) => Verdict::Differences,
        (true, false) => Verdict::Undecided,
        (true, true) => Verdict::Balanced,
    };
    AuditReport {
        verdict,
        topic,
        runs: books.runs.iter().filter(|run| run.ledger.is_some()).count() as u64,
        counts: book.counts,
        difference_counts: book.difference_counts,
        differences: book.differences,
        undecided: book.undecided,
        notes: book.notes,
        partitions,
        elapsed_ms: begun.elapsed().as_millis() as u64,
    }
}
