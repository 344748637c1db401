//! The JSON API: what each path answers, and what it may be asked for.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Json, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::events;
use super::known::Audits;
use super::problem::Problem;
use super::reads::{
    CategoryWindowRow, DeadLetterRow, Page, PartitionRow, ReadError, Reads, SymbolRow, SymbolWindowRow, TimeRange,
    UserRow,
};
use super::routes::HttpState;
use super::snapshot::{PartitionView, Snapshot};
use super::status::{StageStatus, Status};

/// Rows of a page, at most.
const LIMIT_MAX: u32 = 1_000;
/// Rows of a page without `limit`.
const LIMIT_DEFAULT: u32 = 100;
/// Characters of an id or a symbol, at most: longer ones are not stored.
const NAME_CHARS_MAX: usize = 64;

/// What an answer may be, besides what was asked for.
type Answer<T> = Result<Fresh<T>, Problem>;

/// JSON that no cache keeps.
pub struct Fresh<T>(T);

impl<T: Serialize> IntoResponse for Fresh<T> {
    fn into_response(self) -> Response {
        ([(CACHE_CONTROL, "no-store")], Json(self.0)).into_response()
    }
}

/// A part of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Rows, at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// The rows behind this cursor: `next` of the page before.
    #[param(pattern = "^([0-9a-f]{2})+$")]
    after: Option<String>,
}

/// A part of the users.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct UsersQuery {
    /// In which order.
    #[param(inline)]
    #[serde(default)]
    sort: UsersSort,
    /// Rows, at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// The rows behind this cursor: `next` of the page before, of the same order.
    #[param(pattern = "^([0-9a-f]{2})+$")]
    after: Option<String>,
}

/// An order of users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum UsersSort {
    /// Most transactions first.
    #[default]
    Transactions,
    /// By name, which does not change: every user is met once, whatever comes meanwhile.
    UserId,
}

/// A part of the windows.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WindowsQuery {
    /// Which windows.
    #[param(inline)]
    #[serde(default)]
    by: WindowKind,
    /// Windows that begin at this time of the events or later; RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<String>,
    /// Windows that begin before this time; RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<String>,
    /// Rows, at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// The rows behind this cursor: `next` of the page before.
    #[param(pattern = "^([0-9a-f]{2})+$")]
    after: Option<String>,
}

/// Of what a window is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum WindowKind {
    /// Purchases and refunds of a merchant category.
    #[default]
    Category,
    /// Trades of a symbol.
    Symbol,
}

/// Latencies, stage by stage.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Stages {
    /// Since the start of this process.
    pub since_start: Vec<StageStatus>,
    /// Of the last 10 s.
    pub recent: Vec<StageStatus>,
}

/// Partitions: what the consumer of this process knows, and what PostgreSQL says.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Partitions {
    /// Those that the consumer of this process owns.
    pub owned: Vec<PartitionView>,
    /// All, by whoever owns them.
    pub applied: Vec<PartitionRow>,
}

/// A user's totals.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct User {
    /// Whose.
    pub user_id: String,
    /// A row a currency.
    pub totals: Vec<UserRow>,
}

/// A symbol's totals.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Symbol {
    /// Which.
    pub symbol: String,
    /// A row a currency.
    pub totals: Vec<SymbolRow>,
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct List<Row> {
    /// In the list's order.
    pub rows: Vec<Row>,
    /// `after` of the next page; null behind the last row.
    pub next: Option<String>,
}

/// A page of windows, of the kind that was asked for. `by` tells the kinds of an empty page apart.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Windows {
    /// Purchases and refunds per merchant category.
    Category(List<CategoryWindowRow>),
    /// Trades per symbol.
    Symbol(List<SymbolWindowRow>),
}

