//! Batches that need no disk are written by whoever appends them: the way to the writer's thread and back takes longer
//! than the write itself.
//!
//! Only with `Durability::Os`, only little, only into files that are open and have room, and only while nobody else
//! writes. All else is the writer's. A page cache that is slow to take bytes has the writer's thread wait for it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::core::{Core, PoisonOnPanic};
use super::partition::Partition;
use super::queue::Entry;
use super::room::has_room;
use super::{AppendError, Appended, Durability, Log, writer};

/// More than this is left to the writer, while the caller reads the next request.
const BYTES_MAX: usize = 64 * 1024;
/// A write that took longer has met something that others should not wait for.
const SLOW: Duration = Duration::from_millis(2);
/// So long all is left to the writer then.
const PAUSE: Duration = Duration::from_secs(1);

impl Log {
    /// As [`Partition::append`], and what was appended may be durable already when this returns.
    ///
    /// # Errors
    /// Those of [`Partition::append`].
    pub fn append(
        &self,
        partition: &Partition,
        batches: Bytes,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let appended = partition.enqueue(batches, leader_epoch, now_ms)?;
        if appended.duplicate {
            return Ok(appended);
        }
        let (queue, began) = (&self.core().queue, Instant::now());
        if !write_waiting(self.core()) {
            queue.wake_writer();
        } else if began.elapsed() > SLOW {
            queue.leave_to_writer_until(began + PAUSE);
        }
        Ok(appended)
    }
}

/// Ends a turn of writing, also when it panics.
struct Turn<'a>(&'a Core);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.queue.end_turn();
    }
}

/// Writes what waits, if that can be done at once. False when the writer is to be woken.
pub(super) fn write_waiting(core: &Core) -> bool {
    if core.settings.durability != Durability::Os {
        return false;
    }
    let Some(entries) = core.queue.take_batches(BYTES_MAX) else { return false };
    let _turn = Turn(core);
    let _guard = PoisonOnPanic(core, "the writing of an append");
    if !has_room(core) || !all_at_hand(&entries) {
        // The writer hears of it when the turn ends.
        core.queue.give_back(entries);
        return true;
    }
    writer::apply(core, entries);
    true
}

fn all_at_hand(entries: &[Entry]) -> bool {
    let mut looked_at: Vec<&Partition> = Vec::with_capacity(1);
    for entry in entries {
        let Entry::Batch(first) = entry else { return false };
        if looked_at.iter().any(|partition| partition.number() == first.partition.number()) {
            continue;
        }
        looked_at.push(&first.partition);
        let run = entries.iter().filter_map(|entry| match entry {
            Entry::Batch(pending) if pending.partition.number() == first.partition.number() => Some(pending),
            _ => None,
        });
        if !first.partition.takes_at_once(run) {
            return false;
        }
    }
    true
}
