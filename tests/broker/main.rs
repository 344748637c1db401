//! The embedded broker over TCP: rdkafka and raw frames against it. One binary, because linking is what tests cost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod auto_create;
mod codecs;
mod compaction;
mod configs;
mod fetch;
mod fetch_sessions;
mod full_disk;
mod group_bounds;
mod groups;
mod pipeline;
mod protocol;
mod repeats;
#[path = "../support/mod.rs"]
mod sandbox;
mod strangers;
mod support;
mod testing;
mod transactions;
mod transactions_wire;
