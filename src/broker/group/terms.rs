//! The words that a group's state machine shares with those around it: phases, refusals, requests and answers.

use bytes::Bytes;
use tokio::sync::oneshot;

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No members; may hold offsets.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// Everyone has an assignment.
    Stable,
    /// Deleted.
    Dead,
}

impl Phase {
    /// Kafka's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Empty => "Empty",
            Phase::PreparingRebalance => "PreparingRebalance",
            Phase::CompletingRebalance => "CompletingRebalance",
            Phase::Stable => "Stable",
            Phase::Dead => "Dead",
        }
    }
}

/// Why a group refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    #[error("the group id is empty or longer than 255 bytes")]
    InvalidGroup,
    #[error("the session timeout is out of range")]
    InvalidSessionTimeout,
    #[error("the member is unknown")]
    UnknownMember,
    #[error("another member took over the instance id")]
    FencedInstance,
    #[error("come back with the member id {0}")]
    MemberIdRequired(String),
    #[error("the generation is not the present one")]
    IllegalGeneration,
    #[error("the group rebalances")]
    RebalanceInProgress,
    #[error("no protocol is common to all members")]
    InconsistentProtocol,
    #[error("the group, or the number of groups, is at its limit")]
    Full,
    #[error("the member's metadata, or the assignments, are over the limit of 1 MiB")]
    TooLarge,
    #[error("the group has members")]
    NotEmpty,
    #[error("there is no such group")]
    NotFound,
    #[error("the group cannot be served now")]
    NotAvailable,
}

/// An answer, or the promise of one.
#[derive(Debug)]
pub(crate) enum Step<T> {
    Done(Result<T, GroupError>),
    Wait(oneshot::Receiver<Result<T, GroupError>>),
}

/// A request for an assignment, from the leader with everyone's.
#[derive(Clone, Debug)]
pub(crate) struct SyncRequest {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// A member's assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}
