//! The offsets of one group: committed ones, and those of open transactions, which count once these are committed.
//!
//! Of two commits for one partition that one holds which lies later in the log, also when a transaction ends after it.
//! Pure: what is told here is durable already.
//!
//! Source: KIP-98, KIP-211 (expiry), KIP-447; `OffsetMetadataManager` in Apache Kafka.

use std::collections::{BTreeMap, BTreeSet};

use super::bounds::offset_bytes;

/// Topic and partition.
pub(crate) type OffsetKey = (String, i32);

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    /// Wall clock of the commit.
    pub(crate) commit_timestamp_ms: i64,
    /// Wall clock when it may be forgotten, if the client had a say in that.
    pub(crate) expire_timestamp_ms: Option<i64>,
}

impl CommittedOffset {
    /// What is told of a partition for which nothing was committed.
    pub(crate) fn none() -> CommittedOffset {
        CommittedOffset {
            offset: -1,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms: -1,
            expire_timestamp_ms: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    /// Where its record lies in the log.
    log_offset: i64,
    committed: CommittedOffset,
}

/// From when on the retention time of offsets counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetainedSince {
    /// All of them: wall clock.
    Moment(i64),
    /// Each from its own commit on.
    Commit,
}

/// One offset a partition, and what all of them hold in memory: every commit asks for that.
#[derive(Debug, Default)]
struct ByPartition {
    placed: BTreeMap<OffsetKey, Placed>,
    bytes: usize,
}

impl ByPartition {
    /// Takes the place of what lies earlier in the log.
    fn place(&mut self, key: OffsetKey, placed: Placed) {
        if self.placed.get(&key).is_none_or(|known| known.log_offset <= placed.log_offset) {
            self.remove(&key);
            self.bytes += offset_bytes(&key, &placed.committed);
            self.placed.insert(key, placed);
        }
    }

    fn remove(&mut self, key: &OffsetKey) {
        if let Some(removed) = self.placed.remove(key) {
            self.bytes -= offset_bytes(key, &removed.committed);
        }
    }
}

/// All offsets of a group.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: ByPartition,
    /// By the producer whose transaction is open.
    pending: BTreeMap<i64, ByPartition>,
}

impl Offsets {
    /// What was committed for a partition.
    pub(crate) fn get(&self, key: &OffsetKey) -> Option<&CommittedOffset> {
        self.committed.placed.get(key).map(|placed| &placed.committed)
    }

