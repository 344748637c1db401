//! The stream of snapshots, as server-sent events: each is made once, and its bytes are shared by all viewers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;

use super::live::{Live, Tick};
use super::problem::Problem;
use super::tables::Tables;
use crate::shutdown::{Shutdown, Stage};

/// Sent at once, so that the viewer knows that it is connected; a viewer that was cut off comes again after a second.
const GREETING: &[u8] = b"retry: 1000\n\n";

/// Counts viewers: they hold connections for long, of which there are few.
#[derive(Debug)]
pub struct Viewers {
    open: AtomicUsize,
    max: usize,
}

/// One viewer, until it is dropped.
struct Viewer(Arc<Viewers>);

impl Viewers {
    /// So many at once.
    pub fn new(max: usize) -> Viewers {
        Viewers { open: AtomicUsize::new(0), max }
    }

    fn enter(self: &Arc<Self>) -> Option<Viewer> {
        let entered = self.open.fetch_add(1, Ordering::Relaxed);
        let viewer = Viewer(Arc::clone(self));
        (entered < self.max).then_some(viewer)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Following {
    ticks: watch::Receiver<Option<Arc<Tick>>>,
    tables: Arc<Tables>,
    shutdown: Shutdown,
    _viewer: Viewer,
}

impl Following {
    /// The next second's event; none when it is over. A viewer who is slow misses seconds.
    async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            changed = self.ticks.changed() => changed.ok()?,
            () = self.shutdown.reached(Stage::Drain) => return None,
        }
        self.tables.looked();
        let tick = self.ticks.borrow_and_update().clone()?;
        Some(tick.event.clone())
    }
}

/// Streams until the viewer leaves, or the windows close.
pub fn follow(live: &Live, tables: Arc<Tables>, viewers: &Arc<Viewers>, shutdown: Shutdown) -> Response {
    let Some(viewer) = viewers.enter() else {
        let what = format!("{} viewers follow the events already, which is the most; close a page", viewers.max);
        return Problem::unavailable(what).into_response();
    };
    let following = Following { ticks: live.ticks(), tables, shutdown, _viewer: viewer };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok::<_, Infallible>(event), following))
    });
    let greeting = stream::iter([Ok(Bytes::from_static(GREETING))]);
    let body = Body::from_stream(futures_util::StreamExt::chain(greeting, events));
    let headers =
        [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, body).into_response()
}
