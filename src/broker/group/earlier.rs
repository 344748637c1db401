//! The form that groups had before `__consumer_offsets`: entries of the log's state. Only read, to take them along.
//!
//! A group: a version byte, then fixed fields and counted bytes. Reading is total: what cannot be read is None.

use bytes::{Buf, Bytes};

use super::codec::{GroupRecord, MemberRecord};
use super::offsets::{CommittedOffset, OffsetKey};

pub(super) const GROUP_PREFIX: &str = "group/";
pub(super) const OFFSET_PREFIX: &str = "offset/";
/// Between the parts of an offset's key.
const SEPARATOR: char = '\0';
const VERSION: u8 = 1;

/// The group that a key is about.
pub(super) fn group_of(key: &[u8]) -> Option<String> {
    String::from_utf8(key.strip_prefix(GROUP_PREFIX.as_bytes())?.to_vec()).ok()
}

/// The group, topic and partition that a key is about.
pub(super) fn offset_of(key: &[u8]) -> Option<(String, OffsetKey)> {
    let text = std::str::from_utf8(key.strip_prefix(OFFSET_PREFIX.as_bytes())?).ok()?;
    let mut parts = text.split(SEPARATOR);
    let (group, topic, partition) = (parts.next()?, parts.next()?, parts.next()?);
    Some((group.to_owned(), (topic.to_owned(), partition.parse().ok()?)))
}

/// A group; the time since when it is as it is was not known then, and is now.
pub(super) fn read_group(mut bytes: Bytes, now_ms: i64) -> Option<GroupRecord> {
    let from = &mut bytes;
    if from.try_get_u8().ok()? != VERSION {
        return None;
    }
    let generation = from.try_get_i32().ok()?;
    let protocol_type = option(from)?;
    let protocol = option(from)?;
    let leader = option(from)?;
    let mut members = Vec::new();
    for _ in 0..from.try_get_u32().ok()? {
        members.push(read_member(from, protocol.as_deref())?);
    }
    Some(GroupRecord { protocol_type, generation, protocol, leader, state_since_ms: Some(now_ms), members })
}

fn read_member(from: &mut Bytes, chosen: Option<&str>) -> Option<MemberRecord> {
    let id = text(from)?;
    let instance_id = option(from)?;
    let (client_id, client_host) = (text(from)?, text(from)?);
    let session_timeout_ms = i32::try_from(from.try_get_u64().ok()?).ok()?;
    let rebalance_timeout_ms = i32::try_from(from.try_get_u64().ok()?).ok()?;
    let assignment = blob(from)?;
    let mut subscription = Bytes::new();
    for _ in 0..from.try_get_u32().ok()? {
        let (name, metadata) = (text(from)?, blob(from)?);
        if Some(name.as_str()) == chosen {
            subscription = metadata;
        }
    }
    Some(MemberRecord {
        id,
        instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms,
        session_timeout_ms,
        subscription,
        assignment,
    })
}

/// A committed offset; when it was committed was not known then, and is now.
pub(super) fn read_offset(mut bytes: Bytes, now_ms: i64) -> Option<CommittedOffset> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let offset = bytes.try_get_i64().ok()?;
    let leader_epoch = bytes.try_get_i32().ok()?;
    let metadata = text(&mut bytes)?;
    let (commit_timestamp_ms, expire_timestamp_ms) = (now_ms, None);
    Some(CommittedOffset { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms })
}

fn blob(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u32().ok()? as usize;
    (length <= from.len()).then(|| from.split_to(length))
}

fn text(from: &mut Bytes) -> Option<String> {
    String::from_utf8(blob(from)?.to_vec()).ok()
}

/// Outer None: unreadable; inner None: absent.
#[allow(clippy::option_option)]
fn option(from: &mut Bytes) -> Option<Option<String>> {
    if from.try_get_u8().ok()? == 0 { Some(None) } else { text(from).map(Some) }
}
