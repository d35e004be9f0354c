//! The write-ahead log: segments, records, group commit, replay, repair.
//!
//! Samples are appended to a [`ShardLog`] that lives inside its owner's shard lock; one committer takes the pending logs
//! of all shards, writes them as one batch, syncs once and releases the waiters. Layout byte by byte:
//! docs/format/wal.md. **Must not know:** the head; tenants, labels and series refs are bytes and numbers here.
//!
//! Map: [`Wal::open`] finds the segments, repairs a torn tail and writes again what may not be
//! durable · [`Opened::replay`] hands them to a [`Replay`] ·
//! [`Opened::start`] begins writing · [`ShardLog`], [`LogSource`] the writers' side · [`CommitWaiter`] who waits ·
//! [`inspect`] segments as records, for people.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod commit;
mod entries;
mod error;
mod frame;
pub mod inspect;
mod metadata;
mod open;
mod options;
mod quarantine;
mod record;
mod repair;
mod replay;
mod samples;
mod scan;
mod segment;
mod series;
mod shard_log;
mod stats;
mod wal;

pub use entries::{BLOB_BYTES_MAX, LoggedBlob, LoggedStart, RECORD_ENTRIES_MAX};
pub use error::{CommitError, Error, Result};
pub use metadata::{LoggedMetadata, METADATA_PENDING_BYTES_MAX, METADATA_TEXT_BYTES_MAX};
pub use open::{OpenReport, Opened, TornTail};
pub use options::{SyncPolicy, WalOptions};
pub use quarantine::{Damage, DamageReason, Unopened};
pub use record::{HEADER_BYTES, PAYLOAD_BYTES_MAX, RecordType};
pub use replay::{Replay, ReplayReport};
pub use samples::{LoggedSample, RECORD_SAMPLES_MAX};
pub use segment::{FORMAT_VERSION, FORMAT_VERSION_MIN, SEGMENT_HEADER_BYTES, SegmentInfo};
pub use series::{LabelPairs, SeriesDef};
pub use shard_log::{Batch, LogSource, ShardLog, Turn};
pub use stats::{SYNC_SECONDS_BUCKETS, StatsSnapshot, WalStats};
pub use wal::{CommitWaiter, Wal};

#[cfg(test)]
mod tests;
