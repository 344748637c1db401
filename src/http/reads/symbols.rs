//! Totals per symbol and currency.

use serde::Serialize;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;

use super::cursor::{Page, decoded};
use super::{ReadError, Reads, TOP_SYMBOLS_SQL, cell, time};

/// The key of a row in the order of the list.
type Key = (i64, String, String);

/// A row of `symbol_totals`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SymbolRow {
    /// Such as `AAPL`.
    pub symbol: String,
    /// ISO 4217.
    #[schema(example = "USD")]
    pub currency: String,
    /// Trades.
    pub trades: i64,
    /// Units, decimal text.
    #[schema(example = "1200")]
    pub quantity: String,
    /// Price times quantity, decimal text.
    pub notional: String,
    /// Of the latest trade by event time, decimal text.
    pub last_price: String,
    /// That trade's time.
    #[schema(format = DateTime)]
    pub last_event: String,
}

/// A row of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TopSymbol {
    /// Such as `AAPL`.
    pub symbol: String,
    /// Trades.
    pub trades: i64,
    /// Units, decimal text.
    pub quantity: String,
    /// Decimal text.
    pub notional: String,
    /// Decimal text.
    pub last_price: String,
    /// ISO 4217.
    pub currency: String,
}

/// What [`symbol`] reads.
macro_rules! rows {
    () => {
        "select symbol, currency, trades, quantity::text, notional::text, last_price::text, last_event
         from symbol_totals "
    };
}

fn symbol(row: &PgRow) -> Result<SymbolRow, ReadError> {
    Ok(SymbolRow {
        symbol: cell(row, 0)?,
        currency: cell(row, 1)?,
        trades: cell(row, 2)?,
        quantity: cell(row, 3)?,
        notional: cell(row, 4)?,
        last_price: cell(row, 5)?,
        last_event: time(row, 6)?,
    })
}

impl Reads {
    /// Symbols by their number of trades, most first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn symbols(&self, limit: u32, after: Option<&str>) -> Result<Page<SymbolRow>, ReadError> {
        let after: Option<Key> = decoded(after)?;
        let (trades, name, currency) = after.map_or((None, None, None), |(a, b, c)| (Some(a), Some(b), Some(c)));
        let question = sqlx::query(concat!(
            rows!(),
            "where $1::bigint is null
                or trades < $1
                or trades = $1 and (symbol, currency) > ($2::text collate \"C\", $3::text collate \"C\")
             order by trades desc, symbol, currency
             limit $4"
        ));
        let question = question.bind(trades).bind(name).bind(currency).bind(i64::from(limit) + 1);
        let rows = self.pool.rows(question).await?.iter().map(symbol).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(rows, limit, |row| (row.trades, row.symbol.clone(), row.currency.clone())))
    }

    /// One symbol, a row a currency.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn symbol(&self, name: &str) -> Result<Vec<SymbolRow>, ReadError> {
        let question = sqlx::query(concat!(
            rows!(),
            "where symbol = $1
             order by currency"
        ));
        self.pool.rows(question.bind(name)).await?.iter().map(symbol).collect()
    }

    /// The snapshot's table.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn top_symbols(&self) -> Result<Vec<TopSymbol>, ReadError> {
        let sql = format!(
            "select symbol, currency, trades, quantity::text, notional::text, last_price::text \
             from ({TOP_SYMBOLS_SQL}) as top"
        );
        let rows = self.pool.rows(sqlx::query(sqlx::AssertSqlSafe(sql))).await?;
        let row = |row: &PgRow| {
            Ok(TopSymbol {
                symbol: cell(row, 0)?,
                currency: cell(row, 1)?,
                trades: cell(row, 2)?,
                quantity: cell(row, 3)?,
                notional: cell(row, 4)?,
                last_price: cell(row, 5)?,
            })
        };
        rows.iter().map(row).collect()
    }
}
