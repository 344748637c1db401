//! What viewers see of single messages and partitions. Roles give it now and then, never on each message's way under a
//! lock: the last few transactions of a batch, and partitions when somebody asks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Micros;

/// Transactions that are kept for viewers.
pub const TRANSACTIONS_SEEN_MAX: usize = 20;
/// Acknowledgements that are remembered: at 20,000 messages a second, for 3 s. A power of two.
const ACKNOWLEDGEMENTS_MAX: usize = 1 << 16;

/// One stored transaction and its way. What is not known is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionSeen {
    /// Of the log.
    pub partition: i32,
    /// In the partition.
    pub offset: i64,
    /// None of a foreign message.
    pub run_id: Option<String>,
    /// Its place in the run.
    pub sequence: Option<i64>,
    /// The business id.
    pub transaction_id: String,
    /// Whose.
    pub user_id: String,
    /// `purchase`, `declined` (an attempt of one), `refund` or `trade`.
    pub kind: &'static str,
    /// Decimal text.
    pub amount: String,
    /// ISO 4217.
    pub currency: String,
    /// When the arrival process wanted it sent.
    pub scheduled_at: Option<Micros>,
    /// When it was handed to the Kafka client.
    pub sent_at: Option<Micros>,
    /// When the producer of this process was told that it is stored.
    pub acknowledged_at: Option<Micros>,
    /// When the consumer got it.
    pub received_at: Micros,
    /// When its batch was ready for PostgreSQL.
    pub processed_at: Micros,
    /// When COMMIT returned.
    pub committed_at: Option<Micros>,
}

/// One partition, as its consumer sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionSeen {
    /// Its number.
    pub partition: i32,
    /// Offset of the first record that the log still has.
    pub log_start: Option<i64>,
    /// Offset behind the last record that may be read.
    pub log_end: Option<i64>,
    /// Offset behind the last record that PostgreSQL holds.
    pub committed: i64,
    /// Age of the oldest record that is not stored, by the log's timestamps; 0 when caught up, none while it is not known.
    pub oldest_us: Option<i64>,
}

/// Asks the consumer of this process; none when it has ended.
type AskPartitions = Box<dyn Fn() -> Option<Vec<PartitionSeen>> + Send + Sync>;

/// The last transactions, the run that is sent here, and where to ask for partitions.
#[derive(Default)]
pub struct Seen {
    transactions: Mutex<VecDeque<TransactionSeen>>,
    partitions: Mutex<Option<AskPartitions>>,
    sent_run: Mutex<Option<String>>,
    acknowledgements: Acknowledgements,
}

impl fmt::Debug for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Seen").finish_non_exhaustive()
    }
}

impl Seen {
    /// Adds stored transactions, oldest first; the oldest of all make room.
    pub fn add_transactions(&self, transactions: impl IntoIterator<Item = TransactionSeen>) {
        let mut kept = lock(&self.transactions);
        for transaction in transactions {
            if kept.len() == TRANSACTIONS_SEEN_MAX {
                kept.pop_back();
            }
            kept.push_front(transaction);
        }
    }

    /// The last transactions, newest first, with the acknowledgements that are known by now.
    pub fn transactions(&self) -> Vec<TransactionSeen> {
        let run = lock(&self.sent_run).clone();
        let mut seen: Vec<_> = lock(&self.transactions).iter().cloned().collect();
        for transaction in &mut seen {
            let is_ours = run.is_some() && transaction.run_id == run;
            let sequence = transaction.sequence.filter(|_| is_ours);
            transaction.acknowledged_at = sequence.and_then(|sequence| self.acknowledgements.of(sequence));
        }
        seen
    }

    /// The run that the producer of this process sends.
    pub fn set_sent_run(&self, run_id: String) {
        *lock(&self.sent_run) = Some(run_id);
    }

    /// Notes when a message of that run was acknowledged: two stores, no lock.
    pub fn acknowledged(&self, sequence: i64, at: Micros) {
        self.acknowledgements.note(sequence, at);
    }

