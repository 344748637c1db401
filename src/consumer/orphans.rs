//! Partitions that a rebalance has left to nobody.
//!
//! A cooperative rebalance moves a partition in two steps: its owner gives it back, and asks for the second. If the owner
//! dies in between and comes back under its `group.instance.id` within its session, the group lets it in without a
//! rebalance, with the assignment of the first step (KIP-345; Apache Kafka does so, too). Nobody asks for the second, and
//! the partition waits until a member comes or goes. So whoever has come looks whether the group has given away all
//! partitions, and if not, leaves and comes again: that is a rebalance.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::rebalance::Context;

const LOOK_EVERY: Duration = Duration::from_millis(1_500);
/// After this many looks at a settled group without an orphan there will be none.
const LOOKS: u32 = 3;
/// So many in a row are no rebalance that is under way: its first step waits for 3 s for what is not stored.
const ORPHANED_LOOKS: u32 = 3;
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// What a consumer that has come looks for.
pub(super) struct Orphans {
    group: String,
    topic: String,
    /// None before the first look.
    look_at: Option<Instant>,
    looks_left: u32,
    orphaned_looks: u32,
}

impl Orphans {
    pub(super) fn new(group: String, topic: String) -> Self {
        Orphans { group, topic, look_at: None, looks_left: LOOKS, orphaned_looks: 0 }
    }

    /// Looks, now and then, once the group has let this consumer in; whether a partition is left to nobody and a rebalance is needed.
    pub(super) fn are_there(&mut self, consumer: &BaseConsumer<Context>) -> bool {
        let now = Instant::now();
        if self.looks_left == 0 || now < *self.look_at.get_or_insert(now + LOOK_EVERY) {
            return false;
        }
        self.look_at = Some(now + LOOK_EVERY);
        // A group that is just rebalanced, and a broker that does not answer, are asked again.
        let Some(is_orphaned) = self.look(consumer) else { return false };
        if !is_orphaned {
            self.looks_left -= 1;
            self.orphaned_looks = 0;
            return false;
        }
        self.orphaned_looks += 1;
        let are_there = self.orphaned_looks == ORPHANED_LOOKS;
        if are_there {
            (self.looks_left, self.orphaned_looks) = (LOOKS, 0);
        }
        are_there
    }

    /// Whether a settled group has fewer partitions than the topic; none when the group is not settled.
    fn look(&self, consumer: &BaseConsumer<Context>) -> Option<bool> {
        let groups = consumer.fetch_group_list(Some(&self.group), ASK_TIMEOUT).ok()?;
        let group = groups.groups().iter().find(|group| group.state() == "Stable")?;
        let metadata = consumer.fetch_metadata(Some(&self.topic), ASK_TIMEOUT).ok()?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic)?;
        let mut assigned = 0;
        for member in group.members() {
            assigned += partitions_of(member.assignment()?, &self.topic)?;
        }
        Some(assigned < topic.partitions().len())
    }
}

/// How many partitions of a topic an assignment has.
///
/// Source: Kafka's ConsumerProtocolAssignment: version, and an array of topic and array of partitions.
fn partitions_of(assignment: &[u8], topic: &str) -> Option<usize> {
    let mut rest = assignment.get(2..)?;
    let mut found = 0;
    for _ in 0..int4(&mut rest)? {
        let length = usize::from(u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?));
        let is_it = take(&mut rest, length)? == topic.as_bytes();
        let count = usize::try_from(int4(&mut rest)?).ok()?;
        take(&mut rest, count.checked_mul(4)?)?;
        found += if is_it { count } else { 0 };
    }
    Some(found)
}

fn int4(rest: &mut &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::partitions_of;

    #[test]
    fn an_assignment_is_counted_and_nonsense_is_not() {
        let whole =
            b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x01\0\0\0\x07\0\x02bc\0\0\0\x02\0\0\0\x01\0\0\0\x02\xff\xff\xff\xff";
        assert_eq!(partitions_of(whole, "a"), Some(1));
        assert_eq!(partitions_of(whole, "bc"), Some(2));
        assert_eq!(partitions_of(whole, "b"), Some(0));
        for length in 0..whole.len() - 4 {
            assert_eq!(partitions_of(&whole[..length], "a"), None, "{length}");
        }
        assert_eq!(partitions_of(b"\0\x01\0\0\0\x01\0\x01a\xff\xff\xff\xff", "a"), None);
    }
}
