//! The polling thread: librdkafka's consumer, from joining the group to leaving it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::ConsumerError;
use super::assignment::Verdict;
use super::leave::Membership;
use super::orphans::Orphans;
use super::rebalance::Context;
use super::record::Record;
use super::shared::{Mode, Shared};
use crate::sink::{LogRange, Mismatch, Reason};

/// Longest wait in one poll: how soon a stop or a fence is noticed when nothing comes.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Records between two looks at what else there is to do.
const RECORDS_PER_CHORES: u32 = 256;
/// A writer busy for longer than this is in trouble: fetching pauses, and the group is served meanwhile.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How often the group's offsets follow what PostgreSQL holds.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How often the ends of the log are asked for while fetching is paused.
const LOOK_AT_ENDS_EVERY: Duration = Duration::from_secs(1);
/// An end of a partition counts as drained when nothing followed for this long.
const END_IS_QUIET_AFTER: Duration = Duration::from_millis(500);
/// Storing what is pending and leaving the group, together.
const LEAVE_WITHIN: Duration = Duration::from_secs(7);
/// What leaving the group may take in any case.
const LEAVE_TIMEOUT_MIN: Duration = Duration::from_secs(3);
/// One question about a log's range.
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(2);

/// The consumer's loop.
pub(super) struct Poller {
    shared: Arc<Shared>,
    consumer: BaseConsumer<Context>,
    membership: Membership,
    orphans: Orphans,
    /// Longest wait for pending messages to be stored at a stop.
    drain_timeout: Duration,
    is_paused: bool,
    /// Where the partitions ended when the time was over.
    ends: Option<BTreeMap<i32, i64>>,
    committed: BTreeMap<i32, i64>,
    committed_at: Instant,
    looked_at_ends: Instant,
    /// The trouble that was said last, so that it is said once.
    trouble: Option<RDKafkaErrorCode>,
}

impl Poller {
    /// A consumer that joins the group with its first poll.
    pub(super) fn subscribe(
        config: &ClientConfig,
        shared: Arc<Shared>,
        drain_timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer<Context> = config.create_with_context(Context(shared.clone()))?;
        consumer.subscribe(&[&shared.topic])?;
        let (membership, topic) = (Membership::of(config), shared.topic.clone());
        Ok(Poller {
            shared,
            consumer,
            orphans: Orphans::new(membership.group.clone(), topic),
            membership,
            drain_timeout,
            is_paused: false,
            ends: None,
            committed: BTreeMap::new(),
            committed_at: Instant::now(),
            looked_at_ends: Instant::now(),
            trouble: None,
        })
    }

    /// Runs until the mode says stop, or reading cannot go on; then leaves the group cleanly.
    pub(super) fn run(mut self) {
        if let Err(error) = self.read() {
            self.shared.fail(error);
        }
        self.leave();
        self.shared.lanes.close();
    }

    fn read(&mut self) -> Result<(), ConsumerError> {
        let mut records_since_chores = 0;
        loop {
            match self.shared.mode() {
                Mode::Run => {}
                Mode::DrainToEnds if self.is_drained() => return Ok(()),
                Mode::DrainToEnds => {}
                Mode::Stop | Mode::Now => return Ok(()),
            }
            if records_since_chores == 0 {
                self.do_chores()?;
            }
            records_since_chores = (records_since_chores + 1) % RECORDS_PER_CHORES;
            // Without a deadline librdkafka looks at no clock; most records are there already.
            let polled = self.consumer.poll(Duration::ZERO).or_else(|| self.consumer.poll(POLL_TIMEOUT));
            match polled {
                Some(Ok(record)) => {
                    // Fetched after the topic got another id, it is none of those whose offsets are known here.
                    self.refuse_recreated()?;
                    self.trouble = None;
                    if take(&self.shared, &record)? {
                        records_since_chores = 0;
                    }
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.shared.assignment().end(partition).map_err(ConsumerError::Mismatch)?;
                }
                Some(Err(error)) => self.judge(error)?,
                None => {}
            }
            records_since_chores = 0;
        }
    }

