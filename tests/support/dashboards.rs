//! The dashboards and rules of `grafana/`, read from their files.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

pub const BOARDS: [&str; 3] = ["overview", "broker", "business"];
pub const RULE_FILES: [&str; 2] = ["recording", "alerts"];

/// A file of this repository.
pub fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn board(name: &str) -> Value {
    serde_json::from_str(&read(&format!("grafana/dashboards/{name}.json"))).unwrap()
}

/// One panel that shows something.
pub struct Panel {
    /// `broker: Sync time`.
    pub name: String,
    pub value: Value,
}

impl Panel {
    /// Its queries in one language: `expr` or `rawSql`.
    pub fn queries(&self, language: &str) -> Vec<String> {
        let targets = self.value["targets"].as_array().unwrap();
        targets.iter().filter_map(|target| target[language].as_str().map(str::to_owned)).collect()
    }
}

/// Every panel of every dashboard, without the rows between them.
pub fn panels() -> Vec<Panel> {
    let of = |name: &&str| {
        let board = board(name);
        let panels = board["panels"].as_array().unwrap().clone();
        let shown = panels.into_iter().filter(|panel| panel["type"] != "row");
        let named = |value: Value| Panel { name: format!("{name}: {}", value["title"].as_str().unwrap()), value };
        shown.map(named).collect::<Vec<_>>()
    };
    BOARDS.iter().flat_map(of).collect()
}

/// One rule of `grafana/prometheus/rules`.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Of the record or of the alert.
    pub name: String,
    pub is_alert: bool,
    pub expr: String,
    /// All of its lines, for what a test looks for by hand.
    pub text: String,
}

/// The rules of a file. Reads what we write, not all of YAML: one key a line, blocks by deeper lines.
pub fn rules(file: &str) -> Vec<Rule> {
    let text = read(&format!("grafana/prometheus/rules/{file}.yml"));
    let mut rules: Vec<Rule> = Vec::new();
    let mut block: Option<usize> = None;
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let (trimmed, indent) = (line.trim(), line.len() - line.trim_start().len());
        for (key, is_alert) in [("- record: ", false), ("- alert: ", true)] {
            if let Some(name) = trimmed.strip_prefix(key) {
                rules.push(Rule { name: name.to_owned(), is_alert, ..Rule::default() });
            }
        }
        let Some(rule) = rules.last_mut() else { continue };
        rule.text.push_str(trimmed);
        rule.text.push('\n');
        match trimmed.strip_prefix("expr: ") {
            Some("|") => block = Some(indent),
            Some(expr) => rule.expr = expr.to_owned(),
            None if block.is_some_and(|outer| indent > outer) => {
                rule.expr.push_str(trimmed);
                rule.expr.push(' ');
            }
            None => block = None,
        }
    }
    assert!(rules.len() >= 6 && rules.iter().all(|rule| !rule.expr.is_empty()), "{rules:?}");
    rules
}

/// Names in an expression that are metrics or records of ours.
pub fn series(expr: &str) -> BTreeSet<String> {
    let is_part = |next: char| next.is_ascii_alphanumeric() || next == '_' || next == ':';
    let words = expr.split(|next: char| !is_part(next));
    let ours = ["finstream_", "process_", "job:finstream_"];
    words.filter(|word| ours.iter().any(|start| word.starts_with(start))).map(str::to_owned).collect()
}

/// The metric of a series: without what a histogram's series end in.
pub fn metric(series: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end)).unwrap_or(series)
}

/// Changes every duration in brackets (`[5m]`) and behind `for: ` by `change`, milliseconds to milliseconds.
pub fn with_durations(text: &str, change: impl Fn(u64) -> u64) -> String {
    let mut changed = String::with_capacity(text.len());
    for line in text.lines() {
        if let Some((key, duration)) = line.split_once("for: ").filter(|(key, _)| key.trim().is_empty()) {
            changed.push_str(&format!("{key}for: {}ms\n", change(milliseconds(duration.trim()).unwrap())));
            continue;
        }
        let mut rest = line;
        while let Some((before, behind)) = rest.split_once('[') {
            let (inside, after) = behind.split_once(']').unwrap();
            let inside = milliseconds(inside).map_or(inside.to_owned(), |known| format!("{}ms", change(known)));
            changed.push_str(&format!("{before}[{inside}]"));
            rest = after;
        }
        changed.push_str(rest);
        changed.push('\n');
    }
    changed
}

fn milliseconds(duration: &str) -> Option<u64> {
    let unit = duration.find(|next: char| !next.is_ascii_digit())?;
    let number: u64 = duration[..unit].parse().ok()?;
    let factor = match &duration[unit..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(number * factor)
}
