//! The HTTP API of a real run: each path answers what the OpenAPI document says, and its figures are PostgreSQL's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod schema;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use client::{Answer, events, get, request};
use serde_json::Value;
use support::{Running, Sandbox, wait_until};

/// Where a process listens for HTTP: `127.0.0.1:PORT`.
fn address(running: &mut Running) -> String {
    let ready = running.wait_ready();
    ready["http"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/').to_owned()
}

fn document(address: &str) -> Value {
    get(address, "/api/v1/openapi.json").json()
}

/// Checks an answer of a path of the document.
fn check(document: &Value, template: &str, answer: &Answer) -> Value {
    let response = &document["paths"][template]["get"]["responses"][answer.code.to_string()];
    assert!(response.is_object(), "{template}: {} is not documented: {}", answer.code, answer.body);
    let (kind, content) = response["content"].as_object().unwrap().iter().next().unwrap();
    assert!(answer.head.contains(&format!("content-type: {kind}")), "{template}: {}", answer.head);
    let value = answer.json();
    let faults = schema::faults(document, &content["schema"], &value, "answer");
    assert!(faults.is_empty(), "{template}: {}", faults.join("\n"));
    value
}

fn check_get(address: &str, document: &Value, template: &str, path: &str) -> Value {
    let answer = get(address, path);
    assert_eq!(answer.code, 200, "{path}: {}", answer.body);
    check(document, template, &answer)
}

/// All rows of a list, page by page; each key is met once.
fn all_rows(address: &str, document: &Value, template: &str, query: &str, limit: usize, keys: &[&str]) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::<Value>::new(), String::new());
    loop {
        let page = check_get(address, document, template, &format!("{template}?limit={limit}{query}{after}"));
        let found = page["rows"].as_array().unwrap();
        assert!(found.len() <= limit);
        rows.extend(found.iter().cloned());
        match page["next"].as_str() {
            Some(next) => {
                assert_eq!(found.len(), limit, "a page that is not full has no next one");
                after = format!("&after={next}");
            }
            None => break,
        }
    }
    let distinct: BTreeSet<String> =
        rows.iter().map(|row| keys.iter().map(|key| row[key].to_string() + " ").collect()).collect();
    assert_eq!(distinct.len(), rows.len(), "{template}: a row was met twice");
    rows
}

fn number(sandbox: &Sandbox, sql: &str) -> usize {
    sandbox.sql(sql).parse().unwrap()
}

/// Trades, card transactions, and letters that PostgreSQL has refused.
fn filled() -> Sandbox {
    let sandbox = Sandbox::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/group_by_ticker.csv");
    sandbox.expect(0, &["--source", &format!("yfinance:{file}"), "--rate", "max"]);
    sandbox.expect(0, &["--count", "2000", "--rate", "max"]);
    sandbox
        .sql("alter table messages add constraint too_strict check (sequence is null or sequence % 50 <> 7) not valid");
    sandbox.expect(0, &["--count", "400", "--rate", "max"]);
    sandbox
}

