//! The durable log: partitions of raw record batches on disk, one group commit for all that wait, and a small durable
//! key-value state beside them.
//!
//! Owns: segments, indexes, the journal that group commit writes, recovery, retention, compaction, producer state. Must not know:
//! the Kafka protocol's requests and errors, sockets, topics' names beyond the directory that is handed in. It reads
//! the record batch header (magic 2), because that is the storage format.
//!
//! One way through: [`Partition::append`] checks and queues; the `writer` thread puts all that waits into the `journal`
//! as one group, syncs, writes the `segment`s and moves the high watermarks; the `housekeeper` thread writes
//! `checkpoint`s behind it; `recovery` puts checkpoint and journal together again. The cleaner thread (`compaction`) writes
//! closed segments anew.

mod aborted_index;
mod arrivals;
mod batch;
mod checkpoint;
mod codec;
mod compaction;
mod compressed;
mod core;
mod disk;
mod error;
mod file_range;
mod header_walk;
#[cfg(test)]
mod held;
mod housekeeper;
mod journal;
mod journal_files;
mod journal_scan;
mod journal_witness;
mod marker;
mod offset_index;
mod open;
mod open_transactions;
mod partition;
mod producer_expiry;
mod producer_state;
mod queue;
mod read;
mod recompress;
mod record;
mod records;
mod recovery;
mod retention;
mod room;
mod segment;
mod segment_name;
mod segment_recovery;
mod settings;
mod shortcut;
#[cfg(test)]
mod simulation;
mod store;
mod transactions;
mod writer;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use arrivals::{Arrivals, Listening};
pub(crate) use batch::codecs;
pub use error::{AppendError, OpenError, ReadError};
pub use file_range::FileRange;
pub use marker::{EndTransaction, Marker};
pub use open::Log;
pub use open_transactions::AbortedTransaction;
pub use partition::{Appended, Partition};
pub use producer_state::ActiveProducer;
pub use read::{Batches, Found, Isolation, Read};
pub use settings::{Compaction, Durability, LogSettings, PartitionConfig, PartitionId, RecoveryReport};

// A panic while a lock is held poisons the log through the writer's guard; the data behind these locks stays usable
// for readers, so the locks' own poison is not asked.

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_lock<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write_lock<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