    /// What needs no doing for each record: locks and clocks would cost more than the record itself.
    fn do_chores(&mut self) -> Result<(), ConsumerError> {
        self.shared.polls();
        self.refuse_recreated()?;
        self.give_up_fenced();
        self.press_back()?;
        if self.shared.has_joined() && self.orphans.are_there(&self.consumer) {
            self.come_again()?;
        }
        if self.committed_at.elapsed() >= COMMIT_EVERY {
            self.commit_offsets();
        }
        Ok(())
    }

    /// Leaves the group and joins it again, so that it gives away all partitions.
    fn come_again(&mut self) -> Result<(), ConsumerError> {
        tracing::info!("a partition was left to nobody by a rebalance that was cut off; joining the group again");
        self.membership.leave(&self.consumer, &self.shared, Instant::now() + LEAVE_TIMEOUT_MIN);
        // Where the group did not take them back in time: records of them were dropped meanwhile, and the next ones must
        // not be applied behind that gap.
        let left = self.shared.assignment().numbers();
        self.shared.lanes.remove(&left);
        self.shared.lanes.release(&left);
        self.shared.forget(&left);
        self.shared.set_joined(false);
        let what = || "joining the consumer group again".to_owned();
        self.consumer.subscribe(&[&self.shared.topic]).map_err(|error| ConsumerError::Kafka { what: what(), error })
    }

    fn refuse_recreated(&self) -> Result<(), ConsumerError> {
        if !self.shared.is_recreated() {
            return Ok(());
        }
        match self.shared.assignment().recreated() {
            Some(mismatch) => Err(ConsumerError::Mismatch(mismatch)),
            // Nothing is owned, so nothing is read; an assignment compares for itself.
            None => {
                self.shared.set_recreated(false);
                Ok(())
            }
        }
    }

    /// While a batch is full, waits for its writer; when that takes long, fetching is paused and the group served.
    fn press_back(&mut self) -> Result<(), ConsumerError> {
        let wait = if self.is_paused { Duration::ZERO } else { PAUSE_AFTER };
        let has_room = self.shared.lanes.wait_for_room(wait);
        if !has_room {
            // Each time: partitions may have come since, and those that are paused already do not mind.
            self.set_paused(true)?;
            self.look_at_ends();
        } else if self.is_paused {
            self.set_paused(false)?;
        }
        Ok(())
    }

    /// While nothing is fetched, nothing tells librdkafka's statistics where the log ends: the lag would stand still.
    fn look_at_ends(&mut self) {
        if self.looked_at_ends.elapsed() < LOOK_AT_ENDS_EVERY {
            return;
        }
        self.looked_at_ends = Instant::now();
        let numbers = self.shared.assignment().numbers();
        // A broker that does not answer about one partition is not asked about the next.
        let ends = numbers.into_iter().map_while(|number| Some((number, self.log_range(number)?.end)));
        self.shared.set_log_ends(ends.collect::<Vec<_>>());
    }

    fn set_paused(&mut self, is_paused: bool) -> Result<(), ConsumerError> {
        let what = || "pausing while PostgreSQL is busy".to_owned();
        let partitions = self.consumer.assignment().map_err(|error| ConsumerError::Kafka { what: what(), error })?;
        let done = if is_paused { self.consumer.pause(&partitions) } else { self.consumer.resume(&partitions) };
        done.map_err(|error| ConsumerError::Kafka { what: what(), error })?;
        self.shared.assignment().may_repeat();
        self.is_paused = is_paused;
        Ok(())
    }

    /// Partitions that others have claimed are read no more; the group's next rebalance takes them formally.
    fn give_up_fenced(&self) {
        let fenced = self.shared.take_fenced();
        if fenced.is_empty() {
            return;
        }
        self.shared.lanes.remove(&fenced);
        self.shared.forget(&fenced);
        self.shared.silence(&fenced);
        let mut list = TopicPartitionList::new();
        for partition in fenced {
            list.add_partition(&self.shared.topic, partition);
        }
        if let Err(error) = self.consumer.pause(&list) {
            tracing::debug!("pausing fenced partitions: {error}");
        }
    }

    fn commit_offsets(&mut self) {
        self.committed_at = Instant::now();
        let applied = self.shared.applied();
        if applied != self.committed {
            let numbers: Vec<i32> = applied.keys().copied().collect();
            self.consumer.context().commit_offsets(&self.consumer, &numbers);
            self.committed = applied;
        }
    }

