//! One PostgreSQL transaction a micro-batch: progress, latency rows, totals, dead letters, all or nothing.
//!
//! Owns every statement that moves progress: streams and their lives, ownership of partitions, the write path and what
//! to do when PostgreSQL refuses a batch or goes away. Must know no Kafka client: records come in as [`Batch`]es,
//! positions in the log as plain offsets.

mod backoff;
mod batch;
mod changes;
mod columns;
mod copy;
mod counted;
mod dead_letters;
mod deadlines;
mod error;
mod fingerprint;
mod merge;
mod outcome;
mod ownership;
mod packs;
mod plans;
mod prepare;
mod reset;
mod resume;
mod retention;
mod runs;
mod streams;
mod upsert;
mod values;
mod worker;
mod write;

pub use backoff::Patience;
pub use batch::{Batch, Message, Unstored};
pub use changes::{Changes, Total, change_all, read_changes, settle_changes};
pub use counted::{Known, is_counted, skipped_from};
pub use dead_letters::{DeadLetter, Replay, dead_letters, replay};
pub use deadlines::Deadlines;
pub use error::{Class, SinkError, classify};
pub use fingerprint::{Fingerprint, fingerprint};
pub use merge::Merger;
pub use ownership::{Backend, Claimed, Owned};
pub use plans::plan_by_key;
pub use reset::{LifeStart, ResetError, open_new_life, reset_forward};
pub use resume::{LogRange, Mismatch, Reason, Resume, resume};
pub use retention::{Excess, cut, differs, excess, set_differs};
pub use streams::{PartitionProgress, Stream, claim_schema, current_stream, open_stream, progress, window_length};
pub use worker::{Committed, StoredPart, Worker, WorkerSettings};
