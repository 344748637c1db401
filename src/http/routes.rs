//! The routes, and the server that answers them.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::limit::{LimitedListener, LimitedStream, Limits};
use super::readiness::Readiness;
use super::status::Status;
use crate::progress::Progress;
use crate::shutdown::{Shutdown, Stage};

/// How long open connections may finish after the stop was asked for.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// What Prometheus calls its text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page may load from this server only: it works offline, and no foreign script can read the figures.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:";

/// What the routes read.
#[derive(Clone)]
pub struct HttpState {
    progress: Arc<Progress>,
    metrics: PrometheusHandle,
    readiness: Readiness,
    opened: Instant,
}

impl HttpState {
    /// The uptime counts from here.
    pub fn new(progress: Arc<Progress>, metrics: PrometheusHandle, readiness: Readiness) -> Self {
        HttpState { progress, metrics, readiness, opened: Instant::now() }
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
    state: HttpState,
    mut shutdown: Shutdown,
    limits: Limits,
) -> io::Result<()> {
    let listener = LimitedListener::new(listener, limits);
    let service = TowerToHyperService::new(router(state));
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
        .route("/page.js", get(|| async { asset("text/javascript; charset=utf-8", include_str!("page/page.js")) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .fallback(unknown_path)
        .with_state(state)
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

async fn status(State(state): State<HttpState>) -> Response {
    let status = Status::read(&state.progress, &state.readiness, state.opened.elapsed());
    (fresh(), Json(status)).into_response()
}

async fn unknown_path(uri: Uri) -> Response {
    let body = json!({
        "error": format!("no such path: {}", uri.path()),
        "paths": ["/", "/api/v1/status", "/metrics", "/healthz", "/readyz"],
    });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
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
