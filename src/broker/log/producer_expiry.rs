//! When silent producers are forgotten: after a day, and sooner while all partitions together remember many.
//!
//! Forgetting changes no answer to a producer that goes on: its next batch is taken on trust, and only what it sends a
//! second time would not be recognised. So whoever may still send something a second time is never forgotten here, and
//! the sum is no hard bound; that of each partition is.

use super::lock;
use super::partition::Partition;

/// Remembered producers of all partitions from which on the silent ones go sooner; each takes up to 450 bytes.
const REMEMBERED_MAX: usize = 500_000;
const MINUTE_MS: i64 = 60_000;
/// A day (Kafka's `producer.id.expiration.ms`).
const SILENT_MINUTES_MAX: usize = 24 * 60;
/// Clients send a batch again for two minutes (`delivery.timeout.ms`), unless they are told otherwise.
const SILENT_MINUTES_MIN: usize = 15;

/// For how long a producer may be silent now.
pub(super) fn silent_ms_max(partitions: &[Partition], now_ms: i64) -> i64 {
    let remembered: usize = partitions.iter().map(|partition| lock(&partition.0.store).producers.len()).sum();
    let mut silences = Silences::default();
    if remembered > REMEMBERED_MAX {
        for partition in partitions {
            let store = lock(&partition.0.store);
            store.producers.last_appends_ms().for_each(|last_ms| silences.note(now_ms.saturating_sub(last_ms)));
        }
    }
    silences.longest_ms(REMEMBERED_MAX)
}

/// How many producers are silent for how many minutes.
#[derive(Default)]
struct Silences(Vec<usize>);

impl Silences {
    fn note(&mut self, silent_ms: i64) {
        let minute = usize::try_from(silent_ms / MINUTE_MS).unwrap_or(0).min(SILENT_MINUTES_MAX);
        if self.0.len() <= minute {
            self.0.resize(minute + 1, 0);
        }
        self.0[minute] += 1;
    }

    /// The longest silence that leaves no more than so many, if that can be.
    fn longest_ms(&self, remembered_max: usize) -> i64 {
        let mut left = remembered_max;
        let fits = |count: &usize| match left.checked_sub(*count) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let minutes = match self.0.iter().copied().take_while(fits).count() {
            all if all == self.0.len() => SILENT_MINUTES_MAX,
            minutes => minutes.max(SILENT_MINUTES_MIN),
        };
        minutes as i64 * MINUTE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silent_go_sooner_while_there_are_many_and_nobody_who_wrote_a_moment_ago() {
        let longest_minutes = |minutes: &[i64], remembered_max| {
            let mut silences = Silences::default();
            minutes.iter().for_each(|minute| silences.note(minute * MINUTE_MS + 5));
            silences.longest_ms(remembered_max) / MINUTE_MS
        };
        assert_eq!(longest_minutes(&[], 3), 24 * 60);
        assert_eq!(longest_minutes(&[0, 700, 5000], 3), 24 * 60);
        assert_eq!(longest_minutes(&[0, 30, 700, 5000], 3), 24 * 60);
        assert_eq!(longest_minutes(&[0, 30, 700, 800], 3), 800);
        assert_eq!(longest_minutes(&[0, 30, 30, 30], 3), 30);
        assert_eq!(longest_minutes(&[0, 1, 2, 3], 3), 15);
        // A clock that went back.
        assert_eq!(longest_minutes(&[-9, -9, -9, 40], 3), 40);
    }
}
