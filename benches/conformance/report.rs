//! Results as rows, on the terminal and as a table.

/// What became of a test.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// After so many seconds, where they are known.
    Passed(Option<f64>),
    Failed(String),
    Skipped(String),
}

impl Outcome {
    pub fn is_failed(&self) -> bool {
        matches!(self, Outcome::Failed(_))
    }
}

/// One test and its outcome.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub outcome: Option<Outcome>,
    /// What was left out of it, and why.
    pub note: String,
    /// Why it, or a part of it, was run a second time.
    pub retried: Vec<String>,
}

impl Row {
    pub fn new(name: &str) -> Row {
        Row { name: name.to_string(), outcome: None, note: String::new(), retried: Vec::new() }
    }

    pub fn with(name: &str, outcome: Outcome) -> Row {
        Row { outcome: Some(outcome), ..Row::new(name) }
    }

    /// Takes the outcome of a further part: times add up, and the first failure stays.
    pub fn add(&mut self, outcome: Outcome) {
        self.outcome = Some(match (self.outcome.take(), outcome) {
            (None, outcome) => outcome,
            (Some(Outcome::Passed(before)), Outcome::Passed(seconds)) => {
                Outcome::Passed(before.zip(seconds).map(|(before, seconds)| before + seconds))
            }
            (Some(Outcome::Passed(_)), worse) => worse,
            (Some(worse), _) => worse,
        });
    }

    pub fn is_failed(&self) -> bool {
        self.outcome.as_ref().is_none_or(Outcome::is_failed)
    }

    pub fn is_skipped(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Skipped(_)))
    }

    fn cells(&self) -> (&'static str, String, String) {
        match &self.outcome {
            Some(Outcome::Passed(seconds)) => {
                let mut note = self.note.clone();
                if !self.retried.is_empty() {
                    note += &format!(" (at the second try; the first {})", self.retried.join("; "));
                }
                ("passed", seconds.map_or_else(String::new, |seconds| format!("{seconds:.1}")), note)
            }
            Some(Outcome::Failed(why)) => ("**failed**", String::new(), why.clone()),
            Some(Outcome::Skipped(why)) => ("skipped", String::new(), why.clone()),
            None => ("**not run**", String::new(), String::new()),
        }
    }

    /// A line on the terminal.
    pub fn tell(&self) {
        let (result, seconds, note) = self.cells();
        let seconds = if seconds.is_empty() { seconds } else { format!("{seconds} s") };
        eprintln!("{:<50} {:<11} {seconds:>8}  {note}", self.name, result.trim_matches('*'));
    }
}

/// Rows below a heading.
pub fn table(title: &str, rows: &[Row]) -> String {
    let mut text = format!("### {title}\n\n{}\n\n| test | result | s | |\n|---|---|---|---|\n", totals(rows));
    for row in rows {
        let (result, seconds, note) = row.cells();
        // What a program said must not end the cell.
        text += &format!("| {} | {result} | {seconds} | {} |\n", row.name, note.replace('|', "/").replace('\n', " "));
    }
    text
}

/// "3 run: 2 passed, 1 failed; 4 skipped."
pub fn totals(rows: &[Row]) -> String {
    let skipped = rows.iter().filter(|row| row.is_skipped()).count();
    let failed = rows.iter().filter(|row| row.is_failed()).count();
    let run = rows.len() - skipped;
    format!("{run} run: {} passed, {failed} failed; {skipped} skipped.", run - failed)
}
