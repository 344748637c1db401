//! Live data of Yahoo, as a local server gives it: each share is counted once, and whatever it answers is survived.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{drain, refusal};
use crate::yahoo_server::{CLOSED, QUOTES, Server, chart, chart_path, quote, unauthorized, with};
use finstream::clock::Micros;
use finstream::config::{Polling, SourceSettings, YahooSettings};
use finstream::source::{self, Draft, Next, Source};
use finstream::transaction::Currency;

const PATIENCE: Duration = Duration::from_secs(20);
/// 2024-12-02 14:30:00.
const OPEN_S: i64 = 1_733_149_800;
const NEVER: Duration = Duration::from_secs(100_000);

pub fn settings(url: String, symbols: &[&str]) -> YahooSettings {
    let short = Duration::from_millis(2);
    let polling =
        Polling { interval: short, closed: short, bars: short, backoff_max: Duration::from_millis(20), refused: NEVER };
    let symbols = symbols.iter().map(|symbol| (*symbol).to_owned()).collect();
    YahooSettings { symbols, currency: Currency::EUR, users: 100, seed: 1, url: Some(url), polling }
}

pub fn open(settings: YahooSettings) -> Box<dyn Source> {
    source::open(&SourceSettings::Yahoo(settings)).unwrap()
}

/// The next `count` trades.
pub fn take(source: &mut dyn Source, count: usize) -> Vec<Draft> {
    let (begun, mut drafts, mut draft) = (Instant::now(), Vec::new(), Draft::default());
    while drafts.len() < count {
        assert!(begun.elapsed() < PATIENCE, "{} of {count} trades came: {drafts:?}", drafts.len());
        match source.next_into(&mut draft).unwrap() {
            Next::Draft => drafts.push(draft.clone()),
            Next::NotYet => thread::sleep(Duration::from_millis(1)),
            Next::End => panic!("live data has no end"),
        }
    }
    drafts
}

/// All trades of what the server has been told to say; the last answer has then been given more than once.
fn all(server: &Server, path: &str, answers: usize, source: &mut dyn Source) -> Vec<Draft> {
    server.wait_for(path, answers + 2);
    drain(source, usize::MAX)
}

fn shown(drafts: &[Draft]) -> Vec<(&str, String, i64)> {
    let show = |draft: &'_ Draft| (draft.price.to_string(), draft.quantity);
    drafts.iter().map(|draft| (draft.transaction_id.as_str(), show(draft).0, show(draft).1)).collect()
}

fn quantities(drafts: &[Draft]) -> Vec<i64> {
    drafts.iter().map(|draft| draft.quantity).collect()
}

/// The present minute, in seconds.
fn minute_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    now - now % 60
}

#[test]
fn growth_of_the_days_volume_is_a_trade_and_the_first_quote_is_none() {
    let server = Server::start();
    for (second, apple, microsoft) in [(0, 1_000, 70), (5, 1_250, 70), (10, 1_250, 71)] {
        server.then_quotes(&[
            quote("AAPL", 189.950_009_9, apple, OPEN_S + second),
            quote("MSFT", 400.5, microsoft, OPEN_S + second),
        ]);
    }
    let mut source = open(settings(server.url(), &["AAPL", "MSFT"]));
    assert_eq!((source.describe().as_str(), source.total(), source.fingerprint()), ("yahoo:AAPL,MSFT", None, None));
    assert!(source.has_event_times());
    let drafts = all(&server, QUOTES, 3, source.as_mut());
    let expected = [("AAPL:20241202T143005Z:quote", "189.9500", 250), ("MSFT:20241202T143010Z:quote", "400.5000", 1)];
    assert_eq!(shown(&drafts), expected.map(|(id, price, quantity)| (id, price.to_owned(), quantity)));
    assert_eq!(drafts[0].event_time, Some(Micros((OPEN_S + 5) * 1_000_000)));
    assert_eq!((drafts[0].amount.to_string().as_str(), drafts[0].currency), ("47487.5000", Currency::USD));
    assert_eq!(source.skipped().total(), 0);
    assert_eq!(server.served("/consent"), 0, "who gives quotes freely is not asked for a crumb");
}

