//! `--pg-listen`: whoever has the password may read the totals over TCP, and nobody else may do anything.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::str::FromStr;

use crate::support::Sandbox;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// As Grafana does.
async fn connect(address: &str, role: &str, password: &str) -> Result<PgConnection, String> {
    let url = format!("postgres://{role}:{password}@{address}/postgres?sslmode=disable");
    let options = PgConnectOptions::from_str(&url).unwrap();
    PgConnection::connect_with(&options).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_looks_at_the_totals_over_tcp_and_can_change_nothing() {
    let sandbox = Sandbox::new();
    let address = free_address();
    let flags = ["--pg-listen", &address, "--rate", "500"];
    let mut running = sandbox.spawn(&flags);
    running.wait_ready();
    running.wait_for("readers");
    let file = sandbox.data().join("postgres-reader-password");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let password = std::fs::read_to_string(&file).unwrap();

    let mut reader = connect(&address, "finstream_reader", &password).await.unwrap();
    let seen = async |reader: &mut PgConnection| {
        let sql = "select coalesce(sum(transactions), 0)::bigint from user_totals";
        sqlx::query_as::<_, (i64,)>(sql).fetch_one(reader).await.unwrap().0
    };
    while seen(&mut reader).await == 0 {
        tokio::task::yield_now().await;
    }
    // Not by its setting alone, which a reader may change: it has no right.
    for sql in [
        "insert into dead_letters default values",
        "set default_transaction_read_only = off; delete from batches",
        "set default_transaction_read_only = off; create table of_mine (x int)",
        "select pg_read_file('/etc/passwd')",
        "create role other superuser",
        "set default_transaction_read_only = off; create temporary table of_mine as select 1",
        "set default_transaction_read_only = off; select lo_from_bytea(0, 'x')",
        "select pg_advisory_lock(1)",
        "set temp_file_limit = -1",
    ] {
        let refused = reader.execute(sql).await.expect_err(sql).to_string();
        assert!(refused.contains("permission denied") || refused.contains("read-only"), "{sql}: {refused}");
    }
    reader.close().await.unwrap();

    for (role, password) in [("finstream_reader", "wrong"), ("finstream", ""), ("finstream", password.as_str())] {
        let refused = connect(&address, role, password).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{role} came in over TCP"));
        let expected = ["password authentication failed", "no pg_hba.conf entry"];
        assert!(expected.iter().any(|text| refused.contains(text)), "{role}: {refused}");
    }
    // Commands on the same data directory find the socket, whose name has the other port now.
    assert!(sandbox.sql("select count(*) from runs").contains('1'));

    // Another process cannot move it, and can use it.
    let other = sandbox.run(&["--role", "consumer", "--pg-listen", &free_address()]);
    let said = String::from_utf8_lossy(&other.stderr).to_string();
    assert_ne!(other.status.code(), Some(0));
    assert!(said.contains("--pg-listen") && said.contains(&address), "{said}");

    // A crash leaves the server as it is; the next start without the flag closes the door, and one with it keeps the password.
    running.kill();
    sandbox.expect(0, &["--duration", "1s", "--rate", "100"]);
    assert!(connect(&address, "finstream_reader", &password).await.is_err());
    let mut running = sandbox.spawn(&flags);
    running.wait_ready();
    let reader = connect(&address, "finstream_reader", &password).await.unwrap();
    reader.close().await.unwrap();
    assert_eq!(running.stop().0, Some(0));
}

/// Another program takes the address while PostgreSQL is down: whoever asks a question gets its answer.
#[test]
fn a_taken_address_keeps_nobody_from_the_totals() {
    let sandbox = Sandbox::new();
    let address = free_address();
    let mut running = sandbox.spawn(&["--pg-listen", &address, "--rate", "200"]);
    running.wait_ready();
    let postmaster = sandbox.postmaster_pid();
    running.kill();
    crate::support::kill_by_id(postmaster);
    crate::support::wait_until("PostgreSQL to be gone", || !crate::support::is_alive(postmaster));
    let _taken = TcpListener::bind(&address).unwrap();
    let runs = sandbox.sql("select count(*) from runs");
    assert!(runs.parse::<u64>().is_ok(), "{runs}");
}

#[test]
fn an_address_that_is_open_to_the_network_or_without_use_is_refused() {
    let sandbox = Sandbox::new();
    for (flags, expected) in [
        (vec!["--pg-listen", "0.0.0.0:5433"], "--insecure-listen"),
        (vec!["--pg-listen", "127.0.0.1:0"], "port"),
        (vec!["--pg-listen", "127.0.0.1:5433", "--role", "broker"], "consumer"),
        (vec!["--pg-listen", "127.0.0.1:5433", "--database-url", "postgres://a@b/c"], "--database-url"),
    ] {
        let output = sandbox.run(&flags);
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
}
