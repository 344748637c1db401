//! Groups and committed offsets as records of `__consumer_offsets`, byte for byte in Apache Kafka's formats.
//!
//! Written: OffsetCommitKey 1 with OffsetCommitValue 3 (1 where a client asked for a time of its own), GroupMetadataKey 2
//! with GroupMetadataValue 3. Read: those and all older ones. Reading is total: what cannot be read is None, never a panic.
//!
//! Source: `OffsetCommitKey.json`, `OffsetCommitValue.json`, `GroupMetadataKey.json` and `GroupMetadataValue.json` of
//! Apache Kafka's group coordinator; KIP-211, KIP-320, KIP-345.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::offsets::{CommittedOffset, OffsetKey};

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const OFFSET_VALUE_VERSION: i16 = 3;
/// The only one that knows when an offset expires.
const EXPIRING_OFFSET_VALUE_VERSION: i16 = 1;
const GROUP_VALUE_VERSION: i16 = 3;
/// Of times and epochs that nobody told.
const NONE: i32 = -1;

/// A text is longer than the format can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a text of {0} bytes is over the format's limit of 32767")]
pub struct TextTooLong(pub(super) usize);

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Offset {
        group: String,
        key: OffsetKey,
    },
    Group(String),
    /// Of a kind that we do not write, with its number.
    Other(i16),
}

/// A group as it was when its last assignment was handed out, or its last member had gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupRecord {
    /// None: never had members.
    pub(super) protocol_type: Option<String>,
    pub(super) generation: i32,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    /// Wall clock since when the group is in the state that it is in.
    pub(super) state_since_ms: Option<i64>,
    pub(super) members: Vec<MemberRecord>,
}

/// A member with what it said under the chosen protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberRecord {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) subscription: Bytes,
    pub(super) assignment: Bytes,
}

/// The key of a committed offset.
pub(super) fn offset_key(group: &str, (topic, partition): &OffsetKey) -> Result<Bytes, TextTooLong> {
    let mut out = BytesMut::with_capacity(2 + 2 + group.len() + 2 + topic.len() + 4);
    out.put_i16(OFFSET_KEY_VERSION);
    put_text(&mut out, group)?;
    put_text(&mut out, topic)?;
    out.put_i32(*partition);
    Ok(out.freeze())
}

/// The key of a group's members.
pub(super) fn group_key(group: &str) -> Result<Bytes, TextTooLong> {
    let mut out = BytesMut::with_capacity(2 + 2 + group.len());
    out.put_i16(GROUP_KEY_VERSION);
    put_text(&mut out, group)?;
    Ok(out.freeze())
}

/// None: malformed.
pub(super) fn read_key(mut bytes: Bytes) -> Option<Key> {
    let from = &mut bytes;
    match from.try_get_i16().ok()? {
        0 | OFFSET_KEY_VERSION => {
            let group = text(from)?;
            let topic = text(from)?;
            Some(Key::Offset { group, key: (topic, from.try_get_i32().ok()?) })
        }
        GROUP_KEY_VERSION => text(from).map(Key::Group),
        other => Some(Key::Other(other)),
    }
}

/// The value of a committed offset.
pub(super) fn offset_value(committed: &CommittedOffset) -> Result<Bytes, TextTooLong> {
    let mut out = BytesMut::with_capacity(2 + 8 + 4 + 2 + committed.metadata.len() + 16);
    let expires = committed.expire_timestamp_ms;
    out.put_i16(if expires.is_some() { EXPIRING_OFFSET_VALUE_VERSION } else { OFFSET_VALUE_VERSION });
    out.put_i64(committed.offset);
    if expires.is_none() {
        out.put_i32(committed.leader_epoch);
    }
    put_text(&mut out, &committed.metadata)?;
    out.put_i64(committed.commit_timestamp_ms);
    if let Some(expires) = expires {
        out.put_i64(expires);
    }
    Ok(out.freeze())
}

/// None: malformed, or of a later version.
pub(super) fn read_offset_value(mut bytes: Bytes) -> Option<CommittedOffset> {
    let from = &mut bytes;
    let version = from.try_get_i16().ok().filter(|version| (0..=OFFSET_VALUE_VERSION).contains(version))?;
    let offset = from.try_get_i64().ok()?;
    let leader_epoch = if version >= 3 { from.try_get_i32().ok()? } else { NONE };
    let metadata = text(from)?;
    let commit_timestamp_ms = from.try_get_i64().ok()?;
    let expires = if version == EXPIRING_OFFSET_VALUE_VERSION { from.try_get_i64().ok()? } else { NONE.into() };
    let expire_timestamp_ms = (expires != i64::from(NONE)).then_some(expires);
    Some(CommittedOffset { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms })
}

