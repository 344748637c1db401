//! The routes, and the server that answers them.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::events::Viewers;
use super::known::{About, Known};
use super::limit::{LimitedListener, LimitedStream, Limits};
use super::live::{Live, STEP, Sampler};
use super::problem::Problem;
use super::readiness::Readiness;
use super::status::Status;
use super::tables::Tables;
use super::{api, openapi, recorder};
use crate::clock::{SharedClock, SystemClock};
use crate::progress::Progress;
use crate::shutdown::{self, Shutdown, Stage};

/// How long open connections may finish after the stop was asked for.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// What Prometheus calls its text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page may load from this server only: it works offline, and no foreign script can read the figures.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                           frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What the routes read.
#[derive(Clone)]
pub struct HttpState {
    pub(super) progress: Arc<Progress>,
    metrics: PrometheusHandle,
    readiness: Readiness,
    opened: Instant,
    clock: SharedClock,
    pub(super) about: Arc<About>,
    pub(super) known: Known,
    pub(super) tables: Arc<Tables>,
    pub(super) live: Arc<Live>,
    pub(super) viewers: Arc<Viewers>,
    pub(super) shutdown: Shutdown,
}

impl HttpState {
    /// Of a process that tells nothing of itself. The uptime counts from here.
    pub fn new(progress: Arc<Progress>, metrics: PrometheusHandle, readiness: Readiness) -> Self {
        Self::about(About::default(), progress, metrics, readiness, SystemClock::shared(), Known::default())
    }

    /// Of a process with these roles; what it learns later comes through `known`.
    pub fn about(
        about: About,
        progress: Arc<Progress>,
        metrics: PrometheusHandle,
        readiness: Readiness,
        clock: SharedClock,
        known: Known,
    ) -> Self {
        HttpState {
            progress,
            metrics,
            readiness,
            opened: Instant::now(),
            clock,
            tables: Arc::new(Tables::new(&about)),
            about: Arc::new(about),
            known,
            live: Arc::default(),
            viewers: Arc::new(Viewers::new(Limits::default().viewers_max)),
            // Until it is served.
            shutdown: shutdown::channel().1,
        }
    }

    /// What this process has done so far.
    pub(super) fn status(&self) -> Status {
        Status::read(&self.progress, &self.readiness, self.opened.elapsed())
    }

    /// Samples, reads tables and keeps the recorder, until it is dropped.
    async fn keep(self) {
        let sampler = Sampler {
            progress: Arc::clone(&self.progress),
            readiness: self.readiness.clone(),
            about: Arc::clone(&self.about),
            known: self.known.clone(),
            opened: self.opened,
            clock: Arc::clone(&self.clock),
            tables: Arc::clone(&self.tables),
            step: STEP,
        };
        tokio::join!(
            sampler.run(&self.live),
            self.tables.keep(&self.known, &self.clock),
            recorder::keep(&self.metrics)
        );
    }
}

/// Answers requests until `shutdown` asks for a drain, then gives open connections half a second.
///
/// Whoever wants the windows to stay open while the roles drain hands in a signal of their own.
///
/// # Errors
/// None today; a listener that fails is tried again.
pub async fn serve(listener: TcpListener, state: HttpState, shutdown: Shutdown) -> io::Result<()> {
    serve_with(listener, state, shutdown, Limits::default()).await
}

/// As `serve`, with limits of one's own.
///
/// # Errors
/// As `serve`.
pub async fn serve_with(
    listener: TcpListener,
    mut state: HttpState,
    mut shutdown: Shutdown,
    limits: Limits,
) -> io::Result<()> {
    let listener = LimitedListener::new(listener, limits);
    state.shutdown = shutdown.clone();
    state.viewers = Arc::new(Viewers::new(limits.viewers_max));
    // Ends with the set.
    let mut keeping = JoinSet::new();
    keeping.spawn(state.clone().keep());
    // A server that only this machine reaches is asked by its name, or by its address: a page from elsewhere whose name was
    // pointed at this machine would read the figures otherwise.
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let router = match is_local {
        true => router(state).layer(middleware::from_fn(only_local_names)),
        false => router(state),
    };
    let service = TowerToHyperService::new(router);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.reached(Stage::Drain) => break,
            Some(_) = connections.join_next() => {}
            stream = listener.accept() => {
                let served = serve_one(stream, service.clone(), shutdown.clone(), limits);
                connections.spawn(served);
            }
        }
    }
    drop(listener);
    // A client that never finishes reading must not hold up the stop: what is left then is cut.
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(STOP_GRACE, all).await;
    Ok(())
}

