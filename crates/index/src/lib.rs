//! Which series does a set of matchers select.
//!
//! [`CompiledMatcher`] is a matcher with its regular expression compiled, [`resolve`] turns a set of them into a bitmap
//! of series ids over any [`PostingsSource`], [`MemoryIndex`] is the mutable one. **Must not know:** blocks, files,
//! samples.
//!
//! Map: [`matcher`] · [`postings`] lists of ids and their resolution · [`memory`] the inverted index in memory ·
//! [`error`].

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod error;
pub mod matcher;
pub mod memory;
pub mod postings;

pub use error::{MatcherError, SyntaxError};
pub use matcher::{CompiledMatcher, REGEX_AUTOMATON_BYTES_MAX, REGEX_BYTES_MAX, Selects};
pub use memory::{Count, MemoryIndex};
pub use postings::{Postings, PostingsSource, resolve};
