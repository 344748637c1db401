//! Sink, consumer, ledger and audit on a real PostgreSQL, each as a library. One binary, so that the server starts once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod audit;
mod audit_checkpoint;
mod audit_meanwhile;
mod audit_settling;
mod audit_support;
mod consumer;
mod consumer_broker;
mod ledger;
mod plans;
mod postgres;
mod postgres_session;
mod postgres_views;
mod sink;
mod sink_outage;
mod sink_packed;
mod sink_retention;
mod sink_support;
mod sink_throughput;
