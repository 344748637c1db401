//! What the audit found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::transaction::RunId;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Ledger, log and PostgreSQL agree to the message and to the cent.
    Balanced,
    /// They do not; the differences are named.
    Differences,
    /// Nothing is wrong as far as could be seen, but not everything could be.
    Undecided,
    /// Neither log nor ledgers nor PostgreSQL hold anything: most likely the wrong place was looked at.
    Nothing,
}

/// What is wrong with a message or a total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Acknowledged, but neither in the log nor stored.
    Lost,
    /// In the log and passed by, but neither a row nor a dead letter.
    NotStored,
    /// Twice in the log under one (run, sequence).
    StoredTwice,
    /// More rows than log records under one (run, sequence).
    CountedTwice,
    /// A row or dead letter for which the log has no record.
    ExtraRow,
    /// The row or dead letter at this offset is another message than the log's.
    WrongIdentity,
    /// A row where the message cannot be read, or a row and a dead letter at once.
    RowAndDeadLetter,
    /// The log's payload is not what the ledger says was sent.
    WrongAmount,
    /// In the log under a ledger's run, but that ledger never intended it.
    NotInLedger,
    /// A total differs from the sum of its messages.
    WrongTotal,
    /// PostgreSQL has applied offsets that the log does not have.
    LogTooShort,
    /// A total that has changed is neither in finance.aggregates nor noted as waiting to be published.
    NotPublished,
    /// What finance.aggregates says is not what PostgreSQL holds.
    WrongPublished,
}

impl DifferenceKind {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            DifferenceKind::Lost => "lost: acknowledged, but not in the log",
            DifferenceKind::NotStored => "not stored: in the log, but neither row nor dead letter",
            DifferenceKind::StoredTwice => "stored twice in the log",
            DifferenceKind::CountedTwice => "counted twice in PostgreSQL",
            DifferenceKind::ExtraRow => "extra: in PostgreSQL, but not in the log",
            DifferenceKind::WrongIdentity => "stored as another message",
            DifferenceKind::RowAndDeadLetter => "both stored and refused",
            DifferenceKind::WrongAmount => "wrong amount: the log differs from the ledger",
            DifferenceKind::NotInLedger => "unintended: in the log, but not in its ledger",
            DifferenceKind::WrongTotal => "wrong total",
            DifferenceKind::LogTooShort => "the log ends before what was applied",
            DifferenceKind::NotPublished => "not published: not in finance.aggregates as it is in PostgreSQL",
            DifferenceKind::WrongPublished => "wrong in finance.aggregates",
        }
    }
}

/// One thing that is wrong. Absent fields do not apply or are not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What is wrong.
    pub kind: DifferenceKind,
    /// The message's run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The message's place in its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// Of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// In the partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Such as `user-7 USD` or `symbol EA USD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Such as `spend`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
    /// What it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

impl Difference {
    /// Nothing but a kind.
    pub(super) fn of(kind: DifferenceKind) -> Difference {
        Difference {
            kind,
            run: None,
            sequence: None,
            partition: None,
            offset: None,
            subject: None,
            field: None,
            expected: None,
            found: None,
        }
    }
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MessageCounts {
    /// Records read from the log.
    pub in_log: u64,
    /// Rows in PostgreSQL, over all lives of the topic.
    pub rows: u64,
    /// Dead letters in PostgreSQL.
    pub dead_letters: u64,
    /// Intents in the ledgers.
    pub intended: u64,
    /// Of these, acknowledged.
    pub acknowledged: u64,
    /// Of these, without an answer, and found in the log or in PostgreSQL: neither side is at fault.
    pub unknown_stored: u64,
    /// Of these, without an answer, and found nowhere: neither side is at fault.
    pub unknown_not_stored: u64,
    /// Of these, on their way right now: without an answer and found nowhere, and their producer runs.
    pub in_flight: u64,
    /// Log records that no ledger knows: compared between log and PostgreSQL only.
    pub foreign: u64,
    /// Log records whose transaction their source had sent before, under the id derived for that message: each counts.
    pub repeated: u64,
    /// Log records of attempts that were declined: they move no money.
    pub declined: u64,
    /// Log records within ranges that a person agreed to skip.
    pub skipped: u64,
    /// Rows and dead letters whose records retention has cut from the log.
    pub below_log_start: u64,
    /// Log records that PostgreSQL has not applied yet.
    pub not_yet_applied: u64,
    /// Totals per user, currency and partition that were summed again.
    pub user_totals: u64,
    /// Totals per symbol, currency and partition that were summed again.
    pub symbol_totals: u64,
    /// Windows of categories and symbols compared, one a partition.
    pub window_totals: u64,
    /// Totals and windows that were looked up in finance.aggregates.
    pub published_totals: u64,
    /// Of these, changed and not published yet; PostgreSQL has noted them.
    pub waiting_to_be_published: u64,
}

/// What of a partition was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionRange {
    /// Which one.
    pub partition: i32,
    /// First offset that the log still has.
    pub log_start: i64,
    /// The log's end when the audit began; what came later is not judged.
    pub log_end: i64,
    /// PostgreSQL has applied everything before this offset.
    pub next_offset: i64,
}

