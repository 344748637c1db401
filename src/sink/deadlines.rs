//! How long a worker waits for PostgreSQL.

use std::time::Duration;

use crate::postgres::CONNECT_DEADLINE;

/// Longest time for a transaction that had to be given up for its slowness again and again.
pub(super) const TRANSACTION_DEADLINE_MAX: Duration = Duration::from_secs(240);

/// How long PostgreSQL may take before its connection is taken for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    pub connect: Duration,
    /// For a transaction and for each other exchange. One that writes a batch may take twice as long after each time
    /// that it did not end, so that a slow server is not started over for ever.
    pub transaction: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { connect: CONNECT_DEADLINE, transaction: Duration::from_secs(15) }
    }
}