#[test]
fn every_answer_is_as_the_document_says_and_agrees_with_postgresql() {
    let sandbox = filled();
    // A broker and a consumer, and nothing new to store: figures stand still.
    let mut running = sandbox.start(&["--role", "broker,consumer"]);
    let address = address(&mut running);
    wait_until("the roles", || running.is_ready());
    let document = document(&address);

    let users = all_rows(&address, &document, "/api/v1/users", "", 77, &["user_id", "currency"]);
    assert_eq!(users.len(), number(&sandbox, "select count(*) from user_totals"));
    let order: Vec<i64> = users.iter().map(|row| row["transactions"].as_i64().unwrap()).collect();
    assert!(order.is_sorted_by(|a, b| a >= b), "most first");
    assert_eq!(users[0]["spend"].as_str().unwrap(), {
        let (user_id, currency) = (users[0]["user_id"].as_str().unwrap(), users[0]["currency"].as_str().unwrap());
        sandbox.sql(&format!(
            "select spend::text from user_totals where user_id = '{user_id}' and currency = '{currency}'"
        ))
    });
    let one = users[0]["user_id"].as_str().unwrap();
    let user = check_get(&address, &document, "/api/v1/users/{id}", &format!("/api/v1/users/{one}"));
    assert!(user["totals"].as_array().unwrap().contains(&users[0]));

    let by_name = all_rows(&address, &document, "/api/v1/users", "&sort=user_id", 77, &["user_id", "currency"]);
    assert_eq!(by_name.len(), users.len());
    assert!(by_name.is_sorted_by_key(|user| (user["user_id"].to_string(), user["currency"].to_string())));
    let symbols = all_rows(&address, &document, "/api/v1/symbols", "", 1, &["symbol", "currency"]);
    assert_eq!(symbols.len(), number(&sandbox, "select count(*) from symbol_totals"));
    let symbol = check_get(&address, &document, "/api/v1/symbols/{symbol}", "/api/v1/symbols/AAA");
    assert_eq!(
        symbol["totals"][0]["notional"],
        sandbox.sql("select notional::text from symbol_totals where symbol = 'AAA'")
    );

    for (by, name, view) in [("category", "category", "category_windows"), ("symbol", "symbol", "symbol_windows")] {
        let query = format!("&by={by}");
        let keys = ["window_start", name, "currency"];
        let windows = all_rows(&address, &document, "/api/v1/windows", &query, 2, &keys);
        assert_eq!(windows.len(), number(&sandbox, &format!("select count(*) from {view}")));
        let newest = windows[0]["window_start"].as_str().unwrap();
        let of_newest = all_rows(&address, &document, "/api/v1/windows", &format!("{query}&from={newest}"), 2, &keys);
        let before = all_rows(&address, &document, "/api/v1/windows", &format!("{query}&to={newest}"), 2, &keys);
        assert!(of_newest.iter().all(|row| row["window_start"] == newest));
        assert_eq!(of_newest.len() + before.len(), windows.len());
    }

    let letters = all_rows(&address, &document, "/api/v1/dead-letters", "", 3, &["topic", "partition", "offset"]);
    assert_eq!(letters.len(), 8);
    assert!(letters.iter().all(|letter| letter["reason"].as_str().unwrap().contains("too_strict")));

    let partitions = check_get(&address, &document, "/api/v1/partitions", "/api/v1/partitions");
    let applied = partitions["applied"].as_array().unwrap();
    let messages: i64 = applied.iter().map(|row| row["messages"].as_i64().unwrap()).sum();
    assert_eq!(messages as usize, number(&sandbox, "select count(*) from messages"));
    let owned = partitions["owned"].as_array().unwrap();
    assert_eq!(owned.len(), applied.len());
    for (owned, applied) in owned.iter().zip(applied) {
        assert_eq!((&owned["partition"], &owned["committed"]), (&applied["partition"], &applied["next_offset"]));
        assert_eq!((&owned["log_start"], &owned["lag_messages"]), (&Value::from(0), &Value::from(0)));
    }

    check_get(&address, &document, "/api/v1/status", "/api/v1/status");
    check_get(&address, &document, "/api/v1/stages", "/api/v1/stages");
    let audit = check_get(&address, &document, "/api/v1/audit", "/api/v1/audit");
    assert_eq!(audit["last"], Value::Null, "none was made here, and a question makes none");
    wait_until("the tables", || get(&address, "/api/v1/snapshot").json()["top_users"]["as_of"].is_string());
    let snapshot = check_get(&address, &document, "/api/v1/snapshot", "/api/v1/snapshot");
    for (table, name) in [("top_users", "user_id"), ("top_symbols", "symbol")] {
        let sql = snapshot[table]["sql"].as_str().unwrap();
        let first = format!("select {name} from ({sql}) as top limit 1");
        assert_eq!(snapshot[table]["rows"][0][name], sandbox.sql(&first), "{sql}");
    }
    assert_eq!(running.stop().0, Some(0));
}