    /// Whether every owned partition was read to where it ended when the time was over.
    fn is_drained(&mut self) -> bool {
        if self.ends.is_none() {
            let numbers = self.shared.assignment().numbers();
            let ends: Option<BTreeMap<i32, i64>> =
                numbers.into_iter().map(|number| self.log_range(number).map(|log| (number, log.end))).collect();
            // A broker that does not answer is asked again in the next round; the caller bounds the drain.
            self.ends = ends;
        }
        let Some(ends) = &self.ends else { return false };
        // Control records at the end have offsets but are never delivered, so the position alone may never get there.
        self.shared.assignment().positions().all(|(number, position, ended_at)| {
            ends.get(&number).is_none_or(|end| position >= *end)
                || ended_at.is_some_and(|ended_at| ended_at.elapsed() >= END_IS_QUIET_AFTER)
        })
    }

    fn log_range(&self, number: i32) -> Option<LogRange> {
        let (start, end) = self.consumer.fetch_watermarks(&self.shared.topic, number, WATERMARK_TIMEOUT).ok()?;
        Some(LogRange { start, end })
    }

    fn judge(&mut self, error: KafkaError) -> Result<(), ConsumerError> {
        let code = match &error {
            KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId) => {
                return Err(ConsumerError::FencedInstance);
            }
            KafkaError::MessageConsumptionFatal(_) => {
                return Err(ConsumerError::Kafka { what: "reading".to_owned(), error });
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => return self.out_of_range(error),
            KafkaError::MessageConsumption(code) | KafkaError::Global(code) => *code,
            _ => return Err(ConsumerError::Kafka { what: "reading".to_owned(), error }),
        };
        if matches!(
            code,
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        ) || self.trouble.is_none()
        {
            self.say(code);
        }
        Ok(())
    }

    /// Says a trouble once, until records come again.
    fn say(&mut self, code: RDKafkaErrorCode) {
        if self.trouble != Some(code) {
            tracing::warn!("reading {}: {code}; trying on, nothing is skipped", self.shared.topic);
            self.trouble = Some(code);
        }
    }

    /// The log does not hold the offset that was asked for: retention or a recreated topic has overtaken this consumer.
    fn out_of_range(&self, error: KafkaError) -> Result<(), ConsumerError> {
        let positions: Vec<(i32, i64)> =
            self.shared.assignment().positions().map(|(number, position, _)| (number, position)).collect();
        for (partition, next_offset) in positions {
            let Some(log) = self.log_range(partition) else { continue };
            let reason = if log.start > next_offset {
                Reason::Cut
            } else if log.end < next_offset {
                Reason::EndsBefore
            } else {
                continue;
            };
            let topic = self.shared.topic.clone();
            return Err(ConsumerError::Mismatch(Box::new(Mismatch {
                topic,
                partition,
                next_offset,
                log,
                reason,
                go_on_at: log.start,
            })));
        }
        Err(ConsumerError::Kafka { what: "the log does not hold the offset to go on from".to_owned(), error })
    }

    /// Stores what is pending, gives the partitions back, and waits until the group has them.
    fn leave(&mut self) {
        let began = Instant::now();
        if self.shared.mode() < Mode::Now && !self.shared.lanes.flush(self.drain_timeout) {
            tracing::warn!(
                "{} messages that were read are not stored; the next start reads them again",
                self.shared.lanes.pending()
            );
        }
        self.commit_offsets();
        let leave_by = (began + LEAVE_WITHIN).max(Instant::now() + LEAVE_TIMEOUT_MIN);
        self.membership.leave(&self.consumer, &self.shared, leave_by);
    }
}

/// Puts a record into the batch, unless it is known; whether the batch is full now.
fn take(shared: &Shared, record: &BorrowedMessage<'_>) -> Result<bool, ConsumerError> {
    let received_at = shared.clock.now();
    let (partition, offset) = (record.partition(), record.offset());
    let record = Record::read(record, received_at);
    let verdict =
        shared.assignment().judge(partition, offset, || record.fingerprint()).map_err(ConsumerError::Mismatch)?;
    let mut is_full = false;
    if verdict == Verdict::Apply {
        record.decode_into(|add| is_full = shared.lanes.push(partition, add));
    }
    Ok(is_full)
}