    /// All that was committed, in order of topic and partition.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OffsetKey, &CommittedOffset)> {
        self.committed.placed.iter().map(|(key, placed)| (key, &placed.committed))
    }

    /// Whether an open transaction may still change what is committed for a partition.
    pub(crate) fn has_pending(&self, key: &OffsetKey) -> bool {
        self.pending.values().any(|offsets| offsets.placed.contains_key(key))
    }

    /// Whether there is any open transaction.
    pub(super) fn is_in_transaction(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Neither committed nor pending ones.
    pub(super) fn is_empty(&self) -> bool {
        self.committed.placed.is_empty() && self.pending.is_empty()
    }

    /// The partitions of all, committed or pending, that are chosen.
    pub(super) fn keys(&self, chosen: impl Fn(&OffsetKey) -> bool) -> BTreeSet<OffsetKey> {
        let all = std::iter::once(&self.committed).chain(self.pending.values());
        all.flat_map(|offsets| offsets.placed.keys()).filter(|key| chosen(key)).cloned().collect()
    }

    /// A commit of its own, whose record lies there.
    pub(super) fn commit(&mut self, key: OffsetKey, committed: CommittedOffset, log_offset: i64) {
        self.committed.place(key, Placed { log_offset, committed });
    }

    /// A commit within a producer's transaction.
    pub(super) fn stage(&mut self, producer_id: i64, key: OffsetKey, committed: CommittedOffset, log_offset: i64) {
        self.pending.entry(producer_id).or_default().place(key, Placed { log_offset, committed });
    }

    /// The end of a producer's transaction: what was staged counts, or never will.
    pub(super) fn end(&mut self, producer_id: i64, is_committed: bool) {
        let staged = self.pending.remove(&producer_id).unwrap_or_default();
        if is_committed {
            staged.placed.into_iter().for_each(|(key, placed)| self.committed.place(key, placed));
        }
    }

    /// Forgets an offset, committed or pending. A transaction that has nothing left is as good as ended.
    pub(super) fn forget(&mut self, key: &OffsetKey) {
        self.committed.remove(key);
        self.pending.retain(|_, offsets| {
            offsets.remove(key);
            !offsets.placed.is_empty()
        });
    }

    /// The partitions whose offsets nobody has needed for that long, but for those that a transaction may commit.
    pub(super) fn expired(&self, since: RetainedSince, now_ms: i64, retention_ms: i64) -> Vec<OffsetKey> {
        let is_expired = |committed: &CommittedOffset| match committed.expire_timestamp_ms {
            Some(expires_ms) => now_ms >= expires_ms,
            None => {
                let since_ms = match since {
                    RetainedSince::Moment(since_ms) => since_ms,
                    RetainedSince::Commit => committed.commit_timestamp_ms,
                };
                now_ms.saturating_sub(since_ms) >= retention_ms
            }
        };
        let expired = self.iter().filter(|(key, committed)| is_expired(committed) && !self.has_pending(key));
        expired.map(|(key, _)| key.clone()).collect()
    }

    /// What all of them hold in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.committed.bytes + self.pending.values().map(|offsets| offsets.bytes).sum::<usize>()
    }

    /// What these would add to it, besides moving what is known.
    pub(super) fn bytes_added(&self, staged_by: Option<i64>, offsets: &[(OffsetKey, CommittedOffset)]) -> usize {
        let known = match staged_by {
            Some(producer_id) => self.pending.get(&producer_id),
            None => Some(&self.committed),
        };
        let more = |(key, committed): &(OffsetKey, CommittedOffset)| {
            let before =
                known.and_then(|known| known.placed.get(key)).map_or(0, |known| offset_bytes(key, &known.committed));
            offset_bytes(key, committed).saturating_sub(before)
        };
        offsets.iter().map(more).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 3600 * 1000;

    fn key(partition: i32) -> OffsetKey {
        ("t".to_owned(), partition)
    }

    fn at(offset: i64) -> CommittedOffset {
        CommittedOffset {
            offset,
            leader_epoch: 0,
            metadata: String::new(),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
        }
    }

    fn offset(offsets: &Offsets, partition: i32) -> Option<i64> {
        offsets.get(&key(partition)).map(|committed| committed.offset)
    }

    #[test]
    fn staged_offsets_count_once_their_transaction_is_committed_and_never_if_it_is_aborted() {
        let mut offsets = Offsets::default();
        offsets.commit(key(0), at(1), 10);
        offsets.stage(7, key(0), at(2), 11);
        offsets.stage(8, key(1), at(3), 12);
        assert!(offsets.has_pending(&key(0)) && offsets.has_pending(&key(1)) && !offsets.has_pending(&key(2)));
        assert_eq!((offset(&offsets, 0), offset(&offsets, 1)), (Some(1), None));
        offsets.end(7, true);
        offsets.end(8, false);
        offsets.end(9, true);
        assert_eq!((offset(&offsets, 0), offset(&offsets, 1)), (Some(2), None));
        assert!(!offsets.has_pending(&key(0)) && !offsets.has_pending(&key(1)));
    }

    #[test]
    fn of_two_commits_the_one_that_lies_later_in_the_log_holds() {
        let mut offsets = Offsets::default();
        offsets.stage(7, key(0), at(5), 10);
        offsets.commit(key(0), at(6), 11);
        offsets.end(7, true);
        assert_eq!(offset(&offsets, 0), Some(6), "as compaction will leave it");
    }

    #[test]
    fn what_is_replaced_ended_or_forgotten_is_not_counted_any_more() {
        let mut offsets = Offsets::default();
        let noted = |metadata: &str| CommittedOffset { metadata: metadata.to_owned(), ..at(1) };
        offsets.commit(key(0), noted("long"), 1);
        let long = offsets.bytes();
        offsets.commit(key(0), noted(""), 2);
        assert_eq!(offsets.bytes(), long - 4);
        offsets.commit(key(0), noted("comes too late"), 1);
        offsets.stage(7, key(0), noted("long"), 3);
        assert_eq!(offsets.bytes(), 2 * long - 4);
        offsets.end(7, true);
        assert_eq!(offsets.bytes(), long);
        offsets.stage(8, key(1), noted("aborted"), 4);
        offsets.end(8, false);
        offsets.forget(&key(0));
        assert_eq!(offsets.bytes(), 0);
    }

    #[test]
    fn a_forgotten_offset_does_not_come_back_with_a_transaction() {
        let mut offsets = Offsets::default();
        offsets.commit(key(0), at(1), 1);
        offsets.stage(7, key(0), at(5), 10);
        offsets.forget(&key(0));
        assert!(offsets.is_empty());
        offsets.end(7, true);
        assert_eq!(offset(&offsets, 0), None);
    }

    #[test]
    fn offsets_expire_when_their_time_is_over_but_not_under_an_open_transaction() {
        let mut offsets = Offsets::default();
        offsets.commit(key(0), CommittedOffset { commit_timestamp_ms: DAY_MS, ..at(1) }, 1);
        offsets.commit(key(1), at(1), 2);
        offsets.commit(key(2), CommittedOffset { expire_timestamp_ms: Some(3 * DAY_MS), ..at(1) }, 3);
        let expired = |offsets: &Offsets, since, now_ms| offsets.expired(since, now_ms, 7 * DAY_MS);
        assert_eq!(expired(&offsets, RetainedSince::Commit, 3 * DAY_MS - 1), []);
        assert_eq!(expired(&offsets, RetainedSince::Commit, 3 * DAY_MS), [key(2)]);
        assert_eq!(expired(&offsets, RetainedSince::Commit, 7 * DAY_MS), [key(1), key(2)]);
        assert_eq!(expired(&offsets, RetainedSince::Moment(2 * DAY_MS), 9 * DAY_MS - 1), [key(2)]);
        assert_eq!(expired(&offsets, RetainedSince::Moment(2 * DAY_MS), 9 * DAY_MS), [key(0), key(1), key(2)]);
        offsets.stage(7, key(1), at(5), 10);
        assert_eq!(expired(&offsets, RetainedSince::Commit, 8 * DAY_MS), [key(0), key(2)]);
    }
}
