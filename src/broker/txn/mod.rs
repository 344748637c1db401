//! Transactions: which transactional id is held by which producer, what its transaction has touched, and how it ends.
//!
//! `metadata` is the state machine of one id, pure of time and I/O; `ids` holds all of them within bounds; `codec` is
//! their durable form in `__transaction_state`; `coordinator` carries requests to them; `ending` writes how a transaction
//! ends; `timers` ends those that hang; `loading` puts everything together again at start-up, and `repair` what a power
//! cut tore apart. Knows no sockets and no protocol. Why it may wait for the disk so seldom:
//! `docs/decisions/0016-transactions.md`.

mod codec;
mod coordinator;
mod ending;
mod ids;
mod loading;
mod metadata;
mod repair;
#[cfg(test)]
mod tests;
mod timers;

pub(crate) use coordinator::{Coordinator, Entered};
pub(crate) use ending::COORDINATOR_EPOCH;
pub(crate) use loading::OpenError;
pub(crate) use metadata::{End, Metadata, Partitions, ProducerIdEpoch, TransactionState, TxnError};
