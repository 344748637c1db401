//! Sources yield exactly what they should: the same again, to the share and to the fourth decimal.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use finstream::clock::Micros;
use finstream::config::SourceSettings;
use finstream::source::{self, Draft, Kind, Source};
use finstream::transaction::{Currency, Transaction};
use rust_decimal::Decimal;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn yfinance(files: &[PathBuf], symbol: Option<&str>) -> SourceSettings {
    SourceSettings::Yfinance {
        files: files.to_vec(),
        symbol: symbol.map(str::to_owned),
        currency: Currency::USD,
        users: 100,
        seed: 1,
    }
}

fn synthetic(seed: u64) -> SourceSettings {
    SourceSettings::Synthetic { users: 10_000, zipf_exponent: 1.1, seed }
}

fn drain(source: &mut dyn Source, limit: usize) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut draft = Draft::default();
    while drafts.len() < limit && source.next_into(&mut draft).unwrap() {
        drafts.push(draft.clone());
    }
    drafts
}

fn all(settings: &SourceSettings) -> Vec<Draft> {
    drain(source::open(settings).unwrap().as_mut(), usize::MAX)
}

fn refusal(settings: &SourceSettings) -> String {
    source::open(settings).err().expect("must be refused").to_string()
}

fn volumes(drafts: &[Draft]) -> BTreeMap<&str, i64> {
    let mut volumes = BTreeMap::new();
    for draft in drafts {
        *volumes.entry(draft.symbol.as_str()).or_insert(0) += draft.quantity;
    }
    volumes
}

#[test]
fn quantities_add_up_to_the_volumes_of_the_file() {
    for name in ["download_two_tickers.csv", "group_by_ticker.csv"] {
        let drafts = all(&yfinance(&[fixture(name)], None));
        assert_eq!(volumes(&drafts), BTreeMap::from([("AAA", 103), ("BBB", 17)]), "{name}");
        let opened = source::open(&yfinance(&[fixture(name)], None)).unwrap();
        assert_eq!(opened.total(), Some(drafts.len() as u64));
        let counts: Vec<_> = opened.skipped().kinds.iter().map(|kind| (kind.kind, kind.count)).collect();
        assert_eq!(counts, [("gap: a row with nothing for this symbol", 1), ("bar without volume", 1)]);
    }
}

#[test]
fn a_bar_that_closed_up_trades_low_before_high_and_the_other_high_before_low() {
    let drafts = all(&yfinance(&[fixture("ZZ-15m-bad-rows.csv")], None));
    let seen: Vec<_> = drafts.iter().map(|draft| (draft.transaction_id.as_str(), draft.price.to_string())).collect();
    let expected = [
        ("ZZ:20220103T143000Z:open", "37.0000"),
        ("ZZ:20220103T143000Z:high", "38.0000"),
        ("ZZ:20220103T143000Z:low", "36.0000"),
        ("ZZ:20220103T143000Z:close", "36.5000"),
        ("ZZ:20220103T144500Z:open", "37.0000"),
        ("ZZ:20220103T144500Z:low", "36.0000"),
        ("ZZ:20220103T144500Z:high", "38.0000"),
        ("ZZ:20220103T144500Z:close", "37.5000"),
    ];
    assert_eq!(seen, expected.map(|(id, price)| (id, price.to_owned())));
    assert_eq!(drafts.iter().map(|draft| draft.quantity).collect::<Vec<_>>(), [101, 100, 100, 100, 100, 100, 100, 100]);
    let quarter_us = 15 * 60 * 1_000_000 / 4;
    let start = drafts[0].event_time.unwrap().0;
    for (place, draft) in (0i64..).zip(&drafts) {
        assert_eq!(draft.event_time, Some(Micros(start + place * quarter_us)));
    }
}

#[test]
fn bad_rows_are_counted_and_the_first_of_each_kind_is_explained_with_its_line() {
    let skipped = source::open(&yfinance(&[fixture("ZZ-15m-bad-rows.csv")], None)).unwrap().skipped();
    let of = |kind: &str| skipped.kinds.iter().find(|found| found.kind == kind).unwrap();
    assert!(of("unreadable number").first.ends_with("line 4, ZZ: Close \"oops\" is not a number within range"));
    assert!(of("missing price").first.ends_with("line 5, ZZ: High is empty, though Volume is 400"));
    assert!(of("number out of range").first.ends_with("line 6, ZZ: Volume -400 is not within 0 to 10^15"));
    assert_eq!(of("bar without volume").count, 3);
    assert!(of("bar without volume").first.ends_with("line 7, ZZ: Volume is 0"));
    assert!(of("row without a readable time").first.contains("line 8: \"someday\" is not a time"));
    assert_eq!(skipped.total(), 7);
}

#[test]
fn a_stray_quotation_mark_spoils_its_own_row_only_and_quoted_cells_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("QQ.csv");
    let rows = "Date,Open,High,Low,Close,Volume\r\n\"2020-01-02\",\"1\",2,1,1,4\n2020-01-03,\"1,2,1,1,4\n2020-01-06,1,2,1,1,8\n";
    std::fs::write(&path, format!("\u{feff}{rows}")).unwrap();
    let settings = yfinance(&[path], None);
    assert_eq!(volumes(&all(&settings)), BTreeMap::from([("QQ", 12)]));
    assert_eq!(source::open(&settings).unwrap().skipped().total(), 1);
}