#[test]
fn cookie_and_crumb_are_fetched_once() {
    let server = Server::start();
    server.want_crumb();
    server.then_quotes(&[quote("AAPL", 1, 10, OPEN_S)]).then_quotes(&[quote("AAPL", 1, 17, OPEN_S + 1)]);
    let mut source = open(settings(server.url(), &["AAPL"]));
    assert_eq!(quantities(&take(source.as_mut(), 1)), [7]);
    assert_eq!((server.served("/consent"), server.served("/v1/test/getcrumb")), (1, 1));
}

#[test]
fn too_many_requests_and_failures_of_the_server_are_waited_for_and_nothing_is_lost() {
    for failures in [&[429][..], &[500, 502, 503], &[429, 503, 429, 429]] {
        let server = Server::start();
        // The first answer may be one of these, too.
        for status in failures {
            server.then(QUOTES, *status, "Too Many Requests");
        }
        server.then_quotes(&[quote("AAPL", 2, 10, OPEN_S)]);
        for status in failures {
            server.then(QUOTES, *status, "{}");
        }
        server.then_quotes(&[quote("AAPL", 2, 15, OPEN_S + 9)]);
        let mut source = open(settings(server.url(), &["AAPL"]));
        assert_eq!(quantities(&take(source.as_mut(), 1)), [5], "{failures:?}");
        assert_eq!(server.served(&chart_path("AAPL")), 0, "bars would be refused as well");
    }
}

#[test]
fn who_is_told_too_many_requests_for_long_tries_bars_at_the_same_slow_pace() {
    let (server, minute) = (Server::start(), minute_s());
    let path = chart_path("AAPL");
    server.then(QUOTES, 429, "");
    server.then(&path, 429, "").then(&path, 200, chart("AAPL", &[(minute - 600, Some(5))]));
    server.then(&path, 200, chart("AAPL", &[(minute - 600, Some(5)), (minute - 540, Some(4))]));
    let mut source = open(settings(server.url(), &["AAPL"]));
    assert_eq!(quantities(&take(source.as_mut(), 4)), [1, 1, 1, 1]);
    assert_eq!(server.served(QUOTES), 5);
}

#[test]
fn the_pause_after_errors_doubles_up_to_its_limit() {
    let server = Server::start();
    server.then(QUOTES, 429, "");
    let mut settings = settings(server.url(), &["AAPL"]);
    (settings.polling.interval, settings.polling.backoff_max) = (Duration::from_millis(20), Duration::from_millis(160));
    let begun = Instant::now();
    let source = open(settings);
    server.wait_for(QUOTES, 5);
    // 40, 80, and twice 160.
    assert!(begun.elapsed() >= Duration::from_millis(440), "{:?}", begun.elapsed());
    drop(source);
}

#[test]
fn who_is_offline_learns_at_once_who_was_asked_for_what_and_which_files_do_without() {
    let url = Server::nowhere();
    let refused = refusal(&SourceSettings::Yahoo(settings(url.clone(), &["AAPL", "MSFT"])));
    let host = url.trim_start_matches("http://");
    assert!(refused.starts_with(&format!("{host} gives nothing for AAPL, MSFT: Connection refused")), "{refused}");
    assert!(refused.contains("Offline? ") && refused.contains("--source yfinance:prices.csv"), "{refused}");
}

#[test]
fn a_connection_that_is_lost_later_is_waited_for() {
    let server = Server::start();
    server.then_quotes(&[quote("AAPL", 2, 10, OPEN_S)]).then(QUOTES, CLOSED, "").then(QUOTES, CLOSED, "");
    server.then_quotes(&[quote("AAPL", 2, 15, OPEN_S + 9)]);
    let mut source = open(settings(server.url(), &["AAPL"]));
    assert_eq!(quantities(&take(source.as_mut(), 1)), [5]);
    assert_eq!(server.served(&chart_path("AAPL")), 0);
}

