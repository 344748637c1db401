//! PostgreSQL goes away, breaks connections at the worst moment, or keeps locks: nothing is lost, counted twice, or
//! mistaken for poison.

mod refusals;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::sink_support::{Schema, message, patience, purchase, purchases};
use finstream::shutdown::Stage;
use finstream::sink::{Deadlines, Patience, SinkError, Worker};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// What the proxy does to the next COMMIT.
const PASS: u8 = 0;
const BREAK_BEFORE_COMMIT: u8 = 1;
const BREAK_AFTER_COMMIT: u8 = 2;
/// Takes the COMMIT and says nothing any more; PostgreSQL never sees it, and keeps the session with its locks.
const SWALLOW_COMMIT: u8 = 3;
/// PostgreSQL commits; its answer, and all that follows, is swallowed.
const SWALLOW_ANSWER: u8 = 4;
/// As the first, at the next bytes, whatever they are.
const SWALLOW_NEXT: u8 = 5;

/// Long enough for a worker that sends two or three statements to a server on this machine.
const SHORT: Deadlines = Deadlines { connect: Duration::from_secs(5), transaction: Duration::from_secs(1) };

/// Sits between a worker and PostgreSQL; breaks or silences one connection at its COMMIT. Returns its port.
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
                let is_due = is_commit || mode.load(Ordering::SeqCst) == SWALLOW_NEXT;
                let mode = if is_due { mode.swap(PASS, Ordering::SeqCst) } else { PASS };
                match mode {
                    BREAK_BEFORE_COMMIT => return,
                    // Both sockets stay open: neither side is told that the other is out of reach.
                    SWALLOW_COMMIT | SWALLOW_NEXT => return std::future::pending().await,
                    _ => {}
                }
                server.write_all(&from_client[..length]).await.unwrap();
                if mode == BREAK_AFTER_COMMIT || mode == SWALLOW_ANSWER {
                    // The answer says that it is committed; the client never hears it.
                    let answered = server.read(&mut from_server).await.unwrap();
                    assert!(answered > 0);
                    if mode == SWALLOW_ANSWER {
                        return std::future::pending().await;
                    }
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
    let mut worker = Worker::connect(settings, SHORT).await.unwrap();
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
async fn a_session_that_falls_silent_is_given_up_and_its_batch_is_stored_once() {
    for (mode, is_claimed_first) in
        [(SWALLOW_COMMIT, true), (SWALLOW_ANSWER, true), (SWALLOW_NEXT, true), (SWALLOW_COMMIT, false)]
    {
        let schema = Schema::create().await;
        let topic_ref = schema.stream(2).await;
        let relay = Arc::new(AtomicU8::new(PASS));
        let mut worker = worker_behind_proxy(&schema, topic_ref, relay.clone()).await;
        let (_trigger, mut patience) = patience();
        worker.store(&purchases(0, 0..5, "ann"), &mut patience).await.unwrap();
        let silent = worker.backend();
        relay.store(mode, Ordering::SeqCst);
        if !is_claimed_first {
            // The claim's COMMIT is lost: its lock is held by a backend that no row names.
            worker.release(&[0, 1]);
            worker.claim(&[0, 1], &mut patience).await.unwrap();
        }
        let committed = worker.store(&purchases(0, 5..9, "ann"), &mut patience).await.unwrap();
        assert_eq!(committed.next_offsets, [(0, 9), (1, 0)], "mode {mode}");
        let unseen = committed.parts.iter().filter(|part| part.committed_at.is_none()).count();
        assert_eq!(unseen, usize::from(mode == SWALLOW_ANSWER), "mode {mode}");
        worker.store(&purchases(0, 9..10, "ann"), &mut patience).await.unwrap();
        assert_eq!(schema.rows("select user_id, purchases from user_totals").await, ["ann 10"], "mode {mode}");
        assert_eq!(schema.rows("select count(*) from messages").await, ["10"]);
        assert_eq!(relay.load(Ordering::SeqCst), PASS, "the relay swallowed nothing");
        assert_ne!(worker.backend(), silent);
        // Out of reach, but not left behind with its locks.
        let sql = format!("select pid from pg_stat_activity where pid = {}", silent.pid);
        while !schema.rows(&sql).await.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_transaction_that_needs_longer_than_its_deadline_is_not_started_over_for_ever() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    schema
        .execute(
            "create function slow() returns trigger language plpgsql as
                 'begin perform pg_sleep(1.5); return new; end';
             create trigger slow before insert on batches for each row execute function slow()",
        )
        .await;
    let mut worker = worker_behind_proxy(&schema, topic_ref, Arc::new(AtomicU8::new(PASS))).await;
    for offset in 0..2 {
        worker.store(&purchases(0, offset..offset + 1, "ann"), &mut patience().1).await.unwrap();
    }
    assert_eq!(schema.rows("select purchases from user_totals").await, ["2"]);
}

#[tokio::test]
async fn a_silent_session_does_not_hold_up_the_end_beyond_the_time_for_draining() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(2).await;
    let relay = Arc::new(AtomicU8::new(PASS));
    let mut worker = worker_behind_proxy(&schema, topic_ref, relay.clone()).await;
    let (trigger, shutdown) = finstream::shutdown::channel();
    let mut patience = Patience::new(shutdown, Duration::from_millis(50));
    worker.store(&purchases(0, 0..1, "ann"), &mut patience).await.unwrap();
    relay.store(SWALLOW_COMMIT, Ordering::SeqCst);
    let batch = purchases(0, 1..4, "ann");
    let began = Instant::now();
    let swallowed = async {
        while relay.load(Ordering::SeqCst) != PASS {
            tokio::task::yield_now().await;
        }
        trigger.raise(Stage::Drain);
    };
    let (stored, ()) = tokio::join!(worker.store(&batch, &mut patience), swallowed);
    assert!(matches!(stored, Err(SinkError::GaveUp { messages: 3, .. })), "{stored:?}");
    assert!(began.elapsed() < SHORT.transaction, "{:?}", began.elapsed());
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
    let (role, mut worker) = refusals::worker_of_a_role(&schema, topic_ref).await;
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
