//! What was refused is listed with its reason, and put through after a fix: stored, counted and published, once.

use crate::support::Sandbox;
use serde_json::Value;

/// Each line of `finstream dead-letters --json`.
fn letters(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_was_refused_is_put_through_after_a_fix_and_the_books_balance_before_and_after() {
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["--count", "100", "--rate", "max"]);
    assert_eq!(sandbox.expect(0, &["dead-letters"]), "");
    // A rule too strict: somebody's mistake, which PostgreSQL answers with a data error.
    sandbox
        .sql("alter table messages add constraint too_strict check (sequence is null or sequence % 50 <> 7) not valid");
    sandbox.expect(0, &["--count", "400", "--rate", "max"]);
    assert_eq!(sandbox.sql("select count(*) from messages"), "492");
    sandbox.expect(0, &["verify"]);

    let listed = letters(&sandbox.expect(0, &["dead-letters", "--json"]));
    assert_eq!(listed.len(), 8);
    for letter in &listed {
        assert!(letter["reason"].as_str().unwrap().contains("too_strict"), "{letter}");
        assert_eq!(letter["sequence"].as_i64().unwrap() % 50, 7);
        assert!(letter["payload"].as_str().unwrap().contains("user_id"), "{letter}");
    }
    let text = sandbox.expect(0, &["dead-letters"]);
    assert!(text.contains("partition ") && text.contains("too_strict"), "{text}");

    // Still refused: nothing is lost by trying.
    let again = letters(&sandbox.expect(4, &["dead-letters", "--replay", "--json"]));
    assert_eq!(again.len(), 8);
    assert!(again.iter().all(|letter| letter["replay"]["refused"].as_str().unwrap().contains("too_strict")));
    sandbox.expect(0, &["verify"]);

    sandbox.sql("alter table messages drop constraint too_strict");
    let put_through = letters(&sandbox.expect(0, &["dead-letters", "--replay", "--json"]));
    assert!(put_through.len() == 8 && put_through.iter().all(|letter| letter["replay"] == "applied"));
    assert_eq!(sandbox.sql("select count(*) from messages"), "500");
    assert_eq!(sandbox.sql("select count(*) from replayed_letters"), "8");
    assert_eq!(sandbox.sql("select sum(transactions + trades) from user_totals"), "500");
    let in_windows = "select sum(purchases + refunds) + (select sum(declines) from user_totals) from category_windows";
    assert_eq!(sandbox.sql(in_windows), "500");
    sandbox.expect(0, &["verify"]);
    assert_eq!(sandbox.expect(0, &["dead-letters", "--replay"]), "");

    // The next consumer publishes what has changed, and counts on.
    sandbox.expect(0, &["--count", "50", "--rate", "max"]);
    assert_eq!(sandbox.sql("select count(*) from aggregate_changes"), "0");
    sandbox.expect(0, &["verify"]);
}
