//! Puts groups together again from the records of `__consumer_offsets`, in the order of the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use bytes::Bytes;

use super::codec::{self, GroupRecord, Key};
use super::offsets::Offsets;
use super::state::Group;
use crate::broker::internal_topic::{Content, Entry};
use crate::broker::log::Marker;

/// The groups in which a producer's open transaction has staged offsets.
pub(super) type OpenTransactions = HashMap<i64, BTreeSet<String>>;

/// What the log has told so far.
#[derive(Default)]
pub(super) struct Replay {
    members: BTreeMap<String, GroupRecord>,
    offsets: BTreeMap<String, Offsets>,
    open: OpenTransactions,
}

impl Replay {
    /// Counts the next record or marker.
    pub(super) fn take(&mut self, entry: Entry) {
        match &entry.content {
            Content::Marker(marker) => self.end(&entry, *marker == Marker::Commit),
            Content::Record { key, value } => {
                match key.clone().and_then(codec::read_key) {
                    Some(Key::Group(group)) => self.group(group, value.clone(), entry.offset),
                    Some(Key::Offset { group, key }) => self.offset(group, key, &entry, value.clone()),
                    // Later kinds of groups, in a topic that was brought along.
                    Some(Key::Other(kind)) => {
                        tracing::debug!("the record at offset {} is of kind {kind}, which is not known", entry.offset)
                    }
                    None => unreadable(entry.offset, "the key of a record"),
                }
            }
        }
    }

    /// The groups, with their offsets; the sessions of members start at `now`.
    pub(super) fn into_groups(self, now: Instant) -> (BTreeMap<String, Group>, OpenTransactions) {
        let restored = self.members.into_iter().map(|(id, record)| (id, Group::restored(record, now)));
        let mut groups: BTreeMap<String, Group> = restored.collect();
        for (id, offsets) in self.offsets.into_iter().filter(|(_, offsets)| !offsets.is_empty()) {
            groups.entry(id).or_insert_with(Group::new).offsets = offsets;
        }
        (groups, self.open)
    }

    fn group(&mut self, group: String, value: Option<Bytes>, offset: i64) {
        match value.map(codec::read_group_value) {
            Some(Some(record)) => _ = self.members.insert(group, record),
            Some(None) => {
                unreadable(offset, "a group's members, who must join again");
                self.members.remove(&group);
            }
            None => _ = self.members.remove(&group),
        }
    }

    fn offset(&mut self, group: String, key: super::offsets::OffsetKey, entry: &Entry, value: Option<Bytes>) {
        let offsets = self.offsets.entry(group.clone()).or_default();
        match value.map(codec::read_offset_value) {
            None => offsets.forget(&key),
            Some(None) => unreadable(entry.offset, "a committed offset, which counts as not committed"),
            Some(Some(committed)) if entry.is_transactional => {
                self.open.entry(entry.producer_id).or_default().insert(group);
                offsets.stage(entry.producer_id, key, committed, entry.offset);
            }
            Some(Some(committed)) => offsets.commit(key, committed, entry.offset),
        }
    }

    fn end(&mut self, marker: &Entry, is_committed: bool) {
        for group in self.open.remove(&marker.producer_id).unwrap_or_default() {
            if let Some(offsets) = self.offsets.get_mut(&group) {
                offsets.end(marker.producer_id, is_committed);
            }
        }
    }
}

fn unreadable(offset: i64, what: &str) {
    tracing::error!("the record at offset {offset} of the topic of groups and offsets cannot be read: {what}");
}
