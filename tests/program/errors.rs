//! What goes wrong is one line that names the cause and the cure, with the right exit code, and loses nothing.

use std::process::Output;

use crate::support::{Sandbox, wait_until};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).to_string()
}

/// The last line on stderr is the error: one line that holds all of `words`.
fn fails_with(sandbox: &Sandbox, code: i32, arguments: &[&str], words: &[&str]) {
    let output = sandbox.run(arguments);
    assert_eq!(output.status.code(), Some(code));
    let text = stderr(&output);
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    for word in words {
        assert!(line.contains(word), "{word:?} is not in the error line: {line}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn bad_usage_is_exit_code_two() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--no-such-flag"]);
    assert_eq!(output.status.code(), Some(2));
    fails_with(&sandbox, 2, &["--source", "nonsense"], &["--source", "nonsense", "yfinance:"]);
    fails_with(&sandbox, 2, &["--kafka-listen", "0.0.0.0:0"], &["--kafka-listen", "--insecure-listen"]);
    fails_with(&sandbox, 2, &["--role", "broker", "--brokers", "x:1"], &["--brokers"]);
    fails_with(&sandbox, 2, &["-X", "sasl.password=hunter2"], &["sasl.password", "@FILE"]);
    fails_with(&sandbox, 2, &["--db-schema", "public"], &["--db-schema", "public"]);
    fails_with(&sandbox, 2, &["verify", "--ledger", "/nope"], &["--ledger", "/nope", "no such folder"]);
    for (flag, value, word) in [("--group", "", "--group"), ("--batch-wait", "2s", "at most 1s")] {
        let output = sandbox.run(&[flag, value]);
        assert_eq!(output.status.code(), Some(2), "{flag}");
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}

#[test]
fn limits_that_would_cut_what_the_pipeline_needs_are_refused_with_what_is_possible() {
    let sandbox = Sandbox::new();
    fails_with(&sandbox, 2, &["--retention", "0s"], &["--retention 0s", "write 1m or more"]);
    fails_with(&sandbox, 2, &["--retention-bytes", "5"], &["--retention-bytes 5", "6 partitions", "64MiB or more"]);
    let many = ["--retention-bytes", "512MiB", "--partitions", "1000"];
    fails_with(&sandbox, 2, &many, &["1000 partitions", "1000MiB or more"]);
    assert!(!sandbox.data().exists(), "it was refused before anything was touched");
}

#[test]
fn a_size_or_an_address_that_is_none_is_refused_with_an_example() {
    let sandbox = Sandbox::new();
    for (arguments, words) in [
        (["--retention-bytes", "-1"], ["--retention-bytes", "no limit", "100TiB"]),
        (["--retention-bytes", "lots"], ["--retention-bytes", "lots", "10GiB"]),
        (["--retention", "-1"], ["--retention", "-1", "24h"]),
        (["--kafka-listen", "foo"], ["--kafka-listen", "foo", "127.0.0.1:9092"]),
        (["--kafka-advertise", "foo"], ["--kafka-advertise", "foo", "kafka.example.org:9092"]),
        (["--kafka-advertise", "foo:0"], ["--kafka-advertise", "foo:0", "1 to 65535"]),
        (["--http", "localhost:80"], ["--http", "localhost:80", "127.0.0.1:9092"]),
    ] {
        let output = sandbox.run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        let line = text.lines().next().unwrap_or_default();
        for word in words {
            assert!(line.contains(word), "{word:?} is not in the error line: {line}");
        }
    }
}

#[test]
fn verify_without_anything_to_verify_says_where_it_looked_and_is_no_success() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.start(&["--role", "broker"]).stop().0, Some(0));
    let text = sandbox.expect(3, &["verify", "--topic-prefix", "elsewhere."]);
    for word in
        ["nothing to verify", "elsewhere.transactions", "127.0.0.1:", "data/ledger", "--topic-prefix", "run finstream"]
    {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("balance"), "{text}");
    let report: serde_json::Value = serde_json::from_str(&sandbox.expect(3, &["verify", "--json"])).unwrap();
    assert_eq!(report["verdict"], "nothing");
    sandbox.expect(0, &["--count", "10", "--rate", "max"]);
    sandbox.expect(0, &["verify"]);
    // What is there under another name proves nothing of this one.
    sandbox.expect(3, &["verify", "--topic-prefix", "elsewhere."]);
}

#[test]
fn a_second_broker_on_one_data_directory_is_refused() {
    let sandbox = Sandbox::new();
    let running = sandbox.start(&["--role", "broker"]);
    fails_with(&sandbox, 4, &["--role", "broker"], &["already runs the broker", "--data-dir"]);
    assert_eq!(running.stop().0, Some(0));
}

