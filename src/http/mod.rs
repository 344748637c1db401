//! The windows to look through over HTTP: health, metrics, a JSON status and a page.
//!
//! Owns the routes and the recorder that Prometheus reads. Must not know what the roles do: it reads
//! [`Progress`](crate::progress::Progress), [`Readiness`] and the metrics recorder, and nothing here can change a role.

mod bind;
mod limit;
mod readiness;
mod recorder;
mod routes;
mod status;

pub use bind::{BindError, bind};
pub use limit::Limits;
pub use readiness::Readiness;
pub use recorder::{RecorderError, UPKEEP_INTERVAL, install_recorder};
pub use routes::{HttpState, serve, serve_with};
pub use status::{Counters, Lag, StageStatus, Status};