#[test]
fn what_cannot_be_answered_is_a_problem_document_that_says_why() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&["--rate", "200"]);
    let address = address(&mut running);
    let document = document(&address);
    let problem = |code: u16, method: &str, path: &str| {
        let answer = request(&address, method, path);
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.body);
        assert!(answer.head.contains("content-type: application/problem+json"), "{path}: {}", answer.head);
        let problem = answer.json();
        let faults = schema::faults(&document, &document["components"]["schemas"]["Problem"], &problem, path);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(problem["status"], code);
        (answer.head, problem["detail"].as_str().unwrap().to_owned())
    };
    for path in ["/nowhere", "/api/v1/nothing", "/api/v1/users/nobody", "/api/v1/symbols/NONE", "/docs/nothing.js"] {
        problem(404, "GET", path);
    }
    for path in ["/api/v1/status", "/api/v1/users", "/"] {
        assert!(problem(405, "POST", path).0.contains("allow: get,head"), "{path}");
    }
    let long = format!("/api/v1/users/{}", "x".repeat(65));
    for (path, named) in [
        ("/api/v1/users?limit=0", "limit=0"),
        ("/api/v1/users?limit=1001", "1000"),
        ("/api/v1/users?limit=many", "limit"),
        ("/api/v1/users?limit=-1", "limit"),
        ("/api/v1/users?after=5b", "after"),
        ("/api/v1/symbols?after=nonsense", "next"),
        ("/api/v1/dead-letters?afterwards=1", "afterwards"),
        ("/api/v1/windows?by=month", "month"),
        ("/api/v1/windows?from=yesterday", "yesterday"),
        ("/api/v1/users/%00", "U+0000"),
        ("/api/v1/users/%ff", "UTF-8"),
        (long.as_str(), "64"),
    ] {
        let detail = problem(400, "GET", path).1;
        assert!(detail.contains(named), "{path}: {detail}");
    }
    // PostgreSQL is stopped: whoever asks is told so soon, and it is asked again when it is back.
    wait_until("the roles", || running.is_ready());
    let postmaster = sandbox.postmaster_pid();
    let stopped = rustix::process::Pid::from_raw(postmaster as i32).unwrap();
    wait_until("PostgreSQL", || get(&address, "/api/v1/users").code == 200);
    rustix::process::kill_process(stopped, support::Signal::INT).unwrap();
    let mut refused = None;
    wait_until("PostgreSQL to be away", || {
        refused = Some(get(&address, "/api/v1/users")).filter(|answer| answer.code != 200);
        refused.is_some()
    });
    let refused = refused.unwrap();
    assert_eq!(refused.code, 503, "{}", refused.body);
    assert!(refused.head.contains("retry-after: 2") && refused.body.contains("PostgreSQL"), "{}", refused.body);
    wait_until("PostgreSQL to be back", || get(&address, "/api/v1/users").code == 200);
    running.stop();

    let mut broker = sandbox.start(&["--role", "broker"]);
    let address = self::address(&mut broker);
    let answer = get(&address, "/api/v1/users");
    assert_eq!(answer.code, 503);
    assert!(answer.body.contains("no consumer runs in this process"), "{}", answer.body);
}

