//! The ledger remembers every message that was about to be sent, and what the producer was told about it.
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use finstream::ledger::{
    Intent, LedgerError, LedgerReader, LedgerWriter, Outcome, RunRecord, Settled, SourceRecord, cut,
};
use finstream::transaction::{Currency, RunId, RunInfo};
use proptest::prelude::*;
use rust_decimal::Decimal;
use uuid::Uuid;

type OwnedIntent = (i64, String, Currency, Decimal);

fn record(number: u128) -> RunRecord {
    RunRecord {
        run: RunId(Uuid::from_u128(number)),
        info: RunInfo { source: "synthetic".into(), ..RunInfo::default() },
        topic: "finance.transactions".into(),
        cluster_id: None,
        source: SourceRecord::default(),
        finished: false,
    }
}

fn intents(dir: &Path, run: RunId) -> Vec<OwnedIntent> {
    let mut found = Vec::new();
    let each = |intent: Intent<'_>| {
        found.push((intent.sequence, intent.user_id.to_owned(), intent.currency, intent.amount));
    };
    LedgerReader::new(dir).read_intents(run, each).unwrap();
    found
}

fn outcomes(dir: &Path, run: RunId) -> Vec<Outcome> {
    let mut found = Vec::new();
    LedgerReader::new(dir).read_outcomes(run, |outcome| found.push(outcome)).unwrap();
    found.sort_by_key(|outcome| match outcome {
        Outcome::Acknowledged { sequence, .. } | Outcome::Unknown { sequence } => *sequence,
    });
    found
}

#[test]
fn intents_are_readable_while_the_writer_lives_as_soon_as_they_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let run = record(1);
    let mut writer = LedgerWriter::create(dir.path(), &run).unwrap();
    writer.intend(0, "user-1", Currency::USD, Decimal::new(1250, 2)).unwrap();
    assert_eq!(intents(dir.path(), run.run), []);
    writer.flush_intents().unwrap();
    assert_eq!(intents(dir.path(), run.run), [(0, "user-1".to_owned(), Currency::USD, Decimal::new(1250, 2))]);
    assert!(LedgerReader::new(dir.path()).is_being_written(run.run));
    drop(writer);
    assert!(!LedgerReader::new(dir.path()).is_being_written(run.run));
}

#[test]
fn a_run_has_one_writer_and_is_created_once() {
    let dir = tempfile::tempdir().unwrap();
    let writer = LedgerWriter::create(dir.path(), &record(1)).unwrap();
    assert!(matches!(LedgerWriter::create(dir.path(), &record(1)), Err(LedgerError::Locked { .. })));
    assert!(matches!(LedgerWriter::continue_run(dir.path(), record(1).run), Err(LedgerError::Locked { .. })));
    drop(writer);
    assert!(matches!(LedgerWriter::create(dir.path(), &record(1)), Err(LedgerError::Exists { .. })));
}

#[test]
fn a_continued_run_cuts_the_torn_block_and_goes_on_behind_the_last_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let run = record(1);
    let mut writer = LedgerWriter::create(dir.path(), &run).unwrap();
    for sequence in 0..10 {
        writer.intend(sequence, "user", Currency::USD, Decimal::ONE).unwrap();
    }
    writer.flush_intents().unwrap();
    writer.acknowledged(0, 2, 77).unwrap();
    writer.flush_outcomes().unwrap();
    drop(writer);
    for file in ["intents", "outcomes"] {
        let path = dir.path().join(run.run.to_string()).join(file);
        OpenOptions::new().append(true).open(path).unwrap().write_all(&[9, 0, 0]).unwrap();
    }
    let mut writer = LedgerWriter::continue_run(dir.path(), run.run).unwrap();
    assert_eq!(writer.next_sequence(), 10);
    writer.intend(10, "user", Currency::USD, Decimal::ONE).unwrap();
    writer.unknown(1).unwrap();
    writer.finish(true).unwrap();
    assert_eq!(intents(dir.path(), run.run).len(), 11);
    assert_eq!(
        outcomes(dir.path(), run.run),
        [Outcome::Acknowledged { sequence: 0, partition: 2, offset: 77 }, Outcome::Unknown { sequence: 1 }]
    );
    let runs = LedgerReader::new(dir.path()).runs().unwrap();
    assert_eq!(runs, [RunRecord { finished: true, ..run }]);
}

