//! Where differences are noted: all are counted, the first ones of each kind are kept.

use std::collections::BTreeMap;

use super::report::{Difference, DifferenceKind, MessageCounts};

/// Differences of a kind that are named, at most.
const NAMED_MAX: u64 = 50;

/// What the audit has found so far.
#[derive(Debug, Default)]
pub(super) struct Notebook {
    pub counts: MessageCounts,
    pub difference_counts: BTreeMap<DifferenceKind, u64>,
    pub differences: Vec<Difference>,
    pub undecided: Vec<String>,
    pub notes: Vec<String>,
}

impl Notebook {
    /// Counts a difference; its details are asked for only while there is room for them.
    pub(super) fn differ(&mut self, kind: DifferenceKind, describe: impl FnOnce(&mut Difference)) {
        let count = self.difference_counts.entry(kind).or_default();
        *count += 1;
        if *count <= NAMED_MAX {
            let mut difference = Difference::of(kind);
            describe(&mut difference);
            self.differences.push(difference);
        }
    }
}
