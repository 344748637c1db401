//! A real Prometheus scrapes the real binary: every panel and rule finds fresh data, and every alert fires and clears.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod alerts;
mod check;
#[path = "../support/dashboards.rs"]
mod dashboards;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use check::{faults_of_panels, faults_of_rules};
use dashboards::{panels, read};
use finstream::metrics::{CATALOG, MetricKind};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use server::{Prometheus, Target, get, promtool};
use support::{PATIENCE, Sandbox, wait_until};

const SCRAPE_MS: u64 = 1_000;
/// Two prices of two symbols.
const PRICES: &str = concat!("yfinance:", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/download_two_tickers.csv");

#[test]
fn promtool_takes_the_configuration_and_every_rule_passes_its_unit_tests() {
    promtool(&["check", "config", "prometheus.yml"], "").unwrap();
    promtool(&["test", "rules", "rules_test.yml"], "").unwrap();
}

#[test]
fn every_panel_and_every_rule_finds_fresh_data_under_load_and_a_renamed_metric_is_missed() {
    let sandbox = Sandbox::new();
    // The role that reads is made before the schema, as in docker-compose.yml: its rights are given in advance.
    sandbox.expect(0, &["--db-schema", "before", "--count", "1", "--rate", "max"]);
    sandbox.expect(0, &["sql", "--db-schema", "before", &reader_sql()]);
    sandbox.expect(0, &["--source", PRICES, "--rate", "max"]);

    // What one audit in a few seconds needs: it is due after a quarter of what may be kept.
    let arguments = ["--rate", "8000", "--retention-bytes", "64MiB", "--partitions", "4"];
    let mut running = sandbox.start(&arguments);
    let ready = running.wait_ready();
    let address = ready["http"].as_str().unwrap().trim_start_matches("http://").to_owned();
    send_garbage(ready["kafka"].as_str().unwrap());
    let renamed = ("finstream_sink_stored_messages_total", "finstream_sink_rows_total");
    let targets =
        [Target::new("finstream", &address), Target { renamed: Some(renamed), ..Target::new("renamed", &address) }];
    // A minute of the rules is four seconds: four scrapes.
    let prometheus = Prometheus::start(&targets, SCRAPE_MS, 15);

    let mut faults = Vec::new();
    let found = until(|| {
        faults = faults_of_panels(&prometheus, "finstream", SCRAPE_MS);
        faults.extend(faults_of_rules(&prometheus, "finstream", SCRAPE_MS));
        faults.is_empty()
    });
    assert!(found, "panels and rules without fresh data:\n{}\n{}", faults.join("\n"), running.output());

    // The same check of the same process, one of whose metrics has got another name.
    let missed = faults_of_panels(&prometheus, "renamed", SCRAPE_MS);
    let shows_it = |panel: &&dashboards::Panel| panel.queries("expr").iter().any(|expr| expr.contains(renamed.0));
    for panel in panels().iter().filter(shows_it) {
        assert!(missed.iter().any(|fault| fault.starts_with(&panel.name)), "{}: not missed:\n{missed:?}", panel.name);
    }
    assert!(missed.len() < 10, "{missed:?}");
    println!("renamed:\n{}", missed.join("\n"));

    the_exposition_is_what_the_catalog_says(&address);
    every_sql_panel_has_rows(&sandbox, ready["psql"].as_str().unwrap());

    // A check of values alone would pass for as long as a window still holds the last ones.
    running.kill();
    wait_until("the target to be down", || {
        prometheus.query("up{job=\"finstream\"} == 0").is_ok_and(|up| !up.is_empty())
    });
    let gone = faults_of_panels(&prometheus, "finstream", SCRAPE_MS);
    let of_prometheus = panels().iter().filter(|panel| !panel.queries("expr").is_empty()).count();
    // One panel counts alerts, which Prometheus has by itself.
    assert!(gone.len() >= of_prometheus - 1, "{} of {of_prometheus}: {gone:?}", gone.len());
}

/// Names, kinds and help are those of the catalog, and promtool has nothing to say.
fn the_exposition_is_what_the_catalog_says(address: &str) {
    let (code, text) = get(address, "/metrics").unwrap();
    assert_eq!(code, 200);
    println!("/metrics: {} lines, {} bytes", text.lines().count(), text.len());
    let said = promtool(&["check", "metrics"], &text).unwrap();
    assert_eq!(said.trim(), "");
    let exposed: BTreeSet<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let kind = |kind| match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    let known: BTreeSet<(&str, &str)> = CATALOG.iter().map(|metric| (metric.name, kind(metric.kind))).collect();
    assert_eq!(exposed, known, "left: exposed, right: src/metrics/catalog.rs");
    for metric in CATALOG {
        assert!(text.contains(&format!("# HELP {} ", metric.name)), "{}", metric.name);
    }
}

/// As the role that Grafana reads with, with what Grafana puts in place of its variables.
fn every_sql_panel_has_rows(sandbox: &Sandbox, psql: &str) {
    let psql = psql.replace("user=finstream", "user=finstream_reader").replace(" options=-csearch_path=finstream", "");
    assert!(psql.contains("user=finstream_reader"), "{psql}");
    let ask = |query: &str| {
        let command = format!("{psql} --no-psqlrc --tuples-only --no-align --command \"$QUERY\"");
        let output = Command::new("sh").args(["-c", &command]).env("QUERY", query).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr)
    };
    wait_until("a dead letter", || sandbox.sql("select count(*) from dead_letters") != "0");
    let mut asked = 0;
    for panel in panels() {
        for query in panel.queries("rawSql") {
            let query = query
                .replace("$__timeFilter(window_start)", "window_start between now() - interval '1 hour' and now()")
                .replace("${topic:sqlstring}", "'finance.transactions'")
                .replace("${currency:sqlstring}", "'USD', 'EUR', 'GBP'");
            assert!(!query.contains('$'), "{query}");
            let (is_done, rows, error) = ask(&query);
            assert!(is_done && !rows.trim().is_empty(), "{}: {}", panel.name, String::from_utf8_lossy(&error));
            asked += 1;
        }
    }
    assert!(asked > 10);
    let (is_done, _, error) = ask("delete from dead_letters");
    let error = String::from_utf8_lossy(&error);
    assert!(!is_done && (error.contains("read-only") || error.contains("permission denied")), "{error}");
}

/// The statements of `grafana/postgres/reader.sh`.
fn reader_sql() -> String {
    let script = read("grafana/postgres/reader.sh");
    let sql = script.split("<<'SQL'\n").nth(1).unwrap().split("\nSQL").next().unwrap();
    sql.replace(":'password'", "'test'")
}

/// Messages that are no transactions.
fn send_garbage(brokers: &str) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    for _ in 0..3 {
        producer.send(BaseRecord::<(), str>::to("finance.transactions").payload("no transaction")).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// Looks until it is so, or the patience is over.
fn until(mut condition: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if began.elapsed() > PATIENCE {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(500));
    }
}
