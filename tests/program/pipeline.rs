//! The whole pipeline as a user runs it: one process, then one process a role.

use crate::support::{Sandbox, Signal, wait_until};
use serde_json::Value;

fn summary(sandbox: &Sandbox, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(sandbox.path().join(name)).unwrap()).unwrap()
}

#[test]
fn a_counted_run_ends_with_every_message_stored_and_the_books_balanced() {
    let sandbox = Sandbox::new();
    let text = sandbox.expect(0, &["--count", "5000", "--rate", "max", "--summary", "summary.json"]);
    assert!(text.contains("5,000 sent, 5,000 acknowledged"), "{text}");
    assert!(text.contains("The books balance"), "{text}");
    let summary = summary(&sandbox, "summary.json");
    assert_eq!(summary["stored"], 5000);
    assert_eq!(summary["audit"]["verdict"], "balanced");
    assert_eq!(summary["stages"].as_array().unwrap().len(), 6);

    assert_eq!(sandbox.sql("select count(*) from messages"), "5000");
    assert_eq!(sandbox.sql("select sum(transactions) from user_totals"), "5000");
    sandbox.expect(0, &["verify"]);
    assert!(!sandbox.data().join("postgres/postmaster.pid").exists(), "a private PostgreSQL was left behind");
}

#[test]
fn a_second_run_continues_the_totals_of_the_first() {
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["--count", "1000", "--rate", "max"]);
    let output = sandbox.run(&["--count", "1000", "--rate", "max"]);
    assert_eq!(output.status.code(), Some(0));
    let terminal = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(terminal.contains("Continuing") && terminal.contains("1 run, 1,000 transactions"), "{terminal}");
    assert_eq!(sandbox.sql("select count(*) from runs"), "2");
    assert_eq!(sandbox.sql("select sum(transactions) from user_totals"), "2000");
    assert_eq!(sandbox.sql("select count(distinct run_id) from stage_latency_percentiles"), "2");
}

#[test]
fn three_terminals_in_any_order_find_each_other_and_a_fourth_verifies() {
    for order in
        [["broker", "consumer", "producer"], ["producer", "consumer", "broker"], ["consumer", "broker", "producer"]]
    {
        let sandbox = Sandbox::new();
        let mut running = Vec::new();
        for role in order {
            let mut arguments = vec!["--role", role];
            if role == "producer" {
                arguments.extend(["--count", "3000", "--rate", "max"]);
            }
            running.push((role, sandbox.spawn(&arguments)));
        }
        let place = running.iter().position(|(role, _)| *role == "producer").unwrap();
        let (_, mut producer) = running.remove(place);
        assert_eq!(producer.wait(), Some(0), "order {order:?}: {}", producer.output());
        wait_until("all messages in PostgreSQL", || sandbox.sql("select count(*) from messages") == "3000");
        sandbox.expect(0, &["verify"]);
        for (_, process) in running {
            let (code, output) = process.stop();
            assert_eq!(code, Some(0), "{output}");
        }
    }
}

#[test]
fn the_pipeline_runs_on_a_broker_of_another_process() {
    let broker_sandbox = Sandbox::new();
    let mut broker = broker_sandbox.spawn(&["--role", "broker"]);
    let ready = broker.wait_ready();
    let address = ready["kafka"].as_str().unwrap();
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["--brokers", address, "--count", "2000", "--rate", "max"]);
    sandbox.expect(0, &["--brokers", address, "verify"]);
    assert_eq!(sandbox.sql("select count(*) from messages"), "2000");
    assert_eq!(broker.stop().0, Some(0));
}

#[test]
fn a_broker_that_comes_back_on_a_free_port_is_where_the_others_look_for_it() {
    let sandbox = Sandbox::new();
    let mut broker = sandbox.spawn(&["--role", "broker"]);
    let address = broker.wait_ready()["kafka"].clone();
    broker.kill();
    let mut broker = sandbox.spawn(&["--role", "broker"]);
    assert_eq!(broker.wait_ready()["kafka"], address);
    assert_eq!(broker.stop().0, Some(0));
    // Somebody else has taken it meanwhile.
    let _taken = std::net::TcpListener::bind(address.as_str().unwrap()).unwrap();
    let mut broker = sandbox.spawn(&["--role", "broker"]);
    assert_ne!(broker.wait_ready()["kafka"], address);
    assert_eq!(broker.stop().0, Some(0));
}

