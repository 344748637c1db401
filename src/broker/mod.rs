//! The embedded Kafka-API broker: one node, durable, reached over TCP only.
//!
//! `server` accepts, `connection` keeps one client's requests in order, `frame` takes bytes off the socket, `schema`
//! proves a request's counts, `dispatch` decodes and calls one of `handlers`, `sender` sends what they answer; `catalog`
//! holds topics, `internal_topic` keeps the state of coordinators, `group` holds consumer groups, `txn` holds
//! transactions, `fetch_sessions` holds what readers want, `log` holds the bytes. Nobody outside reaches further than
//! `Broker`.

mod answer;
mod aside;
mod budget;
mod catalog;
mod complaints;
mod connection;
mod dispatch;
mod fetch_sessions;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group;
mod handlers;
mod hold;
mod internal_topic;
mod limits;
pub mod log;
mod node;
mod open_files;
mod places;
mod producer_ids;
#[cfg(any(test, fuzzing))]
mod sample;
mod schema;
mod schemas;
mod sender;
mod server;
mod topic_config;
mod txn;
mod versions;

pub use hold::Holder;
pub use limits::Limits;
pub use server::{Broker, BrokerError};
