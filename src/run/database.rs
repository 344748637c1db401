//! The database that this process uses: the private cluster, or the user's own server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sqlx::{Connection, PgConnection, Row};

use super::summary::TopUser;
use crate::data_dir::DataDir;
use crate::postgres::{
    Database, Missing, PREPARE_PATIENCE, PgSettings, PostgresError, PrivateCluster, READER, admit_reader,
};
use crate::shutdown::{self, Stage, Trigger};

/// A wait for the server that people should hear of.
const SAY_WAITING_AFTER: std::time::Duration = std::time::Duration::from_secs(1);
/// Users in the summary.
const TOP_USERS: i64 = 5;

/// A database that is ready, and the private server behind it, if it is ours.
pub struct DatabaseService {
    database: Database,
    private: Option<Private>,
}

struct Private {
    cluster: std::sync::Arc<PrivateCluster>,
    /// Where readers are let in, and the file with their password.
    readers: Option<(SocketAddr, PathBuf)>,
    watch: tokio::task::JoinHandle<()>,
    stop_watch: Trigger,
}

/// What the database already holds.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    /// Runs of producers.
    pub runs: u64,
    /// Messages in the totals.
    pub transactions: u64,
    /// What the database takes on its disk.
    pub bytes: u64,
}

impl DatabaseService {
    /// Reaches `url`, or starts the private server; then brings the schema up to date.
    ///
    /// # Errors
    /// No server, no binaries, a schema of a newer finstream: each with its cure.
    pub async fn start(
        data_dir: &DataDir,
        url: Option<&str>,
        schema: &str,
        settings: PgSettings,
        missing: Missing,
    ) -> anyhow::Result<DatabaseService> {
        let mut service = match url {
            Some(url) => DatabaseService { database: Database::external(url, schema)?, private: None },
            None => {
                let cluster = std::sync::Arc::new(PrivateCluster::ensure(data_dir, settings).await?);
                let database = cluster.database(schema)?;
                let (stop_watch, stopped) = shutdown::channel();
                let watched = cluster.clone();
                let watch = tokio::spawn(async move { watched.watch(stopped, |line| say!("{line}.")).await });
                DatabaseService { database, private: Some(Private { cluster, readers: None, watch, stop_watch }) }
            }
        };
        let target = service.database.target.clone();
        let waiting = tokio::spawn(async move {
            tokio::time::sleep(SAY_WAITING_AFTER).await;
            say!("Waiting for PostgreSQL: {target}");
        });
        let prepared = service.prepare(data_dir, missing).await;
        waiting.abort();
        match prepared {
            Ok(()) => Ok(service),
            Err(error) => {
                // The cause is told; whether the server could be left as well is not what the user asked about.
                let _ = service.release().await;
                Err(error.into())
            }
        }
    }

    /// The schema, and the readers' role where the private server listens for them.
    async fn prepare(&mut self, data_dir: &DataDir, missing: Missing) -> Result<(), PostgresError> {
        self.database.prepare_within(PREPARE_PATIENCE, missing).await?;
        if let Some(private) = &mut self.private
            && let Some(address) = private.cluster.listen()
        {
            private.readers = Some((address, admit_reader(data_dir, &self.database).await?));
        }
        Ok(())
    }

    /// Where readers reach the private server, for the start-up block.
    pub fn readers(&self) -> Option<String> {
        let (address, password) = self.private.as_ref()?.readers.as_ref()?;
        let password = super::kafka::shown(password);
        Some(format!("{address}, database postgres, role {READER}, its password in {password}"))
    }

    /// Where roles connect to.
    pub fn database(&self) -> Database {
        self.database.clone()
    }

    /// The private cluster's folder, where there is one.
    pub fn cluster_dir(&self) -> Option<&Path> {
        self.private.as_ref().map(|private| private.cluster.cluster_path())
    }

    /// For the start-up block.
    pub fn describe(&self) -> String {
        match &self.private {
            Some(private) => format!(
                "private PostgreSQL {} in {}, schema {}",
                private.cluster.major(),
                super::kafka::shown(private.cluster.cluster_path()),
                self.database.schema
            ),
            None => format!("{}, schema {}", self.database.target, self.database.schema),
        }
    }

    /// The psql command that opens the totals.
    pub fn psql_command(&self) -> String {
        self.database.psql_command()
    }

    /// What is there before this process adds to it.
    ///
    /// # Errors
    /// The server went away.
    pub async fn contents(&self) -> anyhow::Result<Contents> {
        let mut connection = self.database.connect().await?;
        let row = sqlx::query(
            "select (select count(*) from runs), (select coalesce(sum(messages), 0)::bigint from partition_offsets), \
             pg_database_size(current_database())",
        )
        .fetch_one(&mut connection)
        .await?;
        let (runs, transactions, bytes): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        connection.close().await?;
        Ok(Contents { runs: runs.max(0) as u64, transactions: transactions.max(0) as u64, bytes: bytes.max(0) as u64 })
    }

    /// The busiest users: amounts of different currencies have no order.
    ///
    /// # Errors
    /// The server went away.
    pub async fn top_users(&self) -> anyhow::Result<Vec<TopUser>> {
        let mut connection: PgConnection = self.database.connect().await?;
        let rows = sqlx::query(
            "select user_id, currency, transactions, net_spend::text as net from user_totals where transactions > 0 \
             order by transactions desc, user_id, currency limit $1",
        )
        .bind(TOP_USERS)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        rows.into_iter()
            .map(|row| {
                Ok(TopUser {
                    user_id: row.try_get(0)?,
                    currency: row.try_get(1)?,
                    transactions: row.try_get(2)?,
                    net_spend: row.try_get(3)?,
                })
            })
            .collect()
    }

    /// Leaves the private server, which stops when nobody else uses it.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn release(self) -> anyhow::Result<()> {
        let Some(private) = self.private else { return Ok(()) };
        private.stop_watch.raise(Stage::Now);
        private.watch.await.context("the watch over PostgreSQL ended unexpectedly")?;
        private.cluster.leave().await?;
        Ok(())
    }
}