#[test]
fn where_quotes_are_refused_bars_give_the_trades_of_files_and_none_from_before_the_start() {
    let server = Server::start();
    let minute = minute_s();
    server.then(QUOTES, 401, unauthorized()).then("/v1/test/getcrumb", 401, "Unauthorized");
    let before = [(minute - 600, Some(1_000)), (minute - 540, Some(1_000))];
    let after = [(minute - 480, Some(103)), (minute - 420, None), (minute - 360, Some(0)), (minute - 300, Some(2))];
    server.then(&chart_path("AAPL"), 200, chart("AAPL", &before));
    server.then(&chart_path("AAPL"), 200, chart("AAPL", &[&before[..], &after, &[(minute, Some(50))]].concat()));
    let mut source = open(settings(server.url(), &["AAPL"]));
    let drafts = all(&server, &chart_path("AAPL"), 2, source.as_mut());
    assert_eq!(quantities(&drafts), [26, 26, 26, 25, 1, 1]);
    let prices: Vec<_> = drafts[..4].iter().map(|draft| draft.price.to_string()).collect();
    assert_eq!(prices, ["10.0000", "9.0000", "12.0000", "11.0000"]);
    // The same bar in a file is the same trades: id, user, side, times.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("AAPL.csv");
    let start = chrono::DateTime::from_timestamp(minute - 480, 0).unwrap().format("%Y-%m-%d %H:%M:%S+00:00");
    let next = chrono::DateTime::from_timestamp(minute - 420, 0).unwrap().format("%Y-%m-%d %H:%M:%S+00:00");
    let rows = format!("Datetime,Open,High,Low,Close,Volume\n{start},10,12,9,11,103\n{next},10,12,9,11,1\n");
    std::fs::write(&path, rows).unwrap();
    let file = finstream::config::YfinanceSettings {
        files: vec![path],
        symbol: None,
        currency: Currency::USD,
        users: 100,
        seed: 1,
        repeat: false,
    };
    assert_eq!(drafts[..4], crate::support::all(&SourceSettings::Yfinance(file))[..4]);
    assert_eq!(source.skipped().total(), 0, "a minute without trades is none that was left out");
}

#[test]
fn nothing_is_counted_twice_when_quotes_and_bars_take_turns() {
    let server = Server::start();
    let minute = minute_s();
    let path = chart_path("AAPL");
    // Quotes until 30 s after the minute -600, then none, then again from -299 on.
    server.then_quotes(&[quote("AAPL", 10, 1_000, minute - 620)]);
    server.then_quotes(&[quote("AAPL", 10, 1_100, minute - 570)]);
    server.then(QUOTES, 403, "{}");
    let minutes = [
        (minute - 660, Some(500)),
        (minute - 600, Some(300)),
        (minute - 540, Some(40)),
        (minute - 480, Some(8)),
        (minute, Some(9_999)),
    ];
    server.then(&path, 200, chart("AAPL", &minutes));
    let mut settings = settings(server.url(), &["AAPL"]);
    settings.polling.refused = Duration::from_millis(60);
    // Crumbs are refused as well, so that each refusal stays one.
    server.then("/v1/test/getcrumb", 403, "Forbidden");
    let mut source = open(settings);
    assert_eq!(quantities(&take(source.as_mut(), 9)), [100, 10, 10, 10, 10, 2, 2, 2, 2]);
    server.then_quotes(&[quote("AAPL", 10, 2_000, minute - 450)]);
    server.then_quotes(&[quote("AAPL", 10, 2_500, minute - 299)]);
    server.then_quotes(&[quote("AAPL", 10, 2_507, minute - 290)]);
    assert_eq!(
        quantities(&take(source.as_mut(), 1)),
        [7],
        "growth counts from the first quote that is behind the bars"
    );
    let asked = server.served(QUOTES);
    server.wait_for(QUOTES, asked + 3);
    assert_eq!(drain(source.as_mut(), 10), []);
}

#[test]
fn a_new_day_begins_at_nothing() {
    let server = Server::start();
    for (second, volume) in [(0, 5_000_000), (17 * 3_600, 800), (17 * 3_600 + 5, 900)] {
        server.then_quotes(&[quote("AAPL", 10, volume, OPEN_S + second)]);
    }
    let mut source = open(settings(server.url(), &["AAPL"]));
    assert_eq!(quantities(&all(&server, QUOTES, 3, source.as_mut())), [800, 100]);
}

