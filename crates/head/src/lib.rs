//! The head: active series in memory, backed by the write-ahead log.
//!
//! A series has an open chunk, closed chunks and a place in its tenant's inverted index. Appends resolve all series of
//! a batch at once, then apply and log it shard by shard, each under one lock; what a reply waits for is the log's
//! batch that covers everything it observed. Everything the head holds counts against one memory limit: the oldest
//! chunks give way, and when none is left nothing more is taken. **Must not know:** blocks, HTTP.
//!
//! Map: [`Head`] · `append` · [`HeadView`] reading · [`HeadReplay`] · `truncate` · [`HeadStats`] · `series` one series'
//! state · `slab` where series lie · `shard` · `alias` senders' label bytes to series · `tenant`.

mod alias;
mod append;
mod error;
mod head;
mod options;
mod read;
mod replay;
mod series;
mod shard;
mod slab;
mod stats;
mod tenant;
mod truncate;

pub use append::Applied;
pub use error::Error;
pub use head::Head;
pub use options::{HeadOptions, LOG_PENDING_BYTES_MAX, SHARDS, TENANTS_MAX};
pub use read::{Fetched, HeadView, Selection};
pub use replay::{HeadReplay, ReplayOutcome};
pub use stats::{HeadStats, REJECT_LABELS};
pub use truncate::Truncation;
