//! Live data of Yahoo through the whole pipeline; a local server stands in for it.

use crate::support::Sandbox;
use crate::yahoo_server::{QUOTES, Server, quote};

/// 2024-12-02 14:30:00.
const OPEN_S: i64 = 1_733_149_800;

#[test]
fn live_trades_reach_the_totals_and_the_books_balance() {
    let (sandbox, server) = (Sandbox::new(), Server::start());
    for (second, volume) in [(0, 1_000), (5, 1_250)] {
        server.then_quotes(&[quote("AAPL", 190.5, volume, OPEN_S + second), quote("MSFT", 400, 7, OPEN_S)]);
    }
    let url = server.url();
    let mut running =
        sandbox.spawn_with(&["--source", "yahoo:AAPL,MSFT", "--count", "1"], &[("FINSTREAM_YAHOO_URL", &url)]);
    assert_eq!(running.wait(), Some(0), "{}", running.output());
    let text = running.output();
    assert!(text.contains("live trades of AAPL, MSFT from Yahoo Finance, each as soon as it is known"), "{text}");
    let total = "select symbol || ' ' || quantity || ' ' || notional from symbol_totals";
    assert_eq!(sandbox.sql(total), "AAPL 250 47625.0000");
    sandbox.expect(0, &["verify"]);
    assert_eq!(server.served(QUOTES), 2, "one request in five seconds");
}

#[test]
fn a_live_run_without_trades_ends_with_its_duration() {
    let (sandbox, server) = (Sandbox::new(), Server::start());
    server.then_quotes(&[quote("AAPL", 190.5, 7, OPEN_S)]);
    let url = server.url();
    let mut running =
        sandbox.spawn_with(&["--source", "yahoo:AAPL", "--duration", "1s"], &[("FINSTREAM_YAHOO_URL", &url)]);
    assert_eq!(running.wait(), Some(0), "{}", running.output());
    assert!(running.output().contains("0 sent"), "{}", running.output());
}

#[test]
fn who_is_offline_is_told_how_to_do_without() {
    let (sandbox, url) = (Sandbox::new(), Server::nowhere());
    let mut running = sandbox.spawn_with(&["--source", "yahoo:AAPL"], &[("FINSTREAM_YAHOO_URL", &url)]);
    assert_eq!(running.wait(), Some(4), "{}", running.output());
    let text = running.output();
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    for word in ["AAPL", "Connection refused", "Offline? ", "--source yfinance:prices.csv"] {
        assert!(line.contains(word), "{word:?} is not in the error line of {text}");
    }
}
