//! Writes what was found into docs/DIFFERENCES.md, between its markers.

use std::fmt::Write;
use std::path::Path;

use super::compare::Verdict;
use super::scenario::Outcome;

const MARKERS: (&str, &str) = ("<!-- differential -->\n", "<!-- /differential -->");

/// The document's part: what was compared, and the table of deliberate differences.
pub fn text(version: &str, outcome: &Outcome, verdict: &Verdict) -> String {
    let version = version.split(',').next().unwrap_or(version);
    let mut text = format!(
        "Compared with Apache Kafka {version}: {} scenarios, {} calls, {} values in their answers.\n\n\
         | scenario | where | Apache Kafka | finstream | why |\n|---|---|---|---|---|\n",
        outcome.scenarios, outcome.calls, outcome.facts
    );
    for (listed, _) in &verdict.listed {
        let cells = [listed.scenario, listed.path, listed.kafka, listed.ours];
        let cells: Vec<String> = cells.iter().map(|cell| format!("`{}`", cell.replace('|', "\\|"))).collect();
        let _ = writeln!(text, "| {} | {} |", cells.join(" | "), listed.reason);
    }
    text
}

/// Puts it between the markers, which must be there.
pub fn write(document: &Path, text: &str) {
    let old = std::fs::read_to_string(document).unwrap();
    let place = |marker: &str| old.find(marker).unwrap_or_else(|| panic!("{}: no {marker}", document.display()));
    let (from, to) = (place(MARKERS.0) + MARKERS.0.len(), place(MARKERS.1));
    std::fs::write(document, format!("{}{text}{}", &old[..from], &old[to..])).unwrap();
}
