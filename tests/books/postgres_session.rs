//! Connection poolers that lend a backend for a transaction, or drop the search path: refused with the cure, before
//! tables land in the wrong schema or locks with strangers.

use std::path::{Path, PathBuf};

use crate::sink_support::Schema;
use finstream::postgres::{Database, check_schema};
use finstream::sink::{Deadlines, Worker};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// What a pooler does to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Ignores start-up options.
    DropsSearchPath,
    /// Serves the second question for the backend's pid with another backend.
    SwitchesBackends,
}

/// A pooler in front of the cluster; its port.
async fn pooler(socket: PathBuf, habit: Habit) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let socket = socket.clone();
            tokio::spawn(async move { serve(client, &socket, habit).await });
        }
    });
    port
}

async fn serve(mut client: TcpStream, socket: &Path, habit: Habit) {
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    let length = client.read(&mut asked).await.unwrap();
    let mut start_up = asked[..length].to_vec();
    if habit == Habit::DropsSearchPath {
        let option = b"search_path=";
        let at = start_up.windows(option.len()).position(|window| window == option).unwrap() + option.len();
        start_up[at..].iter_mut().take_while(|byte| **byte != 0).for_each(|byte| *byte = b'x');
    }
    let mut server = UnixStream::connect(socket).await.unwrap();
    server.write_all(&start_up).await.unwrap();
    let mut questions = 0;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let question = b"pg_backend_pid()";
                questions += usize::from(asked[..length].windows(question.len()).any(|window| window == question));
                if habit == Habit::SwitchesBackends && questions == 2 {
                    questions += 1;
                    server = another_backend(socket, &start_up).await;
                }
                server.write_all(&asked[..length]).await.unwrap();
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Another session, whose greeting the client does not see.
async fn another_backend(socket: &Path, start_up: &[u8]) -> UnixStream {
    let mut server = UnixStream::connect(socket).await.unwrap();
    server.write_all(start_up).await.unwrap();
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"Z\0\0\0\x05I") {
        assert!(server.read_buf(&mut greeting).await.unwrap() > 0);
    }
    server
}

fn through(port: u16, schema: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .ssl_mode(PgSslMode::Disable)
        .username("postgres")
        .database("postgres")
        .options([("search_path", schema)])
}

#[tokio::test]
async fn a_session_with_another_schema_is_refused_with_the_cure() {
    let (schema, other) = (Schema::create().await, Schema::create().await);
    let mut connection = schema.connect().await;
    check_schema(&mut connection, &schema.name).await.unwrap();
    let error = check_schema(&mut connection, &other.name).await.unwrap_err().to_string();
    assert!(error.contains(&format!("uses schema {:?} instead of {:?}", schema.name, other.name)), "{error}");
    assert!(error.contains("pooler") && error.contains(&format!("set search_path = {}", other.name)), "{error}");
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_worker_behind_a_pooler_is_refused_at_once() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    for (habit, word) in
        [(Habit::DropsSearchPath, "drops the search_path"), (Habit::SwitchesBackends, "in transaction mode")]
    {
        let mut settings = schema.worker_settings(topic_ref, "i");
        settings.database = through(pooler(schema.socket(), habit).await, &schema.name);
        let error = Worker::connect(settings, Deadlines::default()).await.err().expect("refused").to_string();
        assert!(error.contains(word) && error.contains("directly") && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn no_table_is_made_behind_a_pooler() {
    let cluster = Schema::create().await;
    for (habit, schema) in [(Habit::DropsSearchPath, "books_a"), (Habit::SwitchesBackends, "books_b")] {
        let port = pooler(cluster.socket(), habit).await;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
        let error = Database::external(&url, schema).unwrap().prepare().await.unwrap_err().to_string();
        assert!(error.contains("pooler") && error.contains("directly"), "{error}");
        let tables = "select schemaname from pg_tables where schemaname in ('public', 'books_a', 'books_b', 'xxxxxxx')";
        assert!(cluster.rows(tables).await.is_empty());
        let schemas = format!("select nspname from pg_namespace where nspname = '{schema}'");
        assert!(cluster.rows(&schemas).await.is_empty(), "a refused migration leaves nothing");
    }
}
