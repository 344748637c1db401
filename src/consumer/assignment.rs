//! What this consumer reads of each partition that it owns, and whether the log is the one that was applied.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::sink::{LogRange, Mismatch, Reason};

/// A record, as far as progress is concerned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// New: apply it.
    Apply,
    /// The record that was applied last (read to be compared, or handed over twice), or one of a partition that is not owned
    /// any more.
    Skip,
}

/// One owned partition.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    /// The next offset to apply.
    pub position: i64,
    /// Fingerprint that the record before `position` must have; none once it was compared.
    pub unverified: Option<Vec<u8>>,
    /// What the log held when it was assigned.
    pub log: LogRange,
    /// Since when the end of the partition has been seen without a record after it.
    pub ended_at: Option<Instant>,
    /// librdkafka may hand over the last record once more.
    pub may_repeat: bool,
}

impl Partition {
    /// `fingerprint`: of the record before `position`, if that is to be compared.
    pub(super) fn new(position: i64, fingerprint: Option<Vec<u8>>, log: LogRange) -> Self {
        Partition { position, unverified: fingerprint, log, ended_at: None, may_repeat: false }
    }
}

/// The owned partitions of the topic.
#[derive(Debug)]
pub(super) struct Assignment {
    topic: String,
    partitions: BTreeMap<i32, Partition>,
}

