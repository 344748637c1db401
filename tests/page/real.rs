//! The page of the real binary, during a real run: it agrees with `/metrics` and PostgreSQL, and pictures of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::browser::{Browser, Look};
use crate::server::{FILES, POLICY};
use crate::support::{Running, Sandbox, Signal, setting, wait_until};

/// From the moment when a cold process listens to text on the screen.
const FIRST_PAINT_MAX: Duration = Duration::from_secs(1);

/// All is well, but for what a slow machine makes of the latencies.
const IS_WELL: &str = "document.body.dataset.state === 'healthy' || \
                       document.querySelector('#verdict-text').innerText.startsWith('Slow')";

/// PostgreSQL with all its processes, stopped as by a machine that hangs; goes on when dropped.
struct Frozen(Vec<u32>);

impl Frozen {
    fn freeze(postmaster: u32) -> Frozen {
        let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
        let children = children.split_whitespace().map(|id| id.parse().unwrap());
        let all: Vec<u32> = std::iter::once(postmaster).chain(children).collect();
        send(&all, Signal::STOP);
        Frozen(all)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        send(&self.0, Signal::CONT);
    }
}

fn send(processes: &[u32], signal: Signal) {
    for id in processes {
        // A backend may end meanwhile.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(*id as i32).unwrap(), signal);
    }
}

fn url(running: &mut Running) -> String {
    running.wait_ready()["http"].as_str().unwrap().trim_end_matches('/').to_owned()
}

/// Head and body.
fn get(url: &str, path: &str) -> (String, String) {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

fn metric(url: &str, name: &str) -> u64 {
    let (_, text) = get(url, "/metrics");
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

/// A number as the page shows it.
fn shown(browser: &mut Browser, selector: &str) -> u64 {
    let text = browser.text(selector);
    text.replace(',', "").parse().unwrap_or_else(|_| panic!("{selector}: {text}"))
}

/// Waits until the page shows a document that was made after now.
fn wait_for_news(browser: &mut Browser) {
    let shown = "import('/page/model.js').then(({ model }) => (window.model = model).document.now)";
    // The one on its way may be older, the second one is not.
    for _ in 0..2 {
        let before = browser.value(shown);
        browser.wait_for(&format!("window.model.document.now !== {before}"));
    }
    browser.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))");
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn during_a_real_run_the_page_agrees_with_metrics_and_postgresql() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&["--rate", "500"]);
    let url = url(&mut running);
    for (path, _) in FILES {
        let (head, body) = get(&url, path);
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        assert!(head.contains(&format!("content-security-policy: {POLICY}")), "{path}: {head}");
        assert!(!body.contains("https://"), "{path}");
    }
    let mut browser = Browser::start();
    browser.open(&url, Look::LIGHT);
    browser.wait_for(IS_WELL);
    browser.wait_for("document.querySelectorAll('#transactions-rows tr').length === 20");
    browser.wait_for("document.querySelectorAll('#users tbody tr').length > 0");

    let count = "select coalesce(sum(messages), 0) from pipeline_progress";
    for _ in 0..3 {
        let least = (metric(&url, "finstream_sink_stored_messages_total"), sandbox.sql(count).parse::<u64>().unwrap());
        wait_for_news(&mut browser);
        let stored = shown(&mut browser, "#books-stored");
        let produced = shown(&mut browser, "#books-produced");
        let most = (metric(&url, "finstream_sink_stored_messages_total"), sandbox.sql(count).parse::<u64>().unwrap());
        assert!((least.0..=most.0).contains(&stored), "/metrics {least:?} to {most:?}, the page {stored}");
        assert!((least.1..=most.1).contains(&stored), "PostgreSQL {least:?} to {most:?}, the page {stored}");
        assert!(produced >= stored, "{produced} produced, {stored} stored");
    }
    let user = "select user_id from user_totals order by transactions desc limit 1";
    let (user, first) = (sandbox.sql(user), browser.text("#users tbody tr"));
    assert!(first.starts_with(&user), "PostgreSQL says {user}, the page {first}");
    let partitions = browser.value("document.querySelectorAll('#partitions-rows tr').length");
    assert_eq!(partitions.to_string(), sandbox.sql("select count(*) from pipeline_progress"));
    browser.assert_no_problems();

    // PostgreSQL hangs, and comes back.
    let frozen = Frozen::freeze(sandbox.postmaster_pid());
    wait_until("the database to be away", || browser.text("#verdict-text").starts_with("PostgreSQL"));
    assert_eq!(browser.value("document.body.dataset.state"), "broken");
    println!("{} / {}", browser.text("#verdict-text"), browser.text("#verdict-more"));
    drop(frozen);
    wait_until("health again", || browser.value(IS_WELL) == true);
    browser.assert_no_problems();
    assert_eq!(running.stop().0, Some(0));
}

#[test]
#[ignore = "needs a browser: make test-page"]
fn the_page_paints_within_a_second_of_a_cold_start() {
    let mut browser = Browser::start();
    // The best of three: what is measured is the page, and not what else this machine does.
    let painted = (0..3).map(|_| {
        let sandbox = Sandbox::new();
        let mut running = sandbox.spawn(&["--ephemeral", "--role", "broker"]);
        let url = url(&mut running);
        let listens = Instant::now();
        browser.open(&url, Look::LIGHT);
        browser.wait_for("performance.getEntriesByName('first-contentful-paint').length > 0");
        listens.elapsed()
    });
    let painted = painted.min().unwrap();
    println!("painted {painted:?} after it listens");
    assert!(painted < FIRST_PAINT_MAX, "{painted:?}");
}

/// Not a test of anything: `make screenshots`.
#[test]
#[ignore = "writes pictures: make screenshots"]
fn screenshots() {
    let Ok(folder) = std::env::var("FINSTREAM_SCREENSHOTS").map(PathBuf::from) else { return };
    let seconds = setting("FINSTREAM_SCREENSHOT_SECONDS", 130);
    std::fs::create_dir_all(&folder).unwrap();
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&["--rate", "2000"]);
    let url = url(&mut running);
    let mut browser = Browser::start();
    browser.open(&url, Look::LIGHT);
    browser.wait_for("document.body.dataset.link === 'live'");
    let columns = "import('/page/model.js').then(({ model }) => model.history.times.length)";
    while browser.value(columns).as_u64().unwrap() < seconds {
        std::thread::park_timeout(Duration::from_secs(1));
    }
    let shoot = |browser: &mut Browser, name: &str, look: Look, height: u32| {
        browser.open(&url, look);
        browser.wait_for("document.querySelector('#books-text').innerText.trim() !== ''");
        wait_for_news(browser);
        browser.screenshot(&folder.join(format!("page-{name}.png")), height);
    };
    shoot(&mut browser, "light", Look::LIGHT, 3_000);
    shoot(&mut browser, "dark", Look::DARK, 3_000);
    shoot(&mut browser, "phone", Look::PHONE, 2_200);
    let frozen = Frozen::freeze(sandbox.postmaster_pid());
    browser.look(Look::LIGHT);
    wait_until("the database to be away", || browser.text("#verdict-text").starts_with("PostgreSQL"));
    browser.screenshot(&folder.join("page-fault.png"), 900);
    drop(frozen);
    running.stop();
}
