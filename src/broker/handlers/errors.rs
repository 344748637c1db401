//! What our errors are called in Kafka's protocol. The one place that maps them.

use kafka_protocol::ResponseError;

use crate::broker::catalog::CatalogError;
use crate::broker::fetch_sessions::SessionError;
use crate::broker::group::{GroupError, StoreError};
use crate::broker::log::{AppendError, ReadError};
use crate::broker::topic_config::ConfigError;
use crate::broker::txn::TxnError;

/// An error with its number in the protocol.
pub(super) trait KafkaError {
    /// Its name in the protocol.
    fn kafka(&self) -> ResponseError;

    /// Its number.
    fn code(&self) -> i16 {
        self.kafka().code()
    }
}

impl KafkaError for AppendError {
    fn kafka(&self) -> ResponseError {
        match self {
            AppendError::Corrupt(_) => ResponseError::CorruptMessage,
            AppendError::TooLarge { .. } => ResponseError::MessageTooLarge,
            // As in Kafka: old formats are known and refused, others are no batches.
            AppendError::UnsupportedMagic(0 | 1) | AppendError::InvalidRecord(_) | AppendError::KeylessRecords(_) => {
                ResponseError::InvalidRecord
            }
            AppendError::UnsupportedMagic(_) => ResponseError::CorruptMessage,
            AppendError::InvalidTimestamp { .. } | AppendError::TimestampType => ResponseError::InvalidTimestamp,
            AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
            AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
            // As Kafka tells those who do not say whose transaction it is.
            AppendError::OutsideOfTransaction { .. } => ResponseError::TransactionalIdAuthorizationFailed,
            AppendError::InvalidTransaction { .. } => ResponseError::InvalidTxnState,
            AppendError::CoordinatorFenced { .. } => ResponseError::TransactionCoordinatorFenced,
            AppendError::Storage(_) => ResponseError::KafkaStorageError,
            // Retriable, and it says that nothing was appended.
            AppendError::Busy { .. } | AppendError::TooManyOpen { .. } => ResponseError::NotEnoughReplicas,
            AppendError::Deleted => ResponseError::UnknownTopicOrPartition,
        }
    }
}

impl KafkaError for ReadError {
    fn kafka(&self) -> ResponseError {
        match self {
            ReadError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
            ReadError::Storage(_) => ResponseError::KafkaStorageError,
            ReadError::Deleted => ResponseError::UnknownTopicOrPartition,
        }
    }
}

impl KafkaError for CatalogError {
    fn kafka(&self) -> ResponseError {
        match self {
            CatalogError::InvalidName(_) | CatalogError::Collides(..) => ResponseError::InvalidTopicException,
            CatalogError::Exists(_) => ResponseError::TopicAlreadyExists,
            CatalogError::Unknown(_) => ResponseError::UnknownTopicOrPartition,
            CatalogError::Partitions { .. } => ResponseError::InvalidPartitions,
            CatalogError::Config(_) => ResponseError::InvalidConfig,
            // As Kafka, where no config of a broker is told apart from no request.
            CatalogError::BrokerConfig(_) => ResponseError::InvalidRequest,
            CatalogError::TooManyPartitions(_) => ResponseError::PolicyViolation,
            CatalogError::Unreadable(..) | CatalogError::Log(_) => ResponseError::KafkaStorageError,
            CatalogError::State(error) => error.kafka(),
        }
    }
}

impl KafkaError for SessionError {
    fn kafka(&self) -> ResponseError {
        match self {
            SessionError::Unknown => ResponseError::FetchSessionIdNotFound,
            SessionError::Epoch => ResponseError::InvalidFetchSessionEpoch,
            SessionError::TopicIds => ResponseError::FetchSessionTopicIdError,
        }
    }
}

impl KafkaError for ConfigError {
    fn kafka(&self) -> ResponseError {
        ResponseError::InvalidConfig
    }
}

impl KafkaError for StoreError {
    fn kafka(&self) -> ResponseError {
        match self {
            StoreError::Concurrent => ResponseError::ConcurrentTransactions,
            StoreError::Append(AppendError::TooLarge { .. }) => ResponseError::InvalidCommitOffsetSize,
            StoreError::Append(AppendError::InvalidProducerEpoch { .. }) => ResponseError::InvalidProducerEpoch,
            StoreError::Member(error) => error.kafka(),
            // Retriable by every client; the cause is in the broker's own log.
            _ => ResponseError::CoordinatorNotAvailable,
        }
    }
}

impl KafkaError for GroupError {
    fn kafka(&self) -> ResponseError {
        match self {
            GroupError::InvalidGroup => ResponseError::InvalidGroupId,
            GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
            GroupError::UnknownMember => ResponseError::UnknownMemberId,
            GroupError::FencedInstance => ResponseError::FencedInstanceId,
            GroupError::MemberIdRequired(_) => ResponseError::MemberIdRequired,
            GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
            GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
            GroupError::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
            GroupError::Full => ResponseError::GroupMaxSizeReached,
            GroupError::TooLarge => ResponseError::InvalidRequest,
            GroupError::NotEmpty => ResponseError::NonEmptyGroup,
            GroupError::NotFound => ResponseError::GroupIdNotFound,
            GroupError::NotAvailable => ResponseError::CoordinatorNotAvailable,
        }
    }
}

impl KafkaError for TxnError {
    fn kafka(&self) -> ResponseError {
        match self {
            TxnError::InvalidRequest => ResponseError::InvalidRequest,
            TxnError::InvalidTimeout => ResponseError::InvalidTransactionTimeout,
            TxnError::InvalidProducerIdMapping => ResponseError::InvalidProducerIdMapping,
            TxnError::ProducerFenced => ResponseError::ProducerFenced,
            TxnError::Concurrent => ResponseError::ConcurrentTransactions,
            TxnError::InvalidState => ResponseError::InvalidTxnState,
            TxnError::NotInTransaction => ResponseError::TransactionAbortable,
            // Retriable by every client; the cause is in the broker's own log.
            TxnError::Full | TxnError::NotAvailable => ResponseError::CoordinatorNotAvailable,
            TxnError::OffsetsTooLarge => ResponseError::InvalidCommitOffsetSize,
            TxnError::Member(error) => error.kafka(),
            TxnError::NotFound => ResponseError::TransactionalIdNotFound,
        }
    }
}

/// What a transactional request is answered by clients that know a fenced producer by its own error, and by older ones.
pub(super) fn fenced_since(error: TxnError, knows_fencing: bool) -> i16 {
    match error {
        TxnError::ProducerFenced if !knows_fencing => ResponseError::InvalidProducerEpoch.code(),
        error => error.code(),
    }
}

/// 0 or the error's number.
pub(super) fn code_of<T, E: KafkaError>(result: &Result<T, E>) -> i16 {
    result.as_ref().err().map_or(0, KafkaError::code)
}