impl Assignment {
    pub(super) fn new(topic: String) -> Self {
        Assignment { topic, partitions: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, number: i32, partition: Partition) {
        self.partitions.insert(number, partition);
    }

    pub(super) fn remove(&mut self, numbers: &[i32]) {
        self.partitions.retain(|number, _| !numbers.contains(number));
    }

    pub(super) fn numbers(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Fetching was paused, by a rebalance or by us, and goes on.
    ///
    /// librdkafka goes on behind the message that the application has taken last, and one that is just on its way at the
    /// pause counts as not taken: it comes twice in a row (tests/rebalance/checker.rs found it).
    pub(super) fn may_repeat(&mut self) {
        self.partitions.values_mut().for_each(|partition| partition.may_repeat = true);
    }

    /// Decides about a record; `fingerprint` is asked for only when it must be compared.
    ///
    /// # Errors
    /// [`Mismatch`] when the first record is not the one that was applied last, or offsets do not rise.
    pub(super) fn judge(
        &mut self,
        number: i32,
        offset: i64,
        fingerprint: impl FnOnce() -> [u8; 16],
    ) -> Result<Verdict, Box<Mismatch>> {
        let Some(partition) = self.partitions.get_mut(&number) else { return Ok(Verdict::Skip) };
        partition.ended_at = None;
        let expected = partition.unverified.take();
        let is_compared = expected.is_some();
        if let Some(expected) = expected {
            let reason = if offset > partition.position - 1 {
                Some(Reason::NoRecord)
            } else {
                (fingerprint().as_slice() != expected).then_some(Reason::OtherRecord)
            };
            if let Some(reason) = reason {
                return Err(mismatch(&self.topic, number, partition, reason));
            }
        }
        let may_repeat = std::mem::take(&mut partition.may_repeat);
        if offset < partition.position {
            // Only the record that was applied last is read a second time.
            let is_last = offset == partition.position - 1;
            if !is_compared && (!may_repeat || !is_last) {
                return Err(mismatch(&self.topic, number, partition, Reason::Backward { offset }));
            }
            return Ok(Verdict::Skip);
        }
        partition.position = offset + 1;
        Ok(Verdict::Apply)
    }

    /// The end of a partition was reached.
    ///
    /// # Errors
    /// [`Mismatch`] when the record that was applied last did not come before it.
    pub(super) fn end(&mut self, number: i32) -> Result<(), Box<Mismatch>> {
        let Some(partition) = self.partitions.get_mut(&number) else { return Ok(()) };
        if partition.unverified.is_some() {
            return Err(mismatch(&self.topic, number, partition, Reason::NoRecord));
        }
        partition.ended_at.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// The topic is not the one any more whose records were applied.
    pub(super) fn recreated(&self) -> Option<Box<Mismatch>> {
        let (number, partition) = self.partitions.first_key_value()?;
        Some(mismatch(&self.topic, *number, partition, Reason::Recreated))
    }

    /// Every partition with its next offset to apply, and since when its end has been seen.
    pub(super) fn positions(&self) -> impl Iterator<Item = (i32, i64, Option<Instant>)> + '_ {
        self.partitions.iter().map(|(number, partition)| (*number, partition.position, partition.ended_at))
    }
}

fn mismatch(topic: &str, number: i32, partition: &Partition, reason: Reason) -> Box<Mismatch> {
    Box::new(Mismatch {
        topic: topic.to_owned(),
        partition: number,
        next_offset: partition.position,
        log: partition.log,
        reason,
        go_on_at: partition.log.start,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn assignment(position: i64, unverified: Option<[u8; 16]>) -> Assignment {
        let mut assignment = Assignment::new("t".to_owned());
        let log = LogRange { start: 0, end: 100 };
        let unverified = unverified.map(|fingerprint| fingerprint.to_vec());
        assignment.insert(0, Partition::new(position, unverified, log));
        assignment
    }

    #[test]
    fn the_record_applied_last_is_compared_and_not_applied_again() {
        let mut assignment = assignment(10, Some([1; 16]));
        assert_eq!(assignment.judge(0, 9, || [1; 16]).unwrap(), Verdict::Skip);
        assert_eq!(assignment.judge(0, 10, || panic!("compared once")).unwrap(), Verdict::Apply);
        let again = assignment.judge(0, 10, || panic!("compared once")).unwrap_err();
        assert_eq!(again.reason, Reason::Backward { offset: 10 });
        assert_eq!(assignment.judge(7, 10, || panic!("not owned")).unwrap(), Verdict::Skip);
    }

    #[test]
    fn the_last_record_may_come_twice_after_a_pause_and_no_other() {
        let mut after_pause = assignment(10, None);
        assert_eq!(after_pause.judge(0, 10, || [0; 16]).unwrap(), Verdict::Apply);
        after_pause.may_repeat();
        assert_eq!(after_pause.judge(0, 10, || [0; 16]).unwrap(), Verdict::Skip);
        assert_eq!(after_pause.judge(0, 10, || [0; 16]).unwrap_err().reason, Reason::Backward { offset: 10 });

        let mut gone_on = assignment(10, None);
        gone_on.may_repeat();
        assert_eq!(gone_on.judge(0, 10, || [0; 16]).unwrap(), Verdict::Apply);
        assert_eq!(gone_on.judge(0, 10, || [0; 16]).unwrap_err().reason, Reason::Backward { offset: 10 });
        gone_on.may_repeat();
        assert_eq!(gone_on.judge(0, 9, || [0; 16]).unwrap_err().reason, Reason::Backward { offset: 9 });
    }

    #[test]
    fn another_record_or_none_at_its_place_is_a_mismatch() {
        assert_eq!(assignment(10, Some([1; 16])).judge(0, 9, || [2; 16]).unwrap_err().reason, Reason::OtherRecord);
        assert_eq!(assignment(10, Some([1; 16])).judge(0, 10, || [1; 16]).unwrap_err().reason, Reason::NoRecord);
        assert_eq!(assignment(10, Some([1; 16])).end(0).unwrap_err().reason, Reason::NoRecord);
    }

    #[test]
    fn an_end_holds_until_the_next_record() {
        let mut assignment = assignment(10, None);
        assignment.end(0).unwrap();
        assert!(assignment.positions().next().unwrap().2.is_some());
        assignment.judge(0, 10, || [0; 16]).unwrap();
        assert_eq!(assignment.positions().next().unwrap(), (0, 11, None));
    }
}
