//! Consumer groups: who is in them, which generation holds, and what they have committed.
//!
//! `state` is the state machine (`join` its way in, `member` one member, `terms` its words), pure of time and I/O; `codec` is its durable
//! form; `coordinator` carries requests to it; `registry` guards it, keeps its timers and writes through
//! `StateStore`; `bounds` says how much it may hold. Knows no sockets and no protocol.

mod bounds;
mod codec;
mod coordinator;
mod join;
mod member;
mod registry;
mod state;
mod store;
mod terms;
#[cfg(test)]
mod tests;

pub(crate) use coordinator::Coordinator;
pub(crate) use join::{JoinRequest, Joined};
pub(crate) use member::Member;
pub(crate) use registry::OffsetKey;
pub(crate) use state::Group;
pub(crate) use store::{CommittedOffset, StoreError};
pub(crate) use terms::{GroupError, Phase, SyncRequest};
