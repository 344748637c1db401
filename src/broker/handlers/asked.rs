//! What a request asks for, each thing once, and how much is answered to it: a list of a few bytes that names the same
//! thing a hundred thousand times must not become an answer of gigabytes.

use std::collections::HashMap;
use std::hash::Hash;

/// As long as there are no more topics and partitions, comparing them is cheaper than two maps.
const COMPARED_MAX: usize = 32;

/// Each topic and each of its partitions once, in the order of their first mention, with what the last mention says: as
/// in Apache Kafka, which puts them into a map.
pub(super) fn once<T: Hash + Eq + Clone, P>(
    asked: impl IntoIterator<Item = (T, Vec<P>)>,
    index: impl Fn(&P) -> i32,
) -> Vec<(T, Vec<P>)> {
    let asked: Vec<(T, Vec<P>)> = asked.into_iter().collect();
    let count: usize = asked.iter().map(|(_, partitions)| 1 + partitions.len()).sum();
    if count <= COMPARED_MAX && is_once(&asked, &index) {
        return asked;
    }
    merge(asked.into_iter(), index)
}

/// By comparing each with each.
fn is_once<T: Eq, P>(asked: &[(T, Vec<P>)], index: &impl Fn(&P) -> i32) -> bool {
    let topic_once = |at: usize| asked[..at].iter().all(|(topic, _)| *topic != asked[at].0);
    let each_once = |partitions: &[P]| {
        (1..partitions.len()).all(|at| partitions[..at].iter().all(|one| index(one) != index(&partitions[at])))
    };
    (1..asked.len()).all(topic_once) && asked.iter().all(|(_, partitions)| each_once(partitions))
}

fn merge<T: Hash + Eq + Clone, P>(
    asked: impl Iterator<Item = (T, Vec<P>)>,
    index: impl Fn(&P) -> i32,
) -> Vec<(T, Vec<P>)> {
    let mut topics: Vec<(T, Vec<P>)> = Vec::new();
    let mut topic_at = HashMap::new();
    let mut partition_at = HashMap::new();
    for (topic, partitions) in asked {
        let at = *topic_at.entry(topic.clone()).or_insert_with(|| {
            topics.push((topic, Vec::with_capacity(partitions.len())));
            topics.len() - 1
        });
        let known = &mut topics[at].1;
        for partition in partitions {
            match partition_at.entry((at, index(&partition))) {
                std::collections::hash_map::Entry::Occupied(place) => known[*place.get()] = partition,
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(known.len());
                    known.push(partition);
                }
            }
        }
    }
    topics
}

/// How much an answer may still hold while it is made.
pub(super) struct AnswerRoom {
    left: usize,
    is_untouched: bool,
}

impl AnswerRoom {
    /// For an answer of so many bytes, about.
    pub(super) fn new(bytes_max: usize) -> Self {
        AnswerRoom { left: bytes_max, is_untouched: true }
    }

    /// Whether so many more bytes fit. The first thing always does: whoever asks again for what did not fit gets on.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.is_untouched || bytes <= self.left
    }

    /// Takes the room if it is there.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = self.fits(bytes);
        if fits {
            self.left = self.left.saturating_sub(bytes);
            self.is_untouched = false;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_twice_stands_where_it_was_first_with_what_was_said_last() {
        let asked = [("a", vec![(1, 'x'), (0, 'x'), (1, 'y')]), ("b", vec![]), ("a", vec![(2, 'x'), (0, 'z')])];
        let merged = once(asked, |(index, _)| *index);
        assert_eq!(merged, [("a", vec![(1, 'y'), (0, 'z'), (2, 'x')]), ("b", vec![])]);
        assert_eq!(once([("a", vec![3])], |index| *index), [("a", vec![3])]);
        assert_eq!(once(Vec::<(&str, Vec<i32>)>::new(), |index| *index), []);
    }

    #[test]
    fn the_first_thing_fits_however_large_and_nothing_after_it() {
        let mut room = AnswerRoom::new(10);
        assert!(room.take(100));
        assert!(!room.take(1) && room.take(0));
        let mut room = AnswerRoom::new(10);
        assert!(room.take(4) && !room.take(7) && room.take(6));
    }
}
