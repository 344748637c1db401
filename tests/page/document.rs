//! Documents of `/api/v1/snapshot` for each state, with figures that a test can name.

use serde_json::{Value, json};

/// Seconds since 1970 of the first column.
const BEGAN: i64 = 1_796_040_000;

/// A pipeline in good health that has run for `seconds`, the newest of them included.
pub fn healthy(seconds: usize) -> Value {
    json!({
        "version": "0.1.0", "now": time(seconds as i64, 417_000), "uptime_seconds": seconds as f64 + 0.417,
        "roles": ["broker", "producer", "consumer"], "ready": true, "waiting_for": {},
        "verdict": { "state": "healthy", "text": "Healthy: 20,140 tx/s, p99 8.1 ms, 0.2 s behind", "fault": null, "cure": null },
        "pipeline": [
            place("source", 20_140.0, None, Some(0), "synthetic, seed 1"),
            place("producer", 20_141.0, Some((95, 310)), Some(3), ""),
            place("broker", 20_139.0, Some((420, 2_200)), Some(1_234), ""),
            slowest(place("consumer", 20_138.0, Some((3_200, 5_200)), Some(20), "waits 1 ms for company")),
            place("postgres", 20_137.0, Some((1_900, 4_700)), None, ""),
        ],
        "counters": { "scheduled": 1_000_020, "sent": 1_000_010, "acknowledged": 1_000_000, "unknown": 7,
            "stored": 999_986, "dead_letters": 0 },
        "rates": { "scheduled": 20_140.0, "acknowledged": 20_139.0, "stored": 20_137.0 },
        "lag": { "messages": 14, "seconds": 0.2 },
        "stages": stages(1_000_000), "recent_stages": stages(201_000),
        "partitions": (0..6).map(partition).collect::<Vec<_>>(),
        "history": history(seconds),
        "top_users": { "rows": [
                { "user_id": "user-000001", "transactions": 98_765, "spend": "54665432.10", "currency": "USD" },
                { "user_id": "<b onclick=alert(1)>&amp;", "transactions": 594, "spend": "-27.05", "currency": "EUR" },
            ], "sql": "select user_id from user_totals limit 8",
            "command": "finstream --data-dir ./finstream-data sql 'select user_id from user_totals limit 8'",
            "psql": "psql -h /tmp/sockets finstream -c 'select user_id from user_totals limit 8'", "as_of": time(seconds as i64, 0) },
        "top_symbols": { "rows": [], "sql": "select symbol from symbol_totals limit 8",
            "command": "finstream --data-dir ./finstream-data sql 'select symbol from symbol_totals limit 8'", "as_of": time(seconds as i64, 0) },
        "transactions": (0..20).map(|back| transaction(seconds as i64, back)).collect::<Vec<_>>(),
        "books": { "produced": 1_000_000, "acknowledged": 1_000_000, "stored": 999_986, "dead_letters": 0, "on_the_way": 14,
            "text": "produced = acknowledged; 14 on the way" },
        "links": { "metrics": "/metrics", "docs": "/docs", "openapi": "/api/v1/openapi.json" },
    })
}

/// The books balance and all is quiet.
pub fn balanced(seconds: usize) -> Value {
    let mut document = healthy(seconds);
    document["books"] = json!({ "produced": 1_000_000, "acknowledged": 1_000_000, "stored": 1_000_000, "dead_letters": 0,
        "on_the_way": 0, "text": "produced = acknowledged = stored" });
    document
}

