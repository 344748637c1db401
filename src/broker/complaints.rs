//! What clients make the broker say in its log is bounded: a flood of them must not become a flood of lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A flood is over when nothing came for so long.
const FLOOD_PAUSE: Duration = Duration::from_secs(60);
/// So many lines about broken connections are written in each stretch of time …
const LINES_MAX: usize = 20;
/// … of this length.
const STRETCH: Duration = Duration::from_secs(60);

/// Something that is told of once, until a quiet time has passed.
#[derive(Default)]
pub(super) struct Flood {
    last: Option<Instant>,
}

impl Flood {
    /// Notes one, and says whether it is the first after a quiet time.
    pub(super) fn begins(&mut self) -> bool {
        let now = Instant::now();
        let before = self.last.replace(now);
        before.is_none_or(|before| now.duration_since(before) > FLOOD_PAUSE)
    }
}

/// Things that are each worth a line, as long as they are few.
#[derive(Default)]
pub(super) struct Complaints(Mutex<Stretch>);

#[derive(Default)]
struct Stretch {
    began: Option<Instant>,
    told: usize,
    untold: usize,
}

/// What to do about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// Write a line; so many were not told of before.
    Line {
        untold_before: usize,
    },
    /// Write the last line for now.
    LastLine,
    Nothing,
}

impl Complaints {
    pub(super) fn note(&self) -> Tell {
        self.note_at(Instant::now())
    }

    fn note_at(&self, now: Instant) -> Tell {
        let mut stretch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stretch.began.is_none_or(|began| now.duration_since(began) > STRETCH) {
            let untold_before = stretch.untold;
            *stretch = Stretch { began: Some(now), told: 1, untold: 0 };
            return Tell::Line { untold_before };
        }
        stretch.told += 1;
        match stretch.told {
            ..LINES_MAX => Tell::Line { untold_before: 0 },
            LINES_MAX => Tell::LastLine,
            _ => {
                stretch.untold += 1;
                Tell::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_complaints_is_some_lines_a_minute_and_a_number() {
        let complaints = Complaints::default();
        let began = Instant::now();
        let told: Vec<Tell> = (0..1000).map(|_| complaints.note_at(began)).collect();
        let plain = Tell::Line { untold_before: 0 };
        assert_eq!(
            (told[0], told[LINES_MAX - 2], told[LINES_MAX - 1], told[LINES_MAX]),
            (plain, plain, Tell::LastLine, Tell::Nothing)
        );
        let later = complaints.note_at(began + STRETCH + Duration::from_secs(1));
        assert_eq!(later, Tell::Line { untold_before: 1000 - LINES_MAX });
    }
}
