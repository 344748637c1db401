//! Card files, row by row.

use std::path::{Path, PathBuf};

use crate::support::{all, drain, refusal};
use finstream::config::{CardsSettings, SourceSettings};
use finstream::source::{self, Kind};
use finstream::transaction::Currency;

const KAGGLE: &str = "\
,trans_date_trans_time,cc_num,merchant,category,amt,first,last,gender,street,city,state,zip,lat,long,city_pop,job,dob,trans_num,unix_time,merch_lat,merch_long,is_fraud
0,2019-01-01 00:00:18,2703186189652095,\"fraud_Rippin, Kub and Mann\",misc_net,4.97,Jennifer,Banks,F,561 Perry Cove,Moravian Falls,NC,28654,36.0788,-81.1781,3495,\"Psychologist, counselling\",1988-03-09,0b242abb623afc578575680df30655b9,1325376018,36.011293,-82.048315,0
1,2019-01-01 00:00:44,630423337322,\"fraud_Heller, Gutmann and Zieme\",grocery_pos,107.23,Stephanie,Gill,F,43039 Riley Greens,Orient,WA,99160,48.8878,-118.2105,149,Special educational needs teacher,1978-06-21,1f76529f8574734946361c461b024d99,1325376044,49.159046999999994,-118.186462,1
";
const SPARKOV: &str = "\
ssn|cc_num|first|last|gender|street|city|state|zip|lat|long|city_pop|job|dob|acct_num|profile|trans_num|trans_date|trans_time|unix_time|category|amt|is_fraud|merchant|merch_lat|merch_long
115-04-4507|4218196001337|Jonathan|Johnson|M|863 Lawrence Valleys|Ambler|PA|19002|40.1809|-75.2156|32412|Accounting technician|1959-10-03|888022315787|adults_50up|91ab12e73ef38206e1121e9648d2408d|2012-01-01|23:15:18|1325459718|gas_transport|69.12|0|fraud_Kihn, Abernathy and Douglas|39.491416|-75.588522
";

fn settings(path: &Path, map: &[(&str, &str)]) -> CardsSettings {
    let map = map.iter().map(|(field, column)| ((*field).to_owned(), (*column).to_owned())).collect();
    CardsSettings { files: vec![path.to_path_buf()], map, currency: Currency::USD, seed: 1, repeat: false }
}

fn cards(path: &Path, map: &[(&str, &str)]) -> SourceSettings {
    SourceSettings::Cards(settings(path, map))
}

fn file(dir: &tempfile::TempDir, content: &str) -> PathBuf {
    let path = dir.path().join("cards.csv");
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn kaggles_columns_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, KAGGLE);
    let drafts = all(&cards(&path, &[]));
    let seen: Vec<_> = drafts
        .iter()
        .map(|draft| (&*draft.user_id, draft.amount.to_string(), &*draft.merchant, &*draft.category, draft.fraud))
        .collect();
    assert_eq!(
        seen,
        [
            ("2703186189652095", "4.97".to_owned(), "fraud_Rippin, Kub and Mann", "misc_net", None),
            ("630423337322", "107.23".to_owned(), "fraud_Heller, Gutmann and Zieme", "grocery_pos", Some("reported")),
        ]
    );
    assert_eq!(drafts[0].transaction_id, "0b242abb623afc578575680df30655b9");
    assert_eq!(drafts[0].event_time.unwrap().to_string(), "2019-01-01T00:00:18.000000Z");
    let opened = source::open(&cards(&path, &[])).unwrap();
    assert_eq!((opened.total(), opened.skipped().total(), opened.has_event_times()), (Some(2), 0, true));
}

#[test]
fn sparkovs_own_files_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let drafts = all(&cards(&file(&dir, SPARKOV), &[]));
    assert_eq!(drafts.len(), 1);
    assert_eq!((&*drafts[0].user_id, &*drafts[0].merchant), ("4218196001337", "fraud_Kihn, Abernathy and Douglas"));
    assert_eq!(drafts[0].event_time.unwrap().to_string(), "2012-01-01T23:15:18.000000Z");
}