/// PostgreSQL is away.
pub fn database_away(seconds: usize) -> Value {
    let mut document = healthy(seconds);
    document["ready"] = false.into();
    document["verdict"] = json!({ "state": "broken", "text": "PostgreSQL is away: nothing is stored, 82,140 messages wait in the log",
        "fault": "database_away", "cure": "Nothing is lost. Start PostgreSQL again; the consumer goes on by itself." });
    document["waiting_for"] = json!({ "consumer": "PostgreSQL to come back" });
    document["top_users"] = json!({ "error": "PostgreSQL does not answer" });
    document["top_symbols"] = json!({ "error": "PostgreSQL does not answer" });
    document["pipeline"][4] = slowest(place("postgres", 0.0, None, Some(5_000), "away for 41 s"));
    document["pipeline"][3]["slowest"] = false.into();
    document["lag"] = json!({ "messages": 82_140, "seconds": 41.2 });
    document
}

/// Nothing is known yet: a consumer that waits for its broker.
pub fn starting() -> Value {
    let mut document = healthy(0);
    document["ready"] = false.into();
    document["roles"] = json!(["consumer"]);
    document["waiting_for"] = json!({ "consumer": "a broker at 127.0.0.1:9092" });
    document["verdict"] = json!({ "state": "starting", "text": "Starting: the consumer waits for a broker at 127.0.0.1:9092",
        "fault": "waiting", "cure": null });
    for (at, name) in ["source", "producer", "broker", "consumer", "postgres"].into_iter().enumerate() {
        document["pipeline"][at] = elsewhere(name, at > 2);
    }
    for counter in ["scheduled", "sent", "acknowledged", "unknown", "stored", "dead_letters"] {
        document["counters"][counter] = Value::Null;
    }
    document["rates"] = json!({ "scheduled": null, "acknowledged": null, "stored": null });
    document["lag"] = json!({ "messages": null, "seconds": null });
    for stages in ["stages", "recent_stages"] {
        document[stages] = crate::document::stages(0);
    }
    document["partitions"] = json!([]);
    document["transactions"] = json!([]);
    document["top_users"] = json!({ "error": "PostgreSQL was not asked yet" });
    document["top_symbols"] = json!({ "error": "PostgreSQL was not asked yet" });
    document["books"] = json!({ "produced": null, "acknowledged": null, "stored": null, "dead_letters": null,
        "on_the_way": null, "text": null });
    document
}

/// The same with the columns of a process that has run before.
pub fn starting_after(seconds: usize) -> Value {
    let mut document = starting();
    document["history"] = history(seconds);
    document
}

/// A producer alone: the consumer and PostgreSQL are another process's.
pub fn producer_only(seconds: usize) -> Value {
    let mut document = healthy(seconds);
    document["roles"] = json!(["producer"]);
    document["partitions"] = json!([]);
    document["transactions"] = json!([]);
    document["top_users"] = json!({ "error": "no consumer runs in this process, so PostgreSQL is not known here" });
    document["top_symbols"] = json!({ "error": "no consumer runs in this process, so PostgreSQL is not known here" });
    for (at, name) in [(2, "broker"), (3, "consumer"), (4, "postgres")] {
        document["pipeline"][at] = elsewhere(name, false);
    }
    document["books"]["stored"] = Value::Null;
    document["books"]["on_the_way"] = Value::Null;
    document
}

/// As it comes in an event: the newest column only.
pub fn event(document: Value) -> Value {
    let mut event = document;
    let columns = event["history"]["p50_us"].as_array().unwrap().len() as i64;
    event["history"]["began_at"] = time(columns - 1, 0);
    for rows in event["history"].as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut) {
        rows.drain(..rows.len() - 1);
    }
    let heat = event["history"]["heat"]["columns"].as_array_mut().unwrap();
    heat.drain(..heat.len() - 1);
    event
}

fn time(seconds: i64, micros: u32) -> Value {
    let time = chrono::DateTime::from_timestamp(BEGAN + seconds, micros * 1000).unwrap();
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true).into()
}

fn place(name: &str, rate: f64, latency_us: Option<(u64, u64)>, queue: Option<u64>, note: &str) -> Value {
    let note = (!note.is_empty()).then_some(note);
    json!({ "place": name, "here": true, "rate_per_second": rate, "p50_us": latency_us.map(|both| both.0),
        "p99_us": latency_us.map(|both| both.1), "queue_messages": queue, "slowest": false, "note": note })
}

