//! One transactional id: who holds it, what state its transaction is in, and which request may move it on.
//!
//! Pure: requests and the time come in, the next form or a refusal comes out. Writing it down and telling partitions is
//! the coordinator's. Source: KIP-98, KIP-360, and `TransactionMetadata` and `TransactionCoordinator` of Apache Kafka 4
//! with `transaction.version` 0 or 1.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::group::GroupError;

/// No producer, and no epoch.
pub(crate) const NONE_ID: i64 = -1;
pub(crate) const NONE_EPOCH: i16 = -1;
/// The last epoch is for fencing: no producer ever gets it.
const EPOCH_LAST: i16 = i16::MAX - 1;

/// Topics and partitions of them.
pub(crate) type Partitions = BTreeMap<String, BTreeSet<i32>>;

/// Kafka's states, with its numbers. Legal predecessors: Empty of Empty and Complete*; Ongoing of Empty, Ongoing and
/// Complete*; Prepare* of Ongoing; Complete* of the Prepare* of the same end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TransactionState {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
    /// Being forgotten.
    Dead = 6,
    /// Kafka fences and aborts in two steps, and never stores this one; here both are one step.
    PrepareEpochFence = 7,
}

use TransactionState::{CompleteAbort, CompleteCommit, Dead, Empty, Ongoing, PrepareAbort, PrepareCommit};

impl TransactionState {
    const ALL: [(TransactionState, &'static str); 8] = [
        (Empty, "Empty"),
        (Ongoing, "Ongoing"),
        (PrepareCommit, "PrepareCommit"),
        (PrepareAbort, "PrepareAbort"),
        (CompleteCommit, "CompleteCommit"),
        (CompleteAbort, "CompleteAbort"),
        (Dead, "Dead"),
        (TransactionState::PrepareEpochFence, "PrepareEpochFence"),
    ];

    /// The state of that number.
    pub(crate) fn of(number: i8) -> Option<TransactionState> {
        usize::try_from(number).ok().and_then(|at| Self::ALL.get(at)).map(|(state, _)| *state)
    }

    /// The state that administrators call so.
    pub(crate) fn named(name: &str) -> Option<TransactionState> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }

    /// What administrators call it.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// How a transaction is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Commit,
    Abort,
}

impl End {
    fn prepare(self) -> TransactionState {
        if self == End::Commit { PrepareCommit } else { PrepareAbort }
    }

    fn complete(self) -> TransactionState {
        if self == End::Commit { CompleteCommit } else { CompleteAbort }
    }
}

/// Why a request is refused, as Kafka tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TxnError {
    #[error("the request contradicts itself")]
    InvalidRequest,
    #[error("the transaction timeout must be above 0 and at most {TIMEOUT_MS_MAX} ms")]
    InvalidTimeout,
    #[error("the producer id is not the one of this transactional id")]
    InvalidProducerIdMapping,
    #[error("a newer producer with the same transactional id has taken over")]
    ProducerFenced,
    #[error("the transaction before is not ended yet; try again")]
    Concurrent,
    #[error("the transaction is not in a state for that")]
    InvalidState,
    #[error("the partition is not part of the transaction")]
    NotInTransaction,
    #[error("there are too many transactional ids; try again later")]
    Full,
    #[error("the transaction's state cannot be written; try again")]
    NotAvailable,
    #[error("the offsets are too large to be committed at once")]
    OffsetsTooLarge,
    #[error(transparent)]
    Member(GroupError),
    #[error("there is no such transactional id")]
    NotFound,
}

/// Kafka's `transaction.max.timeout.ms`.
pub(crate) const TIMEOUT_MS_MAX: i32 = 900_000;
/// Kafka's `transactional.id.expiration.ms`.
pub(crate) const EXPIRES_AFTER_MS: i64 = 7 * 24 * 3600 * 1000;

/// A producer as it names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerIdEpoch {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// What is known of one transactional id, and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) producer: ProducerIdEpoch,
    /// The epoch before, if whoever raised it named it: the same request may come again. Not stored, as in Kafka.
    pub(crate) last_epoch: i16,
    /// The producer id whose epochs ran out.
    pub(crate) previous_id: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) state: TransactionState,
    pub(crate) partitions: Partitions,
    /// -1 before the first transaction.
    pub(crate) start_ms: i64,
    pub(crate) update_ms: i64,
}

/// What comes of InitProducerId.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// The producer goes on as this, once it is written.
    Ready(Metadata),
    /// The transaction of the one before must be aborted first; the producer asks again meanwhile.
    Fence(Metadata),
    /// The epochs of the producer id ran out: ask again with a new one.
    NeedsNewId,
}