#[test]
fn runs_are_listed_oldest_first_and_foreign_or_unborn_directories_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    assert!(LedgerReader::new(&dir.path().join("absent")).runs().unwrap().is_empty());
    for number in [3, 1, 2] {
        LedgerWriter::create(dir.path(), &record(number)).unwrap();
    }
    std::fs::create_dir(dir.path().join("notes")).unwrap();
    std::fs::create_dir(dir.path().join(Uuid::from_u128(9).to_string())).unwrap();
    let runs = LedgerReader::new(dir.path()).runs().unwrap();
    assert_eq!(runs.iter().map(|run| run.run.0.as_u128()).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn rot_in_the_middle_is_an_error_that_names_the_file_and_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let run = record(1);
    let mut writer = LedgerWriter::create(dir.path(), &run).unwrap();
    for sequence in 0..3 {
        writer.intend(sequence, "user", Currency::USD, Decimal::ONE).unwrap();
        writer.flush_intents().unwrap();
    }
    drop(writer);
    let path = dir.path().join(run.run.to_string()).join("intents");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[14] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = LedgerReader::new(dir.path()).read_intents(run.run, |_| {}).unwrap_err().to_string();
    assert!(error.contains("intents is damaged at byte 0"), "{error}");
    assert!(LedgerWriter::continue_run(dir.path(), run.run).is_err());
}

#[test]
fn a_message_costs_at_most_twelve_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let run = record(1);
    let mut writer = LedgerWriter::create(dir.path(), &run).unwrap();
    let mut offsets = [0i64; 6];
    for sequence in 0..200_000i64 {
        // A spread of users that repeats little within a block, which is the expensive case.
        let user = format!("user-{:06}", (sequence * 7_919) % 100_000);
        writer.intend(sequence, &user, Currency::USD, Decimal::new(sequence % 50_000, 2)).unwrap();
        let partition = (sequence * 31 % 6) as usize;
        writer.acknowledged(sequence, partition as i32, offsets[partition]).unwrap();
        offsets[partition] += 1;
        if sequence % 4096 == 4095 {
            writer.flush_intents().unwrap();
            writer.flush_outcomes().unwrap();
        }
    }
    writer.finish(true).unwrap();
    let size = |file: &str| std::fs::metadata(dir.path().join(run.run.to_string()).join(file)).unwrap().len();
    let bytes_a_message = (size("intents") + size("outcomes")) as f64 / 200_000.0;
    assert!(bytes_a_message <= 12.0, "{bytes_a_message}");
    assert_eq!(intents(dir.path(), run.run).len(), 200_000);
    assert_eq!(outcomes(dir.path(), run.run).len(), 200_000);
}