#[test]
fn ctrl_c_drains_prints_the_summary_and_leaves_nothing_running() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&["--rate", "2000"]);
    running.wait_for("stored");
    let (code, output) = running.stop();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("Summary") && output.contains("The books balance"), "{output}");
    sandbox.expect(0, &["verify"]);
}

#[test]
fn an_ephemeral_run_that_is_stopped_at_once_leaves_no_server_and_no_files() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.spawn(&["--ephemeral", "--rate", "max"]);
    let data = running.wait_ready()["data_dir"].as_str().unwrap().to_owned();
    let postmaster = Sandbox::postmaster_of(data.as_ref()).unwrap();
    running.wait_for("stored");
    running.signal(Signal::TERM);
    running.wait_for("again to stop at once");
    // A second signal within this time is taken for the same request.
    std::thread::sleep(std::time::Duration::from_millis(320));
    if running.is_running() {
        running.signal(Signal::TERM);
    }
    running.wait();
    assert!(!std::path::Path::new(&data).exists(), "{data} is still there");
    wait_until("PostgreSQL to be gone", || !crate::support::is_alive(postmaster));
}

#[test]
fn a_yfinance_file_replayed_doubles_the_quantities_exactly_and_shows_as_repeats() {
    let sandbox = Sandbox::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/download_two_tickers.csv");
    let source = format!("yfinance:{file}");
    for _ in 0..2 {
        sandbox.expect(0, &["--source", &source, "--rate", "max"]);
    }
    let volumes = column_sums(file);
    assert!(!volumes.is_empty());
    for (symbol, volume) in volumes {
        let query = format!("select quantity from symbol_totals where symbol = '{symbol}'");
        assert_eq!(sandbox.sql(&query), (2 * volume).to_string(), "{symbol}");
    }
    let trades: u64 = sandbox.sql("select sum(trades) from symbol_totals").parse().unwrap();
    assert_eq!(sandbox.sql("select count(*) from repeated_transactions where stored = 2"), (trades / 2).to_string());
    assert_eq!(sandbox.sql("select count(*) from user_totals where transactions > 0"), "0", "trades are no card spend");
    sandbox.expect(0, &["verify"]);
}

#[test]
fn declined_attempts_and_transactions_sent_twice_are_counted_as_what_they_are() {
    let sandbox = Sandbox::new();
    let shares = ["--declines", "10%", "--duplicates", "5%", "--fraud", "2%", "--late", "20%", "--refunds", "10%"];
    let text = sandbox.expect(0, &[&["--count", "20000", "--rate", "max"], &shares[..]].concat());
    assert!(text.contains("The books balance"), "{text}");
    let report: Value = serde_json::from_str(&sandbox.expect(0, &["verify", "--json"])).unwrap();
    let counts = &report["counts"];
    let number = |sql: &str| sandbox.sql(sql).parse::<i64>().unwrap();
    assert_eq!(number("select sum(transactions) from user_totals"), 20_000);
    assert_eq!(number("select sum(declines) from user_totals"), counts["declined"].as_i64().unwrap());
    assert_eq!(number("select sum(purchases + refunds + declines) from user_totals"), 20_000);
    let windows = "select sum(purchases + refunds) from category_windows";
    assert_eq!(number(windows) + counts["declined"].as_i64().unwrap(), 20_000);
    let repeated = counts["repeated"].as_i64().unwrap();
    assert!((800..1_200).contains(&repeated), "{repeated}");
    // One may be sent three times.
    assert_eq!(number("select sum(stored - 1) from repeated_transactions"), repeated);
}

/// Sums the Volume columns of a three-row `download()` file, independently of the source's own reader.
fn column_sums(file: &str) -> Vec<(String, i128)> {
    let text = std::fs::read_to_string(file).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let columns = rows[0].iter().zip(&rows[1]).enumerate().filter(|(_, (field, _))| **field == "Volume");
    columns
        .map(|(column, (_, ticker))| {
            let sum =
                rows[3..].iter().filter_map(|row| row[column].parse::<f64>().ok()).map(|volume| volume as i128).sum();
            (ticker.to_string(), sum)
        })
        .collect()
}
