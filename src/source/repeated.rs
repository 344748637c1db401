//! A file that begins again at its end, for ever (`--loop`).

use std::fmt::Write;

use super::{Draft, Next, SkipReport, Source, SourceError};
use crate::transaction::{ID_CHARS_MAX, TIME_MAX};

/// A source that can begin again.
pub(super) trait Rewind: Source {
    /// Goes back to its first transaction.
    fn rewind(&mut self);
}

/// What a round is shifted by beyond its own length, at least.
const STEP_US_MIN: i64 = 1_000_000;

/// Plays a source again and again. Event times go on where the last round ended, and ids get the round's number, so that no
/// round looks like a repetition of another.
pub(super) struct Repeated<S> {
    source: S,
    /// From 1.
    round: u64,
    /// Added to event times.
    shift_us: i64,
    seen: Option<Seen>,
}

/// Event times of this round, as they stand in the source.
struct Seen {
    earliest_us: i64,
    latest_us: i64,
    last_us: i64,
    /// The longest step from one to the next, and back.
    step_us: i64,
    step_back_us: i64,
}

impl Seen {
    fn of(time_us: i64) -> Seen {
        Seen { earliest_us: time_us, latest_us: time_us, last_us: time_us, step_us: 0, step_back_us: 0 }
    }

    fn add(&mut self, time_us: i64) {
        let step_us = time_us - self.last_us;
        self.step_us = self.step_us.max(step_us);
        self.step_back_us = self.step_back_us.max(-step_us);
        self.earliest_us = self.earliest_us.min(time_us);
        self.latest_us = self.latest_us.max(time_us);
        self.last_us = time_us;
    }

    /// What the next round lies behind this one.
    fn round_us(&self) -> i64 {
        // A file with the newest row first has steps back only.
        let step_us = if self.step_us > 0 { self.step_us } else { self.step_back_us };
        self.latest_us - self.earliest_us + step_us.max(STEP_US_MIN)
    }
}

impl<S: Rewind> Repeated<S> {
    pub(super) fn new(source: S) -> Result<Repeated<S>, SourceError> {
        if source.total() == Some(0) {
            return Err(SourceError::Setting(format!("--loop: {} has nothing to repeat", source.describe())));
        }
        Ok(Repeated { source, round: 1, shift_us: 0, seen: None })
    }

    fn begin_again(&mut self) {
        if let Some(seen) = self.seen.take() {
            let shift_us = self.shift_us.saturating_add(seen.round_us());
            // Beyond the last year that can be written, time begins again.
            self.shift_us = if seen.latest_us.saturating_add(shift_us) <= TIME_MAX.0 { shift_us } else { 0 };
        }
        self.source.rewind();
        self.round += 1;
    }
}

/// `ID#2`; of an id that is as long as one may be, the beginning makes room.
fn append_round(id: &mut String, round: u64) {
    // Writing to a String cannot fail.
    let _ = write!(id, "#{round}");
    let too_many = id.chars().count().saturating_sub(ID_CHARS_MAX);
    let end = id.char_indices().nth(too_many).map_or(0, |(place, _)| place);
    id.drain(..end);
}

impl<S: Rewind> Source for Repeated<S> {
    fn next_into(&mut self, out: &mut Draft) -> Result<Next, SourceError> {
        let mut next = self.source.next_into(out)?;
        if next == Next::End {
            self.begin_again();
            next = self.source.next_into(out)?;
        }
        if let Some(time) = &mut out.event_time {
            self.seen.get_or_insert(Seen::of(time.0)).add(time.0);
            time.0 = time.0.saturating_add(self.shift_us);
        }
        if self.round > 1 && !out.transaction_id.is_empty() {
            append_round(&mut out.transaction_id, self.round);
        }
        Ok(next)
    }

    fn describe(&self) -> String {
        format!("{} again and again", self.source.describe())
    }

    fn total(&self) -> Option<u64> {
        None
    }

    fn skipped(&self) -> SkipReport {
        self.source.skipped()
    }

    fn fingerprint(&self) -> Option<String> {
        None
    }

    fn has_event_times(&self) -> bool {
        self.source.has_event_times()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_longer_than_its_times_whatever_their_order() {
        let second = 1_000_000;
        for (times, round) in [
            (&[0][..], second),
            (&[0, 0, 0], second),
            (&[0, 10 * second, 30 * second], 50 * second),
            (&[30 * second, 10 * second, 0], 50 * second),
            (&[20 * second, 0, 10 * second], 30 * second),
        ] {
            let mut seen = Seen::of(times[0]);
            times.iter().for_each(|time| seen.add(*time));
            assert_eq!(seen.round_us(), round, "{times:?}");
        }
    }

    #[test]
    fn an_id_with_its_round_is_no_longer_than_an_id_may_be() {
        for (id, round, expected) in
            [("a", 2, "a#2".to_owned()), (&"é".repeat(64), 10, format!("{}#10", "é".repeat(61)))]
        {
            let mut text = id.to_owned();
            append_round(&mut text, round);
            assert_eq!(text, expected);
        }
    }
}
