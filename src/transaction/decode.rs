//! JSON bytes -> transaction, totally.

/// Why a message is not a transaction. Its text becomes a dead letter's reason.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct DecodeError(pub String);
