//! The index of an immutable block: written once, read page by page.
//!
//! A series is split into its metric name and a *row*, the set of its other labels. Metrics of one target share their
//! rows, so lists and columns of rows are several times shorter than lists and columns of series; a metric is a set of
//! rows, and the id of a series is the first id of its metric and the rank of its row in that set. `docs/format/index.md`
//! has the bytes.
//!
//! Map: `section` units with checksums · `directory` what is where · `page` values and places of lists · `list`
//! lists and sets of rows · `column` the way back · `write` writing · `read`, `cache` pages on demand ·
//! `select` matchers · `labels`, `stats` questions · `verify` whether all is whole.

mod cache;
mod column;
mod directory;
mod error;
mod labels;
mod list;
mod page;
mod read;
mod section;
mod select;
mod stats;
mod verify;
mod write;

pub use cache::{OWN_CACHE_BYTES_MAX, PageCache};
pub use error::{DiskIndexError, IndexSection, IndexWriteError};
pub use labels::Series;
pub use read::DiskIndex;
pub use section::{EncodedIndex, MemorySections, SectionRead};
pub use write::IndexWriter;

/// Most series of one index.
pub const SERIES_MAX: u32 = 1 << 28;
/// Longest label name or value, in bytes.
pub const LABEL_BYTES_MAX: usize = 1 << 20;
/// Most label names of one index.
pub const NAMES_MAX: usize = 1 << 16;
/// Most label pairs of one index.
pub const PAIRS_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests;
