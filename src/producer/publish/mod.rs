//! The loop: stage what is due soon, write the intents, send each message at its time, settle what comes back.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Client, Deliveries};
use super::resume::Found;
use super::staged::Staged;
use super::start::Context;
use super::tally::{Complaints, Tally, patiently};
use super::{ProducerError, ProducerReport};
use crate::clock::Micros;
use crate::config::Pace;
use crate::ledger::LedgerWriter;
use crate::metrics::PRODUCER_SCHEDULED_TOTAL;
use crate::progress::Progress;
use crate::shutdown::Stage;
use crate::source::arrival::Arrivals;
use crate::source::{Draft, Next, Source};
use crate::transaction::{HEADER_RUN, HEADER_RUN_INFO, HEADER_SEQUENCE, MessageId, RunId};

/// Messages whose intents share one write, at most.
const STAGED_MESSAGES_MAX: usize = 1024;
/// How far ahead of their time messages are staged.
const STAGED_AHEAD_US: i64 = 10_000;
/// Between two looks at a source that has nothing yet: more than what is staged ahead.
const NOT_YET_US: i64 = 75_000;
/// Between two looks at delivery reports; outcomes are in the ledger this soon.
const SETTLE_INTERVAL: Duration = Duration::from_millis(25);
/// The shortest sleep: at high rates, a few messages share a wake-up.
const SLEEP_MIN: Duration = Duration::from_micros(200);
/// The longest sleep: how late a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(25);
/// The same while nothing is under way that could be settled.
const SLEEP_IDLE_MAX: Duration = Duration::from_millis(75);
/// While the client's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);
/// Longest drain after somebody asked to stop, whatever the settings say.
const DRAIN_ON_REQUEST_MAX: Duration = Duration::from_secs(8);
/// The first so many messages carry the run's description, and then every so many-th.
const RUN_INFO_FIRST: i64 = 64;
const RUN_INFO_EVERY: i64 = 10_000;

mod ahead;
mod ending;
mod trouble;

use ahead::Ahead;

pub(in crate::producer) struct Publisher<'a> {
    context: &'a Context,
    source: Box<dyn Source>,
    /// None only while it is being replaced and after the drain.
    client: Option<Client>,
    deliveries: Arc<Deliveries>,
    ledger: LedgerWriter,
    tally: Tally,
    found: Option<Found>,
    arrivals: Arrivals,
    start: Micros,
    end: Option<Micros>,
    staged: Staged,
    draft: Draft,
    /// The draft's due time, once it is filled.
    pending: Option<Micros>,
    run: RunId,
    run_text: String,
    run_info: String,
    topic: String,
    next_sequence: i64,
    /// The source or the count is at its end.
    exhausted: bool,
    /// The next message is due after the end of the duration.
    time_is_over: bool,
    scheduled: u64,
    settled_at: Instant,
    stop_seen_at: Option<Instant>,
    complaints: Complaints,
    ahead: Ahead,
    failed_shown: u64,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

