//! Kills: whatever dies, whenever, the books balance afterwards.
//!
//! `FINSTREAM_TEST_KILLS` sets the rounds (default 3; the bar of 100 is run by `make kill-test`), `FINSTREAM_TEST_SEED`
//! the seed of the moments, which is printed, `FINSTREAM_TEST_KILL_RATE` the messages a second (default 20,000). `each` has
//! each service in a process of its own, and measures how soon PostgreSQL has all that the log has; `behind` is how that
//! is seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

mod behind;
mod each;

use std::time::Duration;

use finstream::data_dir::DataDir;
use finstream::postgres::{PgSettings, PrivateCluster};
use rand::{RngExt, SeedableRng};
use support::{Sandbox, setting, wait_until};

fn rounds() -> u64 {
    setting("FINSTREAM_TEST_KILLS", 3)
}

fn moments() -> rand::rngs::ChaCha8Rng {
    let seed = setting("FINSTREAM_TEST_SEED", u64::from(std::process::id()));
    println!("FINSTREAM_TEST_SEED={seed}");
    rand::rngs::ChaCha8Rng::seed_from_u64(seed)
}

/// The moment of the kill is the point of the test, not a wait for something.
fn let_it_run(random: &mut impl rand::Rng, longest_ms: u64) {
    std::thread::sleep(Duration::from_millis(random.random_range(50..longest_ms)));
}

/// A process that is told to stop does not wait long for a slow database; one that has a message to count does.
fn store_the_rest(sandbox: &Sandbox, database: &[&str]) {
    sandbox.expect(0, &[&["--count", "1", "--drain-timeout", "120s"], database].concat());
}

#[test]
fn killing_the_one_process_loses_nothing_and_counts_nothing_twice() {
    let sandbox = Sandbox::new();
    let mut random = moments();
    for _ in 0..rounds().min(30) {
        let running = sandbox.start(&["--rate", "20000"]);
        let_it_run(&mut random, 2_500);
        running.kill();
    }
    sandbox.expect(0, &["--rate", "20000", "--count", "20000"]);
    sandbox.expect(0, &["verify"]);
}

#[test]
fn killing_an_external_postgresql_loses_nothing_and_counts_nothing_twice() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Somebody else's server, as far as the pipeline can tell: it is killed and started again behind its back.
    let server = Sandbox::new();
    let data = DataDir::open(server.data()).unwrap();
    let cluster = runtime.block_on(PrivateCluster::ensure(&data, PgSettings::from_environment())).unwrap();
    let url = format!("postgresql://finstream@localhost/postgres?host={}", cluster.socket_dir().display());

    let sandbox = Sandbox::new();
    let mut random = moments();
    let running = sandbox.start(&["--rate", "20000", "--database-url", &url, "--db-schema", "books"]);
    let stored = || sandbox.sql_at(&["--database-url", &url, "--db-schema", "books"], "select count(*) from messages");
    for _ in 0..rounds().min(10) {
        let_it_run(&mut random, 2_500);
        let killed = server.postmaster_pid();
        support::kill_by_id(killed);
        wait_until("the server to be up again", || {
            runtime.block_on(cluster.restart_if_down()).unwrap();
            server.postmaster_pid_now().is_some_and(|now| now != killed)
        });
    }
    let before: u64 = stored().parse().unwrap();
    wait_until("messages to be stored again", || stored().parse::<u64>().unwrap() > before + 20_000);
    let (code, output) = running.stop();
    assert_eq!(code, Some(0), "{output}");
    let books = ["--database-url", &url, "--db-schema", "books"];
    store_the_rest(&sandbox, &books);
    sandbox.expect(0, &[&["verify"], &books[..]].concat());
    runtime.block_on(cluster.leave()).unwrap();
}
