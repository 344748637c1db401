//! How PostgreSQL may plan the statements of a session that reaches all its rows by their keys.

use sqlx::PgConnection;

/// A plan that was made when a table was empty, and is kept, would read that table from end to end when it is large. Whether
/// anybody analyzes the tables is not in our hand. Nor may the plan depend on how long the arrays are that name the rows: with
/// ten thousand names in hand the planner reads the whole table and compares each row with each name (5.8 s instead of 0.1 s).
const BY_KEY: &str = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; \
                      set enable_mergejoin = off; set jit = off; set plan_cache_mode = force_generic_plan";

/// Leaves PostgreSQL the plans by key, for the rest of the session.
///
/// # Errors
/// PostgreSQL's answer.
pub async fn plan_by_key(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(BY_KEY).execute(connection).await?;
    Ok(())
}
