//! Continuing the run of a finite source: what of it is in the log already?
//!
//! Requests of a killed process may still be appended after its death, so the log is read until no record of the run has
//! arrived for ten seconds. (Had the broker died as well there would be nothing to wait for, but from here that cannot
//! be known.) Only what is absent then is sent, under the old identity.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::ProducerError;
use super::client::base_config;
use super::start::Context;
use super::tally::{Complaints, Tally, patiently};
use super::topic::Topic;
use crate::clock::Micros;
use crate::ledger::{LedgerError, LedgerReader, LedgerWriter, Outcome, RunRecord};
use crate::transaction::{HEADER_RUN, HEADER_SEQUENCE, RunId};

/// No record of the run for this long: no request of the dead process is under way any more.
const QUIET: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The messages of a run that are in the log.
#[derive(Debug)]
pub(super) struct Found(Bits);

impl Found {
    pub(super) fn contains(&self, sequence: i64) -> bool {
        self.0.contains(sequence)
    }

    pub(super) fn count(&self) -> u64 {
        self.0.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// A set of sequences below a known end.
#[derive(Debug)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    fn below(end: u64) -> Bits {
        Bits { words: vec![0; end.div_ceil(64) as usize] }
    }

    fn contains(&self, sequence: i64) -> bool {
        let word = self.words.get((sequence / 64) as usize);
        sequence >= 0 && word.is_some_and(|word| word >> (sequence % 64) & 1 == 1)
    }

    /// Sequences beyond the end are passed over: no message of this source has one.
    fn insert(&mut self, sequence: i64) {
        if sequence < 0 {
            return;
        }
        if let Some(word) = self.words.get_mut((sequence / 64) as usize) {
            *word |= 1 << (sequence % 64);
        }
    }
}

/// The run that the same command began and did not end, if there is one.
pub(super) fn unfinished(
    ledger_dir: &Path,
    wanted: Option<RunId>,
    record: &RunRecord,
) -> Result<Option<RunId>, LedgerError> {
    if record.source.fingerprint.is_none() {
        return Ok(None);
    }
    let reader = LedgerReader::new(ledger_dir);
    let same_cluster = |other: &RunRecord| match (&other.cluster_id, &record.cluster_id) {
        (Some(other), Some(ours)) => other == ours,
        _ => true,
    };
    let candidate = reader.runs()?.into_iter().rev().find(|run| {
        !run.finished
            && run.source == record.source
            && run.topic == record.topic
            && same_cluster(run)
            && wanted.is_none_or(|wanted| wanted == run.run)
            && !reader.is_being_written(run.run)
    });
    Ok(candidate.map(|run| run.run))
}

/// Reads the log for the run's messages, and notes in the ledger those that it did not know to be stored. None: stopped.
pub(super) fn find(
    context: &Context,
    ledger: &mut LedgerWriter,
    topic: &Topic,
    total: u64,
    tally: &mut Tally,
) -> Result<Option<Found>, ProducerError> {
    let run = ledger.record().run;
    tracing::info!("continuing run {run}: reading what of it is stored, and waiting until nothing arrives any more");
    let mut known = Bits::below(total);
    let mut first_known: BTreeMap<i32, i64> = BTreeMap::new();
    LedgerReader::new(&context.settings.ledger_dir).read_outcomes(run, |outcome| {
        if let Outcome::Acknowledged { sequence, partition, offset } = outcome {
            known.insert(sequence);
            if offset >= 0 {
                let first = first_known.entry(partition).or_insert(offset);
                *first = offset.min(*first);
            }
        }
    })?;
    let mut search = Search {
        context,
        run,
        run_text: run.to_string(),
        consumer: consumer(context)?,
        topic: context.settings.kafka.transactions_topic(),
        starts: BTreeMap::new(),
        found: Bits::below(total),
        started_at: ledger.record().info.started_at.clone(),
    };
    if !search.assign(topic.partitions, &first_known)? {
        return Ok(None);
    }
    let finished = search.read(|sequence, partition, offset| {
        tally.note_place(partition, offset);
        if known.contains(sequence) {
            return Ok(());
        }
        known.insert(sequence);
        patiently(context, || ledger.acknowledged(sequence, partition, offset))
    })?;
    patiently(context, || ledger.flush_outcomes())?;
    Ok(finished.then_some(Found(search.found)))
}

