//! The embedded Kafka-API broker: one node, durable, reached over TCP only.

pub mod log;
