//! How PostgreSQL may plan the statements of a session that reaches all its rows by their keys.

use sqlx::PgConnection;

/// A plan that was made when a table was empty, and is kept, would read that table from end to end when it is large. Whether
/// anybody analyzes the tables is not in our hand.
const BY_KEY: &str = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; \
                      set enable_mergejoin = off; set jit = off";

/// Leaves PostgreSQL the plans by key, for the rest of the session.
///
/// # Errors
/// PostgreSQL's answer.
pub async fn plan_by_key(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(BY_KEY).execute(connection).await?;
    Ok(())
}