fn consumer(context: &Context) -> Result<BaseConsumer, ProducerError> {
    let ours = [
        // Never joined and never committed to; librdkafka wants one for an assignment.
        ("group.id", "finstream-resume"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("fetch.queue.backoff.ms", "10"),
        ("allow.auto.create.topics", "false"),
    ];
    base_config(&context.settings.kafka, &ours).create().map_err(ProducerError::Client)
}

struct Search<'a> {
    context: &'a Context,
    run: RunId,
    run_text: String,
    consumer: BaseConsumer,
    topic: String,
    /// The log's start by partition.
    starts: BTreeMap<i32, i64>,
    found: Bits,
    started_at: String,
}

impl Search<'_> {
    /// Starts at the log's start everywhere. False: stopped while the broker could not be reached.
    fn assign(&mut self, partitions: i32, first_known: &BTreeMap<i32, i64>) -> Result<bool, ProducerError> {
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            let (start, end) = loop {
                match self.consumer.fetch_watermarks(&self.topic, partition, ANSWER_TIMEOUT) {
                    Ok(watermarks) => break watermarks,
                    Err(_) if self.context.shutdown.requested() => return Ok(false),
                    Err(error) => tracing::warn!("waiting for partition {partition} of {}: {error}", self.topic),
                }
            };
            // Nothing left of a log that once held something: nobody can say what it was.
            let emptied = start > 0 && start == end;
            if emptied || first_known.get(&partition).is_some_and(|first| *first < start) {
                return Err(self.cut(partition, start));
            }
            self.starts.insert(partition, start);
            list.add_partition_offset(&self.topic, partition, Offset::Offset(start)).map_err(ProducerError::Client)?;
        }
        self.consumer.assign(&list).map_err(ProducerError::Client)?;
        Ok(true)
    }

    /// Reads until the ends are reached and quiet. False: stopped.
    fn read(
        &mut self,
        mut each: impl FnMut(i64, i32, i64) -> Result<(), ProducerError>,
    ) -> Result<bool, ProducerError> {
        let mut last_arrival = Instant::now();
        let mut complaints = Complaints::since(Instant::now());
        while !self.context.shutdown.requested() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    self.check_first(&message)?;
                    if let Some(sequence) = sequence_in(&message, &self.run_text) {
                        self.found.insert(sequence);
                        each(sequence, message.partition(), message.offset())?;
                        // Old records count as well: reading them takes no longer than the wait itself.
                        last_arrival = Instant::now();
                    }
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OffsetOutOfRange)))
                | Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    return Err(self.undecidable("the log was cut while it was read".to_owned()));
                }
                Some(Err(error)) => {
                    if complaints.is_due(Instant::now()) {
                        tracing::warn!("continuing run {}: {error}", self.run);
                    }
                }
                None => {
                    if last_arrival.elapsed() >= QUIET && self.is_at_the_ends() {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Whether every partition is read up to its present end; false, too, while the broker does not answer.
    fn is_at_the_ends(&self) -> bool {
        let Ok(positions) = self.consumer.position() else { return false };
        self.starts.iter().all(|(partition, start)| {
            let Ok((_, end)) = self.consumer.fetch_watermarks(&self.topic, *partition, ANSWER_TIMEOUT) else {
                return false;
            };
            let position = match positions.find_partition(&self.topic, *partition).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => *start,
            };
            position >= end
        })
    }

    /// A log that does not begin at 0 must begin before the run did, or records of the run may have been cut off.
    fn check_first(&self, message: &BorrowedMessage<'_>) -> Result<(), ProducerError> {
        let start = self.starts.get(&message.partition()).copied().unwrap_or(0);
        if start == 0 || message.offset() != start {
            return Ok(());
        }
        let older = message.timestamp().to_millis().is_some_and(|millis| {
            // Both in RFC 3339 with the same precision: they sort as text.
            Micros(millis.saturating_mul(1_000)).to_string() < self.started_at
        });
        if older { Ok(()) } else { Err(self.cut(message.partition(), start)) }
    }

    fn cut(&self, partition: i32, start: i64) -> ProducerError {
        self.undecidable(format!(
            "partition {partition} of {} begins at offset {start}, so that records of the run may have been retired",
            self.topic
        ))
    }

    fn undecidable(&self, why: String) -> ProducerError {
        let why = format!("{why}; nobody can say what is missing. Move its ledger away to begin a new run");
        ProducerError::Undecidable { run: self.run, why }
    }
}

/// The message's place in the run, if it is of that run.
fn sequence_in(message: &BorrowedMessage<'_>, run: &str) -> Option<i64> {
    let text = |name: &str| {
        let header = message.headers()?.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok()
    };
    (text(HEADER_RUN)? == run).then(|| text(HEADER_SEQUENCE)?.parse().ok()).flatten()
}
