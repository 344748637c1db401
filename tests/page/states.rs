//! Empty and broken states explain themselves.

use crate::browser::Look;
use crate::document;
use crate::figures::open;
use crate::server::Server;

const STATE: &str = "document.body.dataset.state";

#[test]
#[ignore = "needs a browser: make test-page"]
fn a_process_without_data_says_what_it_waits_for() {
    let server = Server::start(document::starting());
    let mut browser = crate::browser::Browser::start();
    browser.open(&server.url(), Look::LIGHT);
    browser.wait_for("document.body.dataset.link === 'live'");
    browser.wait_for("document.querySelector('#process').innerText.startsWith('consumer')");
    for (selector, text) in [
        ("#verdict-text", "Starting: the consumer waits for a broker at 127.0.0.1:9092"),
        ("#verdict-more", "The consumer waits for a broker at 127.0.0.1:9092."),
        ("#partitions-empty", "No partition is assigned yet: the consumer waits for the broker or its group."),
        ("#transactions-empty", "No transaction has been stored yet. The last 20 appear here as soon as one is."),
        ("#users .empty", "PostgreSQL was not asked yet"),
        ("#pipeline li:nth-child(1) .note", "not in this process"),
        ("#books-produced", "–"),
        ("#chart-rates .legend", "stored – scheduled –"),
        ("#stages-rows tr:nth-child(6)", "scheduled → committed – – – – – 0 0"),
    ] {
        assert_eq!(browser.text(selector), text, "{selector}");
    }
    assert_eq!(browser.value(STATE), "starting");
    browser.assert_no_problems();
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn what_another_process_does_is_said_to_be_elsewhere() {
    let (_server, mut browser) = open(document::producer_only(30), Look::LIGHT);
    let place = browser.text("#pipeline li:nth-child(4)");
    assert!(place.ends_with("not in this process"), "{place}");
    let elsewhere = "The consumer is not in this process: the page of the process that runs it shows";
    assert!(browser.text("#partitions-empty").starts_with(elsewhere));
    assert!(browser.text("#transactions-empty").starts_with(elsewhere));
    assert_eq!(browser.text("#books-stored"), "–", "unknown, which is not zero");
    browser.assert_no_problems();
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn a_database_that_goes_away_is_named_with_its_cure_and_old_totals_are_called_old() {
    let (server, mut browser) = open(document::healthy(30), Look::LIGHT);
    let announced = browser.text("#announcement");
    assert!(announced.starts_with("Healthy: 20,140 tx/s"), "{announced}");
    server.say(document::event(document::database_away(31)));
    browser.wait_for(&format!("{STATE} === 'broken'"));
    assert_eq!(browser.text("#verdict-text"), "PostgreSQL is away: nothing is stored, 82,140 messages wait in the log");
    assert_eq!(
        browser.text("#verdict-more"),
        "Nothing is lost. Start PostgreSQL again; the consumer goes on by itself."
    );
    assert!(browser.text("#announcement").contains("Start PostgreSQL again"), "a screen reader hears it");
    assert!(browser.text("#users .title").contains("PostgreSQL does not answer; as of"));
    assert!(browser.text("#users tbody").contains("user-000001"), "what was known stays");
    assert_eq!(browser.text("#pipeline li:nth-child(5) .note"), "away for 41 s");
    assert!(browser.value("document.title").as_str().unwrap().starts_with("Broken"));
    server.say(document::event(document::healthy(32)));
    browser.wait_for(&format!("{STATE} === 'healthy'"));
    browser.assert_no_problems();
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn a_server_that_is_gone_is_said_to_be_gone_and_its_return_is_noticed() {
    let (server, mut browser) = open(document::healthy(30), Look::LIGHT);
    let address = server.address();
    drop(server);
    browser.wait_for("document.querySelector('#verdict-text').innerText.match(/last heard [2-9] s ago/)");
    assert_eq!(browser.value(STATE), "lost");
    assert!(browser.text("#verdict-more").contains("may be wrong now"), "{}", browser.text("#verdict-more"));
    assert!(browser.text("#link").contains("last heard"));
    assert_eq!(browser.text("#books-produced"), "1,000,000", "what was known stays");

    let _again = Server::start_at(address, document::healthy(40));
    browser.wait_for(&format!("{STATE} === 'healthy'"));
    let columns = "import('/page/model.js').then(({ model }) => model.history.times.length)";
    assert_eq!(browser.value(columns), 40, "what was missed is there");
    browser.forget_lost_connections();
    browser.assert_no_problems();
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn a_server_that_is_silent_counts_as_gone() {
    let (_server, mut browser) = open(document::healthy(30), Look::LIGHT);
    // A connection that stays open and says nothing: what a stopped process looks like.
    browser.value("import('/page/model.js').then(({ model }) => { model.heard = Date.now() - 60_000; })");
    let seen = "new Promise((resolve) => new MutationObserver(() => \
                document.body.dataset.state === 'lost' && resolve(true)).observe(document.body, { attributes: true }))";
    assert_eq!(browser.value(seen), true);
    browser.wait_for(&format!("{STATE} === 'healthy'"));
    browser.assert_no_problems();
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn a_paused_page_stands_still_and_then_goes_on() {
    let (server, mut browser) = open(document::healthy(30), Look::LIGHT);
    browser.value("document.querySelector('#pause').click()");
    browser.wait_for("document.querySelector('#link-text').innerText === 'paused'");
    server.say(document::event(document::balanced(31)));
    let heard = "import('/page/model.js').then(({ model }) => model.document.books.on_the_way)";
    browser.wait_for("document.querySelector('#books-way').innerText === '14'");
    while browser.value(heard) != 0 {}
    // Two frames later it would be shown.
    browser.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
    assert_eq!(browser.text("#books-way"), "14");
    browser.value("document.querySelector('#pause').click()");
    browser.wait_for("document.querySelector('#books-way').innerText === '0'");
    browser.assert_no_problems();
}