fn slowest(mut place: Value) -> Value {
    place["slowest"] = true.into();
    place
}

fn elsewhere(name: &str, here: bool) -> Value {
    json!({ "place": name, "here": here, "rate_per_second": null, "p50_us": null, "p99_us": null,
        "queue_messages": null, "slowest": false, "note": null })
}

/// Without messages every latency is unknown.
fn stages(messages: u64) -> Value {
    let stage = |stage: &str, name: &str, p50_us: u64, p99_us: u64| {
        let us = |value: u64| (messages > 0).then_some(value);
        json!({ "stage": stage, "name": name, "messages": messages, "p50_us": us(p50_us), "p90_us": us(p50_us * 3 / 2),
            "p99_us": us(p99_us), "p999_us": us(p99_us * 3 / 2), "max_us": us(p99_us * 2), "negative": 0, "missing": 0 })
    };
    json!([
        stage("scheduled_to_sent", "scheduled -> sent", 95, 310),
        stage("sent_to_acknowledged", "sent -> acknowledged", 420, 2_200),
        stage("sent_to_received", "sent -> received", 440, 2_300),
        stage("received_to_processed", "received -> processed", 3_200, 5_200),
        stage("processed_to_committed", "processed -> committed", 1_900, 4_700),
        stage("scheduled_to_committed", "scheduled -> committed", 5_900, 11_200),
    ])
}

fn partition(number: u64) -> Value {
    let end = 166_000 + number * 37;
    json!({ "partition": number, "log_start": 0, "log_end": end, "committed": end - number, "lag_messages": number,
        "lag_seconds": number as f64 / 10.0, "owned": true })
}

/// The `back`th newest: 5.9 ms and some from scheduled to committed.
fn transaction(second: i64, back: u32) -> Value {
    let at = |us: u32| time(second, 400_000 - back * 500 + us);
    json!({ "partition": back % 6, "offset": 166_000 - back / 6, "run_id": "01a22d13-a2b0-73c3-bf1c-fc9e941dba1a",
        "sequence": 1_000_000 - back, "transaction_id": format!("01a22d13-a2b0-73c3-bf1c-fc9e941dba1a-{}", 1_000_000 - back),
        "user_id": format!("user-{back:06}"), "kind": "purchase", "amount": format!("{}.05", 12 + back), "currency": "USD",
        "scheduled_at": at(0), "sent_at": at(100), "acknowledged_at": at(620), "received_at": at(700),
        "processed_at": at(4_000), "committed_at": at(5_900 + back * 100) })
}

fn history(seconds: usize) -> Value {
    let wave = |second: usize| 1.0 + ((second % 60) as f64 / 60.0 - 0.5).abs();
    let us = |scale: f64| (0..seconds).map(|second| (scale * wave(second)) as u64).collect::<Vec<_>>();
    let rates = (0..seconds).map(|second| 20_000.0 * wave(second)).collect::<Vec<_>>();
    let column = |second: usize| {
        let mut counts = vec![0u64; 40];
        for (row, share) in [(15, 2), (16, 12), (17, 9), (18, 3), (19, 1)] {
            counts[row + second / 30 % 2] = share * 740;
        }
        counts
    };
    json!({ "began_at": time(0, 0), "step_seconds": 1, "scheduled_per_second": rates, "stored_per_second": rates,
        "p50_us": us(5_800.0), "p99_us": us(8_100.0), "p999_us": us(14_000.0),
        "lag_seconds": (0..seconds).map(|second| 0.2 * wave(second)).collect::<Vec<_>>(),
        "heat": { "bounds_us": (0..39).map(|step| (16.0 * 2f64.powf(f64::from(step) / 2.0)) as u64).collect::<Vec<_>>(),
            "columns": (0..seconds).map(column).collect::<Vec<_>>() } })
}