/// What comes of EndTxn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has ended so already.
    Done,
    /// To be written, with markers behind it, and then [`Metadata::completed`].
    Prepare(Metadata),
}

impl Metadata {
    /// Of an id that nobody has used; no producer has it yet.
    pub(crate) fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Metadata {
        Metadata {
            producer: ProducerIdEpoch { id: producer_id, epoch: NONE_EPOCH },
            last_epoch: NONE_EPOCH,
            previous_id: NONE_ID,
            timeout_ms,
            state: Empty,
            partitions: Partitions::new(),
            start_ms: -1,
            update_ms: now_ms,
        }
    }

    /// InitProducerId. `expected`: who the producer believes to be (KIP-360). `new_id`: one that was never given out, in
    /// case it is needed.
    pub(crate) fn init(
        &self,
        expected: Option<ProducerIdEpoch>,
        timeout_ms: i32,
        new_id: Option<i64>,
        now_ms: i64,
    ) -> Result<Init, TxnError> {
        let current = self.producer;
        let is_known = |expected: ProducerIdEpoch| {
            let rotated = expected.id == self.previous_id && expected.epoch >= EPOCH_LAST;
            current.epoch == NONE_EPOCH || expected.id == current.id || rotated
        };
        if !expected.is_none_or(is_known) {
            return Err(TxnError::ProducerFenced);
        }
        match self.state {
            PrepareCommit | PrepareAbort | Dead | TransactionState::PrepareEpochFence => Err(TxnError::Concurrent),
            Ongoing => Ok(Init::Fence(self.fenced(now_ms))),
            Empty | CompleteCommit | CompleteAbort => {
                let is_exhausted = current.epoch >= EPOCH_LAST;
                if is_exhausted && expected.is_none_or(|expected| expected.epoch == current.epoch) {
                    let Some(id) = new_id else { return Ok(Init::NeedsNewId) };
                    let last_epoch = if expected.is_some() { current.epoch } else { NONE_EPOCH };
                    let renewed = self.emptied(ProducerIdEpoch { id, epoch: 0 }, last_epoch, timeout_ms, now_ms);
                    return Ok(Init::Ready(Metadata { previous_id: current.id, ..renewed }));
                }
                let (epoch, last_epoch) = self.next_epochs(expected)?;
                let next = ProducerIdEpoch { id: current.id, epoch };
                Ok(Init::Ready(self.emptied(next, last_epoch, timeout_ms, now_ms)))
            }
        }
    }

    fn next_epochs(&self, expected: Option<ProducerIdEpoch>) -> Result<(i16, i16), TxnError> {
        let current = self.producer.epoch;
        // Beyond the last one there is none; only a stale request with an expected epoch gets here then.
        let raised = if current >= EPOCH_LAST { Err(TxnError::ProducerFenced) } else { Ok(current + 1) };
        match expected {
            None => Ok((raised?, NONE_EPOCH)),
            Some(expected) if current == NONE_EPOCH || expected.epoch == current => Ok((raised?, current)),
            // The answer got lost: the same one again.
            Some(expected) if expected.epoch == self.last_epoch => Ok((current, self.last_epoch)),
            Some(_) => Err(TxnError::ProducerFenced),
        }
    }

    fn emptied(&self, producer: ProducerIdEpoch, last_epoch: i16, timeout_ms: i32, now_ms: i64) -> Metadata {
        let partitions = Partitions::new();
        let (state, start_ms, update_ms) = (Empty, -1, now_ms);
        let previous_id = self.previous_id;
        Metadata { producer, last_epoch, previous_id, timeout_ms, state, partitions, start_ms, update_ms }
    }

    /// Whether whoever asks is this very producer.
    pub(super) fn check_producer(&self, producer: ProducerIdEpoch) -> Result<(), TxnError> {
        if producer.id != self.producer.id {
            Err(TxnError::InvalidProducerIdMapping)
        } else if producer.epoch != self.producer.epoch {
            Err(TxnError::ProducerFenced)
        } else {
            Ok(())
        }
    }

