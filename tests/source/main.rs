//! Where transactions come from, and what they are on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod cards;
mod schema;
mod support;
mod synthetic;
mod transaction;
mod yahoo;
mod yahoo_server;
mod yfinance;