#[test]
fn hundredths_become_the_main_unit_and_unknown_currencies_the_flags() {
    let server = Server::start();
    let named = |symbol: &str, code: &str, price: f64, volume: i64| {
        with(quote(symbol, price, volume, OPEN_S + volume), &[("currency", json!(code))])
    };
    for volume in [1, 3] {
        server.then_quotes(&[
            named("BP.L", "GBp", 512.345, volume),
            named("NPN.JO", "ZAc", 300_000.0, volume),
            named("TEVA.TA", "ILA", 5_000.05, volume),
            named("7203.T", "JPY", 2_500.5, volume),
            named("PTS", "POINTS", 7.0, volume),
        ]);
    }
    let mut source = open(settings(server.url(), &["BP.L", "NPN.JO", "TEVA.TA", "7203.T", "PTS"]));
    let drafts = take(source.as_mut(), 5);
    let seen: Vec<_> = drafts.iter().map(|draft| format!("{} {}", draft.price, draft.currency)).collect();
    // 5.12345 and 50.0005: half to even, once.
    assert_eq!(seen, ["5.1234 GBP", "3000.0000 ZAR", "50.0005 ILS", "2500.5000 JPY", "7.0000 EUR"]);
    assert_eq!(source.skipped().kept[0].kind, "currency that is no code of three letters");
}

#[test]
fn instruments_without_a_volume_trade_one_unit_a_new_price() {
    let server = Server::start();
    let of = |symbol: &str, kind: &str, price: f64, volume: Value, second: i64| {
        with(quote(symbol, price, volume, OPEN_S + second), &[("quoteType", json!(kind))])
    };
    for (second, euro, index, coin) in
        [(0, 1.05, 5_000.0, 9_000_000), (5, 1.05, 5_000.5, 8_000_000), (10, 1.06, 5_000.5, 9_500_000)]
    {
        server.then_quotes(&[
            of("EURUSD=X", "CURRENCY", euro, json!(0), second),
            of("^GSPC", "INDEX", index, Value::Null, second),
            // Of 24 hours that move along: no volume of a day.
            of("BTC-USD", "CRYPTOCURRENCY", 95_000.0 + euro, json!(coin), second),
        ]);
    }
    let mut source = open(settings(server.url(), &["EURUSD=X", "^GSPC", "BTC-USD"]));
    let drafts = all(&server, QUOTES, 3, source.as_mut());
    let expected = [
        ("^GSPC:20241202T143005Z:quote", "5000.5000", 1),
        ("EURUSD=X:20241202T143010Z:quote", "1.0600", 1),
        ("BTC-USD:20241202T143010Z:quote", "95001.0600", 1),
    ];
    assert_eq!(shown(&drafts), expected.map(|(id, price, quantity)| (id, price.to_owned(), quantity)));
}

#[test]
fn wrong_and_missing_members_are_left_out_counted_and_lose_no_volume() {
    let good = |volume: i64| quote("AAPL", 10, volume, OPEN_S + volume);
    let other = |volume: i64| quote("MSFT", 20, volume, OPEN_S + volume);
    let without = |name: &str| {
        let mut quote = good(50);
        quote.as_object_mut().unwrap().remove(name);
        quote
    };
    let wrong = [
        (without("regularMarketPrice"), "missing price", "AAPL: its quote has no regularMarketPrice"),
        (without("regularMarketVolume"), "quote without volume", "AAPL: its quote has no regularMarketVolume"),
        (with(good(50), &[("regularMarketPrice", json!("ten"))]), "unreadable number", "AAPL: regularMarketPrice: "),
        (with(good(50), &[("regularMarketPrice", json!({"raw": 10}))]), "unreadable number", "AAPL"),
        (with(good(50), &[("regularMarketVolume", json!(-5))]), "unreadable number", "AAPL: regularMarketVolume: "),
        (with(good(50), &[("regularMarketVolume", json!(1.5))]), "unreadable number", "AAPL"),
        (with(good(50), &[("regularMarketVolume", json!([1, 2]))]), "unreadable number", "AAPL"),
        (with(good(50), &[("regularMarketPrice", json!(-10))]), "number out of range", "price -10 is negative"),
        (with(good(50), &[("regularMarketPrice", json!(1e300))]), "unreadable number", "AAPL"),
        (with(good(50), &[("regularMarketPrice", json!(0))]), "price of 0, or so small that", "AAPL: price 0"),
        (with(good(50), &[("regularMarketVolume", json!(2e15))]), "number out of range", "10^15"),
        (without("quoteType"), "unreadable quote", "AAPL"),
        (with(good(50), &[("currency", Value::Null)]), "unreadable quote", "currency unresolved"),
        (json!("AAPL"), "unreadable quote", "result[0]"),
        (with(good(50), &[("symbol", json!("ZZZ"))]), "quote of a symbol that was not asked for", "ZZZ"),
    ];
    for (bad, kind, why) in wrong {
        let server = Server::start();
        for quotes in [[good(10), other(10)], [bad.clone(), other(11)], [good(99), other(12)]] {
            server.then_quotes(&quotes);
        }
        let mut source = open(settings(server.url(), &["AAPL", "MSFT"]));
        let drafts = take(source.as_mut(), 3);
        let apple: Vec<_> = drafts.iter().filter(|draft| draft.symbol == "AAPL").map(|draft| draft.quantity).collect();
        assert_eq!(apple, [89], "{bad}");
        let skipped = source.skipped();
        assert!(
            skipped.kinds.iter().any(|found| found.kind.starts_with(kind) && found.first.contains(why)),
            "{bad}: {skipped:?}"
        );
        assert_eq!(server.served(&chart_path("AAPL")), 0, "{bad}: the others' quotes can be used");
    }
}

