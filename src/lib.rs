//! finstream: a finance transaction pipeline on the Kafka API, in one binary.
//!
//! The rooms, in reading order. One straight way leads through:
//! `source -> producer -> (TCP) broker -> consumer -> aggregate -> sink -> PostgreSQL`.
//! `docs/ARCHITECTURE.md` has the picture; `tests/architecture.rs` enforces who may import whom.

pub mod transaction;

pub mod clock;
pub mod metrics;
pub mod progress;
pub mod seam;
pub mod shutdown;

pub mod broker;

pub mod ledger;
pub mod producer;
pub mod source;

pub mod aggregate;
pub mod consumer;
pub mod postgres;
pub mod sink;

pub mod audit;

pub mod cli;
pub mod config;
pub mod data_dir;
pub mod http;
pub mod run;
pub mod testing;