#[test]
fn a_live_run_shows_itself_and_its_events_go_on_where_the_snapshot_ended() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&["--rate", "2000"]);
    let address = address(&mut running);
    let document = document(&address);
    // A machine with other work may be slow; it is well nevertheless.
    let verdict =
        || get(&address, "/api/v1/snapshot").json()["verdict"]["text"].as_str().unwrap_or_default().to_owned();
    wait_until("a run that is well", || verdict().starts_with("Healthy: ") || verdict().starts_with("Slow: "));
    let snapshot = check_get(&address, &document, "/api/v1/snapshot", "/api/v1/snapshot");
    let text = snapshot["verdict"]["text"].as_str().unwrap();
    assert!(text.starts_with("Healthy: ") || text.starts_with("Slow: "), "{}", snapshot["verdict"]);
    let places: Vec<&str> =
        snapshot["pipeline"].as_array().unwrap().iter().map(|place| place["place"].as_str().unwrap()).collect();
    assert_eq!(places, ["source", "producer", "broker", "consumer", "postgres"]);
    let slowest = snapshot["pipeline"].as_array().unwrap().iter().filter(|place| place["slowest"] == true).count();
    assert_eq!(slowest, 1);
    assert_eq!(snapshot["roles"], serde_json::json!(["broker", "producer", "consumer"]));

    let transactions = snapshot["transactions"].as_array().unwrap();
    assert_eq!(transactions.len(), 20);
    // The answer for one that is stored may still be on its way back.
    let answered = transactions.iter().filter(|seen| seen["acknowledged_at"].is_string()).count();
    assert!(answered > 0, "{transactions:?}");
    for seen in transactions {
        let times = ["scheduled_at", "sent_at", "received_at", "processed_at", "committed_at"];
        let way: Vec<&str> = times.iter().map(|time| seen[time].as_str().expect("a time")).collect();
        assert!(way.is_sorted(), "{way:?}");
        let (partition, offset) = (&seen["partition"], &seen["offset"]);
        let sql = format!(
            "select transaction_id from message_latencies where partition = {partition} and \"offset\" = {offset}"
        );
        assert_eq!(seen["transaction_id"], sandbox.sql(&sql));
    }

    let followed = events(&address, "/api/v1/events", 3);
    let schema = &document["components"]["schemas"]["Snapshot"];
    for event in &followed {
        let faults = schema::faults(&document, schema, event, "event");
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(event["history"]["stored_per_second"].as_array().unwrap().len(), 1);
        assert_eq!(event["history"]["heat"]["columns"][0].as_array().unwrap().len(), 40);
    }
    // Each of these columns is in the history.
    let history = get(&address, "/api/v1/snapshot").json()["history"].clone();
    let all: Vec<&Value> = history["stored_per_second"].as_array().unwrap().iter().collect();
    let columns: Vec<&Value> = followed.iter().map(|event| &event["history"]["stored_per_second"][0]).collect();
    assert!(all.windows(3).any(|three| three == columns), "{columns:?} of {all:?}");

    // One viewer hangs, while the run is told to stop.
    let hanging = client::connect(&address, "GET", "/api/v1/events");
    let (code, output) = running.stop();
    assert_eq!(code, Some(0), "{output}");
    drop(hanging);
}

#[test]
fn the_document_is_printed_and_swagger_ui_shows_it_without_a_network() {
    let sandbox = Sandbox::new();
    let printed: Value = serde_json::from_str(&sandbox.expect(0, &["openapi"])).unwrap();
    let mut running = sandbox.start(&["--role", "broker"]);
    let address = address(&mut running);
    assert_eq!(document(&address), printed);
    let index = get(&address, "/docs/");
    assert_eq!(index.code, 200);
    assert!(index.head.contains("content-security-policy: default-src 'none'"), "{}", index.head);
    let files = index.body.split(['"', '\'']).filter(|text| text.starts_with("./"));
    let files: BTreeSet<&str> = files.map(|file| file.trim_start_matches("./")).collect();
    assert!(files.len() >= 3, "{}", index.body);
    for file in files {
        assert_eq!(get(&address, &format!("/docs/{file}")).code, 200, "{file}");
    }
    let inline = index.body.split("<script").skip(1).filter(|script| !script.trim_start().starts_with("src="));
    assert_eq!(inline.count(), 0, "its scripts are files, as the policy demands: {}", index.body);
    assert!(!index.body.contains("http://") && !index.body.contains("https://"), "{}", index.body);
    assert!(get(&address, "/docs/swagger-initializer.js").body.contains("/api/v1/openapi.json"));
    assert_eq!(get(&address, "/docs").code, 308);
}