#[test]
fn times_that_are_none_are_the_time_of_asking() {
    for time in [json!("now"), json!(1_733_149_800_000_i64), Value::Null, json!(-1e30)] {
        let server = Server::start();
        let of = |volume: i64| with(quote("AAPL", 10, volume, 0), &[("regularMarketTime", time.clone())]);
        server.then_quotes(&[of(10)]).then_quotes(&[of(12)]);
        let mut source = open(settings(server.url(), &["AAPL"]));
        let drafts = take(source.as_mut(), 1);
        let now_s = minute_s();
        assert!((now_s - 120..now_s + 120).contains(&(drafts[0].event_time.unwrap().0 / 1_000_000)), "{time}");
    }
}

#[test]
fn quotes_whose_form_has_changed_give_way_to_bars() {
    let minute = minute_s();
    let nan = json!({"quoteResponse": {"result": [quote("AAPL", 1, 1, 1)]}}).to_string().replace("189.9,", "NaN,");
    for (status, body) in [
        (200, nan),
        (200, json!({"quoteResponse": {"result": [with(quote("AAPL", 1, 1, 1), &[("regularMarketPrice", json!("1 USD"))])]}}).to_string()),
        (200, json!({"quotes": []}).to_string()),
        (200, json!({"quoteResponse": {"result": null, "error": {"description": "internal"}}}).to_string()),
        (200, "<html>consent</html>".to_owned()),
        (404, "gone".to_owned()),
    ] {
        let server = Server::start();
        server.then(QUOTES, status, &body);
        let path = chart_path("AAPL");
        server.then(&path, 200, chart("AAPL", &[(minute - 600, Some(5))]));
        server.then(&path, 200, chart("AAPL", &[(minute - 600, Some(5)), (minute - 540, Some(8))]));
        let mut source = open(settings(server.url(), &["AAPL"]));
        assert_eq!(quantities(&take(source.as_mut(), 4)), [2, 2, 2, 2], "{status} {body}");
    }
}

#[test]
fn bars_with_wrong_members_are_left_out_counted_and_survived() {
    let server = Server::start();
    let minute = minute_s();
    let path = chart_path("AAPL");
    let first = [(minute - 600, Some(5))];
    let minutes = [(minute - 600, Some(5)), (minute - 540, Some(8)), (minute - 480, Some(8)), (minute - 420, Some(4))];
    let changed = |column: &str, value: Value| {
        let mut chart = chart("AAPL", &minutes);
        chart["chart"]["result"][0]["indicators"]["quote"][0][column][1] = value;
        chart
    };
    server.then(QUOTES, 403, "{}").then("/v1/test/getcrumb", 403, "");
    server.then(&path, 200, chart("AAPL", &first));
    for refused in [changed("volume", json!(-8)), changed("close", json!("11")), json!({"chart": {}}), json!(7)] {
        server.then(&path, 200, refused);
    }
    server.then(&path, 200, changed("high", Value::Null));
    let mut source = open(settings(server.url(), &["AAPL"]));
    // An answer that cannot be read as a whole is asked for again; of one that can, one minute is not usable.
    let drafts = all(&server, &path, 6, source.as_mut());
    assert_eq!(quantities(&drafts), [2, 2, 2, 2, 1, 1, 1, 1]);
    let skipped = source.skipped();
    let counts: Vec<_> = skipped.kinds.iter().map(|kind| (kind.kind, kind.count)).collect();
    assert_eq!(counts, [("refused request", 4), ("unreadable bar", 1)], "{skipped:?}");
}