async fn serve_one(
    stream: LimitedStream,
    service: TowerToHyperService<Router>,
    mut shutdown: Shutdown,
    limits: Limits,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.reached(Stage::Drain) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Clients come and go.
    if let Err(error) = served {
        tracing::debug!("HTTP connection closed: {error}");
    }
}

fn router(state: HttpState) -> Router {
    Router::new()
        .route("/", get(|| async { asset("text/html; charset=utf-8", include_str!("page/index.html")) }))
        .route("/page.css", get(|| async { asset("text/css; charset=utf-8", include_str!("page/page.css")) }))
        .route("/page.js", get(|| async { script(include_str!("page/page.js")) }))
        .route("/page/chart.js", get(|| async { script(include_str!("page/chart.js")) }))
        .route("/page/dom.js", get(|| async { script(include_str!("page/dom.js")) }))
        .route("/page/format.js", get(|| async { script(include_str!("page/format.js")) }))
        .route("/page/heat.js", get(|| async { script(include_str!("page/heat.js")) }))
        .route("/page/history.js", get(|| async { script(include_str!("page/history.js")) }))
        .route("/page/model.js", get(|| async { script(include_str!("page/model.js")) }))
        .route("/page/overview.js", get(|| async { script(include_str!("page/overview.js")) }))
        .route("/page/stages.js", get(|| async { script(include_str!("page/stages.js")) }))
        .route("/page/tables.js", get(|| async { script(include_str!("page/tables.js")) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/docs", get(openapi::to_docs))
        .route("/docs/", get(openapi::docs))
        .route("/docs/{file}", get(openapi::docs_file))
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/snapshot", get(api::snapshot))
        .route("/api/v1/events", get(api::events))
        .route("/api/v1/stages", get(api::stages))
        .route("/api/v1/partitions", get(api::partitions))
        .route("/api/v1/users", get(api::users))
        .route("/api/v1/users/{id}", get(api::user))
        .route("/api/v1/symbols", get(api::symbols))
        .route("/api/v1/symbols/{symbol}", get(api::symbol))
        .route("/api/v1/windows", get(api::windows))
        .route("/api/v1/dead-letters", get(api::dead_letters))
        .route("/api/v1/audit", get(api::audit))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(state)
}

async fn only_local_names(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    // HTTP/1.0 has no names.
    if host.is_empty() || is_address || name.eq_ignore_ascii_case("localhost") {
        return next.run(request).await;
    }
    Problem::misdirected(host).into_response()
}

/// 200 when every role of this process is ready, else 503 with what each one waits for.
async fn readyz(State(state): State<HttpState>) -> Response {
    let ready = state.readiness.is_ready();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": ready, "waiting_for": state.readiness.waiting_for() });
    (code, fresh(), Json(body)).into_response()
}

async fn metrics(State(state): State<HttpState>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], fresh(), state.metrics.render()).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::not_allowed(method.as_str(), uri.path())
}

async fn unknown_path(uri: Uri) -> Problem {
    let path = uri.path();
    Problem::not_found(format!("no such path: {path}; /docs/ lists those of the API, such as /api/v1/status"))
}

fn script(body: &'static str) -> Response {
    asset("text/javascript; charset=utf-8", body)
}

fn asset(content_type: &'static str, body: &'static str) -> Response {
    let headers =
        [(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, PAGE_POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, fresh(), body).into_response()
}

/// Live figures and a page that changes with the binary: nothing is to be kept by a cache.
fn fresh() -> [(HeaderName, &'static str); 1] {
    [(CACHE_CONTROL, "no-store")]
}
