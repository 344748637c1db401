//! Why a topic cannot be had, in words for people.

use super::super::log::{AppendError, OpenError};
use super::PARTITIONS_MAX;

/// Why a topic could not be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The name breaks Kafka's rules.
    #[error("{0:?} is no topic name: 1 to 249 of a-z, A-Z, 0-9, dot, underscore and hyphen, and not . or ..")]
    InvalidName(String),
    /// There is one already.
    #[error("topic {0} already exists")]
    Exists(String),
    /// A name that differs in dots and underscores only would collide in metric names.
    #[error("topic {0} collides with {1}, which differs only in dots and underscores")]
    Collides(String, String),
    /// There is none.
    #[error("there is no topic {0}")]
    Unknown(String),
    /// The number of partitions is out of range.
    #[error("{asked} partitions are not possible; between {min} and {max} are")]
    Partitions {
        /// What was asked for.
        asked: i32,
        /// The least.
        min: i32,
        /// The most.
        max: i32,
    },
    /// All partitions of the broker are used up.
    #[error("{0} partitions would exist, the limit of this broker is {PARTITIONS_MAX}; delete a topic")]
    TooManyPartitions(usize),
    /// A config is unknown, or its value not possible.
    #[error("{0}")]
    Config(String),
    /// A broker's config cannot be changed at run time, or not to that value.
    #[error("{0}")]
    BrokerConfig(String),
    /// What is stored cannot be read.
    #[error("the stored entry of {0} cannot be read ({1}); was it written by a newer finstream?")]
    Unreadable(String, String),
    /// The log could not make, open or remove a partition.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The change could not be made durable.
    #[error(transparent)]
    State(#[from] AppendError),
}