    /// From now on `ask` knows the partitions.
    pub fn watch_partitions(&self, ask: impl Fn() -> Option<Vec<PartitionSeen>> + Send + Sync + 'static) {
        *lock(&self.partitions) = Some(Box::new(ask));
    }

    /// The partitions that the consumer of this process owns; none where there is no consumer.
    pub fn partitions(&self) -> Option<Vec<PartitionSeen>> {
        lock(&self.partitions).as_ref().and_then(|ask| ask())
    }
}

/// When the last messages were acknowledged, by sequence. Nothing is reserved before the first one.
#[derive(Default)]
struct Acknowledgements(std::sync::OnceLock<Box<[Slot]>>);

struct Slot {
    sequence: AtomicI64,
    at: AtomicI64,
}

impl Acknowledgements {
    fn note(&self, sequence: i64, at: Micros) {
        let slots = self.0.get_or_init(|| {
            let empty = || Slot { sequence: AtomicI64::new(-1), at: AtomicI64::new(0) };
            std::iter::repeat_with(empty).take(ACKNOWLEDGEMENTS_MAX).collect()
        });
        let slot = &slots[sequence as usize % ACKNOWLEDGEMENTS_MAX];
        // Whoever reads between the stores finds no sequence, and so no time of another message.
        slot.sequence.store(-1, Ordering::Release);
        slot.at.store(at.0, Ordering::Release);
        slot.sequence.store(sequence, Ordering::Release);
    }

    fn of(&self, sequence: i64) -> Option<Micros> {
        let slot = &self.0.get()?[sequence as usize % ACKNOWLEDGEMENTS_MAX];
        let is_it = || slot.sequence.load(Ordering::Acquire) == sequence;
        let at = is_it().then(|| Micros(slot.at.load(Ordering::Acquire)));
        at.filter(|_| is_it())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each holds whole values at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seen(offset: i64) -> TransactionSeen {
        TransactionSeen {
            partition: 0,
            offset,
            run_id: Some("run".to_owned()),
            sequence: Some(offset),
            transaction_id: String::new(),
            user_id: String::new(),
            kind: "purchase",
            amount: "1.00".to_owned(),
            currency: "USD".to_owned(),
            scheduled_at: None,
            sent_at: None,
            acknowledged_at: None,
            received_at: Micros(1),
            processed_at: Micros(2),
            committed_at: None,
        }
    }

    #[test]
    fn the_last_twenty_are_kept_newest_first_with_the_acknowledgements_of_our_own_run() {
        let all = Seen::default();
        all.add_transactions((0..30).map(seen));
        all.acknowledged(29, Micros(7));
        let offsets: Vec<i64> = all.transactions().iter().map(|seen| seen.offset).collect();
        assert_eq!(offsets, (10..30).rev().collect::<Vec<_>>());
        assert_eq!(all.transactions()[0].acknowledged_at, None, "whose run this is nobody has said");
        all.set_sent_run("run".to_owned());
        assert_eq!(all.transactions()[0].acknowledged_at, Some(Micros(7)));
        assert_eq!(all.transactions()[1].acknowledged_at, None);
    }

    #[test]
    fn an_acknowledgement_that_was_overwritten_is_not_known() {
        let all = Acknowledgements::default();
        assert_eq!(all.of(3), None);
        all.note(3, Micros(5));
        assert_eq!(all.of(3), Some(Micros(5)));
        all.note(3 + ACKNOWLEDGEMENTS_MAX as i64, Micros(6));
        assert_eq!(all.of(3), None);
    }

    #[test]
    fn partitions_are_asked_for_where_a_consumer_is() {
        let all = Seen::default();
        assert_eq!(all.partitions(), None);
        all.watch_partitions(|| Some(vec![PartitionSeen { partition: 4, ..PartitionSeen::default() }]));
        assert_eq!(all.partitions().unwrap()[0].partition, 4);
    }
}