/// The balanced audit where this one began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointSummary {
    /// When it was made.
    pub made_at: String,
    /// Records that were proven up to there, and are not read again.
    pub messages: u64,
    /// Of each partition: everything before this offset.
    pub partitions: std::collections::BTreeMap<i32, i64>,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// The answer in a word.
    pub verdict: Verdict,
    /// The topic that was audited.
    pub topic: String,
    /// Runs with a ledger.
    pub runs: u64,
    /// Where it began, if not at the log's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointSummary>,
    /// How much was compared; ledgers' counts are of all time.
    pub counts: MessageCounts,
    /// How many differences there are, by kind: also those that are not named.
    pub difference_counts: BTreeMap<DifferenceKind, u64>,
    /// The first ones of each kind.
    pub differences: Vec<Difference>,
    /// What could not be decided, and what to do about it.
    pub undecided: Vec<String>,
    /// What a reader should know: skipped ranges, what is proven only in part.
    pub notes: Vec<String>,
    /// The ranges compared.
    pub partitions: Vec<PartitionRange>,
    /// How long it took.
    pub elapsed_ms: u64,
}

impl AuditReport {
    /// 0 balanced, 1 differences, 3 cannot be decided, also because there is nothing to verify.
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Balanced => 0,
            Verdict::Differences => 1,
            Verdict::Undecided | Verdict::Nothing => 3,
        }
    }
}

impl fmt::Display for AuditReport {
    /// A few lines for a terminal; the differences as a table.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let verdict = match self.verdict {
            Verdict::Balanced => "The books balance",
            Verdict::Differences => "The books DO NOT balance",
            Verdict::Undecided => "The books cannot be decided on",
            Verdict::Nothing => return writeln!(out, "There is nothing to verify: {}", self.undecided.join("; ")),
        };
        writeln!(out, "{verdict}: {} ({} ms)", self.topic, self.elapsed_ms)?;
        if let Some(checkpoint) = &self.checkpoint {
            let (messages, made_at) = (grouped(checkpoint.messages), &checkpoint.made_at);
            writeln!(out, "  {:<13}{messages:>14}  messages were proven up to the checkpoint of {made_at}", "before")?;
        }
        let unknown =
            format!("without an answer in the ledger, or not yet; {} of these stored", grouped(counts.unknown_stored));
        let lines: [(&str, u64, &str); 11] = [
            ("intended", counts.intended, "messages in the ledgers"),
            ("acknowledged", counts.acknowledged, "of these"),
            ("unknown", counts.unknown_stored + counts.unknown_not_stored, &unknown),
            ("in flight", counts.in_flight, "being sent right now"),
            ("in the log", counts.in_log, "records"),
            ("stored", counts.rows, "rows in PostgreSQL"),
            ("dead letters", counts.dead_letters, "in PostgreSQL"),
            ("foreign", counts.foreign, "records that no ledger knows"),
            ("declined", counts.declined, "attempts that moved no money"),
            ("sent again", counts.repeated, "transactions that their source had sent before; each counts"),
            ("cut", counts.below_log_start, "rows whose records retention has removed from the log"),
        ];
        for (index, (name, count, what)) in lines.iter().enumerate() {
            // What every pipeline has is always shown, the rest when there is some.
            if *count > 0 || [0, 1, 4, 5].contains(&index) {
                writeln!(out, "  {name:<13}{:>14}  {what}", grouped(*count))?;
            }
        }
        let totals = counts.user_totals + counts.symbol_totals + counts.window_totals;
        writeln!(out, "  {:<13}{:>14}  summed again from the log", "totals", grouped(totals))?;
        let waiting = match counts.waiting_to_be_published {
            0 => "compared with finance.aggregates".to_owned(),
            waiting => format!("compared with finance.aggregates, {} of these wait to be published", grouped(waiting)),
        };
        writeln!(out, "  {:<13}{:>14}  {waiting}", "published", grouped(counts.published_totals))?;
        for note in &self.notes {
            writeln!(out, "  note: {note}")?;
        }
        for reason in &self.undecided {
            writeln!(out, "  undecided: {reason}")?;
        }
        self.write_differences(out)
    }
}

impl AuditReport {
    fn write_differences(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in &self.difference_counts {
            writeln!(out, "  {} {}", grouped(*count), kind.label())?;
            let named: Vec<_> = self.differences.iter().filter(|difference| difference.kind == *kind).collect();
            for difference in &named {
                writeln!(out, "    {difference}")?;
            }
            let rest = count - (named.len() as u64).min(*count);
            if rest > 0 {
                writeln!(out, "    … and {} more", grouped(rest))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(run) = self.run {
            parts.push(format!("run {run}"));
        }
        parts.extend(self.sequence.map(|sequence| format!("message {sequence}")));
        match (self.partition, self.offset) {
            (Some(partition), Some(offset)) => parts.push(format!("partition {partition} offset {offset}")),
            (Some(partition), None) => parts.push(format!("partition {partition}")),
            _ => {}
        }
        parts.extend(self.subject.clone());
        parts.extend(self.field.map(str::to_owned));
        parts.extend(self.expected.as_ref().map(|expected| format!("expected {expected}")));
        parts.extend(self.found.as_ref().map(|found| format!("found {found}")));
        out.write_str(&parts.join(", "))
    }
}

/// 1234567 -> 1,234,567
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