#[test]
fn what_an_audit_has_settled_is_removed_file_by_file_while_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (run, settled) = (record(1), |below| [Settled { run: record(1).run, below }]);
    let mut writer = LedgerWriter::create(dir.path(), &run).unwrap();
    for sequence in 0..2_500_000i64 {
        // Nothing repeats within a block: about ten bytes each.
        writer.intend(sequence, &format!("{sequence:07}"), Currency::USD, Decimal::new(sequence, 2)).unwrap();
        writer.acknowledged(sequence, 0, sequence * 2).unwrap();
    }
    writer.flush_intents().unwrap();
    writer.flush_outcomes().unwrap();
    let files = || {
        let mut names: Vec<String> = std::fs::read_dir(dir.path().join(run.run.to_string()))
            .map(|files| files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    };
    let before = files();
    assert!(before.contains(&"intents.2".to_owned()) && before.contains(&"outcomes.1".to_owned()), "{before:?}");
    let (now, long_ago) = (SystemTime::now() + Duration::from_secs(60), SystemTime::UNIX_EPOCH);
    assert_eq!(cut(dir.path(), &settled(0), now, 0).unwrap(), 0, "nothing is settled");
    assert_eq!(cut(dir.path(), &settled(2_500_000), long_ago, u64::MAX).unwrap(), 0, "nothing is old, nor too much");
    let first = |dir: &Path| intents(dir, run.run)[0].0;
    assert!(cut(dir.path(), &settled(1_800_000), now, u64::MAX).unwrap() > 8 << 20);
    let kept = first(dir.path());
    assert!((1..=1_800_000).contains(&kept), "{kept}");
    // All is settled, and much too large; but what is being written stays.
    assert!(cut(dir.path(), &settled(2_500_000), long_ago, 0).unwrap() > 8 << 20);
    assert!(first(dir.path()) > kept && intents(dir.path(), run.run).last().unwrap().0 == 2_499_999);
    writer.intend(2_500_000, "user", Currency::USD, Decimal::ONE).unwrap();
    drop(writer);
    let mut writer = LedgerWriter::continue_run(dir.path(), run.run).unwrap();
    assert_eq!(writer.next_sequence(), 2_500_000);
    writer.intend(2_500_000, "user", Currency::USD, Decimal::ONE).unwrap();
    writer.finish(true).unwrap();
    assert_eq!(cut(dir.path(), &settled(2_500_000), now, 0).unwrap_or(0).min(1), 1, "closed files go");
    assert_eq!(intents(dir.path(), run.run).last().unwrap().0, 2_500_000, "one is not settled");
    cut(dir.path(), &settled(2_500_001), now, 0).unwrap();
    assert!(files().is_empty() && LedgerReader::new(dir.path()).runs().unwrap().is_empty());

    // What its command will continue must know what it has sent.
    let finite = RunRecord { source: SourceRecord { finite: true, ..SourceRecord::default() }, ..record(2) };
    drop(LedgerWriter::create(dir.path(), &finite).unwrap());
    cut(dir.path(), &[Settled { run: finite.run, below: i64::MAX }], now, 0).unwrap();
    assert_eq!(LedgerReader::new(dir.path()).runs().unwrap(), [finite]);
}

fn any_amount() -> impl Strategy<Value = Decimal> {
    (0i128..100_000_000_000_000_000_000_000, 0u32..=8)
        .prop_map(|(mantissa, scale)| Decimal::from_i128_with_scale(mantissa, scale))
}

proptest! {
    // Each case syncs files: fewer than the usual 256.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_written_is_read(
        messages in proptest::collection::vec((0i64..3, "\\PC{1,64}", "[A-Z]{3}", any_amount()), 1..200),
        reports in proptest::collection::vec((any::<bool>(), 0i32..4, 0i64..3), 1..200),
        flush_every in 1usize..50,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let run = record(1);
        let mut writer = LedgerWriter::create(dir.path(), &run).unwrap();
        let (mut sequence, mut written) = (0, Vec::new());
        for (at, (gap, user, currency, amount)) in messages.into_iter().enumerate() {
            sequence += gap + 1;
            let currency: Currency = currency.parse().unwrap();
            writer.intend(sequence, &user, currency, amount).unwrap();
            written.push((sequence, user, currency, amount));
            if at % flush_every == 0 {
                writer.flush_intents().unwrap();
            }
        }
        let (mut offsets, mut reported) = (BTreeMap::new(), Vec::new());
        for (sequence, (known, partition, gap)) in reports.into_iter().enumerate() {
            let sequence = sequence as i64;
            if known {
                let offset = offsets.entry(partition).or_insert(0);
                writer.acknowledged(sequence, partition, *offset).unwrap();
                reported.push(Outcome::Acknowledged { sequence, partition, offset: *offset });
                *offset += 1 + gap / 2;
            } else {
                writer.unknown(sequence).unwrap();
                reported.push(Outcome::Unknown { sequence });
            }
            if (sequence as usize).is_multiple_of(flush_every) {
                writer.flush_outcomes().unwrap();
            }
        }
        writer.finish(false).unwrap();
        prop_assert_eq!(intents(dir.path(), run.run), written);
        prop_assert_eq!(outcomes(dir.path(), run.run), reported);
    }
}
