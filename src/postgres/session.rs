//! A connection that answers in time.
//!
//! A peer that has vanished without a word (a failover, a NAT that forgot, a stopped server) looks like one that thinks.
//! sqlx sets no TCP keepalive and offers no way to, so every wait for PostgreSQL has a deadline of ours.

use std::io;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

/// Longest wait for a new connection; a caller that waits for a server tries again.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Connects.
///
/// # Errors
/// PostgreSQL's answer, or `TimedOut` when there is none within `deadline`.
pub async fn connect(options: &PgConnectOptions, deadline: Duration) -> Result<PgConnection, sqlx::Error> {
    answered(deadline, PgConnection::connect_with(options)).await
}

/// Waits for an answer of PostgreSQL for `deadline` at most. After `TimedOut` the connection that was asked is in an
/// unknown state: drop it.
///
/// # Errors
/// Those of `work`, or `TimedOut`.
pub async fn answered<T, E>(deadline: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, E>
where
    E: From<sqlx::Error>,
{
    match tokio::time::timeout(deadline, work).await {
        Ok(answer) => answer,
        Err(_) => Err(no_answer(deadline).into()),
    }
}

/// The error of a wait that was too long.
pub fn no_answer(waited: Duration) -> sqlx::Error {
    let what = format!("no answer within {waited:.1?}, the connection is given up");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, what))
}

/// A server that lets everyone in and never answers a question, for tests.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) async fn silent_server() -> PgConnectOptions {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 1024];
                let _ = client.read(&mut asked).await;
                // AuthenticationOk, ReadyForQuery.
                let _ = client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
                while client.read(&mut asked).await.is_ok_and(|length| length > 0) {}
            });
        }
    });
    PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).ssl_mode(sqlx::postgres::PgSslMode::Disable)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options =
            PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(silent.local_addr().unwrap().port());
        let error = connect(&options, Duration::from_millis(20)).await.unwrap_err();
        assert!(error.to_string().contains("no answer within 20.0ms"), "{error}");
    }
}
