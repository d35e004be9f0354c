//! Native histograms: open chunks and frames.
//!
//! An open chunk is [`Encoding`] and Prometheus' histogram chunk, byte for byte: all its samples have one layout and one
//! kind of counts, and only the first can be a counter reset. [`HistogramAppender::append`] says when a sample needs a
//! chunk of its own; chunks are never rewritten for a new layout, so what was appended comes back as it was.
//!
//! A frame ([`HistogramFrameBuilder`], [`HistogramFrame`]) holds the histograms of many series as columns of numbers, one
//! per field and bucket, in dense frames; layouts stand once per frame. Buckets that appear while a slot runs add
//! columns that are zero before. Layout of both: docs/format/histograms.md.

mod append;
mod columns;
mod frame;
mod iter;
mod layout;
mod state;
mod varbit;

pub use append::HistogramAppender;
pub use frame::{HistogramFrame, HistogramFrameBuilder};
pub use iter::{HistogramIter, decode_histograms_into};

use chronolith_model::CounterResetHint;

/// What a chunk of histograms counts in: its first byte, Prometheus' number of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Counts are integers.
    Integer = 2,
    /// Counts are floats.
    Float = 3,
}

impl Encoding {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            2 => Some(Self::Integer),
            3 => Some(Self::Float),
            _ => None,
        }
    }
}

/// A chunk is worth closing above this many bytes, if it has [`CHUNK_SAMPLES_MIN`] samples.
pub const CHUNK_BYTES_TARGET: usize = 1024;
/// A chunk of large histograms is to hold this many nevertheless.
pub const CHUNK_SAMPLES_MIN: usize = 10;

/// Most columns of a frame of histograms.
pub const COLUMNS_MAX: usize = 1 << 16;
/// Most layouts of a frame of histograms.
pub const FRAME_LAYOUTS_MAX: usize = 1 << 16;
/// Most numbers of one slot, buckets times samples: a slot that has more must be split.
pub const SLOT_VALUES_MAX: usize = 8 << 20;
/// A frame of histograms takes no more slots above this many bytes, before zstd.
pub const FRAME_BYTES_FULL: usize = 4 << 20;
/// Most bytes an opened frame may take for its columns.
pub const FRAME_HEAP_BYTES_MAX: usize = 256 << 20;

/// Name of an open chunk in errors.
const CHUNK: &str = "histogram chunk";
/// Bytes before the first bit: encoding, sample count, flags.
const HEADER: usize = 4;

/// The two top bits of a chunk's flags.
const fn hint_bits(hint: CounterResetHint) -> u8 {
    match hint {
        CounterResetHint::Unknown => 0b00,
        CounterResetHint::NotReset => 0b01,
        CounterResetHint::Reset => 0b10,
        CounterResetHint::Gauge => 0b11,
    }
}

const fn hint_of(bits: u8) -> CounterResetHint {
    match bits & 0b11 {
        0b00 => CounterResetHint::Unknown,
        0b01 => CounterResetHint::NotReset,
        0b10 => CounterResetHint::Reset,
        _ => CounterResetHint::Gauge,
    }
}

/// How many histograms a chunk says it has; 0 for bytes that are none.
#[must_use]
pub fn histogram_count(chunk: &[u8]) -> usize {
    match chunk {
        [_, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