#[test]
fn any_other_file_is_mapped_and_what_cannot_be_used_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "when;who;sum;cur;where\n\
        1325376018;ann;12.5;EUR;Caf\u{e9} Nord\n\
        1325376018000;bob;-3.00;;\n\
        2020-01-02T10:00:00+01:00;cid;0.00000001;BHD;x\n\
        yesterday;ann;1;EUR;x\n\
        1325376018;ann;1,5;EUR;x\n\
        1325376018;ann;4.970000000000001;EUR;x\n\
        1325376018;;1;EUR;x\n\
        1325376018;ann\n\
        1325376018;ann;1;euro;x\n\
        1325376018;ann;2;EUR;\"x\n\
        20120101;ann;3;EUR;x\n";
    let path = file(&dir, rows);
    let map = [("user", "who"), ("amount", "sum"), ("time", "when"), ("currency", "cur"), ("merchant", "where")];
    let drafts = all(&cards(&path, &map));
    let seen: Vec<_> = drafts
        .iter()
        .map(|draft| (&*draft.user_id, draft.kind, draft.amount.to_string(), draft.currency.to_string()))
        .collect();
    let expected = [
        ("ann", Kind::Purchase, "12.5", "EUR"),
        ("bob", Kind::Refund, "3.00", "USD"),
        ("cid", Kind::Purchase, "0.00000001", "BHD"),
        ("ann", Kind::Purchase, "3", "EUR"),
    ];
    assert_eq!(seen, expected.map(|(who, kind, sum, currency)| (who, kind, sum.to_owned(), currency.to_owned())));
    assert_eq!(
        (&*drafts[0].merchant, &*drafts[1].merchant, &*drafts[0].category),
        ("Caf\u{e9} Nord", "unknown", "unknown")
    );
    assert_eq!(drafts[1].event_time, drafts[0].event_time);
    assert_eq!(drafts[3].event_time.unwrap().to_string(), "2012-01-01T00:00:00.000000Z");
    let skipped = source::open(&cards(&path, &map)).unwrap().skipped();
    let kinds: Vec<_> = skipped.kinds.iter().map(|kind| (kind.kind, kind.count)).collect();
    assert_eq!(
        kinds,
        [
            ("row without a readable time", 1),
            ("amount that is no plain decimal", 2),
            ("empty cell", 1),
            ("row that ends early", 1),
            ("currency that is none", 1),
            ("quotation mark that is not closed", 1),
        ]
    );
    assert!(skipped.kinds[0].first.contains("cards.csv line 5: \"yesterday\" is not a time"), "{skipped:?}");
}

#[test]
fn columns_that_are_not_there_and_files_that_are_none_are_refused_with_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a,b,c\n1,2,3\n");
    assert!(refusal(&cards(&path, &[])).contains("its header is \"a,b,c\""));
    assert!(refusal(&cards(&path, &[])).contains("--map user=COLUMN"));
    let map = |time: &'static str| [("user", "a"), ("amount", "b"), ("time", time)];
    assert!(refusal(&cards(&path, &map("d"))).contains("it has no column \"d\" for time; it has a, b, c"));
    assert!(refusal(&cards(&path, &map("c")[..2])).contains("--map needs a column for time"));
    assert!(refusal(&cards(&path, &[("colour", "a")])).contains("the fields are user, amount, time"));
    assert!(refusal(&cards(&path, &[("user", "a"), ("user", "b")])).contains("names user again"));
    for content in ["", "\n\n\n", "\0\u{1}\u{2}", "\"", &"x".repeat(200_000)] {
        assert!(refusal(&cards(&file(&dir, content), &[])).contains("is no card file"), "{content:.10}");
    }
    assert!(refusal(&cards(&dir.path().join("absent.csv"), &[])).contains("absent.csv: No such file"));
    assert!(refusal(&cards(Path::new("/dev/null"), &[])).contains("/dev/null is no regular file"));
}

#[test]
fn a_file_that_changes_under_the_run_ends_it_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, KAGGLE);
    let mut source = source::open(&cards(&path, &[])).unwrap();
    file(&dir, &KAGGLE.replace("4.97", "4.98"));
    let mut draft = finstream::source::Draft::default();
    source.next_into(&mut draft).unwrap();
    source.next_into(&mut draft).unwrap();
    assert!(source.next_into(&mut draft).unwrap_err().to_string().contains("was changed while it was read"));
}

#[test]
fn what_is_sent_again_is_the_same_and_another_map_is_another_source() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, KAGGLE);
    let fingerprint = |settings: &SourceSettings| source::open(settings).unwrap().fingerprint().unwrap();
    assert_eq!(all(&cards(&path, &[])), all(&cards(&path, &[])));
    assert_eq!(fingerprint(&cards(&path, &[])), fingerprint(&cards(&path, &[])));
    let map = [("user", "cc_num"), ("amount", "amt"), ("time", "unix_time")];
    assert_ne!(fingerprint(&cards(&path, &[])), fingerprint(&cards(&path, &map)));
    let again = CardsSettings { repeat: true, ..settings(&path, &[]) };
    let drafts = drain(source::open(&SourceSettings::Cards(again)).unwrap().as_mut(), 5);
    assert_eq!(drafts.len(), 5);
    assert!(drafts.is_sorted_by_key(|draft| draft.event_time) && drafts[4].transaction_id.ends_with("#3"));
    // One row is a round, too.
    let one = file(&dir, SPARKOV);
    let again = CardsSettings { repeat: true, ..settings(&one, &[]) };
    let drafts = drain(source::open(&SourceSettings::Cards(again)).unwrap().as_mut(), 3);
    let times: Vec<i64> =
        drafts.iter().map(|draft| draft.event_time.unwrap().0 - drafts[0].event_time.unwrap().0).collect();
    assert_eq!(times, [0, 1_000_000, 2_000_000]);
}
