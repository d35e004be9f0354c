//! HTTP: routes, parameters, JSON, error to status.
//!
//! [`AppState`] is what handlers share, [`router()`] makes the routes of it, [`serve()`] accepts connections.
//! **Must not know:** file formats, which engine is behind [`Backend`].
//!
//! Map: [`state`] shared state, limits, readiness · [`info`] what the binary tells · `routes` the table of routes and
//! the way of a request · `params` parameters and their texts · `api` the endpoints · `write` remote write, OTLP and Influx line protocol · `json`
//! JSON by hand · `compress` gzip and deflate · [`query_log`] a line for each query · `active` queries that run now · [`metrics`] own counters · `page` the page at `/` · [`serve`] the
//! accept loop and its connections · `notices` messages that do not repeat themselves · [`error`] errors to statuses.

pub mod error;
pub mod info;
pub mod metrics;
pub mod query_log;
pub mod serve;
pub mod state;

mod active;
mod api;
mod compress;
mod json;
mod notices;
mod page;
mod params;
mod routes;
mod write;

pub use error::{ApiError, ErrorKind};
pub use info::{BuildInfo, IngestSummary, RuntimeInfo, ServerInfo};
pub use query_log::QueryLog;
pub use routes::router;
pub use serve::serve;
pub use state::{AppState, Backend, CorsOrigins, HttpLimits};
