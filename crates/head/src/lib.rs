//! The head: active series in memory, backed by the write-ahead log.
//!
//! A series has an open chunk, closed chunks and a place in its tenant's inverted index. Appends resolve all series of
//! a batch at once, then apply and log it shard by shard, each under one lock; what a reply waits for is the log's
//! batch that covers everything it observed. Samples that come late are kept beside those in order, and merged at read. A
//! cut hands over everything up to a boundary, and forgets it when it is in blocks. Everything the head holds counts against one memory limit: the oldest
//! chunks give way (unless cuts do that), and when none is left nothing more is taken. **Must not know:** blocks, HTTP.
//!
//! Map: [`Head`] · `append` · [`HeadView`] reading · [`HeadReplay`] · [`Snapshots`] ·
//! [`Cut`] what goes to blocks · `truncate` · [`HeadStats`] · `series` one series' state · `late` its late samples ·
//! `histogram` its histograms · `offer` what becomes of a sample that is not simply the next float ·
//! `starts` its start timestamps · `missed` what chunk files do not give back at a start, `unread` while it runs · `read_back` what samples are compared with in files · `exemplars` ·
//! `closed` finished chunks and windows · `slab` where series lie · `shard` · `alias` senders' label bytes to series · `tenant` ·
//! `shared_index` questions to its index, piece by piece · `test_support` for tests of other crates, with the feature
//! `test-support`.

mod alias;
mod append;
mod chunk_file;
mod closed;
mod cut;
mod error;
mod exemplars;
mod head;
mod histogram;
mod late;
mod missed;
mod offer;
mod options;
mod read;
mod read_back;
mod replay;
mod series;
mod shard;
mod shared_index;
mod slab;
mod snapshot;
mod starts;
mod stats;
mod tenant;
mod truncate;
mod unread;

#[cfg(feature = "test-support")]
pub mod test_support;

pub use append::Applied;
pub use chunk_file::{CHUNK_FILE_VERSION, ChunkFiles, SpillStep};
pub use closed::{WINDOW_MS, window_of};
pub use cut::{Cut, CutEntry, CutPoint, CutSeries};
pub use error::{ChunkDamage, Error, ReadError};
pub use head::Head;
pub use missed::Loss;
pub use options::{HeadOptions, LATE_PERCENT_MAX, LOG_PENDING_BYTES_MAX, SHARDS, TENANTS_MAX};
pub use read::{Fetched, HeadView, Selection};
pub use replay::{HeadReplay, ReplayOutcome};
pub use snapshot::{
    EXTRA_SECTIONS_MAX, EXTRA_TYPE_MAX, EXTRA_TYPE_MIN, ExtraSection, Loaded, SNAPSHOT_LOG_BYTES,
    SNAPSHOT_VERSION, SNAPSHOT_VERSION_MIN, SnapshotDamage, SnapshotDamageReason, SnapshotError,
    SnapshotReport, SnapshotWriter, Snapshots,
};
pub use stats::HeadStats;
pub use truncate::Truncation;
pub use unread::{Mended, UnreadChunk};

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
