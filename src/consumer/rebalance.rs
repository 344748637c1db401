//! What happens when partitions come and go. Runs on the polling thread, inside `poll`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::ConsumerError;
use super::assignment::Partition;
use super::shared::{Mode, Shared};
use crate::metrics::CONSUMER_REBALANCES_TOTAL;
use crate::seam::{self, Seam};
use crate::sink::{Claimed, LogRange, PartitionProgress, Reason, Resume, resume};

/// Longest wait for pending messages when partitions are revoked: the next owner waits for it.
const REVOKE_FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// One question about a log's range.
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(2);
/// A log that seems to end too early is asked again for this long: a new leader learns its end a moment later.
const END_SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// Between two questions.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// librdkafka's callbacks.
pub(super) struct Context(pub Arc<Shared>);

/// What librdkafka calls the id of a topic that it has not seen yet.
const NO_TOPIC_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Whether librdkafka's log says that a topic which it knew has another id now.
///
/// It says so, from inside the metadata answer and before it fetches under the new id, and reads on at the old offsets:
/// its source calls that a known gap. Its interface tells nothing, hence this look at the log (docs/decisions/0010).
fn is_new_topic_id(message: &str, topic: &str) -> bool {
    let told = message.split_once("Topic ").and_then(|(_, told)| told.strip_prefix(topic));
    let ids = told.and_then(|told| told.strip_prefix(" changed id from ")).and_then(|ids| ids.split_once(" to "));
    // A broker that gives no ids, in a cluster whose others do, proves nothing.
    ids.is_some_and(|(from, to)| from != NO_TOPIC_ID && to.trim_end() != NO_TOPIC_ID)
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "{message}");
            }
            // Connection trouble is said once, by the polling thread, in words for people.
            _ => {
                if is_new_topic_id(message, &self.0.topic) {
                    self.0.set_recreated(true);
                }
                tracing::debug!(facility, "{message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("{error}: {reason}");
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.0.topic) else { return };
        self.0.set_log_ends(topic.partitions.iter().filter_map(|(number, partition)| {
            let end = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
            (*number >= 0 && end >= 0).then_some((*number, end))
        }));
        let starts = topic.partitions.iter().map(|(number, partition)| (*number, partition.lo_offset));
        self.0.set_log_starts(starts.filter(|(number, start)| *number >= 0 && *start >= 0));
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let numbers: Vec<i32> = partitions.elements().iter().map(|element| element.partition()).collect();
        let is_assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        tracing::debug!(?numbers, is_assign, "rebalance");
        metrics::counter!(CONSUMER_REBALANCES_TOTAL).increment(1);
        self.0.polls();
        self.0.set_joined(true);
        self.0.assignment().may_repeat();
        let done = if is_assign { self.assign(consumer, numbers) } else { self.revoke(consumer, partitions, numbers) };
        if let Err(error) = done {
            self.0.fail(ConsumerError::Kafka { what: "taking over partitions".to_owned(), error });
        }
        if is_assign {
            // Claims wait for PostgreSQL, while heartbeats go on; what is given back is not waited for that long.
            self.0.rest();
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // Only lag tools look at these offsets; the next commit carries them too.
            tracing::debug!("committing the group's offsets: {error}");
        }
    }
}

