//! The windows to look through over HTTP: health, metrics, a JSON API and a page.
//!
//! Owns the routes, the recorder that Prometheus reads, and the history that the page draws. Must not know what the roles
//! do: it reads [`Progress`](crate::progress::Progress), [`Readiness`], the metrics recorder and, through `reads`, views of
//! PostgreSQL in sessions that can only read; nothing here can change a role.

mod api;
mod bind;
mod events;
mod figures;
mod history;
mod known;
mod limit;
mod live;
mod openapi;
mod places;
mod problem;
mod readiness;
mod reads;
mod recorder;
mod routes;
mod snapshot;
mod status;
mod tables;
mod thread;
mod verdict;

pub use bind::{BindError, bind};
pub use known::{About, AuditCheckpoint, AuditResult, Known};
pub use limit::Limits;
pub use openapi::openapi_json;
pub use readiness::Readiness;
pub use reads::Reads;
pub use recorder::{RecorderError, install_recorder};
pub use routes::{HttpState, serve, serve_with};
pub use status::{Counters, Lag, StageStatus, Status};
pub use thread::{THREAD_NAME, serve_on_thread};
