//! Whoever reads the page: by eye in light and dark, on a phone, by keyboard, by screen reader (axe-core's rules).

use std::path::Path;

use serde_json::Value;

use crate::browser::{Browser, Look};
use crate::document;
use crate::figures::open;

/// From the start of the load to the first text on the screen.
const FIRST_PAINT_MS_MAX: f64 = 1000.0;

fn axe() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(".local-deps/axe-core/axe.min.js");
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}; run scripts/browser.sh", file.display()))
}

fn assert_accessible(browser: &mut Browser, what: &str) {
    browser.value(&format!("{};0", axe()));
    let run = "axe.run(document, { resultTypes: ['violations'] }).then(({ violations, passes }) => ({ passes: passes.length, \
               violations: violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.slice(0, 4).map((node) => \
               node.html.slice(0, 160) + ' ' + node.failureSummary) })) }))";
    let found = browser.value(run);
    println!("{what}: {} rules pass", found["passes"]);
    assert_eq!(found["violations"], Value::Array(Vec::new()), "{what}: {:#}", found["violations"]);
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn axe_finds_nothing_in_light_in_dark_and_on_a_phone_in_health_and_in_a_fault() {
    for (name, look) in [("light", Look::LIGHT), ("dark", Look::DARK), ("phone", Look::PHONE)] {
        let (server, mut browser) = open(document::healthy(100), look);
        browser.value("for (const details of document.querySelectorAll('details')) details.open = true");
        assert_accessible(&mut browser, &format!("{name}, healthy"));
        server.say(document::event(document::database_away(101)));
        browser.wait_for("document.body.dataset.state === 'broken'");
        assert_accessible(&mut browser, &format!("{name}, database away"));
        server.say(document::event(document::starting_after(102)));
        browser.wait_for("document.body.dataset.state === 'starting'");
        assert_accessible(&mut browser, &format!("{name}, starting"));
        browser.assert_no_problems();
    }
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn a_phone_never_scrolls_sideways() {
    let (server, mut browser) = open(document::healthy(100), Look::PHONE);
    browser.value("for (const details of document.querySelectorAll('details')) details.open = true");
    server.say(document::event(document::database_away(101)));
    browser.wait_for("document.body.dataset.state === 'broken'");
    let wide = "[...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > 361 \
                && !one.closest('.wrap, .hidden, [hidden]')).map((one) => one.outerHTML.slice(0, 120))";
    assert_eq!(browser.value(wide), Value::Array(Vec::new()));
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 360);
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn explanations_are_reached_by_keyboard_and_leave_with_escape() {
    let (_server, mut browser) = open(document::healthy(100), Look::LIGHT);
    // The first stop of the Tab key leads past the header.
    browser.press("Tab", 9);
    browser.wait_for("document.activeElement.className === 'skip'");
    browser.value("document.querySelector('#stages .term').focus()");
    browser.wait_for("!document.querySelector('#tip').hidden");
    assert_eq!(browser.text("#tip"), "Half of the messages took at most this long.");
    assert_eq!(browser.value("document.activeElement.getAttribute('aria-describedby')"), "tip");
    browser.press("Escape", 27);
    browser.wait_for("document.querySelector('#tip').hidden");
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn nothing_moves_for_who_asked_for_stillness() {
    let (_server, mut browser) = open(document::healthy(100), Look { still: true, ..Look::LIGHT });
    assert_eq!(browser.value("document.getAnimations().length"), 0);
    browser.look(Look::LIGHT);
    browser.wait_for("document.getAnimations().length > 0");
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn the_first_paint_comes_within_a_second() {
    let (server, mut browser) = open(document::healthy(900), Look::LIGHT);
    let first_paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime";
    // The best of three: what is measured is the page, and not what else this machine does.
    let mut painted_ms = f64::INFINITY;
    for _ in 0..3 {
        browser.open(&server.url(), Look::LIGHT);
        browser.wait_for("performance.getEntriesByName('first-contentful-paint').length > 0");
        painted_ms = painted_ms.min(browser.value(first_paint).as_f64().unwrap());
    }
    println!("first contentful paint after {painted_ms:.0} ms");
    assert!(painted_ms < FIRST_PAINT_MS_MAX, "{painted_ms} ms");
}
