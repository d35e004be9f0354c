//! Dense encodings for samples that will not change any more: frames of value columns, timestamp columns, and
//! statistics. Bit-exact for every `f64`, payloads of NaNs included.
//!
//! Layout byte by byte: docs/format/dense.md.
//!
//! Map: [`FrameBuilder`] columns in · [`Frame`] an opened frame, [`Decoder`] its columns out · [`encode_timestamps`],
//! [`decode_timestamps`] · [`Statistics`], [`encode_statistics`], [`decode_statistics`].

use chronolith_codec::write;

mod blocks;
mod builder;
mod frame;
mod input;
mod layout;
mod numbers;
mod pack;
mod squeeze;
mod statistics;
mod stream;
mod timestamps;

pub use builder::FrameBuilder;
pub use frame::{Decoder, EncodingInfo, Frame};
pub use numbers::Mode;
pub use statistics::Statistics;
pub use statistics::page::{decode_statistics, encode_statistics};
pub use stream::Transform;
pub use timestamps::{decode_timestamps, encode_timestamps};

/// The most samples of a column, of values or of timestamps.
pub const COLUMN_SAMPLES_MAX: usize = 1 << 16;

/// The most slots of a frame.
pub const FRAME_SLOTS_MAX: usize = 2048;

/// The most bytes of a frame, before zstd. A builder stops accepting slots long before: see
/// [`FrameBuilder::push`].
pub const FRAME_BYTES_MAX: usize = 2 << 20;

/// The bits of Prometheus' stale marker.
const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Names of units in errors.
const UNIT_FRAME: &str = "frame";
const UNIT_COLUMN: &str = "column";

/// How many bits a number takes: 0 for 0.
#[inline]
const fn bit_len(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// How many bytes [`write::uvarint`] takes.
const fn uvarint_len(value: u64) -> usize {
    (bit_len(value | 1) as usize).div_ceil(7)
}

/// How many bytes [`write::varint`] takes.
const fn varint_len(value: i64) -> usize {
    uvarint_len(write::zigzag(value))
}

#[cfg(test)]
mod tests;
