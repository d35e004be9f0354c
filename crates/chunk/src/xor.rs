//! Float chunk: delta-of-delta timestamps and XOR-ed values.
//!
//! Source: Pelkonen et al., "Gorilla" (VLDB 2015), section 4.1, with Prometheus' wider buckets because timestamps are
//! milliseconds. Layout and a worked example: docs/format/chunks.md.
//!
//! ```text
//! u16 BE count | sample 0: varint t, 64-bit v | sample 1: uvarint delta, xor v | then dod, xor v ...
//! ```
//!
//! Limits: at most [`SAMPLES_MAX`] samples; a sample costs at most [`SAMPLE_BYTES_MAX`] bytes.
//! Invariant: bits after the last sample are zero, so equal content means equal bytes.
//! Arithmetic on timestamps wraps, so that any sequence of 64-bit timestamps survives.

pub(crate) mod append;
pub(crate) mod decode;
pub(crate) mod iter;

/// The most samples one chunk can hold: its count is 16 bits wide.
pub const SAMPLES_MAX: usize = u16::MAX as usize;

/// The most bytes a sample adds to a chunk, the count of a new one included.
pub const SAMPLE_BYTES_MAX: usize = 20;
// First: count, varint, value. Second: uvarint, value with its header. Others: prefix and delta of delta, value.
const _: () = assert!(SAMPLE_BYTES_MAX >= 2 + 10 + 8);
const _: () = assert!(SAMPLE_BYTES_MAX * 8 >= 10 * 8 + 13 + 64);
const _: () = assert!(SAMPLE_BYTES_MAX * 8 >= 4 + 64 + 13 + 64);

/// How many samples a chunk says it has; 0 for fewer than two bytes.
#[inline]
#[must_use]
pub fn sample_count(chunk: &[u8]) -> usize {
    chunk.first_chunk::<2>().map_or(0, |count| usize::from(u16::from_be_bytes(*count)))
}

#[cfg(test)]
mod tests;
