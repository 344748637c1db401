//! The binary as a user runs it: what it prints, keeps, refuses and leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod compose;
mod data_dir;
mod dead_letters;
mod disk;
mod errors;
mod http;
mod keeping;
mod manuals;
mod pipeline;
mod postgres_readers;
mod reset;
#[path = "../support/mod.rs"]
mod support;
mod yahoo;
#[path = "../source/yahoo_server.rs"]
#[allow(dead_code)]
mod yahoo_server;
