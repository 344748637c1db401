//! Retention in the running pipeline: it audits, then removes, and `verify` begins where it left off.

use crate::support::{Sandbox, wait_until};

#[test]
fn rows_go_behind_a_balanced_audit_and_stay_when_the_books_do_not_balance() {
    let sandbox = Sandbox::new();
    let arguments = ["--rate", "40000", "--retention-bytes", "64MiB", "--partitions", "4"];
    let number = |query: &str| sandbox.sql(query).parse::<u64>().unwrap();
    let mut running = sandbox.start(&arguments);
    running.wait_for("retention removed");
    let (code, output) = running.stop();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("The books balance") && output.contains("were proven up to the checkpoint"), "{output}");
    let (rows, counted) = ("select count(*) from messages", "select sum(transactions) from user_totals");
    let cuts = "select sum(cut_before) from retention_cuts";
    let kept = number(rows);
    assert!(kept < number(counted) && kept > 300_000, "{kept} rows of {} transactions", number(counted));
    let report = sandbox.expect(0, &["verify"]);
    assert!(!report.contains("cut already"), "the log was held for the first audit, too: {report}");
    assert!(report.contains("messages were proven up to the checkpoint of"), "{report}");

    // A wrong total: nothing goes, not even what an earlier audit has covered.
    sandbox.sql(
        "update user_aggregates set spend = spend + 0.01 where user_id = (select min(user_id) from user_aggregates)",
    );
    let mut running = sandbox.start(&arguments);
    running.wait_for("the books do not balance, so nothing is removed");
    let (before, enough) = (number(cuts), number(rows) + 100_000);
    wait_until("more rows than may be kept", || number(rows) > enough);
    assert_eq!(number(cuts), before);
    let (code, output) = running.stop();
    assert_eq!(code, Some(1), "{output}");
    assert_eq!(output.matches("so nothing is removed").count(), 1, "{output}");
    assert!(sandbox.expect(1, &["verify"]).contains("wrong total"));

    // Who comes next knows of it from the start.
    let before = number(cuts);
    let mut running = sandbox.start(&arguments);
    running.wait_for("an audit has found differences, so nothing is removed");
    let enough = number(rows) + 200_000;
    wait_until("more rows than may be kept", || number(rows) > enough);
    assert_eq!(number(cuts), before);
    sandbox.sql(
        "update user_aggregates set spend = spend - 0.01 where user_id = (select min(user_id) from user_aggregates)",
    );
    // The audit at the end of this one finds that they balance, and says so to the next.
    let (code, output) = running.stop();
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(number(cuts), before);
    let running = sandbox.start(&arguments);
    wait_until("rows to go again", || number(cuts) > before);
    let (code, output) = running.stop();
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn packed_rows_balance_and_answer_the_same_questions() {
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["--rate", "20000", "--count", "20000", "--latency-layout", "packed"]);
    sandbox.expect(0, &["--rate", "20000", "--count", "20000"]);
    let both = "select (select count(*) from messages) || '/' || (select sum(messages) from message_packs)";
    assert_eq!(sandbox.sql(both), "20000/20000");
    assert_eq!(sandbox.sql("select count(scheduled_to_committed_ms) from message_latencies"), "40000");
    assert_eq!(sandbox.sql("select sum(messages) from stage_latency_percentiles"), "200000");
    let report = sandbox.expect(0, &["verify", "--json"]);
    assert!(report.contains("\"rows\": 40000"), "{report}");
}