impl<Row> From<Page<Row>> for List<Row> {
    fn from(page: Page<Row>) -> List<Row> {
        List { rows: page.rows, next: page.next }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Problem {
        match error {
            ReadError::Away(_) | ReadError::Slow(_) => Problem::unavailable(error.to_string()),
            ReadError::Cursor(_) => Problem::bad_request(error.to_string()),
            ReadError::Refused(_) => Problem::defect(error.to_string()),
        }
    }
}

/// What this process has done so far.
#[utoipa::path(get, path = "/api/v1/status", tag = "process", responses((status = 200, body = Status)))]
pub async fn status(State(state): State<HttpState>) -> Fresh<Status> {
    Fresh(state.status())
}

/// Everything that the page shows, with 15 minutes of history. Made once a second for all who ask.
#[utoipa::path(get, path = "/api/v1/snapshot", tag = "process", responses(
    (status = 200, body = Snapshot),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub async fn snapshot(State(state): State<HttpState>) -> Result<Response, Problem> {
    state.tables.looked();
    let whole = state.live.whole().ok_or_else(|| Problem::unavailable("the first second is not over yet"))?;
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], whole).into_response())
}

/// The same once a second as server-sent events named `snapshot`; `history` has the newest column only.
#[utoipa::path(get, path = "/api/v1/events", tag = "process", responses(
    (status = 200, body = String, content_type = "text/event-stream"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub async fn events(State(state): State<HttpState>) -> Response {
    events::follow(&state.live, state.tables.clone(), &state.viewers, state.shutdown.clone())
}

/// Latencies of this process, stage by stage, in microseconds.
#[utoipa::path(get, path = "/api/v1/stages", tag = "process", responses((status = 200, body = Stages)))]
pub async fn stages(State(state): State<HttpState>) -> Fresh<Stages> {
    Fresh(Stages { since_start: state.status().stages, recent: state.live.recent_stages() })
}

/// How far each partition is read and applied.
#[utoipa::path(get, path = "/api/v1/partitions", tag = "process", responses(
    (status = 200, body = Partitions),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub async fn partitions(State(state): State<HttpState>) -> Answer<Partitions> {
    let applied = reads(&state)?.partitions().await?;
    let owned = state.progress.seen.partitions().unwrap_or_default();
    Ok(Fresh(Partitions { owned: owned.into_iter().map(PartitionView::owned).collect(), applied }))
}

/// Users by their number of transactions, most first. For the whole list ask with `sort=user_id`: in the other order a user who
/// has grown past the place where a page ended is not on the next one.
#[utoipa::path(get, path = "/api/v1/users", tag = "totals", params(UsersQuery), responses(
    (status = 200, body = List<UserRow>),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub async fn users(
    State(state): State<HttpState>,
    query: Result<Query<UsersQuery>, QueryRejection>,
) -> Answer<List<UserRow>> {
    let Query(query) = query?;
    let (limit, after) = (checked_limit(query.limit)?, query.after.as_deref());
    let reads = reads(&state)?;
    let page = match query.sort {
        UsersSort::Transactions => reads.users(limit, after).await?,
        UsersSort::UserId => reads.users_by_name(limit, after).await?,
    };
    Ok(Fresh(page.into()))
}

/// The exact totals of one user, a row a currency.
#[utoipa::path(get, path = "/api/v1/users/{id}", tag = "totals", params(
    ("id" = String, Path, description = "Whose.", min_length = 1, max_length = 64, pattern = "^[^\\x00]+$")), responses(
    (status = 200, body = User),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub async fn user(State(state): State<HttpState>, id: Result<Path<String>, PathRejection>) -> Answer<User> {
    let Path(user_id) = id?;
    check_name("user", &user_id)?;
    let totals = reads(&state)?.user(&user_id).await?;
    if totals.is_empty() {
        return Err(Problem::not_found(format!("no transaction of user {user_id:?} is stored")));
    }
    Ok(Fresh(User { user_id, totals }))
}

/// Symbols by their number of trades, most first. One that has grown past the place where a page ended is not on the next one.
#[utoipa::path(get, path = "/api/v1/symbols", tag = "totals", params(PageQuery), responses(
    (status = 200, body = List<SymbolRow>),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub async fn symbols(
    State(state): State<HttpState>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer<List<SymbolRow>> {
    let Query(query) = query?;
    let limit = checked_limit(query.limit)?;
    Ok(Fresh(reads(&state)?.symbols(limit, query.after.as_deref()).await?.into()))
}

/// The exact totals of one symbol, a row a currency.
#[utoipa::path(get, path = "/api/v1/symbols/{symbol}", tag = "totals",
params(
    ("symbol" = String, Path, description = "Such as `AAPL`.", min_length = 1, max_length = 64, pattern = "^[^\\x00]+$")),
    responses(
    (status = 200, body = Symbol),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub async fn symbol(State(state): State<HttpState>, name: Result<Path<String>, PathRejection>) -> Answer<Symbol> {
    let Path(symbol) = name?;
    check_name("symbol", &symbol)?;
    let totals = reads(&state)?.symbol(&symbol).await?;
    if totals.is_empty() {
        return Err(Problem::not_found(format!("no trade of {symbol:?} is stored")));
    }
    Ok(Fresh(Symbol { symbol, totals }))
}

/// Windows of event time, newest first.
#[utoipa::path(get, path = "/api/v1/windows", tag = "totals", params(WindowsQuery), responses(
    (status = 200, body = Windows),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub async fn windows(
    State(state): State<HttpState>,
    query: Result<Query<WindowsQuery>, QueryRejection>,
) -> Answer<Windows> {
    let Query(query) = query?;
    let limit = checked_limit(query.limit)?;
    let range = TimeRange {
        from: query.from.as_deref().map(|text| checked_time("from", text)).transpose()?,
        to: query.to.as_deref().map(|text| checked_time("to", text)).transpose()?,
    };
    let (reads, after) = (reads(&state)?, query.after.as_deref());
    Ok(Fresh(match query.by {
        WindowKind::Category => Windows::Category(reads.category_windows(range, limit, after).await?.into()),
        WindowKind::Symbol => Windows::Symbol(reads.symbol_windows(range, limit, after).await?.into()),
    }))
}

/// Messages that could not be stored, in the order of the log.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "books", params(PageQuery), responses(
    (status = 200, body = List<DeadLetterRow>),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub async fn dead_letters(
    State(state): State<HttpState>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer<List<DeadLetterRow>> {
    let Query(query) = query?;
    let limit = checked_limit(query.limit)?;
    Ok(Fresh(reads(&state)?.dead_letters(limit, query.after.as_deref()).await?.into()))
}

/// How the last audit ended, as far as this process knows. None is made for it: `finstream verify` does.
#[utoipa::path(get, path = "/api/v1/audit", tag = "books", responses((status = 200, body = Audits)))]
pub async fn audit(State(state): State<HttpState>) -> Fresh<Audits> {
    Fresh(state.known.audits())
}

fn reads(state: &HttpState) -> Result<&Reads, Problem> {
    state.known.reads().ok_or_else(|| {
        Problem::unavailable(match state.about.roles.contains(&"consumer") {
            true => "PostgreSQL is not ready yet",
            false => "no consumer runs in this process, so PostgreSQL is not known here; ask the consumer's process",
        })
    })
}

fn checked_limit(limit: Option<u32>) -> Result<u32, Problem> {
    match limit.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        limit => Err(Problem::bad_request(format!("limit={limit}: a number from 1 to {LIMIT_MAX} is needed"))),
    }
}

fn checked_time(name: &str, text: &str) -> Result<DateTime<Utc>, Problem> {
    // PostgreSQL's calendar begins before ours ends: years of four digits fit both.
    let parsed = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc));
    parsed.map_err(|error| {
        let what = format!("{name}={text:?}: {error}; a time looks like 2026-11-30T12:00:00Z (a + in it is %2B)");
        Problem::bad_request(what)
    })
}

fn check_name(kind: &str, name: &str) -> Result<(), Problem> {
    if name.chars().count() > NAME_CHARS_MAX || name.contains('\0') {
        let what = format!("{kind} {name:?} cannot be: at most {NAME_CHARS_MAX} characters, and none is U+0000");
        return Err(Problem::bad_request(what));
    }
    Ok(())
}
