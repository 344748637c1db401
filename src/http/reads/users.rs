//! Totals per user and currency.

use serde::Serialize;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;

use super::cursor::{Page, decoded};
use super::{ReadError, Reads, TOP_USERS_SQL, cell, time};

/// The key of a row in the order of the list.
type Key = (i64, String, String);

/// A row of `user_totals`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UserRow {
    /// Whose.
    pub user_id: String,
    /// ISO 4217.
    #[schema(example = "USD")]
    pub currency: String,
    /// Purchases, refunds and declined attempts.
    pub transactions: i64,
    /// Purchases.
    pub purchases: i64,
    /// Decimal text.
    #[schema(example = "125.50")]
    pub spend: String,
    /// Refunds.
    pub refunds: i64,
    /// Decimal text.
    pub refunded: String,
    /// Decimal text: spend less refunded.
    pub net_spend: String,
    /// Trades; they are never part of the spend.
    pub trades: i64,
    /// Decimal text.
    pub traded: String,
    /// The earliest event's time.
    #[schema(format = DateTime)]
    pub first_event: String,
    /// The latest event's time.
    #[schema(format = DateTime)]
    pub last_event: String,
    /// Attempts that the issuer declined; they move no money.
    pub declines: i64,
}

/// A row of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TopUser {
    /// Whose.
    pub user_id: String,
    /// Purchases, refunds and declined attempts.
    pub transactions: i64,
    /// Decimal text.
    pub spend: String,
    /// ISO 4217.
    pub currency: String,
}

/// What [`user`] reads.
macro_rules! rows {
    () => {
        "select user_id, currency, transactions, purchases, spend::text, refunds, refunded::text, net_spend::text,
                trades, traded::text, first_event, last_event, declines
         from user_totals "
    };
}

fn user(row: &PgRow) -> Result<UserRow, ReadError> {
    Ok(UserRow {
        user_id: cell(row, 0)?,
        currency: cell(row, 1)?,
        transactions: cell(row, 2)?,
        purchases: cell(row, 3)?,
        spend: cell(row, 4)?,
        refunds: cell(row, 5)?,
        refunded: cell(row, 6)?,
        net_spend: cell(row, 7)?,
        trades: cell(row, 8)?,
        traded: cell(row, 9)?,
        first_event: time(row, 10)?,
        last_event: time(row, 11)?,
        declines: cell(row, 12)?,
    })
}

impl Reads {
    /// Users by their number of transactions, most first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn users(&self, limit: u32, after: Option<&str>) -> Result<Page<UserRow>, ReadError> {
        let after: Option<Key> = decoded(after)?;
        let (transactions, user_id, currency) =
            after.map_or((None, None, None), |(a, b, c)| (Some(a), Some(b), Some(c)));
        let question = sqlx::query(concat!(
            rows!(),
            "where $1::bigint is null
                or transactions < $1
                or transactions = $1 and (user_id, currency) > ($2::text collate \"C\", $3::text collate \"C\")
             order by transactions desc, user_id, currency
             limit $4"
        ));
        let question = question.bind(transactions).bind(user_id).bind(currency).bind(i64::from(limit) + 1);
        let rows = self.pool.rows(question).await?.iter().map(user).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(rows, limit, |row| (row.transactions, row.user_id.clone(), row.currency.clone())))
    }

    /// Users by their names.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn users_by_name(&self, limit: u32, after: Option<&str>) -> Result<Page<UserRow>, ReadError> {
        let after: Option<(String, String)> = decoded(after)?;
        let (user_id, currency) = after.map_or((None, None), |(user_id, currency)| (Some(user_id), Some(currency)));
        let question = sqlx::query(concat!(
            rows!(),
            "where $1::text is null or (user_id, currency) > ($1::text collate \"C\", $2::text collate \"C\")
             order by user_id, currency
             limit $3"
        ));
        let question = question.bind(user_id).bind(currency).bind(i64::from(limit) + 1);
        let rows = self.pool.rows(question).await?.iter().map(user).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(rows, limit, |row| (row.user_id.clone(), row.currency.clone())))
    }

    /// One user, a row a currency.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn user(&self, user_id: &str) -> Result<Vec<UserRow>, ReadError> {
        let question = sqlx::query(concat!(
            rows!(),
            "where user_id = $1
             order by currency"
        ));
        self.pool.rows(question.bind(user_id)).await?.iter().map(user).collect()
    }

    /// The snapshot's table.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn top_users(&self) -> Result<Vec<TopUser>, ReadError> {
        // A sum may have more digits than any decimal type but PostgreSQL's: as text.
        let sql = format!("select user_id, currency, transactions, spend::text from ({TOP_USERS_SQL}) as top");
        let rows = self.pool.rows(sqlx::query(sqlx::AssertSqlSafe(sql))).await?;
        let row = |row: &PgRow| {
            let (user_id, currency) = (cell(row, 0)?, cell(row, 1)?);
            Ok(TopUser { user_id, currency, transactions: cell(row, 2)?, spend: cell(row, 3)? })
        };
        rows.iter().map(row).collect()
    }
}
