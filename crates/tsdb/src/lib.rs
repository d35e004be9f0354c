//! The database: head and log behind the storage contract, with retention, limits and one data directory.
//!
//! [`Db`] implements `storage::Appender` and `storage::Queryable`. There are no blocks yet: everything within retention
//! is in memory, in the head, and in the write-ahead log, from which a start replays it. When the head's memory limit
//! is reached the oldest samples go before retention says so, and when nothing old is left writes are refused until
//! there is room. **Must not know:** HTTP, the object store.
//!
//! Map: [`Db`] · [`DbOptions`] · [`OpenReport`] what a start found · [`DbStats`] · `dir` the data directory ·
//! `append` · `query` · `maintenance` retention and memory · `metadata`.

mod append;
mod db;
mod dir;
mod error;
mod maintenance;
mod metadata;
mod options;
mod query;
mod stats;

pub use db::{Db, OpenReport};
pub use dir::FORMAT_VERSION;
pub use error::{Error, Result};
pub use metadata::{METADATA_METRICS_TOTAL_MAX, METADATA_TEXT_BYTES_MAX};
pub use options::DbOptions;
pub use stats::DbStats;
