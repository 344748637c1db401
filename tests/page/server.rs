//! A server with the page's own files whose documents a test writes, one event a time: nothing happens by chance.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures_util::stream::{Stream, unfold};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// As `src/http/routes.rs` has it, which the test of a real run checks.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:";

/// Every file of the page: where it is served, and its name in `src/http/page`.
pub const FILES: &[(&str, &str)] = &[
    ("/", "index.html"),
    ("/page.css", "page.css"),
    ("/page.js", "page.js"),
    ("/page/chart.js", "chart.js"),
    ("/page/dom.js", "dom.js"),
    ("/page/format.js", "format.js"),
    ("/page/heat.js", "heat.js"),
    ("/page/history.js", "history.js"),
    ("/page/model.js", "model.js"),
    ("/page/overview.js", "overview.js"),
    ("/page/stages.js", "stages.js"),
    ("/page/tables.js", "tables.js"),
];

/// Ends when dropped, with all its connections.
pub struct Server {
    address: SocketAddr,
    now: Arc<watch::Sender<Value>>,
    runtime: Option<Runtime>,
}

impl Server {
    pub fn start(document: Value) -> Server {
        Self::start_at("127.0.0.1:0".parse().unwrap(), document)
    }

    /// On an address that a server of before has left.
    pub fn start_at(address: SocketAddr, document: Value) -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let now = Arc::new(watch::Sender::new(document));
        let mut routes = Router::new()
            .route(
                "/api/v1/snapshot",
                get(|State(now): State<Arc<watch::Sender<Value>>>| async move { Json(now.borrow().clone()) }),
            )
            .route("/api/v1/events", get(events));
        for (path, file) in FILES {
            routes = routes.route(path, get(move || async move { asset(file) }));
        }
        let routes = routes.with_state(Arc::clone(&now));
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Server { address, now, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Sends an event to all who look.
    pub fn say(&self, document: Value) {
        self.now.send_replace(document);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn asset(file: &str) -> Response {
    let body = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page").join(file)).unwrap();
    let kind = match file.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "text/javascript; charset=utf-8",
    };
    ([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY)], body).into_response()
}

async fn events(State(now): State<Arc<watch::Sender<Value>>>) -> Sse<impl Stream<Item = serde_json::Result<Event>>> {
    Sse::new(unfold(now.subscribe(), |mut news| async move {
        // The real one speaks each second, changed or not; a page that hears nothing takes it for gone.
        if let Ok(changed) = tokio::time::timeout(Duration::from_secs(1), news.changed()).await {
            changed.ok()?;
        }
        let document = news.borrow_and_update().to_string();
        Some((Ok(Event::default().event("snapshot").data(document)), news))
    }))
}
