//! Which committed offsets nobody needs any more.
//!
//! A group without members keeps its offsets for the retention time from when it became so; offsets that were committed
//! from outside of any group keep for that long each; of a consumer group that is stable, the offsets of topics that
//! nobody in it subscribes to go likewise. Open transactions hold theirs.
//!
//! Source: KIP-211; `offsetExpirationCondition` in Apache Kafka.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};

use super::offsets::{OffsetKey, RetainedSince};
use super::state::Group;
use super::terms::Phase;

/// Apache Kafka's default of `offsets.retention.minutes`.
pub(super) const RETENTION_MS: i64 = 7 * 24 * 3600 * 1000;
/// Apache Kafka's default of `offsets.retention.check.interval.ms`.
pub(super) const CHECK_INTERVAL_MS: i64 = 10 * 60 * 1000;
/// The protocol type of consumers, whose subscriptions we can read.
const CONSUMER: &str = "consumer";

impl Group {
    /// The offsets to forget at this wall clock.
    pub(super) fn expired_offsets(&self, now_ms: i64) -> Vec<OffsetKey> {
        let topics = self.subscribed_topics();
        let Some(since) = self.retained_since(topics.is_some()) else { return Vec::new() };
        let mut expired = self.offsets.expired(since, now_ms, RETENTION_MS);
        expired.retain(|(topic, _)| !self.subscribes(topics.as_ref(), topic));
        expired
    }

    /// Whether its members read this topic, as far as they can be understood.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribes(self.subscribed_topics().as_ref(), topic)
    }

    /// Whether its members are consumers, which tell what they subscribe to.
    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    fn subscribes(&self, topics: Option<&BTreeSet<String>>, topic: &str) -> bool {
        topics.map_or(self.is_of_consumers(), |topics| topics.contains(topic))
    }

    /// None: they are all needed.
    fn retained_since(&self, topics_are_known: bool) -> Option<RetainedSince> {
        match (&self.protocol_type, self.phase) {
            (None, _) => Some(RetainedSince::Commit),
            (Some(_), Phase::Empty) => Some(self.state_since_ms.map_or(RetainedSince::Commit, RetainedSince::Moment)),
            (Some(_), Phase::Stable) if self.is_of_consumers() && topics_are_known => Some(RetainedSince::Commit),
            _ => None,
        }
    }

    /// What its members subscribe to; none when that cannot be read.
    fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.is_of_consumers() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(topics_of(member.metadata(protocol))?);
        }
        Some(topics)
    }
}

/// The topics of a consumer's subscription, which all versions of it begin with.
fn topics_of(mut subscription: Bytes) -> Option<Vec<String>> {
    let from = &mut subscription;
    let _version = from.try_get_i16().ok()?;
    let mut topics = Vec::new();
    for _ in 0..from.try_get_i32().ok()? {
        let length = usize::try_from(from.try_get_i16().ok()?).ok()?;
        let text = (length <= from.len()).then(|| from.split_to(length))?;
        topics.push(String::from_utf8(text.to_vec()).ok()?);
    }
    Some(topics)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use super::super::codec::{GroupRecord, MemberRecord};
    use super::super::offsets::CommittedOffset;
    use super::*;

    const DAY_MS: i64 = 24 * 3600 * 1000;

    fn subscription(topic: &str) -> Bytes {
        [&[0, 1, 0, 0, 0, 1, 0, topic.len() as u8][..], topic.as_bytes(), &[0, 0, 0, 0]].concat().into()
    }

    /// A group with offsets of the topics "read" and "unread", committed a day after the epoch.
    fn group(protocol_type: Option<&str>, state_since_ms: Option<i64>, subscriptions: &[Bytes]) -> Group {
        let member = |(number, subscription): (usize, &Bytes)| MemberRecord {
            id: format!("member-{number}"),
            subscription: subscription.clone(),
            ..MemberRecord::default()
        };
        let record = GroupRecord {
            protocol_type: protocol_type.map(str::to_owned),
            protocol: Some("range".to_owned()),
            state_since_ms,
            members: subscriptions.iter().enumerate().map(member).collect(),
            ..GroupRecord::default()
        };
        let mut group = Group::restored(record, Instant::now());
        let committed = CommittedOffset {
            offset: 1,
            leader_epoch: 0,
            metadata: String::new(),
            commit_timestamp_ms: DAY_MS,
            expire_timestamp_ms: None,
        };
        group.offsets.commit(("read".to_owned(), 0), committed.clone(), 1);
        group.offsets.commit(("unread".to_owned(), 0), committed, 2);
        group
    }

    fn expired(group: &Group, days: i64) -> Vec<String> {
        group.expired_offsets(days * DAY_MS).into_iter().map(|(topic, _)| topic).collect()
    }

    #[test]
    fn an_empty_group_keeps_its_offsets_for_seven_days_from_when_it_became_empty() {
        let left = group(Some("consumer"), Some(3 * DAY_MS), &[]);
        assert_eq!(expired(&left, 9), Vec::<String>::new());
        assert_eq!(expired(&left, 10), ["read", "unread"]);
        // From before that was remembered.
        assert_eq!(expired(&group(Some("consumer"), None, &[]), 8), ["read", "unread"]);
        assert_eq!(expired(&group(Some("connect"), Some(3 * DAY_MS), &[]), 10).len(), 2);
    }

    #[test]
    fn offsets_from_outside_of_any_group_keep_for_seven_days_from_their_commit() {
        let alone = group(None, Some(3 * DAY_MS), &[]);
        assert_eq!(expired(&alone, 7), Vec::<String>::new());
        assert_eq!(expired(&alone, 8), ["read", "unread"]);
    }

    #[test]
    fn a_group_with_members_keeps_the_offsets_of_what_they_read() {
        let stable = group(Some("consumer"), Some(0), &[subscription("read"), subscription("other")]);
        assert_eq!(expired(&stable, 7), Vec::<String>::new());
        assert_eq!(expired(&stable, 8), ["unread"]);
        assert!(stable.is_subscribed_to("other") && !stable.is_subscribed_to("unread"));
        let mut joining = group(Some("consumer"), Some(0), &[subscription("read")]);
        joining.phase = Phase::PreparingRebalance;
        assert_eq!(expired(&joining, 100), Vec::<String>::new());
    }

    #[test]
    fn a_group_whose_members_cannot_be_understood_keeps_all_of_them() {
        let odd = group(Some("consumer"), Some(0), &[subscription("read"), Bytes::from_static(b"?")]);
        assert_eq!(expired(&odd, 100), Vec::<String>::new());
        assert!(odd.is_subscribed_to("unread"), "it may be");
        assert_eq!(expired(&group(Some("connect"), Some(0), &[Bytes::new()]), 100), Vec::<String>::new());
    }
}
