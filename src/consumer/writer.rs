//! A writing thread: takes batches from its lane, gives them to the sink, counts what became of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handoff::{Request, Work};
use super::last::LastTransactions;
use super::shared::Shared;
use crate::metrics::{
    SINK_BATCH_MESSAGES, SINK_BATCHES_TOTAL, SINK_DEAD_LETTERS_TOTAL, SINK_STORED_TOTAL, STAGE_LATENCY_SECONDS,
    STAGE_MISSING_TOTAL, STAGE_NEGATIVE_TOTAL,
};
use crate::progress::{Progress, Sample, Stage};
use crate::sink::{Batch, Committed, Patience, SinkError, StoredPart, Worker, WorkerSettings};

/// After this long without work the last commits are written down, so that the latency views are complete.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Samples of a writer in a second, at most: more than anyone can read, and each is parsed once more.
const SAMPLES_PER_SECOND_MAX: usize = 2_000;

/// Runs until its lane is closed and empty, or the sink cannot go on.
///
/// The runtime is this thread's own: an answer of PostgreSQL wakes this thread without a detour through another.
pub(super) fn run(
    settings: WorkerSettings,
    shared: &Arc<Shared>,
    lane: usize,
    patience: Patience,
) -> Result<(), SinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let written = runtime.block_on(write(settings, shared, lane, patience));
    shared.lanes.lane(lane).abandon();
    written
}

async fn write(
    settings: WorkerSettings,
    shared: &Shared,
    lane: usize,
    mut patience: Patience,
) -> Result<(), SinkError> {
    let mut worker = Worker::connect_patiently(settings, &mut patience).await?;
    let mut samples = Samples { left: SAMPLES_PER_SECOND_MAX, since: Instant::now() };
    let mut last = LastTransactions::default();
    loop {
        match shared.lanes.lane(lane).next_work(IDLE_AFTER) {
            Work::Request(Request::Claim(partitions, answer)) => {
                let claimed = worker.claim(&partitions, &mut patience).await?;
                // Whoever asked may have given up waiting; then it does not own them, and the next claim fences us.
                let _ = answer.send(claimed);
            }
            Work::Request(Request::Release(partitions)) => worker.release(&partitions),
            Work::Batch(batch) => {
                let committed = worker.store(&batch, &mut patience).await?;
                report(shared, &committed);
                samples.show(&shared.progress, &batch);
                last.show(&shared.progress, &batch, &committed);
                shared.lanes.lane(lane).stored(batch);
                shared.update_lag();
            }
            Work::Idle => write_seen_commits(&mut worker).await,
            Work::Closed => {
                return worker.close().await.or_else(|error| {
                    tracing::debug!("closing the connection to PostgreSQL: {error}");
                    Ok(())
                });
            }
        }
    }
}

async fn write_seen_commits(worker: &mut Worker) {
    if let Err(error) = worker.write_seen_commits().await {
        // The next batch meets the same trouble and waits it out; commit times are all that is lost.
        tracing::debug!("writing commit times: {error}");
    }
}

fn report(shared: &Shared, committed: &Committed) {
    if !committed.fenced.is_empty() {
        tracing::warn!(
            partitions = ?committed.fenced,
            "fenced: another consumer (or finstream reset) has taken these partitions over; they are given up here"
        );
        shared.push_fenced(&committed.fenced);
    }
    for part in &committed.parts {
        count(&shared.progress, part);
    }
    shared.set_applied(&committed.next_offsets);
}

fn count(progress: &Progress, part: &StoredPart) {
    Progress::add(&progress.stored, part.messages);
    progress.moved();
    Progress::add(&progress.dead_letters, part.dead_letters);
    Progress::add(&progress.foreign_letters, part.foreign_letters);
    metrics::counter!(SINK_STORED_TOTAL).increment(part.messages);
    metrics::counter!(SINK_DEAD_LETTERS_TOTAL).increment(part.dead_letters);
    metrics::counter!(SINK_BATCHES_TOTAL).increment(1);
    metrics::histogram!(SINK_BATCH_MESSAGES).record(part.messages as f64);

    let processed_at = part.processed_at;
    let since_sent = part.times.iter().map(|(_, sent, received)| sent.map(|sent| received.since(sent)));
    record(progress, Stage::Received, since_sent);
    let since_received = part.times.iter().map(|(_, _, received)| Some(processed_at.since(*received)));
    record(progress, Stage::Processed, since_received);
    let since_processed = part.committed_at.map(|committed_at| committed_at.since(processed_at));
    record(progress, Stage::Committed, part.times.iter().map(|_| since_processed));
    let since_scheduled = part.times.iter().map(|(scheduled, _, _)| {
        scheduled.zip(part.committed_at).map(|(scheduled, committed_at)| committed_at.since(scheduled))
    });
    record(progress, Stage::EndToEnd, since_scheduled);
}

/// Records a stage; what is missing is counted, not dropped.
fn record(progress: &Progress, stage: Stage, latencies_us: impl Iterator<Item = Option<i64>>) {
    let mut known = Vec::with_capacity(latencies_us.size_hint().0);
    let mut missing = 0;
    for latency_us in latencies_us {
        match latency_us {
            Some(latency_us) => known.push(latency_us),
            None => missing += 1,
        }
    }
    let histogram = metrics::histogram!(STAGE_LATENCY_SECONDS, "stage" => stage.label());
    let mut negative = 0;
    for latency_us in &known {
        negative += u64::from(*latency_us < 0);
        histogram.record(latency_us.max(&0).to_owned() as f64 / 1e6);
    }
    progress.record(stage, known);
    if negative > 0 {
        metrics::counter!(STAGE_NEGATIVE_TOTAL, "stage" => stage.label()).increment(negative);
    }
    if missing > 0 {
        metrics::counter!(STAGE_MISSING_TOTAL, "stage" => stage.label()).increment(missing);
        progress.record_missing(stage, missing);
    }
}

/// Shows processed messages, while someone looks and as many as one may take.
struct Samples {
    left: usize,
    since: Instant,
}

impl Samples {
    fn show(&mut self, progress: &Progress, batch: &Batch) {
        if !progress.wants_samples() {
            return;
        }
        if self.since.elapsed() >= Duration::from_secs(1) {
            *self = Samples { left: SAMPLES_PER_SECOND_MAX, since: Instant::now() };
        }
        for (partition, offset, payload) in batch.transactions().take(self.left) {
            progress.sample(Sample::Transaction(sample(partition, offset, payload)));
            self.left -= 1;
        }
    }
}

/// One processed message as one line of JSON.
fn sample(partition: i32, offset: i64, payload: &[u8]) -> String {
    // It was decoded, so it is JSON; through a value, so that it is on one line.
    let transaction: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
    serde_json::json!({ "partition": partition, "offset": offset, "transaction": transaction }).to_string()
}
