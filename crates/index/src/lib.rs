//! Which series does a set of matchers select.
//!
//! [`CompiledMatcher`] is a matcher with its regular expression compiled, [`resolve`] turns a set of them into a bitmap
//! of series ids over any [`PostingsSource`]. [`MemoryIndex`] is the mutable index, [`DiskIndex`] the immutable one, read
//! page by page from wherever its bytes are. **Must not know:** blocks, files, samples.
//!
//! Map: [`matcher`] · [`postings`] lists of ids and their resolution · [`memory`] the index in memory · [`disk`] the one
//! of an immutable block · [`error`] · `test_support` for tests and fuzz targets, with the feature `test-support`.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod disk;
pub mod error;
pub mod matcher;
pub mod memory;
pub mod postings;
#[cfg(test)]
mod strategies;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;

pub use disk::{
    DiskIndex, DiskIndexError, EncodedIndex, IndexSection, IndexWriteError, IndexWriter, MemorySections,
    PageCache, SectionRead, Series,
};
pub use error::{MatcherError, SyntaxError};
pub use matcher::{CompiledMatcher, REGEX_AUTOMATON_BYTES_MAX, REGEX_BYTES_MAX, Selects};
pub use memory::{Count, MemoryIndex, ValuePage};
pub use postings::{Postings, PostingsSource, resolve};
