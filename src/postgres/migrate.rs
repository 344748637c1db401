//! Migrations: refinery over sqlx's connection, in one transaction, under an advisory lock.

use std::io;

use refinery_core::traits::r#async::{AsyncQuery, AsyncTransaction};
use refinery_core::{AsyncMigrate, Migration, Runner};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::database::{execute, is_passing};
use super::session::check_schema;
use super::{Database, PostgresError};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Identifies our advisory locks among those of others ("fins").
const LOCK_CLASS: i32 = 0x66_69_6e_73;
/// How long a second process waits for the one that migrates.
const LOCK_PATIENCE_MS: u32 = 60_000;

/// What is done where the schema is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made.
    Create,
    /// Whoever asks a question has misspelt it, or the database. In a private one where nothing was stored yet it is made.
    Refuse,
}

/// Applies what is missing: all or nothing.
pub(super) async fn run(
    connection: &mut PgConnection,
    database: &Database,
    missing: Missing,
) -> Result<(), PostgresError> {
    // Settings and lock end with the transaction, so that a connection that is lent to others carries none of them.
    let mut transaction = connection.begin().await?;
    migrate(&mut transaction, database, missing).await?;
    transaction.commit().await?;
    Ok(())
}

async fn migrate(connection: &mut PgConnection, database: &Database, missing: Missing) -> Result<(), PostgresError> {
    let schema = &database.schema;
    // refinery itself takes no lock; advisory locks obey lock_timeout.
    execute(
        connection,
        &format!("set local lock_timeout = {LOCK_PATIENCE_MS}; set local client_min_messages = warning"),
    )
    .await?;
    execute(connection, &format!("select pg_advisory_xact_lock({LOCK_CLASS}, hashtext('{schema}'))")).await.map_err(
        |error| {
            database.schema_error(format!(
                "is being migrated by another finstream that does not finish ({error}); try again"
            ))
        },
    )?;
    let (exists,): (bool,) =
        sqlx::query_as("select to_regnamespace($1) is not null").bind(schema).fetch_one(&mut *connection).await?;
    if !exists && missing == Missing::Refuse {
        refuse_misspelt(connection, database).await?;
    }
    if !exists {
        // Asked first: a user without the right to create schemas may be given one.
        execute(connection, &format!("create schema {schema}")).await.map_err(|error| {
            database.schema_error(format!(
                "cannot be created ({error}); ask its owner for: create schema {schema} authorization USER"
            ))
        })?;
    }
    check_schema(connection, schema).await.map_err(|error| database.unusable(error))?;
    let runner = embedded::migrations::runner();
    refuse_newer(connection, database, &runner).await?;
    let applied = runner.run_async(&mut Migrator(&mut *connection)).await;
    applied.map_err(|error| explain(database, &error))?;
    Ok(())
}

/// There are other schemas of finstream's in this database, and not this one.
async fn refuse_misspelt(connection: &mut PgConnection, database: &Database) -> Result<(), PostgresError> {
    let there: Vec<(String,)> = sqlx::query_as(
        "select nspname::text from pg_namespace join pg_class on relnamespace = pg_namespace.oid \
         where relname = 'partition_offsets' and relkind in ('r', 'p') order by nspname limit 10",
    )
    .fetch_all(&mut *connection)
    .await?;
    if there.is_empty() {
        return match database.is_private {
            true => Ok(()),
            false => Err(database
                .schema_error("is not there, and finstream has no other there: is it this database?".to_owned())),
        };
    }
    let names: Vec<String> = there.into_iter().map(|(name,)| name).collect();
    Err(database
        .schema_error(format!("is not there; finstream has there: {}. Name one with --db-schema", names.join(", "))))
}

/// A schema that a newer finstream has migrated holds what we do not know.
async fn refuse_newer(
    connection: &mut PgConnection,
    database: &Database,
    runner: &Runner,
) -> Result<(), PostgresError> {
    let history = format!("{}.refinery_schema_history", database.schema);
    let (exists,): (bool,) =
        sqlx::query_as("select to_regclass($1) is not null").bind(&history).fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(());
    }
    let newest: (Option<i32>,) =
        sqlx::query_as("select max(version) from refinery_schema_history").fetch_one(&mut *connection).await?;
    let known = runner.get_migrations().iter().map(|migration| i64::from(migration.version())).max().unwrap_or(0);
    match newest.0 {
        Some(newest) if i64::from(newest) > known => Err(database.schema_error(format!(
            "was migrated to version {newest} by a newer finstream, this one knows {known}; use the newer finstream, or another --db-schema"
        ))),
        _ => Ok(()),
    }
}

fn explain(database: &Database, error: &refinery_core::Error) -> PostgresError {
    use refinery_core::error::Kind;
    match error.kind() {
        Kind::DivergentVersion(applied, _) | Kind::MissingVersion(applied) => database.schema_error(format!(
            "was made by another build of finstream (its migration {applied} differs); use that build, or another --db-schema"
        )),
        _ => {
            let mut reason = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                if cause.downcast_ref::<sqlx::Error>().is_some_and(is_passing) {
                    let lost = io::Error::new(io::ErrorKind::ConnectionReset, cause.to_string());
                    return PostgresError::Sql(sqlx::Error::Io(lost));
                }
                reason = format!("{reason}: {cause}");
                source = cause.source();
            }
            database.schema_error(format!("cannot be migrated: {reason}"))
        }
    }
}

/// refinery's view of a connection.
struct Migrator<'c>(&'c mut PgConnection);

impl AsyncTransaction for Migrator<'_> {
    type Error = sqlx::Error;

    /// All of the queries or none of them, each by the simple protocol: a migration holds several statements.
    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, sqlx::Error> {
        let queries: Vec<String> = queries.map(str::to_owned).collect();
        let mut transaction = self.0.begin().await?;
        let mut count = 0;
        for query in queries {
            execute(&mut transaction, &query).await?;
            count += 1;
        }
        transaction.commit().await?;
        Ok(count)
    }
}

impl AsyncQuery<Vec<Migration>> for Migrator<'_> {
    async fn query<'a>(&'a mut self, query: &'a str) -> Result<Vec<Migration>, sqlx::Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&mut *self.0).await?;
        rows.iter().map(migration).collect()
    }
}

impl AsyncMigrate for Migrator<'_> {}

/// One row of refinery's history.
fn migration(row: &sqlx::postgres::PgRow) -> Result<Migration, sqlx::Error> {
    let damaged = |what: &str| sqlx::Error::Protocol(format!("refinery_schema_history holds a damaged {what}"));
    let applied_on: String = row.try_get("applied_on")?;
    let applied_on = chrono::DateTime::parse_from_rfc3339(&applied_on).map_err(|_| damaged("applied_on"))?;
    let checksum: String = row.try_get("checksum")?;
    let checksum = checksum.parse().map_err(|_| damaged("checksum"))?;
    let version: i32 = row.try_get("version")?;
    let applied_on: std::time::SystemTime = applied_on.into();
    Ok(Migration::applied(version, row.try_get("name")?, applied_on.into(), checksum))
}