    /// AddPartitionsToTxn, AddOffsetsToTxn. None: they are all in it already.
    pub(crate) fn add_partitions(
        &self,
        producer: ProducerIdEpoch,
        more: &Partitions,
        now_ms: i64,
    ) -> Result<Option<Metadata>, TxnError> {
        self.check_producer(producer)?;
        match self.state {
            PrepareCommit | PrepareAbort | Dead | TransactionState::PrepareEpochFence => Err(TxnError::Concurrent),
            Ongoing => {
                let is_in = |(topic, indexes): (&String, &BTreeSet<i32>)| {
                    self.partitions.get(topic).is_some_and(|known| indexes.is_subset(known))
                };
                if more.iter().all(is_in) {
                    return Ok(None);
                }
                let mut next = self.clone();
                next.update_ms = now_ms;
                for (topic, indexes) in more {
                    next.partitions.entry(topic.clone()).or_default().extend(indexes);
                }
                Ok(Some(next))
            }
            Empty | CompleteCommit | CompleteAbort => {
                let (partitions, start_ms, update_ms) = (more.clone(), now_ms, now_ms);
                Ok(Some(Metadata { state: Ongoing, partitions, start_ms, update_ms, ..self.clone() }))
            }
        }
    }

    /// Whether this producer may write to that partition within its transaction (KIP-890's verification).
    pub(crate) fn verify(&self, producer: ProducerIdEpoch, topic: &str, partition: i32) -> Result<(), TxnError> {
        self.check_producer(producer)?;
        match self.state {
            PrepareCommit | PrepareAbort => Err(TxnError::Concurrent),
            Ongoing if holds(&self.partitions, topic, partition) => Ok(()),
            _ => Err(TxnError::NotInTransaction),
        }
    }

    /// EndTxn of a client.
    pub(crate) fn end(&self, producer: ProducerIdEpoch, end: End, now_ms: i64) -> Result<Ending, TxnError> {
        self.check_producer(producer)?;
        match self.state {
            Ongoing => Ok(Ending::Prepare(Metadata { state: end.prepare(), update_ms: now_ms, ..self.clone() })),
            state if state == end.complete() => Ok(Ending::Done),
            state if state == end.prepare() => Err(TxnError::Concurrent),
            _ => Err(TxnError::InvalidState),
        }
    }

    /// The ongoing transaction aborted with a raised epoch, which no producer has: what its producer still sends is
    /// refused.
    pub(crate) fn fenced(&self, now_ms: i64) -> Metadata {
        let epoch = self.producer.epoch.saturating_add(1);
        let producer = ProducerIdEpoch { epoch, ..self.producer };
        Metadata { producer, last_epoch: NONE_EPOCH, state: PrepareAbort, update_ms: now_ms, ..self.clone() }
    }

    /// After the markers; none when no end was prepared.
    pub(crate) fn completed(&self, now_ms: i64) -> Option<Metadata> {
        let state = match self.state {
            PrepareCommit => CompleteCommit,
            PrepareAbort => CompleteAbort,
            _ => return None,
        };
        Some(Metadata { state, partitions: Partitions::new(), update_ms: now_ms, ..self.clone() })
    }

    /// How the transaction ends or ended.
    pub(crate) fn ending(&self) -> Option<End> {
        match self.state {
            PrepareCommit | CompleteCommit => Some(End::Commit),
            PrepareAbort | CompleteAbort => Some(End::Abort),
            _ => None,
        }
    }

    /// Whether markers are still to be written.
    pub(crate) fn is_prepared(&self) -> bool {
        matches!(self.state, PrepareCommit | PrepareAbort)
    }

    /// When the transaction hangs and is to be aborted.
    pub(crate) fn times_out_at_ms(&self) -> Option<i64> {
        (self.state == Ongoing).then(|| self.start_ms.saturating_add(i64::from(self.timeout_ms)))
    }

    /// When the id may be forgotten if it stays idle.
    pub(crate) fn expires_at_ms(&self) -> Option<i64> {
        let is_idle = matches!(self.state, Empty | CompleteCommit | CompleteAbort);
        is_idle.then(|| self.update_ms.saturating_add(EXPIRES_AFTER_MS))
    }

    /// What it takes in memory, about, without its id.
    pub(crate) fn bytes(&self) -> usize {
        const ITEM_BYTES: usize = 96;
        let topic = |(name, indexes): (&String, &BTreeSet<i32>)| ITEM_BYTES + name.len() + 16 * indexes.len();
        2 * ITEM_BYTES + self.partitions.iter().map(topic).sum::<usize>()
    }
}

/// Whether a partition is among these.
pub(super) fn holds(partitions: &Partitions, topic: &str, partition: i32) -> bool {
    partitions.get(topic).is_some_and(|indexes| indexes.contains(&partition))
}

/// Whether a transaction may take that long (KIP-98).
pub(crate) fn check_timeout(timeout_ms: i32) -> Result<(), TxnError> {
    if (1..=TIMEOUT_MS_MAX).contains(&timeout_ms) { Ok(()) } else { Err(TxnError::InvalidTimeout) }
}
