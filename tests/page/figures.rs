//! What the document says is what the page shows.

use serde_json::Value;

use crate::browser::{Browser, Look};
use crate::document;
use crate::server::Server;

/// A page that shows this document, live.
pub fn open(document: Value, look: Look) -> (Server, Browser) {
    let server = Server::start(document);
    let mut browser = Browser::start();
    browser.open(&server.url(), look);
    browser.wait_for("document.body.dataset.link === 'live'");
    browser.wait_for("document.querySelector('#books-text').innerText.trim() !== ''");
    (server, browser)
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn each_figure_of_the_document_is_on_the_page() {
    let (server, mut browser) = open(document::healthy(100), Look::LIGHT);
    for (selector, text) in [
        ("#verdict-text", "Healthy: 20,140 tx/s, p99 8.1 ms, 0.2 s behind"),
        ("#version", "0.1.0"),
        ("#process", "broker · producer · consumer · up 1 min 40 s"),
        ("#pipeline li:nth-child(1) .rate", "20,140 tx/s"),
        ("#pipeline li:nth-child(2) dl", "p50 95 µs p99 310 µs unacknowledged 3"),
        ("#pipeline li:nth-child(3) dl", "p50 420 µs p99 2.2 ms not yet read 1,234"),
        ("#pipeline li:nth-child(4) .place", "Consumer slowest"),
        ("#pipeline li:nth-child(4) .note", "waits 1 ms for company"),
        ("#pipeline li:nth-child(5) dl", "p50 1.9 ms p99 4.7 ms uncommitted –"),
        ("#books-produced", "1,000,000"),
        ("#books-acknowledged", "1,000,000"),
        ("#books-stored", "999,986"),
        ("#books-way", "14"),
        ("#books-unknown", "7"),
        ("#books-text", "produced = acknowledged; 14 on the way"),
        ("#stages-rows tr:nth-child(4)", "received → processed 3.2 ms 4.8 ms 5.2 ms 7.8 ms 10 ms 201,000 0"),
        ("#partitions-rows tr:nth-child(3)", "2 0 166,074 166,072 2 0.2 this process"),
        ("#partitions-sum", "14 messages behind, 0.2 s"),
        ("#users tbody tr:nth-child(1)", "user-000001 98,765 54,665,432.10 USD"),
        ("#users tbody tr:nth-child(2)", "<b onclick=alert(1)>&amp; 594 −27.05 EUR"),
        ("#users .wrap", "finstream --data-dir ./finstream-data sql 'select user_id from user_totals limit 8'"),
        ("#symbols .empty", "No trade yet: symbols come with market data, for example --source yfinance:FILE."),
        ("#transactions-rows tr:nth-child(2)", "user-000001 purchase 13.05 USD 6.0 ms 1 : 166,000"),
        ("#way-rows tr:nth-child(3)", "acknowledged +620 µs 520 µs"),
        ("#way-rows tr:nth-child(6)", "committed +5.9 ms 1.9 ms"),
    ] {
        let shown = browser.text(selector);
        assert!(
            shown == text || selector.contains("transactions-rows") && shown.ends_with(text),
            "{selector}: {shown}"
        );
    }
    // The last column of the charts: second 99 of a wave of 60 seconds, 0.15 from its middle.
    let legend = browser.text("#chart-latency .legend");
    assert_eq!(legend, "p50 6.7 ms p99 9.3 ms p99.9 16 ms");
    assert_eq!(browser.text("#chart-rates .legend"), "stored 23,000/s scheduled 23,000/s");
    assert!(
        browser.text("#chart-heat .legend").contains("4.1 ms to 5.8 ms (8,880)"),
        "{}",
        browser.text("#chart-heat")
    );
    assert!(browser.value("document.title") == "Healthy · 20,137/s · finstream");
    browser.assert_no_problems();
    drop(server);
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn an_event_adds_its_second_and_changes_the_figures_without_moving_anything() {
    let (server, mut browser) = open(document::healthy(100), Look::LIGHT);
    browser.value(
        "window.moved = 0; new PerformanceObserver((list) => { for (const shift of list.getEntries()) \
         window.moved += shift.value; }).observe({ type: 'layout-shift' })",
    );
    for seconds in 101..=104 {
        let mut document = document::event(document::balanced(seconds));
        document["books"]["stored"] = (1_000_000 + seconds * 10).into();
        let stored = format!("1,001,0{}0", seconds - 100);
        server.say(document);
        browser.wait_for(&format!("document.querySelector('#books-stored').innerText === '{stored}'"));
    }
    let columns = "import('/page/model.js').then(({ model }) => model.history.times.length)";
    assert_eq!(browser.value(columns), 104, "each event brings one second");
    // The same again is not a second of its own.
    server.say(document::event(document::balanced(104)));
    browser.wait_for("document.querySelector('#books-stored').innerText === '1,000,000'");
    assert_eq!(browser.value(columns), 104);
    assert_eq!(browser.value("window.moved"), 0, "nothing jumps");
    browser.assert_no_problems();
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn one_transaction_is_chosen_and_followed_through_all_stages() {
    let (server, mut browser) = open(document::healthy(100), Look::LIGHT);
    assert_eq!(browser.text("#follow"), "Following the newest");
    browser.value("document.querySelectorAll('#transactions-rows input')[3].click()");
    browser.wait_for("document.querySelector('#way-name').innerText.includes('message 999,997 ')");
    let mut next = document::event(document::healthy(101));
    for transaction in next["transactions"].as_array_mut().unwrap() {
        transaction["offset"] = (transaction["offset"].as_u64().unwrap() + 1_000).into();
        transaction["user_id"] = "user-of-later".into();
    }
    next["books"]["on_the_way"] = 15.into();
    server.say(next);
    browser.wait_for("document.querySelector('#books-way').innerText === '15'");
    assert!(browser.text("#way-name").contains("message 999,997 "), "what was chosen stays");
    assert_eq!(browser.value("document.querySelectorAll('#transactions-rows input')[3].checked"), true);
    browser.value("document.querySelector('#follow').click()");
    browser.wait_for("document.querySelector('#transactions-rows').innerText.includes('user-of-later')");
    browser.assert_no_problems();
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn a_moment_of_before_is_looked_at_by_keyboard() {
    let (_server, mut browser) = open(document::healthy(100), Look::LIGHT);
    browser.value("document.querySelector('#moment').focus()");
    for _ in 0..39 {
        browser.press("ArrowLeft", 37);
    }
    // Second 60 begins a new wave, half of its height above the middle.
    browser.wait_for("document.querySelector('#moment-text').innerText.endsWith('39 s ago')");
    browser.wait_for("document.querySelector('#chart-latency .legend').innerText.includes('8.7 ms')");
    assert_eq!(browser.text("#chart-rates .legend"), "stored 30,000/s scheduled 30,000/s");
    browser.value("document.querySelector('#moment-now').click()");
    browser.wait_for("document.querySelector('#moment-text').innerText.startsWith('now')");
    browser.assert_no_problems();
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn a_command_is_copied_as_it_stands() {
    let (server, mut browser) = open(document::healthy(100), Look::LIGHT);
    let permission = serde_json::json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"],
        "origin": server.url().trim_end_matches('/') });
    browser.call("Browser.grantPermissions", permission);
    browser.value("document.querySelector('#users .copy').click()");
    browser.wait_for("document.querySelector('#users .copy').innerText === 'Copied'");
    let copied = browser.value("navigator.clipboard.readText()");
    assert_eq!(copied, "finstream --data-dir ./finstream-data sql 'select user_id from user_totals limit 8'");
    browser.assert_no_problems();
}
