//! PostgreSQL goes away, breaks connections at the worst moment, or keeps locks: nothing is lost, counted twice, or
//! mistaken for poison.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sink_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use finstream::shutdown::Stage;
use finstream::sink::{SinkError, Worker};
use sink_support::{Schema, message, patience, purchase, purchases};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// What the proxy does to the next COMMIT.
const PASS: u8 = 0;
const BREAK_BEFORE_COMMIT: u8 = 1;
const BREAK_AFTER_COMMIT: u8 = 2;

/// Sits between a worker and PostgreSQL; breaks one connection at its COMMIT. Returns its port.
async fn proxy(schema: &Schema, mode: Arc<AtomicU8>) -> u16 {
    let socket = schema.socket();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(relay(client, server, mode.clone()));
        }
    });
    port
}

async fn relay(mut client: TcpStream, mut server: UnixStream, mode: Arc<AtomicU8>) {
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let is_commit = from_client[..length].windows(7).any(|window| window == b"COMMIT\0");
                let mode = if is_commit { mode.swap(PASS, Ordering::SeqCst) } else { PASS };
                if mode == BREAK_BEFORE_COMMIT {
                    return;
                }
                server.write_all(&from_client[..length]).await.unwrap();
                if mode == BREAK_AFTER_COMMIT {
                    // The answer says that it is committed; the client never hears it.
                    let answered = server.read(&mut from_server).await.unwrap();
                    assert!(answered > 0);
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&from_server[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn worker_behind_proxy(schema: &Schema, topic_ref: i32, mode: Arc<AtomicU8>) -> Worker {
    let port = proxy(schema, mode).await;
    let mut settings = schema.worker_settings(topic_ref, "i");
    // A socket directory wins over a host, so start from fresh options.
    settings.database = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
        .username("postgres")
        .database("postgres")
        .options([("search_path", &schema.name)]);
    let mut worker = Worker::connect(settings).await.unwrap();
    worker.claim(&[0, 1], &mut patience().1).await.unwrap();
    worker
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_recognised_and_not_repeated() {
    for (mode, batches_committed_unseen) in [(BREAK_AFTER_COMMIT, 1), (BREAK_BEFORE_COMMIT, 0)] {
        let schema = Schema::create().await;
        let topic_ref = schema.stream(2).await;
        let breaker = Arc::new(AtomicU8::new(PASS));
        let mut worker = worker_behind_proxy(&schema, topic_ref, breaker.clone()).await;
        let (_trigger, mut patience) = patience();
        worker.store(&purchases(0, 0..5, "ann"), &mut patience).await.unwrap();
        breaker.store(mode, Ordering::SeqCst);
        let mut batch = purchases(0, 5..9, "ann");
        batch.push_transaction(message(1, 0), &purchase("bob", 100));
        let committed = worker.store(&batch, &mut patience).await.unwrap();
        assert_eq!(committed.next_offsets, [(0, 9), (1, 1)]);
        let unseen = committed.parts.iter().filter(|part| part.committed_at.is_none()).count();
        assert_eq!(unseen, batches_committed_unseen);
        worker.store(&purchases(0, 9..10, "ann"), &mut patience).await.unwrap();
        assert_eq!(schema.rows("select user_id, purchases from user_totals order by 1").await, ["ann 10", "bob 1"]);
        assert_eq!(schema.rows("select count(*) from messages").await, ["11"]);
        assert_eq!(schema.rows("select count(*) from dead_letters").await, ["0"]);
        assert_eq!(breaker.load(Ordering::SeqCst), PASS, "the proxy saw no COMMIT");
    }
}

#[tokio::test]
async fn a_backend_that_is_killed_between_batches_costs_nothing() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    for round in 0..5 {
        worker.store(&purchases(0, round * 10..round * 10 + 10, "ann"), &mut patience().1).await.unwrap();
        schema.execute(&format!("select pg_terminate_backend({}, 5000)", worker.backend().pid)).await;
    }
    worker.claim(&[0], &mut patience().1).await.unwrap();
    assert_eq!(schema.rows("select purchases from user_totals").await, ["50"]);
    assert_eq!(schema.rows("select count(*) from dead_letters").await, ["0"]);
}

#[tokio::test]
async fn a_database_that_refuses_to_write_is_waited_for_and_makes_no_dead_letters() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let role = format!("role_{}", schema.name);
    schema
        .execute(&format!(
            "create role {role} login; grant pg_signal_backend to {role}; grant usage on schema {name} to {role};
             grant all on all tables in schema {name} to {role}; grant all on all sequences in schema {name} to {role}",
            name = schema.name
        ))
        .await;
    let mut settings = schema.worker_settings(topic_ref, "i");
    settings.database = settings.database.username(&role);
    let mut worker = Worker::connect(settings).await.unwrap();
    worker.claim(&[0], &mut patience().1).await.unwrap();
    // Permission (42501): the sink may not write totals any more.
    schema.execute(&format!("revoke all on user_aggregates from {role}")).await;
    let first_pid = worker.backend().pid;
    let repair = async {
        // A new backend of the role means that the sink has met the error and came back.
        let mut connection = schema.connect().await;
        loop {
            let others: i64 =
                sqlx::query_scalar("select count(*) from pg_stat_activity where usename = $1 and pid <> $2")
                    .bind(&role)
                    .bind(first_pid)
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
            if others > 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        schema.execute(&format!("grant all on user_aggregates to {role}")).await;
    };
    let (batch, (_trigger, mut patience)) = (purchases(0, 0..20, "ann"), patience());
    let (committed, ()) = tokio::join!(worker.store(&batch, &mut patience), repair);
    assert_eq!(committed.unwrap().next_offsets, [(0, 20)]);
    assert_eq!(schema.rows("select purchases from user_totals").await, ["20"]);
    assert_eq!(schema.rows("select count(*) from dead_letters").await, ["0"]);
}

#[tokio::test]
async fn an_outage_that_outlasts_the_drain_is_given_up_with_the_count_of_what_is_left() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mode = Arc::new(AtomicU8::new(PASS));
    let mut worker = worker_behind_proxy(&schema, topic_ref, mode).await;
    schema.execute("alter table messages rename to messages_away").await;
    let error = worker.store(&purchases(0, 0..3, "ann"), &mut patience().1).await.unwrap_err();
    assert!(matches!(error, SinkError::Broken { .. }), "a missing table is no outage: {error}");
    schema.execute("alter table messages_away rename to messages").await;
    let (trigger, mut patience) = patience();
    trigger.raise(Stage::Now);
    schema.execute(&format!("select pg_terminate_backend({}, 5000)", worker.backend().pid)).await;
    let error = worker.store(&purchases(0, 0..3, "ann"), &mut patience).await.unwrap_err();
    assert!(matches!(error, SinkError::GaveUp { messages: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_partition_whose_owner_is_stuck_in_a_copy_is_claimed_within_two_seconds() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(2).await;
    schema.worker(topic_ref, "stuck", &[0]).await;
    let mut stuck = schema.connect().await;
    // What a worker that was stopped in the middle of its COPY leaves in PostgreSQL.
    sqlx::query(
        "update partition_offsets set owner_pid = pg_backend_pid(),
             owner_backend_start = (select backend_start from pg_stat_activity where pid = pg_backend_pid())",
    )
    .execute(&mut stuck)
    .await
    .unwrap();
    let mut open: sqlx::Transaction<'_, sqlx::Postgres> = stuck.begin().await.unwrap();
    sqlx::query("update partition_offsets set messages = 99").execute(&mut *open).await.unwrap();
    let _copy = PgConnection::copy_in_raw(&mut open, "copy messages from stdin (format binary)").await.unwrap();

    let started = Instant::now();
    let mut heir = schema.worker(topic_ref, "heir", &[0, 1]).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    heir.store(&purchases(0, 0..3, "ann"), &mut patience().1).await.unwrap();
    assert_eq!(
        schema.rows("select owner_instance, messages from partition_offsets order by partition").await,
        ["heir 3", "heir 0"]
    );
}
