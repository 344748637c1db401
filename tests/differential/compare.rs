//! Two lists of facts beside each other: what differs, which of it is listed, and which of the list does not occur.

use std::collections::BTreeMap;

use super::differences::{DIFFERENCES, Difference};
use super::facts::Fact;

/// One fact that is not the same at both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unequal {
    pub scenario: &'static str,
    pub path: String,
    /// `absent` where only the other has it.
    pub kafka: String,
    pub ours: String,
}

const ABSENT: &str = "absent";

/// What differs in one scenario, in the order of appearance at Kafka. What stands below an element that only one has is
/// left out: the element says it all.
pub fn differing(scenario: &'static str, kafka: &[Fact], ours: &[Fact]) -> Vec<Unequal> {
    let (left, right): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (kafka.iter().cloned().collect(), ours.iter().cloned().collect());
    let value = |side: &BTreeMap<String, String>, path: &str| side.get(path).cloned().unwrap_or(ABSENT.to_owned());
    let mut found: Vec<Unequal> = Vec::new();
    let only_ours = ours.iter().filter(|(path, _)| !left.contains_key(path));
    for (path, _) in kafka.iter().chain(only_ours) {
        let (kafka, ours) = (value(&left, path), value(&right, path));
        let is_below = |other: &Unequal| {
            let is_one_sided = other.kafka == ABSENT || other.ours == ABSENT;
            is_one_sided && path.strip_prefix(other.path.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        if kafka != ours && !found.iter().any(is_below) {
            found.push(Unequal { scenario, path: path.clone(), kafka, ours });
        }
    }
    found
}

/// What all differences come to.
pub struct Verdict {
    pub unlisted: Vec<Unequal>,
    /// Each difference of the list, and how often it occurred.
    pub listed: Vec<(&'static Difference, usize)>,
}

/// Finds each difference in the list; the first entry that fits counts.
pub fn judge(unequal: Vec<Unequal>) -> Verdict {
    let mut counts = vec![0; DIFFERENCES.len()];
    let mut unlisted = Vec::new();
    for each in unequal {
        match DIFFERENCES.iter().position(|listed| fits(listed, &each)) {
            Some(at) => counts[at] += 1,
            None => unlisted.push(each),
        }
    }
    Verdict { unlisted, listed: DIFFERENCES.iter().zip(counts).collect() }
}

fn fits(listed: &Difference, unequal: &Unequal) -> bool {
    matches(listed.scenario, unequal.scenario)
        && matches(listed.path, &unequal.path)
        && matches(listed.kafka, &unequal.kafka)
        && matches(listed.ours, &unequal.ours)
}

/// Whether a text is as one of the patterns between `|` says, in which `*` stands for anything.
fn matches(patterns: &str, text: &str) -> bool {
    patterns.split('|').any(|pattern| is_like(pattern, text))
}

fn is_like(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    (0..=rest.len()).any(|at| rest.is_char_boundary(at) && is_like(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(facts: &[(&str, &str)]) -> Vec<Fact> {
        facts.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_element_that_only_one_has_is_one_difference() {
        let kafka = facts(&[("1 A: x[a]", "present"), ("1 A: x[a].b", "1"), ("1 A: y", "2")]);
        let ours = facts(&[("1 A: y", "3"), ("1 A: z", "4")]);
        let found = differing("s", &kafka, &ours);
        let told: Vec<_> = found.iter().map(|each| (&*each.path, &*each.kafka, &*each.ours)).collect();
        assert_eq!(told, [("1 A: x[a]", "present", "absent"), ("1 A: y", "2", "3"), ("1 A: z", "absent", "4")]);
        assert_eq!(differing("s", &kafka, &kafka), []);
    }

    #[test]
    fn a_star_stands_for_anything_and_nothing() {
        assert!(matches("x|b|*", "") && matches("a*c", "abc") && matches("a*c", "ac") && matches("*b*", "abc"));
        assert!(!matches("a*c", "acb") && !matches("", "a") && !matches("b*", "abc"));
    }

    #[test]
    fn a_difference_that_is_not_listed_stays_unlisted() {
        let unequal =
            Unequal { scenario: "no such scenario", path: "1 A: x".into(), kafka: "1".into(), ours: "2".into() };
        let verdict = judge(vec![unequal.clone()]);
        assert_eq!(verdict.unlisted, [unequal]);
        assert!(verdict.listed.iter().all(|(_, count)| *count == 0));
    }
}
