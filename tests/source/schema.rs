//! What every source sends is what the schema promises, as a validator sees it that knows nothing of our types.

use std::path::PathBuf;

use crate::support::{drain, fixture};
use crate::{yahoo, yahoo_server};
use finstream::clock::Micros;
use finstream::config::{CardsSettings, EventTimes, Shares, SourceSettings, SyntheticSettings, YfinanceSettings};
use finstream::source::{self, DerivedIds};
use finstream::transaction::{Currency, MessageId, RunId};
use serde_json::Value;
use uuid::Uuid;

fn yfinance(file: PathBuf) -> SourceSettings {
    let (symbol, currency) = (None, Currency::USD);
    SourceSettings::Yfinance(YfinanceSettings {
        files: vec![file],
        symbol,
        currency,
        users: 100,
        seed: 1,
        repeat: true,
    })
}

/// A stock by quotes, and an index.
fn live(server: &yahoo_server::Server) -> SourceSettings {
    for step in 0..20 {
        let index = yahoo_server::quote("^GSPC", 5_000 + step, 0, 1_733_149_800 + step);
        let index = yahoo_server::with(index, &[("quoteType", "INDEX".into())]);
        server.then_quotes(&[yahoo_server::quote("BRK-B", 400.123_45, 1 << step, 1_733_149_800 + step), index]);
    }
    SourceSettings::Yahoo(yahoo::settings(server.url(), &["BRK-B", "^GSPC"]))
}

#[test]
fn every_message_of_every_source_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/transaction.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cards = dir.path().join("cards.csv");
    std::fs::write(&cards, "u,a,t,f\nann,12.50,1325376018,1\nb\u{f6}b,-3,2020-01-02 10:00:00,0\n").unwrap();
    let map = [("user", "u"), ("amount", "a"), ("time", "t"), ("fraud", "f")];
    let map = map.map(|(field, column)| (field.to_owned(), column.to_owned())).to_vec();
    let shares = Shares { refunds: 0.1, declines: 0.1, fraud: 0.1, late: 0.1, duplicates: 0.1 };
    let synthetic = |event_times| {
        SourceSettings::Synthetic(SyntheticSettings { users: 500, zipf_exponent: 1.0, seed: 9, shares, event_times })
    };
    let server = yahoo_server::Server::start();
    let sources = [
        live(&server),
        synthetic(EventTimes::Live),
        synthetic(EventTimes::Calendar),
        yfinance(fixture("download_two_tickers.csv")),
        yfinance(fixture("ZZ-15m-bad-rows.csv")),
        SourceSettings::Cards(CardsSettings {
            files: vec![cards],
            map,
            currency: Currency::EUR,
            seed: 1,
            repeat: true,
        }),
    ];
    for settings in sources {
        let mut source = source::open(&settings).unwrap();
        let (run, mut ids, mut kinds) = (RunId(Uuid::now_v7()), DerivedIds::default(), Vec::new());
        let drafts = match &settings {
            SourceSettings::Yahoo(_) => yahoo::take(source.as_mut(), 38),
            _ => drain(source.as_mut(), 5_000),
        };
        for (sequence, draft) in (0..).zip(drafts) {
            let mut bytes = Vec::new();
            let now = Micros(1_700_000_000_000_000);
            draft.transaction(MessageId { run, sequence }, &mut ids, now, now).encode_into(&mut bytes);
            let message: Value = serde_json::from_slice(&bytes).unwrap();
            if let Err(error) = validator.validate(&message) {
                panic!("{}: {error}: {message}", source.describe());
            }
            kinds.push(message["type"].as_str().unwrap().to_owned());
        }
        kinds.sort();
        kinds.dedup();
        let expected = if source.describe().starts_with('y') { &["trade"][..] } else { &["purchase", "refund"] };
        assert_eq!(kinds, expected, "{}", source.describe());
    }
    // The validator would say so.
    for wrong in ["{\"type\":\"purchase\"}", "{}", "[]"] {
        assert!(!validator.is_valid(&serde_json::from_str(wrong).unwrap()), "{wrong}");
    }
}
