//! How much of the disk must be free for what is written next.
//!
//! Clients' batches stop first. What coordinators append, and changes of the state, go on: without them no group settles,
//! no transaction ends, and nothing can be deleted so that there is room again.

use std::io;

use super::core::Core;
use super::journal::JournalError;
use super::queue::{Entry, GROUP_BYTES_MAX, Origin};

/// What no batch may take: indexes and a checkpoint need it.
const RESERVED_BYTES: u64 = GROUP_BYTES_MAX as u64;
/// Clients' batches are refused below this: room for the largest group, and what is reserved.
pub(super) const FREE_BYTES_MIN: u64 = GROUP_BYTES_MAX as u64 + RESERVED_BYTES;
/// Once what coordinators append was refused, so much above the reserve makes another try worth while.
const WORTH_A_TRY_BYTES: u64 = 1 << 20;

/// Whether so much is free. A look costs a microsecond.
fn are_free(core: &Core, bytes: u64) -> bool {
    core.disk.free_bytes(&core.directory).is_none_or(|free| free >= bytes)
}

/// Whether a group and what goes with it find room.
pub(super) fn has_room(core: &Core) -> bool {
    are_free(core, FREE_BYTES_MIN)
}

/// Whether what coordinators append is likely to find room.
pub(super) fn has_room_for_coordinators(core: &Core) -> bool {
    are_free(core, RESERVED_BYTES + WORTH_A_TRY_BYTES)
}

/// A full disk is noticed before a group is promised that no segment can take.
pub(super) fn check_room(core: &Core, entries: &[Entry]) -> Result<(), JournalError> {
    if needed_by(entries).is_none_or(|bytes| are_free(core, bytes)) {
        return Ok(());
    }
    Err(JournalError::Refused(io::ErrorKind::StorageFull.into()))
}

/// None when there are only changes: some of them free space.
fn needed_by(entries: &[Entry]) -> Option<u64> {
    let mut needed = None;
    for entry in entries {
        match entry {
            Entry::Batch(pending) if pending.origin == Origin::Client => return Some(FREE_BYTES_MIN),
            Entry::Batch(pending) => *needed.get_or_insert(RESERVED_BYTES) += pending.batch.total_bytes() as u64,
            Entry::Change(..) => {}
        }
    }
    needed
}

/// What there is and what there must be, for people.
pub(super) fn room(core: &Core) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let free =
        core.disk.free_bytes(&core.directory).map_or("an unknown number of".to_owned(), |free| mib(free).to_string());
    format!("{free} MiB are free, and at least {} MiB must be", mib(FREE_BYTES_MIN))
}