#[test]
fn a_symbol_that_yahoo_does_not_know_is_left_out_and_none_at_all_is_an_error() {
    let server = Server::start();
    server.then_quotes(&[quote("AAPL", 1, 10, OPEN_S)]).then_quotes(&[quote("AAPL", 1, 13, OPEN_S + 1)]);
    let mut source = open(settings(server.url(), &["AAPL", "NOSUCH"]));
    assert_eq!(quantities(&take(source.as_mut(), 1)), [3]);
    let server = Server::start();
    server.then_quotes(&[]);
    let refused = refusal(&SourceSettings::Yahoo(settings(server.url(), &["NOSUCH", "NEITHER"])));
    assert!(refused.contains("knows none of NOSUCH, NEITHER; look the symbols up"), "{refused}");
    // The same where quotes are refused: there is no chart of it.
    let server = Server::start();
    server.then(QUOTES, 403, "{}").then("/v1/test/getcrumb", 403, "");
    let refused = refusal(&SourceSettings::Yahoo(settings(server.url(), &["NOSUCH", "NEITHER"])));
    assert!(refused.contains("knows none of NOSUCH, NEITHER"), "{refused}");
}

#[test]
fn who_refuses_quotes_and_bars_at_the_start_is_an_error_that_says_both() {
    let server = Server::start();
    server.then(QUOTES, 403, "{}").then("/v1/test/getcrumb", 403, "").then(&chart_path("AAPL"), 403, "{}");
    let refused = refusal(&SourceSettings::Yahoo(settings(server.url(), &["AAPL"])));
    assert!(refused.contains("(quotes: HTTP 403; bars of AAPL: HTTP 403)"), "{refused}");
    assert!(refused.contains("--source yfinance:prices.csv"), "{refused}");
}

#[test]
fn a_closed_market_is_asked_for_less_often() {
    let server = Server::start();
    let closed = with(quote("AAPL", 1, 10, OPEN_S), &[("marketState", json!("CLOSED"))]);
    server.then_quotes(&[closed]);
    let mut settings = settings(server.url(), &["AAPL"]);
    settings.polling.closed = NEVER;
    let mut source = open(settings);
    assert_eq!(drain(source.as_mut(), 10), []);
    assert_eq!(server.served(QUOTES), 1);
}

#[test]
fn dropping_the_source_ends_its_thread_whatever_it_waits_for() {
    let server = Server::start();
    server.then_quotes(&[quote("AAPL", 1, 10, OPEN_S)]).then_nothing(QUOTES);
    let source = open(settings(server.url(), &["AAPL"]));
    server.wait_for(QUOTES, 2);
    let mut sleeping = settings(server.url(), &["AAPL"]);
    sleeping.polling.interval = NEVER;
    let other = Server::start();
    other.then_quotes(&[quote("AAPL", 1, 10, OPEN_S)]);
    sleeping.url = Some(other.url());
    let begun = Instant::now();
    // Each waits for its thread.
    drop(source);
    drop(open(sleeping));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(other.served(QUOTES), 1);
}

#[test]
fn symbols_that_are_none_are_refused_before_anybody_is_asked() {
    let many: Vec<String> = (0..51).map(|place| format!("S{place}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (symbols, expected) in [
        (&[][..], "0 symbols are not within 1 to 50"),
        (&many, "51 symbols are not within 1 to 50"),
        (&["aapl"], "\"aapl\" is no symbol"),
        (&["AAPL", "MSFT", "AAPL"], "AAPL stands there twice"),
        (&["A B"], "\"A B\" is no symbol"),
        (&["../../x"], "is no symbol"),
        (&[".."], "is no symbol"),
        (&["M&M.NS"], "\"M&M.NS\" cannot be asked for live"),
        (&["ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456"], "is no symbol of at most 32"),
    ] {
        let settings = SourceSettings::Yahoo(settings(Server::nowhere(), symbols));
        assert!(source::check(&settings).unwrap_err().to_string().contains(expected), "{symbols:?}");
        assert!(refusal(&settings).contains(expected), "{symbols:?}");
    }
    let mut odd = settings("localhost:80".to_owned(), &["AAPL"]);
    assert!(
        refusal(&SourceSettings::Yahoo(odd.clone())).contains("FINSTREAM_YAHOO_URL=\"localhost:80\" cannot be used")
    );
    odd.users = 0;
    assert!(refusal(&SourceSettings::Yahoo(odd)).contains("--users 0"));
}