#[test]
fn several_tickers_and_files_come_in_time_order() {
    let files = [fixture("ZZ-15m-bad-rows.csv"), fixture("download_two_tickers.csv")];
    let drafts = all(&yfinance(&files, None));
    assert!(drafts.is_sorted_by_key(|draft| draft.event_time));
    assert_eq!(volumes(&drafts), BTreeMap::from([("AAA", 103), ("BBB", 17), ("ZZ", 801)]));
    let first: Vec<&str> = drafts[..3].iter().map(|draft| draft.transaction_id.as_str()).collect();
    assert_eq!(first, ["AAA:20200102T000000Z:open", "BBB:20200102T000000Z:open", "AAA:20200102T000000Z:low"]);
}

#[test]
fn a_replay_is_the_same_to_the_last_field_and_has_the_same_fingerprint() {
    let settings = yfinance(&[fixture("download_two_tickers.csv")], None);
    assert_eq!(all(&settings), all(&settings));
    let fingerprint = |settings: &SourceSettings| source::open(settings).unwrap().fingerprint().unwrap();
    assert_eq!(fingerprint(&settings), fingerprint(&settings));
    assert_ne!(fingerprint(&settings), fingerprint(&yfinance(&[fixture("ZZ-15m-bad-rows.csv")], None)));
}

#[test]
fn symbols_come_from_the_header_the_name_or_the_flag() {
    let zz = fixture("ZZ-15m-bad-rows.csv");
    assert_eq!(all(&yfinance(std::slice::from_ref(&zz), None))[0].symbol, "ZZ");
    assert_eq!(all(&yfinance(&[zz], Some("BTC-USD")))[0].symbol, "BTC-USD");
    let two = fixture("download_two_tickers.csv");
    assert_eq!(volumes(&all(&yfinance(std::slice::from_ref(&two), Some("BBB")))), BTreeMap::from([("BBB", 17)]));
    assert!(refusal(&yfinance(&[two], Some("CCC"))).contains("--symbol CCC is not in it; it holds AAA, BBB"));
}

#[test]
fn a_file_that_is_none_of_ours_is_refused_by_name_with_what_was_found_and_what_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.csv");
    for (content, expected) in [
        ("", "it is empty"),
        ("a,b,c\n1,2,3\n", "its first row is \"a,b,c\""),
        ("Date,AAPL,AMZN\n2020-01-02,1,2\n", "there is no column Open for \"odd\""),
        ("\u{0}\u{1}\u{fffd}", "its first row is"),
    ] {
        std::fs::write(&path, content).unwrap();
        let refused = refusal(&yfinance(std::slice::from_ref(&path), None));
        assert!(refused.contains("odd.csv") && refused.contains(expected), "{refused}");
        assert!(refused.contains("accepted are download"), "{refused}");
    }
    assert!(refusal(&yfinance(&[dir.path().join("absent.csv")], None)).contains("absent.csv: No such file"));
    assert!(refusal(&yfinance(&[], None)).contains("needs a file"));
}

#[test]
fn synthetic_transactions_repeat_with_their_seed_and_differ_with_another() {
    let take = |seed| drain(source::open(&synthetic(seed)).unwrap().as_mut(), 5_000);
    assert_eq!(take(7), take(7));
    assert_ne!(take(7), take(8));
}

#[test]
fn synthetic_transactions_are_plausible_and_decode() {
    let drafts = drain(source::open(&synthetic(1)).unwrap().as_mut(), 50_000);
    let refunds = drafts.iter().filter(|draft| draft.kind == Kind::Refund).count();
    assert!((1_200..1_800).contains(&refunds), "{refunds} refunds");
    let mut by_user: BTreeMap<&str, usize> = BTreeMap::new();
    for draft in &drafts {
        *by_user.entry(&draft.user_id).or_default() += 1;
        assert!(draft.amount > Decimal::ZERO && draft.amount < Decimal::from(10_000_000));
        assert_eq!(draft.amount.scale(), draft.currency.minor_unit_digits());
        let transaction = draft.transaction("derived", Micros(1_700_000_000_000_000), Micros(1_700_000_000_000_001));
        let mut bytes = Vec::new();
        transaction.encode_into(&mut bytes);
        assert_eq!(Transaction::decode(&bytes).unwrap(), transaction);
    }
    // Zipf: the first user leads by far, and most users are seen rarely.
    assert_eq!(by_user.iter().max_by_key(|(_, count)| **count).unwrap().0, &"user-000001");
    assert!(by_user.len() > 1_000);
    let currencies: std::collections::BTreeSet<_> = drafts.iter().map(|draft| draft.currency.to_string()).collect();
    assert_eq!(currencies.into_iter().collect::<Vec<_>>(), ["EUR", "GBP", "JPY", "USD"]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let with = |users, zipf_exponent| SourceSettings::Synthetic { users, zipf_exponent, seed: 1 };
    assert!(refusal(&with(0, 1.0)).contains("--users 0 is not within"));
    assert!(refusal(&with(1, f64::NAN)).contains("--zipf NaN is not within"));
    assert!(source::open(&with(1, 0.0)).is_ok());
}
