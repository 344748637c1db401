//! As fast as it goes is as fast as the slowest part goes: whether a producer without a rate of its own is too far ahead of the
//! consumer in its process.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::progress::Progress;

/// A consumer that is so many messages behind is waited for. Some seconds at full rate, and more than its batches hold, so that
/// it never runs dry.
const LAG_MESSAGES_MAX: i64 = 500_000;
/// A consumer that has stored nothing for so long, though PostgreSQL is there, has nothing to store: what it lacks is nothing
/// that is ever handed to it, such as the records of transactions that were aborted.
const STANDS_STILL_AFTER: Duration = Duration::from_secs(5);

/// How long the consumer has been waited for.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Messages stored when that was last seen to change, and when.
    waiting: Option<(u64, Instant)>,
    /// Of the lag: what the consumer will never store.
    unreachable: i64,
}

impl Ahead {
    pub(super) fn is_far(&mut self, progress: &Progress) -> bool {
        let lag = progress.lag_messages.load(Ordering::Relaxed);
        let is_away = progress.database_away.load(Ordering::Relaxed);
        // While partitions change hands nobody knows the lag: it stays what it was.
        let is_behind = match lag {
            0.. => lag - self.unreachable > LAG_MESSAGES_MAX,
            _ => self.waiting.is_some() || is_away,
        };
        if !is_behind {
            self.waiting = None;
            self.unreachable = self.unreachable.min(lag.max(0));
            return false;
        }
        let stored = progress.stored.load(Ordering::Relaxed);
        match self.waiting {
            Some((known, since)) if known == stored && !is_away && since.elapsed() > STANDS_STILL_AFTER => {
                self.waiting = None;
                self.unreachable = lag.max(0);
                false
            }
            Some((known, _)) if known == stored && !is_away => true,
            _ => {
                self.waiting = Some((stored, Instant::now()));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_that_is_far_behind_is_waited_for_also_while_nobody_knows_how_far() {
        let (progress, mut ahead) = (Progress::new(), Ahead::default());
        let set = |lag| progress.lag_messages.store(lag, Ordering::Relaxed);
        for (lag, is_far) in [(-1, false), (500_000, false), (500_001, true), (-1, true), (10, false), (-1, false)] {
            set(lag);
            assert_eq!(ahead.is_far(&progress), is_far, "{lag}");
        }
        progress.database_away.store(true, Ordering::Relaxed);
        assert!(ahead.is_far(&progress), "it will be behind when PostgreSQL comes back");
    }

    #[test]
    fn what_is_never_handed_over_is_not_waited_for() {
        let (progress, mut ahead) = (Progress::new(), Ahead::default());
        progress.lag_messages.store(600_000, Ordering::Relaxed);
        assert!(ahead.is_far(&progress));
        let (stored, since) = ahead.waiting.take().unwrap_or_else(|| unreachable!());
        let long_ago = since.checked_sub(2 * STANDS_STILL_AFTER).unwrap_or(since);
        ahead.waiting = Some((stored, long_ago));
        progress.database_away.store(true, Ordering::Relaxed);
        assert!(ahead.is_far(&progress), "a database that is away stores nothing, and will");
        progress.database_away.store(false, Ordering::Relaxed);
        ahead.waiting = Some((stored, long_ago));
        assert!(!ahead.is_far(&progress) && !ahead.is_far(&progress));
        progress.lag_messages.store(1_100_001, Ordering::Relaxed);
        assert!(ahead.is_far(&progress), "it counts from there");
        progress.lag_messages.store(0, Ordering::Relaxed);
        assert!(!ahead.is_far(&progress));
        progress.lag_messages.store(500_001, Ordering::Relaxed);
        assert!(ahead.is_far(&progress), "what was there has gone");
    }
}
