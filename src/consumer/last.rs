//! The last transactions that a writer has stored, for viewers: some now and then, so that it costs a batch next to
//! nothing.

use std::time::{Duration, Instant};

use crate::progress::{Progress, TRANSACTIONS_SEEN_MAX, TransactionSeen};
use crate::sink::{Batch, Committed, Message, StoredPart};
use crate::transaction::{Detail, Transaction};

/// Transactions that a writer shows in a second, at most: each is read a second time for it.
const PER_SECOND_MAX: usize = 200;
/// Beyond that, the last ones of a batch after this time.
const THEN_EVERY: Duration = Duration::from_millis(200);

/// What one writer has shown lately.
#[derive(Debug, Default)]
pub(super) struct LastTransactions {
    shown: usize,
    since: Option<Instant>,
    last_at: Option<Instant>,
}

impl LastTransactions {
    /// Shows the end of a batch that was stored as a whole; of another one it is not known here which are rows.
    pub(super) fn show(&mut self, progress: &Progress, batch: &Batch, committed: &Committed) {
        let [part] = committed.parts.as_slice() else { return };
        let is_stored = committed.fenced.is_empty() && part.messages > 0;
        if !is_stored || !self.is_due(batch.len().min(TRANSACTIONS_SEEN_MAX)) {
            return;
        }
        let last = batch.last_transactions(TRANSACTIONS_SEEN_MAX);
        progress.seen.add_transactions(last.filter_map(|message| seen(&message, part)));
    }

    fn is_due(&mut self, count: usize) -> bool {
        let now = Instant::now();
        if self.since.is_none_or(|since| now - since >= Duration::from_secs(1)) {
            (self.since, self.shown) = (Some(now), 0);
        }
        let is_due = self.shown + count <= PER_SECOND_MAX || self.last_at.is_none_or(|last| now - last >= THEN_EVERY);
        if is_due {
            self.shown += count;
            self.last_at = Some(now);
        }
        is_due
    }
}

fn seen(message: &Message<'_>, part: &StoredPart) -> Option<TransactionSeen> {
    let transaction = Transaction::decode(message.payload?).ok()?;
    Some(TransactionSeen {
        partition: message.partition,
        offset: message.offset,
        run_id: message.identity.map(|id| id.run.to_string()),
        sequence: message.identity.map(|id| id.sequence),
        transaction_id: transaction.transaction_id.to_string(),
        user_id: transaction.user_id.to_string(),
        kind: match transaction.detail {
            Detail::Purchase { .. } if transaction.is_declined() => "declined",
            Detail::Purchase { .. } => "purchase",
            Detail::Refund { .. } => "refund",
            Detail::Trade { .. } => "trade",
        },
        amount: transaction.amount.to_string(),
        currency: transaction.currency.to_string(),
        scheduled_at: transaction.scheduled_at,
        sent_at: transaction.sent_at,
        acknowledged_at: None,
        received_at: message.received_at,
        processed_at: part.processed_at,
        committed_at: part.committed_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_all_shown_and_of_many_the_last_ones_now_and_then() {
        let mut few = LastTransactions::default();
        assert!((0..PER_SECOND_MAX).all(|_| few.is_due(1)));
        let mut many = LastTransactions::default();
        let shown = (0..10_000).filter(|_| many.is_due(TRANSACTIONS_SEEN_MAX)).count();
        assert!((PER_SECOND_MAX / TRANSACTIONS_SEEN_MAX..100).contains(&shown), "{shown}");
    }
}