impl Context {
    fn assign(&self, consumer: &BaseConsumer<Self>, numbers: Vec<i32>) -> KafkaResult<()> {
        let mut starts: BTreeMap<i32, i64> = BTreeMap::new();
        if self.0.mode() < Mode::Stop && !numbers.is_empty() {
            let claims = self.0.lanes.claim(&numbers);
            // A writer tells of its last batch before it answers a claim.
            self.0.forget_fences(&claims);
            for claimed in claims {
                match self.begin(consumer, &claimed) {
                    Ok(Some(from)) => {
                        starts.insert(claimed.partition, from);
                    }
                    Ok(None) => {}
                    Err(error) => self.0.fail(error),
                }
            }
        }
        // They were fenced once; a pause would outlast the rebalance, and nothing would ever be read of them here.
        let mut silenced = TopicPartitionList::new();
        for number in self.0.take_silenced(&numbers) {
            silenced.add_partition(&self.0.topic, number);
        }
        if silenced.count() > 0 {
            consumer.resume(&silenced)?;
        }
        let mut list = TopicPartitionList::new();
        for number in numbers {
            // A partition that cannot go on is assigned all the same: librdkafka never finishes giving back what was
            // not assigned. Its records are ignored, since this consumer does not own it, and progress stays.
            let from = starts.get(&number).map_or(Offset::End, |from| Offset::Offset(*from));
            list.add_partition_offset(&self.0.topic, number, from)?;
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&list),
            _ => consumer.assign(&list),
        }
    }

    /// Where to read a claimed partition from; none when it is time to stop.
    fn begin(&self, consumer: &BaseConsumer<Self>, claimed: &Claimed) -> Result<Option<i64>, ConsumerError> {
        let Claimed { partition, epoch, next_offset, ref fingerprint, .. } = *claimed;
        let progress = PartitionProgress { partition, next_offset, fingerprint: fingerprint.clone() };
        let asked_since = Instant::now();
        let mut last = None;
        let (resume, log) = loop {
            let Some(log) = self.log_range(consumer, partition) else {
                return last.map_or(Ok(None), |mismatch| Err(ConsumerError::Mismatch(mismatch)));
            };
            match resume(&self.0.topic, &progress, log) {
                Ok(resume) => break (resume, log),
                Err(mismatch)
                    if mismatch.reason == Reason::EndsBefore && asked_since.elapsed() < END_SETTLES_WITHIN =>
                {
                    last = Some(mismatch);
                    std::thread::sleep(ASK_AGAIN_AFTER);
                }
                Err(mismatch) => return Err(ConsumerError::Mismatch(mismatch)),
            }
        };
        let (from, unverified) = match resume {
            Resume::At(offset) => (offset, None),
            Resume::Verify { from, fingerprint } => (from, Some(fingerprint)),
            Resume::Retired(offset) => {
                tracing::info!(
                    "{} partition {partition}: the last record that was counted ({}) has been retired since; going on at {offset}",
                    self.0.topic,
                    offset - 1
                );
                (offset, None)
            }
        };
        let owned = Partition::new(next_offset, unverified, log);
        self.0.assignment().insert(partition, owned);
        self.0.begin_applied(partition, next_offset);
        self.0.set_log_starts([(partition, log.start)]);
        self.0.set_log_ends([(partition, log.end)]);
        if partition == 0 {
            self.0.partition_zero.send_replace(Some(epoch));
        }
        Ok(Some(from))
    }

    /// What the log of a partition holds; asks until it is answered or it is time to stop. Heartbeats go on meanwhile.
    fn log_range(&self, consumer: &BaseConsumer<Self>, partition: i32) -> Option<LogRange> {
        let mut has_said_so = false;
        while self.0.mode() < Mode::Stop {
            match consumer.fetch_watermarks(&self.0.topic, partition, WATERMARK_TIMEOUT) {
                Ok((start, end)) => return Some(LogRange { start, end }),
                Err(error) => {
                    if !has_said_so {
                        tracing::warn!("waiting for the broker to say what partition {partition} holds: {error}");
                        has_said_so = true;
                    }
                    std::thread::sleep(ASK_AGAIN_AFTER);
                }
            }
        }
        None
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList, numbers: Vec<i32>) -> KafkaResult<()> {
        let is_lost = consumer.assignment_lost();
        if is_lost && !numbers.is_empty() {
            tracing::warn!(
                partitions = ?numbers,
                "fenced: the group had not heard of this consumer for the length of its session, and gave its partitions to \
                 others; what was read of them and is not stored is theirs now"
            );
        }
        if !is_lost && self.0.mode() < Mode::Now && !self.0.lanes.flush(REVOKE_FLUSH_TIMEOUT) {
            tracing::warn!(
                ?numbers,
                "partitions are given up before their last messages are stored; the next owner reads them again"
            );
        }
        self.0.lanes.remove(&numbers);
        let is_broken = seam::reach_blocking(Seam::Revoke).is_err();
        if !is_lost && !is_broken {
            self.commit_offsets(consumer, &numbers);
        }
        self.0.lanes.release(&numbers);
        self.0.forget(&numbers);
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        }
    }

    /// Commits the group's offsets of these partitions, so that lag tools see them; nothing depends on it.
    pub(super) fn commit_offsets(&self, consumer: &BaseConsumer<Self>, numbers: &[i32]) {
        let mut list = TopicPartitionList::new();
        for (number, next_offset) in self.0.applied() {
            if numbers.contains(&number)
                && list.add_partition_offset(&self.0.topic, number, Offset::Offset(next_offset)).is_err()
            {
                return;
            }
        }
        if list.count() > 0
            && seam::reach_blocking(Seam::BeforeKafkaCommit).is_ok()
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!("committing the group's offsets: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_new_topic_id;

    #[test]
    fn only_another_id_of_this_topic_counts() {
        let says = |text: &str| is_new_topic_id(text, "t");
        assert!(says("[thrd:main]: Topic t changed id from 1p9ZcYV6SFCRLk4Ml-CbwQ to xU5QKFHfS0imOJVg0Jm6cQ"));
        assert!(!says("[thrd:main]: Topic t changed id from AAAAAAAAAAAAAAAAAAAAAA to xU5QKFHfS0imOJVg0Jm6cQ"));
        assert!(!says("[thrd:main]: Topic t changed id from xU5QKFHfS0imOJVg0Jm6cQ to AAAAAAAAAAAAAAAAAAAAAA"));
        assert!(!says("[thrd:main]: Topic tt changed id from 1p9ZcYV6SFCRLk4Ml-CbwQ to xU5QKFHfS0imOJVg0Jm6cQ"));
        assert!(!says("[thrd:main]: Topic t [0] Leader 1 Epoch 0"));
    }
}
