//! The immutable block: one file of samples of one tenant and one range of time, with their index.
//!
//! A block holds *parts*: windows of time with timestamp columns and frames of their own. A cut of the head writes one; a
//! [`merge`] mostly takes parts over byte for byte. **Must not know:** the head, object stores, which blocks there are.
//!
//! Map: [`BlockWriter`] writes · [`Block`] opens, selects and reads, [`SeriesReader`] samples, [`BlockCache`] what is
//! opened · [`Tombstone`] deletions · [`merge`] many into one · [`verify`] and [`inspect`] for people · layout byte by
//! byte: docs/format/block.md.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod cache;
mod error;
mod extras;
mod inspect;
mod layout;
mod merge;
mod meta;
mod reader;
mod slot_table;
mod starts;
mod tombstones;
mod ulid;
mod verify;
mod writer;

pub use chronolith_chunk::dense::{Mode, Transform};

pub use cache::{BlockCache, CACHE_BYTES_DEFAULT, CacheStats};
pub use error::{ContentError, Error, Result, Section};
pub use extras::{EXEMPLAR_LABELS_MAX, EXTRA_TEXT_BYTES_MAX};
pub use inspect::{EncodingCount, MetricBytes, PartSummary, SectionBytes, Summary, inspect};
pub use merge::{MergeSpec, Merged, merge, merge_bytes_max};
pub use meta::{
    BlockMeta, BlockRange, BlockSpec, FORMAT_VERSION, FileName, PARTS_HARD_MAX, PARTS_MAX, SERIES_MAX,
    SOURCES_MAX, block_path, series_order, tombstones_path,
};
pub use reader::{Block, Fragment, ReadCounts, SeriesReader, SeriesSamples, rehint};
pub use tombstones::{TOMBSTONES_BYTES_MAX, TOMBSTONES_MAX, Tombstone};
pub use ulid::{ULID_TEXT_BYTES, Ulid, UlidError};
pub use verify::{PROBLEMS_MAX, VerifyReport, verify};
pub use writer::{BlockWriter, WrittenBlock};
