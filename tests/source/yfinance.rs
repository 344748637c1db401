//! yfinance files give exactly what stands in them: the same again, to the share and to the fourth decimal.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::{all, drain, fixture, refusal};
use finstream::clock::Micros;
use finstream::config::{SourceSettings, YfinanceSettings};
use finstream::source::{self, Draft};
use finstream::transaction::Currency;

fn settings(files: &[PathBuf], symbol: Option<&str>) -> YfinanceSettings {
    let symbol = symbol.map(str::to_owned);
    YfinanceSettings { files: files.to_vec(), symbol, currency: Currency::USD, users: 100, seed: 1, repeat: false }
}

fn yfinance(files: &[PathBuf], symbol: Option<&str>) -> SourceSettings {
    SourceSettings::Yfinance(settings(files, symbol))
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

/// A run that an earlier version began must be known as the same one, or all of it is sent again.
#[test]
fn the_fingerprint_of_a_file_never_changes() {
    for (name, known) in
        [("download_two_tickers.csv", "ea1da0fd2159dcf9-4-bars"), ("group_by_ticker.csv", "14f2c4301b1ab0bb-4-bars")]
    {
        let settings = YfinanceSettings { users: 10_000, ..settings(&[fixture(name)], None) };
        let source = source::open(&SourceSettings::Yfinance(settings)).unwrap();
        assert_eq!(source.fingerprint().as_deref(), Some(known), "{name}");
    }
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
        ("Date,Close,Volume\n2020-01-02,1,2\n", "there is no column Open for \"odd\""),
        ("Date\n2020-01-02\n", "there is no column Open"),
        ("\u{0}\u{1}\u{fffd}", "its first row is"),
        ("Date,open,high,low,close,volume\n2020-01-02,1,2,1,1,4\n", "there is no column Open for \"odd\""),
        ("Date,AAPL,price\n2020-01-02,1,2\n", "its column \"price\" is no ticker such as AAPL"),
        ("Date,AAPL,AAPL\n2020-01-02,1,2\n", "it has two columns \"AAPL\""),
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
fn closing_prices_by_symbol_are_trades_of_one_unit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portfolio.csv");
    std::fs::write(&path, "Date,AAPL,BRK-B\n2020-01-03,75.0875,227.1\n2020-01-02,74.5,\n").unwrap();
    let drafts = all(&yfinance(std::slice::from_ref(&path), None));
    let seen: Vec<_> =
        drafts.iter().map(|draft| (draft.transaction_id.as_str(), draft.price.to_string(), draft.quantity)).collect();
    let expected = [
        ("AAPL:20200102T000000Z:close", "74.5000", 1),
        ("AAPL:20200103T000000Z:close", "75.0875", 1),
        ("BRK-B:20200103T000000Z:close", "227.1000", 1),
    ];
    assert_eq!(seen, expected.map(|(id, price, quantity)| (id, price.to_owned(), quantity)));
    let opened = source::open(&yfinance(std::slice::from_ref(&path), None)).unwrap();
    assert_eq!((opened.total(), opened.skipped().total()), (Some(3), 1));
    assert_eq!(volumes(&all(&yfinance(&[path], Some("BRK-B")))), BTreeMap::from([("BRK-B", 1)]));
}

/// Every layout that yfinance has written, with the columns that need not be there; the quantities are the file's.
#[test]
fn every_layout_gives_the_same_trades() {
    let rows = |header: &str, row: &dyn Fn(i64) -> String| format!("{header}\n{}\n{}\n", row(3), row(2));
    let files = [
        rows("Date,Open,High,Low,Close,Volume,Dividends,Stock Splits", &|day| {
            format!("2020-01-0{day} 00:00:00-05:00,1,3,0.5,2,1{day},0.0,0.0")
        }),
        rows("Date,Open,High,Low,Close,Volume,Dividends,Stock Splits,Capital Gains", &|day| {
            format!("2020-01-0{day} 00:00:00-05:00,1,3,0.5,2,1{day},0.0,0.0,0.0")
        }),
        rows("Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits,Repaired?", &|day| {
            format!("2020-01-0{day} 00:00:00-05:00,1,3,0.5,2,1.9,1{day},0.0,0.0,True")
        }),
        rows("Date,Close,High,Low,Open,Volume", &|day| format!("2020-01-0{day} 05:00:00+00:00,2,3,0.5,1,1{day}.0")),
        rows("Date,Open,High,Low,Close,Adj Close,Volume", &|day| {
            format!("2020-01-0{day} 05:00:00,1.0,3.0,0.5,2.0000000001,1.9,1{day}")
        }),
        rows("Datetime,Open,High,Low,Close,Volume,Dividends,Stock Splits", &|day| {
            format!("2020-01-0{day} 00:00:00-05:00,1,3,0.5,2,1{day},0.0,0.0")
        }),
        rows("Price,Close,High,Low,Open,Volume\nTicker,QQ,QQ,QQ,QQ,QQ\nDate,,,,,", &|day| {
            format!("2020-01-0{day} 05:00:00+00:00,2,3,0.5,1,1{day}")
        }),
        rows("Ticker,QQ,QQ,QQ,QQ,QQ\nPrice,Open,High,Low,Close,Volume\nDatetime,,,,,", &|day| {
            format!("2020-01-0{day} 05:00:00+00:00,1,3,0.5,2,1{day}")
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("QQ.csv");
    let mut first: Option<Vec<Draft>> = None;
    for file in files {
        std::fs::write(&path, &file).unwrap();
        let drafts = all(&yfinance(std::slice::from_ref(&path), None));
        assert_eq!(volumes(&drafts), BTreeMap::from([("QQ", 25)]), "{file}");
        assert_eq!(first.get_or_insert_with(|| drafts.clone()), &drafts, "{file}");
    }
}

#[test]
fn a_pattern_stands_for_all_files_that_match_and_a_folder_is_refused_with_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["AA-1d.csv", "BB-1d.csv", "CC-1h.csv"] {
        let path = dir.path().join(name);
        std::fs::write(path, "Date,Open,High,Low,Close,Volume\n2020-01-02,1,1,1,1,7\n").unwrap();
    }
    let drafts = all(&yfinance(&[dir.path().join("*-1d.csv")], None));
    assert_eq!(volumes(&drafts), BTreeMap::from([("AA", 7), ("BB", 7)]));
    assert!(refusal(&yfinance(&[dir.path().join("*.json")], None)).contains("no file matches"));
    assert!(refusal(&yfinance(&[dir.path().to_path_buf()], None)).contains("is a folder"));
}

#[test]
fn prices_of_another_unit_are_sent_as_they_stand_and_wondered_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("UU.csv");
    let days = [("02", 70), ("03", 71), ("06", 7_100), ("07", 7_050), ("08", 70)];
    let rows: String =
        days.iter().map(|(day, price)| format!("2020-01-{day},{price},{price},{price},{price},10\n")).collect();
    std::fs::write(&path, format!("Date,Open,High,Low,Close,Volume\n{rows}")).unwrap();
    let settings = yfinance(&[path], None);
    assert_eq!(volumes(&all(&settings)), BTreeMap::from([("UU", 50)]));
    let report = source::open(&settings).unwrap().skipped();
    assert_eq!((report.total(), report.kept.len(), report.kept[0].count), (0, 1, 2));
    assert!(report.kept[0].first.contains("UU at 2020-01-06T00:00:00.000000Z: 7100.0000 beside 71.0000"), "{report:?}");
}

#[test]
fn a_file_that_is_played_again_goes_on_in_time_and_repeats_no_id() {
    let mut settings = settings(&[fixture("download_two_tickers.csv")], None);
    let once = all(&SourceSettings::Yfinance(settings.clone()));
    settings.repeat = true;
    let mut source = source::open(&SourceSettings::Yfinance(settings)).unwrap();
    assert_eq!((source.total(), source.fingerprint()), (None, None));
    let thrice = drain(source.as_mut(), 3 * once.len());
    assert_eq!(thrice[..once.len()], once);
    assert!(thrice.is_sorted_by_key(|draft| draft.event_time));
    let ids: std::collections::HashSet<_> = thrice.iter().map(|draft| &draft.transaction_id).collect();
    assert_eq!(ids.len(), thrice.len());
    assert_eq!(thrice[once.len()].transaction_id, format!("{}#2", once[0].transaction_id));
    assert_eq!(volumes(&thrice), BTreeMap::from([("AAA", 309), ("BBB", 51)]));
}
