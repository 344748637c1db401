//! The durable form of a group and of a committed offset: a version byte, then fixed fields and counted bytes.
//!
//! Reading is total: what cannot be read is None, never a panic; the caller says so and goes on without the group.

use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::member::Member;
use super::state::{Group, Phase};
use super::store::CommittedOffset;

const VERSION: u8 = 1;

/// The members, their assignments and the generation.
pub(super) fn encode(group: &Group) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_i32(group.generation);
    put_option(&mut out, group.protocol_type.as_deref());
    put_option(&mut out, group.protocol.as_deref());
    put_option(&mut out, group.leader.as_deref());
    out.put_u32(group.members.len() as u32);
    for member in group.members.values() {
        put(&mut out, member.id.as_bytes());
        put_option(&mut out, member.instance_id.as_deref());
        put(&mut out, member.client_id.as_bytes());
        put(&mut out, member.client_host.as_bytes());
        out.put_u64(member.session_timeout.as_millis() as u64);
        out.put_u64(member.rebalance_timeout.as_millis() as u64);
        put(&mut out, &member.assignment);
        out.put_u32(member.protocols.len() as u32);
        for (name, metadata) in &member.protocols {
            put(&mut out, name.as_bytes());
            put(&mut out, metadata);
        }
    }
    out.freeze()
}

/// A group as it was when its last assignment was handed out; sessions start at `now`.
pub(super) fn decode(mut bytes: Bytes, now: Instant) -> Option<Group> {
    let from = &mut bytes;
    if from.try_get_u8().ok()? != VERSION {
        return None;
    }
    let mut group = Group::new();
    group.generation = from.try_get_i32().ok()?;
    group.protocol_type = option(from)?;
    group.protocol = option(from)?;
    group.leader = option(from)?;
    for _ in 0..from.try_get_u32().ok()? {
        let id = text(from)?;
        let instance_id = option(from)?;
        let (client_id, client_host) = (text(from)?, text(from)?);
        let session_timeout = Duration::from_millis(from.try_get_u64().ok()?);
        let rebalance_timeout = Duration::from_millis(from.try_get_u64().ok()?);
        let assignment = blob(from)?;
        let mut protocols = Vec::new();
        for _ in 0..from.try_get_u32().ok()? {
            protocols.push((text(from)?, blob(from)?));
        }
        if let Some(instance) = &instance_id {
            group.instances.insert(instance.clone(), id.clone());
        }
        let deadline = now.checked_add(session_timeout)?;
        group.members.insert(
            id.clone(),
            Member {
                id,
                instance_id,
                client_id,
                client_host,
                session_timeout,
                rebalance_timeout,
                protocols,
                assignment,
                deadline,
                joining: None,
                syncing: None,
                sync_pending: false,
            },
        );
    }
    group.phase = if group.members.is_empty() { Phase::Empty } else { Phase::Stable };
    Some(group)
}

/// A committed offset's value.
pub(super) fn encode_offset(committed: &CommittedOffset) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_i64(committed.offset);
    out.put_i32(committed.leader_epoch);
    put(&mut out, committed.metadata.as_bytes());
    out.freeze()
}

/// The way back.
pub(super) fn decode_offset(mut bytes: Bytes) -> Option<CommittedOffset> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let offset = bytes.try_get_i64().ok()?;
    let leader_epoch = bytes.try_get_i32().ok()?;
    Some(CommittedOffset { offset, leader_epoch, metadata: text(&mut bytes)? })
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn put_option(out: &mut BytesMut, text: Option<&str>) {
    out.put_u8(u8::from(text.is_some()));
    if let Some(text) = text {
        put(out, text.as_bytes());
    }
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
