//! What groups may hold, in memory and in the log, and which of them are not worth keeping.
//!
//! Clients bring opaque metadata along, and names are free: neither may grow without end.

use bytes::Bytes;

use super::join::JoinRequest;
use super::offsets::CommittedOffset;
use super::state::Group;
use super::terms::{GroupError, Phase, SyncRequest};

/// Of each name that a member gives: a generated id adds to it, and what is remembered has 15 bits for the length.
const TEXT_BYTES_MAX: usize = 32_000;
/// What one member may say about itself, all protocols together.
const JOIN_BYTES_MAX: usize = 1 << 20;
/// The assignments of one generation.
const ASSIGNMENTS_BYTES_MAX: usize = 1 << 20;
/// What all groups hold.
const GROUPS_BYTES_MAX: usize = 128 << 20;
/// Offsets are refused before that, so that they never keep members out.
pub(super) const OFFSETS_BYTES_MAX: usize = GROUPS_BYTES_MAX / 4 * 3;
/// A member, an id that was handed out, or an offset, besides its texts, about.
const ITEM_BYTES: usize = 128;
/// A protocol of a member, likewise: those without a name must count, too.
const PROTOCOL_BYTES: usize = 64;

impl JoinRequest {
    fn bytes(&self) -> usize {
        let protocols: usize =
            self.protocols.iter().map(|(name, metadata)| PROTOCOL_BYTES + name.len() + metadata.len()).sum();
        let instance = self.instance_id.as_ref().map_or(0, String::len);
        ITEM_BYTES + protocols + instance + self.client_id.len() + self.protocol_type.len() + self.member_id.len()
    }

    /// The longest of its texts that are remembered.
    fn text_bytes(&self) -> usize {
        let names = self.protocols.iter().map(|(name, _)| name.len());
        let texts = [&self.client_id, &self.protocol_type, &self.client_host].map(String::len);
        names.chain(texts).chain(self.instance_id.as_ref().map(String::len)).max().unwrap_or(0)
    }

    /// The request, if there is room for it beside the `used` bytes, cut loose from the frame that it came in.
    pub(super) fn admit(mut self, used: usize) -> Result<JoinRequest, GroupError> {
        if self.text_bytes() > TEXT_BYTES_MAX {
            return Err(GroupError::TooLarge);
        }
        check(self.bytes(), JOIN_BYTES_MAX, used)?;
        self.protocols.iter_mut().for_each(|(_, metadata)| *metadata = Bytes::copy_from_slice(metadata));
        Ok(self)
    }
}

impl SyncRequest {
    /// As of a join.
    pub(super) fn admit(mut self, used: usize) -> Result<SyncRequest, GroupError> {
        let bytes = self.assignments.iter().map(|(id, assignment)| id.len() + assignment.len()).sum();
        check(bytes, ASSIGNMENTS_BYTES_MAX, used)?;
        self.assignments.iter_mut().for_each(|(_, assignment)| *assignment = Bytes::copy_from_slice(assignment));
        Ok(self)
    }
}

fn check(bytes: usize, bytes_max: usize, used: usize) -> Result<(), GroupError> {
    if bytes > bytes_max {
        return Err(GroupError::TooLarge);
    }
    if bytes > 0 && used + bytes > GROUPS_BYTES_MAX { Err(GroupError::Full) } else { Ok(()) }
}

/// What a committed offset holds.
pub(super) fn offset_bytes((topic, _): &(String, i32), committed: &CommittedOffset) -> usize {
    ITEM_BYTES + topic.len() + committed.metadata.len()
}

impl Group {
    /// What it holds, about.
    pub(crate) fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let member = |member: &super::member::Member| {
            let protocols: usize =
                member.protocols.iter().map(|(name, metadata)| PROTOCOL_BYTES + name.len() + metadata.len()).sum();
            let ids = member.id.len() + text(&member.instance_id) + member.client_id.len();
            ITEM_BYTES + protocols + ids + member.assignment.len()
        };
        let members: usize = self.members.values().map(member).sum();
        let pending: usize = self.pending.keys().map(|id| ITEM_BYTES + id.len()).sum();
        members + pending + self.offsets.bytes() + text(&self.protocol_type)
    }

    /// Whether nobody would miss it: no members, no offsets, nothing on its way, and that for so long.
    pub(super) fn is_forgettable(&self, now_ms: i64, empty_ms_min: i64) -> bool {
        let nothing_held = self.members.is_empty() && self.pending.is_empty() && self.offsets.is_empty();
        let is_old = self.state_since_ms.is_none_or(|since_ms| now_ms.saturating_sub(since_ms) >= empty_ms_min);
        is_old && self.phase == Phase::Empty && nothing_held && self.unsaved.is_none() && self.saving.is_none()
    }
}
