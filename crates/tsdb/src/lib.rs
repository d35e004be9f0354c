//! The database: head, log and blocks behind the storage contract, with retention, limits and one data directory.
//!
//! [`Db`] implements `storage::Appender`, `storage::Queryable` and `storage::Admin`. New samples are in the head, in
//! memory and in the log; every two hours' worth, or earlier when memory is short, the head is cut into blocks, which are
//! compacted, retained and deleted from. Readers see head and blocks as one version. **Must not know:** HTTP, the object
//! store.
//!
//! Map: [`Db`] · [`DbOptions`] · [`OpenReport`] what a start found · [`DbStats`] · `dir` the data directory ·
//! [`Importer`] samples of any age · [`Offline`] a directory compacted without serving it · `opened` what is in a directory · `append` · `query` head and blocks as one · `blocks` which there are, and versions of them · `cut` head to blocks ·
//! `mark` what the last cut has settled · `compaction`, `retention`, `admin` deletions and copies, `deletion` those in the
//! head · `maintenance` the job behind the head · `mend` unreadable chunks of the head, made again from the log · `losses` what the log does not have either · `replay` · `metadata` · `files` that get another place · `store` what jobs share.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod admin;
mod append;
mod blocks;
mod compaction;
mod cut;
mod db;
mod deletion;
mod dir;
mod error;
mod extras;
mod files;
mod import;
mod losses;
mod maintenance;
mod mark;
mod mend;
mod metadata;
mod offline;
mod opened;
mod options;
mod query;
mod replay;
mod retention;
mod stats;
mod store;

pub use blocks::{BlockStats, BlocksReport};
pub use compaction::CompactionError;
pub use cut::CutError;
pub use db::{Db, OpenReport};
pub use dir::FORMAT_VERSION;
pub use error::{Error, Result};
pub use import::{ImportError, ImportReport, Importer};
pub use mark::MarkError;
pub use metadata::{METADATA_BYTES_MAX, METADATA_TEXT_BYTES_MAX};
pub use offline::{MergeFailure, Offline, OfflineReport, Task};
pub use options::DbOptions;
pub use stats::DbStats;
pub use store::JobStats;
