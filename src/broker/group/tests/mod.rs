//! The state machine with a clock of the test's own, and what the log keeps of groups.
#![allow(clippy::unwrap_used)]

mod durability;
mod migration;
mod states;
