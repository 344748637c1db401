//! Poison, outage and broken invariants are told apart by what PostgreSQL says.

use std::io;

use crate::aggregate::WindowLength;
use crate::postgres::SessionError;

/// What to do about an error of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The data of a message was refused: find the message, make it a dead letter.
    Data,
    /// Connection, resources or permissions: wait and try again, never a dead letter.
    Outage,
    /// What cannot happen while the books are sound: stop.
    Broken,
}

/// Tells what an error of PostgreSQL calls for.
///
/// Source: PostgreSQL's appendix "Error Codes"; 22 and 54 and two codes of 23 depend on the data alone.
pub fn classify(error: &sqlx::Error) -> Class {
    let code = match error {
        sqlx::Error::Database(error) => error.code(),
        // A server that dies in the middle of an answer shows as a protocol error.
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => return Class::Outage,
        _ => return Class::Broken,
    };
    let Some(code) = code else { return Class::Broken };
    match (code.get(..2).unwrap_or_default(), &*code) {
        (_, "23502" | "23514") | ("22" | "54", _) => Class::Data,
        // Permissions, a server that is read-only, sessions that it ended for their slowness (25P03, 25P04).
        (_, "42501" | "25006" | "25P03" | "25P04") => Class::Outage,
        // 08 connection, 28 password changed, 3D database gone, 40 rolled back, 53 resources, 55 locked,
        // 57 operator (shutting down, starting up), 58 input and output.
        ("08" | "28" | "3D" | "40" | "53" | "55" | "57" | "58", _) => Class::Outage,
        _ => Class::Broken,
    }
}

/// Why the sink could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// PostgreSQL answered with an error, or did not answer.
    #[error("PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
    /// A connection that is not ours alone.
    #[error("cannot write to PostgreSQL: {0}")]
    Session(SessionError),
    /// PostgreSQL was away for longer than the caller could wait.
    #[error(
        "PostgreSQL was not reachable until it was time to stop; {messages} messages read from Kafka are not \
             stored, the next start reads them again. The last error was: {last}"
    )]
    GaveUp { messages: usize, last: sqlx::Error },
    /// More came in than a batch can hold.
    #[error(
        "a batch has grown to {messages} messages of {bytes} bytes while PostgreSQL was busy, and more came; none of \
             them are stored, the next start reads them again. Let librdkafka read ahead less, with \
             queued.max.messages.kbytes"
    )]
    BatchTooLarge { messages: usize, bytes: usize },
    /// The books are not what this worker wrote.
    #[error(
        "broken invariant on topic_ref {topic_ref}: {what}; nothing of this batch was stored. Did something else \
             write to these tables? Stop all consumers, then `finstream verify` names the differences"
    )]
    Broken { topic_ref: i32, what: String },
    /// Another consumer group's totals live in this schema.
    #[error(
        "the totals in this schema belong to consumer group {owner:?}, this consumer is of group {group:?}: their \
             totals would mix. Give it a schema of its own with --db-schema NAME, or use --group {owner}"
    )]
    OtherGroup { owner: String, group: String },
    /// Windows of another length live in this schema.
    #[error(
        "the windows in this schema are {known} long, --window asks for {asked}: windows of different lengths do not add \
             up. Leave --window out, or give the other length a schema of its own with --db-schema NAME and --group NAME"
    )]
    OtherWindow { known: WindowLength, asked: WindowLength },
    /// The same topic name on another cluster.
    #[error(
        "the totals of topic {topic} in this database come from Kafka cluster {known}, but this is cluster {found}: \
             their offsets cannot be compared. `finstream reset` starts over, --db-schema NAME keeps both apart"
    )]
    OtherCluster { topic: String, known: String, found: String },
    /// A lock on a partition's progress could not be had.
    #[error(
        "partition {partition} is locked in PostgreSQL by backend {pid:?}, which could not be ended; end it with \
             `select pg_terminate_backend(PID)` as a user who may, then start again"
    )]
    Locked { partition: i32, pid: Option<i32> },
}

impl SinkError {
    /// What the error calls for.
    pub fn class(&self) -> Class {
        match self {
            SinkError::Database(error) => classify(error),
            SinkError::GaveUp { .. } | SinkError::Locked { .. } => Class::Outage,
            SinkError::Session(_)
            | SinkError::BatchTooLarge { .. }
            | SinkError::Broken { .. }
            | SinkError::OtherGroup { .. }
            | SinkError::OtherWindow { .. }
            | SinkError::OtherCluster { .. } => Class::Broken,
        }
    }
}

impl From<SessionError> for SinkError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Sql(error) => SinkError::Database(error),
            error => SinkError::Session(error),
        }
    }
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> Self {
        SinkError::Database(sqlx::Error::Io(error))
    }
}