/// The value of a group's members.
pub(super) fn group_value(group: &GroupRecord) -> Result<Bytes, TextTooLong> {
    let mut out = BytesMut::new();
    out.put_i16(GROUP_VALUE_VERSION);
    put_text(&mut out, group.protocol_type.as_deref().unwrap_or_default())?;
    out.put_i32(group.generation);
    put_nullable(&mut out, group.protocol.as_deref())?;
    put_nullable(&mut out, group.leader.as_deref())?;
    out.put_i64(group.state_since_ms.unwrap_or(NONE.into()));
    out.put_i32(group.members.len() as i32);
    for member in &group.members {
        put_text(&mut out, &member.id)?;
        put_nullable(&mut out, member.instance_id.as_deref())?;
        put_text(&mut out, &member.client_id)?;
        put_text(&mut out, &member.client_host)?;
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_blob(&mut out, &member.subscription);
        put_blob(&mut out, &member.assignment);
    }
    Ok(out.freeze())
}

/// None: malformed, or of a later version.
pub(super) fn read_group_value(mut bytes: Bytes) -> Option<GroupRecord> {
    let from = &mut bytes;
    let version = from.try_get_i16().ok().filter(|version| (0..=GROUP_VALUE_VERSION).contains(version))?;
    let protocol_type = Some(text(from)?).filter(|text| !text.is_empty());
    let generation = from.try_get_i32().ok()?;
    let protocol = nullable(from)?;
    let leader = nullable(from)?;
    let since = if version >= 2 { from.try_get_i64().ok()? } else { NONE.into() };
    let state_since_ms = (since != i64::from(NONE)).then_some(since);
    let mut members = Vec::new();
    for _ in 0..from.try_get_i32().ok()? {
        members.push(read_member(from, version)?);
    }
    Some(GroupRecord { protocol_type, generation, protocol, leader, state_since_ms, members })
}

fn read_member(from: &mut Bytes, version: i16) -> Option<MemberRecord> {
    let id = text(from)?;
    let instance_id = if version >= 3 { nullable(from)? } else { None };
    let (client_id, client_host) = (text(from)?, text(from)?);
    let rebalance_timeout_ms = if version >= 1 { Some(from.try_get_i32().ok()?) } else { None };
    let session_timeout_ms = from.try_get_i32().ok()?;
    Some(MemberRecord {
        id,
        instance_id,
        client_id,
        client_host,
        // As in Kafka: before it was known, it was the session's.
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription: blob(from)?,
        assignment: blob(from)?,
    })
}

fn put_text(out: &mut BytesMut, text: &str) -> Result<(), TextTooLong> {
    out.put_i16(i16::try_from(text.len()).map_err(|_| TextTooLong(text.len()))?);
    out.put_slice(text.as_bytes());
    Ok(())
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) -> Result<(), TextTooLong> {
    match text {
        Some(text) => put_text(out, text),
        None => {
            out.put_i16(-1);
            Ok(())
        }
    }
}

fn put_blob(out: &mut BytesMut, bytes: &Bytes) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

fn text(from: &mut Bytes) -> Option<String> {
    nullable(from)?
}

/// Outer None: unreadable; inner None: absent.
#[allow(clippy::option_option)]
fn nullable(from: &mut Bytes) -> Option<Option<String>> {
    match from.try_get_i16().ok()? {
        -1 => Some(None),
        length => {
            let bytes = take(from, usize::try_from(length).ok()?)?;
            String::from_utf8(bytes.to_vec()).ok().map(Some)
        }
    }
}

fn blob(from: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(from.try_get_i32().ok()?).ok()?;
    // Cut loose from the batch that it lay in.
    take(from, length).map(|bytes| Bytes::copy_from_slice(&bytes))
}

