//! Consumer groups: who is in them, which generation holds, and what they have committed.
//!
//! `state` is the state machine (`join` its way in, `member` one member), pure of time and I/O; `codec` is its durable
//! form; `coordinator` guards it, keeps its timers and writes through `StateStore`. Knows no sockets and no protocol.

mod codec;
mod coordinator;
mod join;
mod member;
mod state;
mod store;

pub(crate) use coordinator::{Coordinator, OffsetKey};
pub(crate) use join::{JoinRequest, Joined};
pub(crate) use member::Member;
pub(crate) use state::{GroupError, SyncRequest};
pub(crate) use store::{CommittedOffset, StoreError};
