//! Messages that a checkpoint settled before the broker's answer to their producer was read: the log showed them first. The
//! answer is counted by the audit that reads it, once.

use super::ranges::push_range;

/// Sequences of a run that are settled and wait for their answer.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    ranges: Vec<Range>,
    /// How many were answered since.
    pub answered: u64,
}

#[derive(Debug)]
struct Range {
    from: i64,
    to: i64,
    /// A bit a sequence; empty before the first answer.
    answered: Vec<u64>,
}

impl Range {
    fn holds(&self, sequence: i64) -> bool {
        let place = (sequence - self.from) as usize;
        self.answered.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }
}

impl Unanswered {
    /// Of these ranges [from, to), in order.
    pub(super) fn new(ranges: &[(i64, i64)]) -> Unanswered {
        let ranges = ranges.iter().map(|(from, to)| Range { from: *from, to: *to, answered: Vec::new() }).collect();
        Unanswered { ranges, answered: 0 }
    }

    /// A producer was told that the broker has it.
    pub(super) fn answer(&mut self, sequence: i64) {
        let next = self.ranges.partition_point(|range| range.from <= sequence);
        let Some(range) = next.checked_sub(1).and_then(|at| self.ranges.get_mut(at)) else { return };
        if sequence >= range.to || range.holds(sequence) {
            return;
        }
        if range.answered.is_empty() {
            range.answered = vec![0; ((range.to - range.from) as usize).div_ceil(64)];
        }
        let place = (sequence - range.from) as usize;
        range.answered[place / 64] |= 1 << (place % 64);
        self.answered += 1;
    }

    /// Those that wait still, as ranges in order.
    pub(super) fn left(&self) -> Vec<(i64, i64)> {
        let mut left = Vec::new();
        for range in &self.ranges {
            if range.answered.is_empty() {
                left.push((range.from, range.to));
                continue;
            }
            (range.from..range.to).filter(|sequence| !range.holds(*sequence)).for_each(|sequence| {
                push_range(&mut left, sequence);
            });
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_what_waits_is_kept() {
        let mut unanswered = Unanswered::new(&[(10, 20), (100, 300)]);
        for sequence in [9, 10, 10, 11, 20, 99, 170, 299, 300, 5_000] {
            unanswered.answer(sequence);
        }
        assert_eq!(unanswered.answered, 4);
        assert_eq!(unanswered.left(), [(12, 20), (100, 170), (171, 299)]);
        assert_eq!(Unanswered::new(&[(0, 5)]).left(), [(0, 5)]);
    }
}