fn take(from: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= from.len()).then(|| from.split_to(length))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Bytes {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn committed() -> CommittedOffset {
        CommittedOffset {
            offset: 42,
            leader_epoch: 7,
            metadata: "m!".to_owned(),
            commit_timestamp_ms: 0x0102_0304_0506_0708,
            expire_timestamp_ms: None,
        }
    }

    fn group() -> GroupRecord {
        GroupRecord {
            protocol_type: Some("consumer".to_owned()),
            generation: 3,
            protocol: Some("range".to_owned()),
            leader: Some("a-1".to_owned()),
            state_since_ms: Some(0x0102_0304_0506_0708),
            members: vec![MemberRecord {
                id: "a-1".to_owned(),
                instance_id: Some("i".to_owned()),
                client_id: "a".to_owned(),
                client_host: "/::1".to_owned(),
                rebalance_timeout_ms: 60_000,
                session_timeout_ms: 10_000,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"as"),
            }],
        }
    }

    const OFFSET_KEY: &str = "0001 0001 67 0002 742d 00000009";
    const GROUP_KEY: &str = "0002 0001 67";
    const OFFSET: &str = "0003 000000000000002a 00000007 0002 6d21 0102030405060708";
    const EXPIRING: &str = "0001 000000000000002a 0002 6d21 0102030405060708 0102030405060709";
    const GROUP: &str = "0003 0008 636f6e73756d6572 00000003 0005 72616e6765 0003 612d31 0102030405060708 00000001 \
                         0003 612d31 0001 69 0001 61 0004 2f3a3a31 0000ea60 00002710 00000003 737562 00000002 6173";
    const EMPTY: &str = "0003 0008 636f6e73756d6572 00000003 ffff ffff 0102030405060708 00000000";

    #[test]
    fn records_are_those_of_apache_kafka_byte_for_byte() {
        let key = ("t-".to_owned(), 9);
        assert_eq!(offset_key("g", &key).unwrap(), bytes(OFFSET_KEY));
        assert_eq!(read_key(bytes(OFFSET_KEY)), Some(Key::Offset { group: "g".to_owned(), key }));
        assert_eq!(group_key("g").unwrap(), bytes(GROUP_KEY));
        assert_eq!(read_key(bytes(GROUP_KEY)), Some(Key::Group("g".to_owned())));
        assert_eq!(read_key(bytes("0003 0001 67")), Some(Key::Other(3)));
        assert_eq!(offset_value(&committed()).unwrap(), bytes(OFFSET));
        assert_eq!(read_offset_value(bytes(OFFSET)), Some(committed()));
        assert_eq!(group_value(&group()).unwrap(), bytes(GROUP));
        assert_eq!(read_group_value(bytes(GROUP)), Some(group()));
        let empty = GroupRecord { protocol: None, leader: None, members: Vec::new(), ..group() };
        assert_eq!(group_value(&empty).unwrap(), bytes(EMPTY));
        assert_eq!(read_group_value(bytes(EMPTY)), Some(empty));
    }

    #[test]
    fn an_offset_with_a_time_of_its_own_is_written_in_the_version_that_can_say_so() {
        let expiring = CommittedOffset { expire_timestamp_ms: Some(0x0102_0304_0506_0709), ..committed() };
        assert_eq!(offset_value(&expiring).unwrap(), bytes(EXPIRING));
        // It has no room for the leader epoch.
        assert_eq!(read_offset_value(bytes(EXPIRING)), Some(CommittedOffset { leader_epoch: -1, ..expiring }));
    }

    #[test]
    fn older_versions_are_read() {
        let old = CommittedOffset { leader_epoch: -1, ..committed() };
        for version in ["0000", "0002"] {
            let value = format!("{version} 000000000000002a 0002 6d21 0102030405060708");
            assert_eq!(read_offset_value(bytes(&value)), Some(old.clone()));
        }
        let value = "0000 0008 636f6e73756d6572 00000003 0005 72616e6765 0003 612d31 00000001 \
                     0003 612d31 0001 61 0004 2f3a3a31 00002710 00000003 737562 00000002 6173";
        let mut old = group();
        old.state_since_ms = None;
        old.members[0].instance_id = None;
        old.members[0].rebalance_timeout_ms = 10_000;
        assert_eq!(read_group_value(bytes(value)), Some(old));
    }

    #[test]
    fn what_is_cut_off_or_of_a_later_version_is_not_read() {
        for value in [OFFSET, EXPIRING] {
            let value = bytes(value);
            (0..value.len()).for_each(|length| assert_eq!(read_offset_value(value.slice(..length)), None));
        }
        for value in [GROUP, EMPTY] {
            let value = bytes(value);
            (0..value.len()).for_each(|length| assert_eq!(read_group_value(value.slice(..length)), None));
        }
        for key in [OFFSET_KEY, GROUP_KEY] {
            let key = bytes(key);
            (0..key.len()).for_each(|length| assert_eq!(read_key(key.slice(..length)), None));
        }
        assert_eq!(read_offset_value(bytes("0004 000000000000002a")), None);
        assert_eq!(read_group_value(bytes("0004 00")), None);
    }

    #[test]
    fn a_text_that_the_format_cannot_hold_is_refused() {
        let long = "x".repeat(32_768);
        assert_eq!(group_key(&long), Err(TextTooLong(32_768)));
        assert!(group_key(&long[1..]).is_ok());
    }
}
