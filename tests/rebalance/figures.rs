//! The table that is printed in the end.

use std::collections::BTreeMap;

use super::checker::{Findings, Idle};
use super::group::Group;
use super::kind::Kind;
use super::load::Stored;
use super::plan::Action;

pub fn print(stored: &Stored, groups: &[Group], findings: &[Findings]) {
    println!("{} messages stored; members and their partitions, by group:", stored.iter().map(Vec::len).sum::<usize>());
    println!(
        "| group | came | unsubscribed; closed; closed silently; killed | partitions given | processed | again after a \
         kill; a loss | longest idle, s | ... while one was silent |"
    );
    for ((kind, group), findings) in Kind::ALL.iter().zip(groups).zip(findings) {
        let count = |action: Action, is_static: bool| group.counts.get(&(action, is_static)).copied().unwrap_or(0);
        let both = |action: Action| count(action, false) + count(action, true);
        println!(
            "| {} | {} | {}; {}; {}; {} | {} | {} | {}; {} | {} | {} |",
            kind.name,
            both(Action::Start),
            both(Action::Unsubscribe),
            count(Action::Close, false),
            count(Action::Close, true),
            both(Action::Kill),
            findings.assigned,
            findings.processed,
            findings.again_after_kill,
            findings.again_after_loss,
            seconds(findings.longest),
            seconds(findings.longest_in_silence),
        );
    }
    let longest =
        |idle: fn(&Findings) -> Idle| findings.iter().map(idle).max_by_key(|idle| idle.us).unwrap_or_default();
    println!("longest idle of all, s: {}", seconds(longest(|findings| findings.longest)));
    println!("... while one was silent: {}", seconds(longest(|findings| findings.longest_in_silence)));
    let by_client = findings.iter().map(|findings| findings.again_by_client).sum::<usize>();
    println!("handed over twice in a row by the client: {by_client}");
    println!("assignments lost: {}", findings.iter().map(|findings| findings.lost).sum::<usize>());
    let mut errors: BTreeMap<String, usize> = BTreeMap::new();
    for (error, count) in groups.iter().flat_map(Group::errors) {
        *errors.entry(error).or_default() += count;
    }
    errors.iter().for_each(|(error, count)| println!("members bore {count} times: {error}"));
}

fn seconds(idle: Idle) -> String {
    format!("{:.2}", idle.us as f64 / 1e6)
}
