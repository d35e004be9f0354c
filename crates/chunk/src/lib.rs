//! Chunk encodings: runs of one series' samples as bytes.
//!
//! Gorilla XOR for floats in Prometheus' variant, byte for byte, for what is still being written; dense frames of many
//! columns for what is not. **Must not know:** files, series, heads.
//!
//! Map: [`XorAppender`] appends to a buffer its owner keeps · [`XorIter`] reads sample by sample · [`decode_into`],
//! [`decode_range_into`] read all at once · [`dense`] frames of value columns, timestamp columns, statistics ·
//! [`histogram`] chunks and frames of native histograms.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod dense;
mod error;
pub mod histogram;
mod xor;

pub use error::{Error, Result};
pub use xor::append::XorAppender;
pub use xor::decode::{decode_into, decode_range_into};
pub use xor::iter::XorIter;
pub use xor::{SAMPLE_BYTES_MAX, SAMPLES_MAX, sample_count};