impl<'a> Publisher<'a> {
    pub(in crate::producer) fn new(
        context: &'a Context,
        source: Box<dyn Source>,
        client: Client,
        deliveries: Arc<Deliveries>,
        ledger: LedgerWriter,
        tally: Tally,
        found: Option<Found>,
    ) -> Result<Publisher<'a>, ProducerError> {
        let start = context.clock.now();
        let end = context.settings.duration.map(|duration| Micros(start.0.saturating_add(duration.as_micros() as i64)));
        let record = ledger.record();
        let arrivals = Arrivals::new(&context.settings.pace, context.settings.source.seed(), start)?;
        Ok(Publisher {
            context,
            source,
            client: Some(client),
            deliveries,
            tally,
            found,
            arrivals,
            start,
            end,
            staged: Staged::default(),
            draft: Draft::default(),
            pending: None,
            run: record.run,
            run_text: record.run.to_string(),
            // Strings and numbers only: this cannot fail, and an empty header would be understood as none.
            run_info: serde_json::to_string(&record.info).unwrap_or_default(),
            topic: record.topic.clone(),
            ledger,
            next_sequence: 0,
            exhausted: false,
            time_is_over: false,
            scheduled: 0,
            settled_at: Instant::now(),
            stop_seen_at: None,
            complaints: Complaints::since(Instant::now()),
            ahead: Ahead::default(),
            failed_shown: 0,
        })
    }

    /// Sends until the end or the stop, then drains. What is known is in the ledger also after an error.
    pub(in crate::producer) fn run(mut self) -> Result<ProducerReport, ProducerError> {
        let produced = self.produce();
        let drained = self.drain();
        produced?;
        drained?;
        self.finish()
    }

    fn produce(&mut self) -> Result<(), ProducerError> {
        while !self.context.shutdown.requested() {
            let now = self.context.clock.now();
            if self.is_held_up() && self.end.is_none_or(|end| now < end) {
                self.rest(SLEEP_MAX.as_micros() as i64)?;
                continue;
            }
            let Some(due) = self.stage(now)? else {
                // Nothing more is due within the duration, which is waited for all the same.
                match self.end.filter(|end| !self.exhausted && now < *end) {
                    Some(end) => self.rest(end.since(now))?,
                    None => break,
                }
                continue;
            };
            if self.staged.is_empty() {
                // Nothing is due soon: no intents yet for what a stop would leave unsent.
                self.rest(due.since(now) - STAGED_AHEAD_US / 2)?;
                continue;
            }
            let ledger = &mut self.ledger;
            patiently(self.context, || ledger.flush_intents())?;
            for index in 0..self.staged.len() {
                if self.wait_until(self.staged.due(index))? == Flow::Stop || self.send(index)? == Flow::Stop {
                    return Ok(());
                }
            }
            self.settle_sometimes()?;
        }
        Ok(())
    }

    /// A disk is nearly full, or what is sent at no rate of its own comes too fast.
    fn is_held_up(&mut self) -> bool {
        let is_too_fast = matches!(self.context.settings.pace, Pace::Max) && self.ahead.is_far(&self.context.progress);
        *self.context.paused.borrow() || is_too_fast
    }

    /// Stages the messages that are due soon and notes their intents. The due time of the next one; None at the end.
    fn stage(&mut self, now: Micros) -> Result<Option<Micros>, ProducerError> {
        self.staged.clear();
        let mut next_due = None;
        while self.staged.len() < STAGED_MESSAGES_MAX {
            let Some(due) = self.peek(now)? else { break };
            next_due = Some(due);
            if due.since(now) > STAGED_AHEAD_US {
                break;
            }
            let sequence = self.next_sequence;
            self.staged.push(MessageId { run: self.run, sequence }, &self.draft, due);
            // A message that an earlier process intended is not intended a second time.
            if sequence >= self.ledger.next_sequence() {
                let (ledger, draft) = (&mut self.ledger, &self.draft);
                patiently(self.context, || ledger.intend(sequence, &draft.user_id, draft.currency, draft.amount))?;
            }
            self.pending = None;
            self.next_sequence += 1;
        }
        Ok(next_due)
    }

    /// Fills the draft with the next message that has to be sent; its due time, or None at the end.
    fn peek(&mut self, now: Micros) -> Result<Option<Micros>, ProducerError> {
        if self.pending.is_some() {
            return Ok(self.pending);
        }
        loop {
            let counted_out = self.context.settings.count.is_some_and(|count| self.next_sequence as u64 >= count);
            if self.time_is_over {
                return Ok(None);
            }
            let next =
                if self.exhausted || counted_out { Next::End } else { self.source.next_into(&mut self.draft)? };
            match next {
                Next::Draft => {}
                Next::NotYet if self.end.is_some_and(|end| now >= end) => {
                    self.time_is_over = true;
                    return Ok(None);
                }
                Next::NotYet => return Ok(Some(Micros(now.0.saturating_add(NOT_YET_US)))),
                Next::End => {
                    self.exhausted = true;
                    return Ok(None);
                }
            }
            if !self.found.as_ref().is_some_and(|found| found.contains(self.next_sequence)) {
                break;
            }
            self.next_sequence += 1;
        }
        let due = self.arrivals.next(self.draft.event_time, now);
        if self.end.is_some_and(|end| due >= end) {
            self.time_is_over = true;
            return Ok(None);
        }
        self.pending = Some(due);
        Ok(self.pending)
    }

    /// Sleeps until a message is due, settling meanwhile. Only an urgent stop cuts it short: the rest of what is staged
    /// is due within milliseconds.
    fn wait_until(&mut self, due: Micros) -> Result<Flow, ProducerError> {
        loop {
            let left_us = due.since(self.context.clock.now());
            if left_us <= 0 {
                return Ok(Flow::On);
            }
            if self.context.shutdown.stage() == Stage::Now {
                return Ok(Flow::Stop);
            }
            self.rest(left_us)?;
        }
    }

    fn rest(&mut self, wanted_us: i64) -> Result<(), ProducerError> {
        self.settle_sometimes()?;
        let longest = if self.tally.outstanding() == 0 { SLEEP_IDLE_MAX } else { SLEEP_MAX };
        thread::sleep(Duration::from_micros(wanted_us.max(0) as u64).clamp(SLEEP_MIN, longest));
        Ok(())
    }

    fn send(&mut self, index: usize) -> Result<Flow, ProducerError> {
        let mut trouble = None;
        loop {
            let sent_at = self.context.clock.now();
            self.staged.stamp(index, sent_at);
            match self.hand_over(index, sent_at) {
                Ok(()) => {
                    // At once: nobody may see it stored and not sent.
                    Progress::add(&self.context.progress.sent, 1);
                    self.tally.sent(sent_at.since(self.staged.due(index)));
                    return Ok(Flow::On);
                }
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {
                    if self.stop_time_left() == Some(Duration::ZERO) {
                        return Ok(Flow::Stop);
                    }
                    self.settle_sometimes()?;
                    thread::sleep(QUEUE_FULL_PAUSE);
                }
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::Fatal)) => self.replace_client()?,
                // Too large today is too large tomorrow.
                Err(error @ KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                    return Err(self.refused(index, error));
                }
                Err(KafkaError::MessageProduction(code)) => {
                    if self.stop_time_left() == Some(Duration::ZERO) {
                        return Ok(Flow::Stop);
                    }
                    self.wait_for_topic(code, &mut trouble)?;
                }
                Err(error) => return Err(self.refused(index, error)),
            }
        }
    }

    /// How long what is under way may still take once somebody asked to stop; None before that.
    fn stop_time_left(&mut self) -> Option<Duration> {
        let stage = self.context.shutdown.stage();
        if stage == Stage::Running {
            return None;
        }
        let asked = *self.stop_seen_at.get_or_insert_with(Instant::now);
        let limit = self.context.settings.drain_timeout.min(DRAIN_ON_REQUEST_MAX);
        Some(if stage == Stage::Now { Duration::ZERO } else { limit.saturating_sub(asked.elapsed()) })
    }

    fn hand_over(&self, index: usize, sent_at: Micros) -> Result<(), KafkaError> {
        let sequence = self.staged.sequence(index);
        let mut sequence_text = itoa::Buffer::new();
        let mut headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: HEADER_RUN, value: Some(&self.run_text) })
            .insert(Header { key: HEADER_SEQUENCE, value: Some(sequence_text.format(sequence)) });
        if sequence < RUN_INFO_FIRST || sequence % RUN_INFO_EVERY == 0 {
            headers = headers.insert(Header { key: HEADER_RUN_INFO, value: Some(&self.run_info) });
        }
        let (key, payload) = self.staged.record(index);
        let record = BaseRecord::with_opaque_to(&self.topic, sequence as usize)
            .key(key)
            .payload(payload)
            .timestamp(sent_at.as_millis())
            .headers(headers);
        match &self.client {
            Some(client) => client.send(record).map_err(|(error, _)| error),
            None => Err(KafkaError::Canceled),
        }
    }

    fn settle_sometimes(&mut self) -> Result<(), ProducerError> {
        if self.settled_at.elapsed() < SETTLE_INTERVAL {
            return Ok(());
        }
        self.settled_at = Instant::now();
        self.settle()?;
        self.complain();
        if self.client.as_ref().is_some_and(|client| client.client().fatal_error().is_some()) {
            self.replace_client()?;
        }
        Ok(())
    }

    /// Arrivals are shown before what was sent of them, so that no viewer sees more sent than scheduled.
    fn settle(&mut self) -> Result<(), ProducerError> {
        self.show_scheduled();
        self.tally.settle(&self.deliveries, &mut self.ledger, self.context)
    }

    fn show_scheduled(&mut self) {
        let now = self.context.clock.now();
        let now = self.end.map_or(now, |end| now.min(Micros(end.0 - 1)));
        let over = self.exhausted || self.context.shutdown.requested();
        let scheduled = if over { self.tally.sent } else { self.arrivals.arrived_by(now) };
        let limit = self.context.settings.count.or(self.source.total()).unwrap_or(u64::MAX);
        let scheduled = scheduled.min(limit).max(self.tally.sent).max(self.scheduled);
        Progress::add(&self.context.progress.scheduled, scheduled - self.scheduled);
        metrics::counter!(PRODUCER_SCHEDULED_TOTAL).increment(scheduled - self.scheduled);
        self.scheduled = scheduled;
    }
}
