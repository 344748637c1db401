//! The broker's durable log: what was acknowledged is there after any crash, and nothing else disturbs it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod append;
mod checkpoints;
mod compaction;
mod compaction_kill;
mod compaction_model;
mod compaction_transactions;
mod full_disk;
mod golden;
mod indexes;
mod kill;
mod partitions;
mod read;
mod recovery;
mod shortcut;
mod support;
mod transactions;
mod transactions_model;
