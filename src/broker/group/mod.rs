//! Consumer groups: who is in them, which generation holds, and what they have committed.
//!
//! `state` is the state machine (`join` its way in, `member` one member, `terms` its words), pure of time and I/O, and
//! `offsets` what a group has committed, also in transactions (`expiry`: for how long); `coordinator` carries requests to
//! groups, `commits` and `transactional` those about offsets (`committer`: whose); `registry` guards groups and keeps
//! their timers; `bounds` says how much they may hold.
//! `store` writes to `__consumer_offsets`: `form` is what is remembered of a group, `codec` its bytes, `loading` the way
//! back, `migration` that from the form of `earlier` versions. Knows no sockets and no requests.

mod bounds;
mod codec;
mod commits;
mod committer;
mod coordinator;
mod earlier;
mod expiry;
mod form;
mod join;
mod loading;
mod member;
mod migration;
mod offsets;
mod registry;
mod state;
mod store;
mod terms;
#[cfg(test)]
mod tests;
mod transactional;

pub(crate) use committer::Committer;
pub(crate) use coordinator::Coordinator;
pub use coordinator::GroupsError;
pub(crate) use join::{JoinRequest, Joined};
pub(crate) use member::Member;
pub(crate) use offsets::{CommittedOffset, OffsetKey};
pub(crate) use state::Group;
pub(crate) use store::StoreError;
pub(crate) use terms::{GroupError, Phase, SyncRequest};