#[test]
fn a_folder_in_the_place_of_a_segment_is_named_with_what_to_do() {
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["--count", "100", "--rate", "max"]);
    let partition = sandbox.data().join("broker/finance.transactions-0");
    let segment = std::fs::read_dir(&partition).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.into_iter().find(|path| path.extension().is_some_and(|end| end == "log")).unwrap();
    let (aside, name) = (sandbox.path().join("aside"), segment.to_str().unwrap());
    std::fs::rename(&segment, &aside).unwrap();
    std::fs::create_dir(&segment).unwrap();
    fails_with(&sandbox, 4, &["--role", "broker"], &[name, "move this folder", "restore that file"]);
    // The cure cures.
    std::fs::remove_dir(&segment).unwrap();
    std::fs::rename(&aside, &segment).unwrap();
    sandbox.expect(0, &["verify"]);
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_moves_it() {
    let sandbox = Sandbox::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails_with(&sandbox, 4, &["--role", "broker", "--kafka-listen", &address], &[&address, "--kafka-listen"]);
    fails_with(&sandbox, 4, &["--role", "broker", "--http", &address], &[&address, "--http"]);
}

#[test]
fn missing_postgresql_binaries_are_named_with_what_to_install() {
    let sandbox = Sandbox::new();
    let empty = sandbox.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    fails_with(&sandbox, 4, &["--count", "1", "--pg-bin", empty], &["initdb", empty]);
}

#[test]
fn an_unreachable_database_is_named() {
    let sandbox = Sandbox::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgresql://me@127.0.0.1:{closed}/books");
    fails_with(&sandbox, 4, &["--count", "1", "--database-url", &url], &["127.0.0.1", "PostgreSQL"]);
}

#[test]
fn an_unreadable_or_unknown_file_is_named_before_anything_is_sent() {
    let sandbox = Sandbox::new();
    fails_with(&sandbox, 4, &["--source", "yfinance:absent.csv"], &["absent.csv"]);
    std::fs::write(sandbox.path().join("odd.csv"), "a,b\n1,2\n").unwrap();
    fails_with(&sandbox, 4, &["--source", "yfinance:odd.csv"], &["odd.csv"]);
}

#[test]
fn a_file_with_a_bad_row_is_read_and_the_row_is_counted() {
    let sandbox = Sandbox::new();
    let file =
        "Date,Open,High,Low,Close,Volume\n2024-01-02,1,2,1,2,400\n2024-01-03,x,2,1,2,400\n2024-01-04,1,2,1,2,400\n";
    std::fs::write(sandbox.path().join("ACME.csv"), file).unwrap();
    let text = sandbox.expect(0, &["--source", "yfinance:ACME.csv", "--rate", "max"]);
    assert!(text.contains("note") && text.contains("1 "), "{text}");
    assert_eq!(sandbox.sql("select quantity from symbol_totals where symbol = 'ACME'"), "800");
}

#[test]
fn what_cannot_be_read_becomes_a_dead_letter_and_the_rest_is_stored() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.spawn(&["--rate", "500"]);
    let ready = running.wait_ready();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", ready["kafka"].as_str().unwrap()).create().unwrap();
    let good = |user: &str, amount: &str| {
        format!(
            r#"{{"transaction_id":"t","type":"purchase","user_id":"{user}","amount":"{amount}","currency":"USD","merchant":"m","category":"c","event_time":"2026-01-01T00:00:00.000000Z"}}"#
        )
    };
    let long = "u".repeat(10_000);
    let bad = [
        "not json".to_string(),
        good("a\\u0000b", "1.00"),
        good(&long, "1.00"),
        good("u", "99999999999999999999999999"),
        good("u", "NaN"),
        String::new(),
    ];
    for (place, payload) in bad.iter().enumerate() {
        let record = BaseRecord::<str, str>::to("finance.transactions").payload(payload).partition(place as i32 % 6);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    let foreign = good("foreign-user", "12.34");
    producer.send(BaseRecord::<str, str>::to("finance.transactions").payload(&foreign)).map_err(|(e, _)| e).unwrap();
    producer.flush(crate::support::PATIENCE).unwrap();
    wait_until("the dead letters", || sandbox.sql("select count(*) from dead_letters") == bad.len().to_string());
    wait_until("the foreign message", || {
        sandbox.sql("select count(*) from user_totals where user_id = 'foreign-user' and spend = 12.34") == "1"
    });
    assert_eq!(sandbox.sql("select count(*) from dead_letters where reason = ''"), "0");
    let (code, output) = running.stop();
    assert_eq!(code, Some(0), "{output}");
    sandbox.expect(0, &["verify"]);
}

#[test]
fn a_recreated_topic_stops_the_consumer_with_the_cure() {
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["--count", "500", "--rate", "max"]);
    // The log goes, the totals stay: another cluster, as far as PostgreSQL can tell.
    std::fs::remove_dir_all(sandbox.data().join("broker")).unwrap();
    fails_with(&sandbox, 4, &["--count", "500", "--rate", "max"], &["finance.transactions", "finstream reset"]);
    assert_eq!(sandbox.sql("select count(*) from messages"), "500");
}

#[test]
fn another_consumer_group_on_the_same_schema_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["--count", "10"]);
    fails_with(&sandbox, 4, &["--count", "10", "--group", "other"], &["other", "--db-schema"]);
}
