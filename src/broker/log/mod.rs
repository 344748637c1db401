//! The durable log: partitions of raw record batches on disk, one group commit for all that wait, and a small durable
//! key-value state beside them.
//!
//! Owns: segments, indexes, the journal that group commit writes, recovery, retention, producer state. Must not know:
//! the Kafka protocol's requests and errors, sockets, topics' names beyond the directory that is handed in. It reads
//! the record batch header (magic 2), because that is the storage format.

mod contract;

pub use contract::*;
