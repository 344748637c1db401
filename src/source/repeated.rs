//! A file that begins again at its end, for ever (`--loop`).

use std::fmt::Write;

use super::{Draft, Next, SkipReport, Source, SourceError};
use crate::transaction::{ID_CHARS_MAX, TIME_MAX};

type Open<S> = Box<dyn FnMut() -> Result<S, SourceError> + Send>;

/// Plays a source again and again. Event times go on where the last round ended, and ids get the round's number, so that no
/// round looks like a repetition of another.
pub(super) struct Repeated<S> {
    open: Open<S>,
    source: S,
    /// From 1.
    round: u64,
    /// Added to event times.
    shift_us: i64,
    /// Of this round, as they stand in the source: the first event time, the latest, and the longest step between two.
    first_us: Option<i64>,
    latest_us: i64,
    step_us: i64,
}

impl<S: Source> Repeated<S> {
    pub(super) fn open<T: Send + 'static>(
        settings: T,
        open: impl Fn(&T) -> Result<S, SourceError> + Send + 'static,
    ) -> Result<Repeated<S>, SourceError> {
        let mut open: Open<S> = Box::new(move || open(&settings));
        let source = open()?;
        if source.total() == Some(0) {
            return Err(SourceError::Setting(format!("--loop: {} has nothing to repeat", source.describe())));
        }
        Ok(Repeated { open, source, round: 1, shift_us: 0, first_us: None, latest_us: 0, step_us: 0 })
    }

    fn begin_again(&mut self) -> Result<(), SourceError> {
        if let Some(first) = self.first_us.take() {
            let shift_us = self.shift_us.saturating_add(self.latest_us - first + self.step_us.max(1));
            // Beyond the last year that can be written, time begins again.
            self.shift_us = if self.latest_us.saturating_add(shift_us) <= TIME_MAX.0 { shift_us } else { 0 };
        }
        self.source = (self.open)()?;
        self.round += 1;
        Ok(())
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

impl<S: Source> Source for Repeated<S> {
    fn next_into(&mut self, out: &mut Draft) -> Result<Next, SourceError> {
        let mut next = self.source.next_into(out)?;
        if next == Next::End {
            self.begin_again()?;
            next = self.source.next_into(out)?;
        }
        if let Some(time) = &mut out.event_time {
            if self.first_us.is_none() {
                (self.first_us, self.latest_us) = (Some(time.0), time.0);
            }
            self.step_us = self.step_us.max(time.0 - self.latest_us);
            self.latest_us = self.latest_us.max(time.0);
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
