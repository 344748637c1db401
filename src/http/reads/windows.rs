//! Windows of event time, per merchant category and per symbol, newest first.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;

use super::cursor::{Page, decoded};
use super::{ReadError, Reads, cell, time};

/// The key of a row in the order of the lists: the window's start in microseconds, the name, the currency.
type Key = (i64, String, String);

/// From when to when windows begin; open where none.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeRange {
    /// The first start.
    pub from: Option<DateTime<Utc>>,
    /// Behind the last start.
    pub to: Option<DateTime<Utc>>,
}

/// A row of `category_windows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CategoryWindowRow {
    /// Where it begins, in event time.
    #[schema(format = DateTime)]
    pub window_start: String,
    /// Where it ends.
    #[schema(format = DateTime)]
    pub window_end: String,
    /// Of the merchants.
    pub category: String,
    /// ISO 4217.
    #[schema(example = "USD")]
    pub currency: String,
    /// Purchases.
    pub purchases: i64,
    /// Decimal text.
    pub spend: String,
    /// Decimal text; null in a window that has refunds only.
    pub purchase_min: Option<String>,
    /// Decimal text; null in a window that has refunds only.
    pub purchase_max: Option<String>,
    /// Refunds.
    pub refunds: i64,
    /// Decimal text.
    pub refunded: String,
    /// Messages that came after the window had ended; they are counted.
    pub late: i64,
    /// How late the latest of them was.
    pub late_us_max: i64,
}

/// A row of `symbol_windows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SymbolWindowRow {
    /// Where it begins, in event time.
    #[schema(format = DateTime)]
    pub window_start: String,
    /// Where it ends.
    #[schema(format = DateTime)]
    pub window_end: String,
    /// Such as `AAPL`.
    pub symbol: String,
    /// ISO 4217.
    #[schema(example = "USD")]
    pub currency: String,
    /// Trades.
    pub trades: i64,
    /// Units, decimal text.
    pub quantity: String,
    /// Price times quantity, decimal text.
    pub notional: String,
    /// First price, decimal text.
    pub open: String,
    /// Highest price, decimal text.
    pub high: String,
    /// Lowest price, decimal text.
    pub low: String,
    /// Last price, decimal text.
    pub close: String,
    /// Price averaged by volume, decimal text; null without volume.
    pub vwap: Option<String>,
    /// Messages that came after the window had ended; they are counted.
    pub late: i64,
    /// How late the latest of them was.
    pub late_us_max: i64,
}

impl Reads {
    /// Purchases and refunds per window and merchant category.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn category_windows(
        &self,
        range: TimeRange,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Page<CategoryWindowRow>, ReadError> {
        let rows = self.windows(CATEGORY_WINDOWS, range, limit, after).await?;
        let keyed: Vec<(i64, CategoryWindowRow)> =
            rows.iter().map(category_window).collect::<Result<_, ReadError>>()?;
        let page = Page::cut(keyed, limit, |(start, row)| (*start, row.category.clone(), row.currency.clone()));
        Ok(Page { rows: page.rows.into_iter().map(|(_, row)| row).collect(), next: page.next })
    }

    /// Trades per window and symbol.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn symbol_windows(
        &self,
        range: TimeRange,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Page<SymbolWindowRow>, ReadError> {
        let rows = self.windows(SYMBOL_WINDOWS, range, limit, after).await?;
        let keyed: Vec<(i64, SymbolWindowRow)> = rows.iter().map(symbol_window).collect::<Result<_, ReadError>>()?;
        let page = Page::cut(keyed, limit, |(start, row)| (*start, row.symbol.clone(), row.currency.clone()));
        Ok(Page { rows: page.rows.into_iter().map(|(_, row)| row).collect(), next: page.next })
    }

    async fn windows(
        &self,
        sql: &'static str,
        range: TimeRange,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Vec<PgRow>, ReadError> {
        let after: Option<Key> = decoded(cursor)?;
        let start = after.as_ref().map(|key| DateTime::from_timestamp_micros(key.0));
        // A time that no calendar has is of no window of ours.
        let unknown = || ReadError::Cursor(cursor.unwrap_or_default().to_owned());
        let start = start.map(|start| start.ok_or_else(unknown)).transpose()?;
        let (name, currency) = after.map_or((None, None), |(_, name, currency)| (Some(name), Some(currency)));
        let question = sqlx::query(sql).bind(range.from).bind(range.to);
        let question = question.bind(start).bind(name).bind(currency).bind(i64::from(limit) + 1);
        self.pool.rows(question).await
    }
}

const CATEGORY_WINDOWS: &str = "
    select window_start, window_end, category, currency, purchases, spend::text, purchase_min::text, purchase_max::text,
           refunds, refunded::text, late, (extract(epoch from late_by_max) * 1000000)::bigint
    from category_windows
    where window_start >= coalesce($1::timestamptz, '-infinity')
      and window_start < coalesce($2::timestamptz, 'infinity')
      and window_start <= coalesce($3::timestamptz, 'infinity')
      and ($3 is null or window_start < $3 or (category, currency) > ($4::text collate \"C\", $5::text collate \"C\"))
    order by window_start desc, category, currency
    limit $6";

const SYMBOL_WINDOWS: &str = "
    select window_start, window_end, symbol, currency, trades, quantity::text, notional::text, open::text, high::text,
           low::text, close::text, vwap::text, late, (extract(epoch from late_by_max) * 1000000)::bigint
    from symbol_windows
    where window_start >= coalesce($1::timestamptz, '-infinity')
      and window_start < coalesce($2::timestamptz, 'infinity')
      and window_start <= coalesce($3::timestamptz, 'infinity')
      and ($3 is null or window_start < $3 or (symbol, currency) > ($4::text collate \"C\", $5::text collate \"C\"))
    order by window_start desc, symbol, currency
    limit $6";

fn start_us(row: &PgRow) -> Result<i64, ReadError> {
    cell::<DateTime<Utc>>(row, 0).map(|start| start.timestamp_micros())
}

fn category_window(row: &PgRow) -> Result<(i64, CategoryWindowRow), ReadError> {
    let window = CategoryWindowRow {
        window_start: time(row, 0)?,
        window_end: time(row, 1)?,
        category: cell(row, 2)?,
        currency: cell(row, 3)?,
        purchases: cell(row, 4)?,
        spend: cell(row, 5)?,
        purchase_min: cell(row, 6)?,
        purchase_max: cell(row, 7)?,
        refunds: cell(row, 8)?,
        refunded: cell(row, 9)?,
        late: cell(row, 10)?,
        late_us_max: cell(row, 11)?,
    };
    Ok((start_us(row)?, window))
}

fn symbol_window(row: &PgRow) -> Result<(i64, SymbolWindowRow), ReadError> {
    let window = SymbolWindowRow {
        window_start: time(row, 0)?,
        window_end: time(row, 1)?,
        symbol: cell(row, 2)?,
        currency: cell(row, 3)?,
        trades: cell(row, 4)?,
        quantity: cell(row, 5)?,
        notional: cell(row, 6)?,
        open: cell(row, 7)?,
        high: cell(row, 8)?,
        low: cell(row, 9)?,
        close: cell(row, 10)?,
        vwap: cell(row, 11)?,
        late: cell(row, 12)?,
        late_us_max: cell(row, 13)?,
    };
    Ok((start_us(row)?, window))
}
